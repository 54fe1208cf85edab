//! Where a message of the server's goes: owns the decision by id, token and session, and putting back what the client calls
//! its requests. Never a message's content beyond that.
//!
//! A response goes to whoever asked; progress to the request that named its token; a subscription's notification to its
//! request. What names no request belongs to the session: on a channel of its own that is known, on a shared one
//! notifications go to all sessions, and the server's requests, which could be meant for any of them, are refused.

use std::rc::Rc;

use mcp_protocol::Span;
use mcp_protocol::jsonrpc::{Kind, Payload, Scan, ScanLimits, scan};
use mcp_protocol::mcp::correlate::{
    batch_elements, progress_token, result_subscription_id, splice, subscription_id,
};

use super::flight::{Flight, Purpose};
use super::hub::{Hub, NotAMessage, Pending};
use super::seat::Prefer;
use super::{Closed, SeatId};

/// Bytes that wait for slow clients of a shared channel in all, and for one of them: above both, the slow one's request is
/// broken off, because not reading would hold the others up.
const MAX_SHARED_BACKLOG_BYTES: usize = 16 << 20;
const MAX_SLOW_BYTES: usize = 64 << 10;

/// What a shared server that asks for something is answered.
const NOT_SHARED: &str = r#"{"code":-32601,"message":"Method not found: the sessions of this process share it, so that nobody can be asked"}"#;
/// What a server is answered whose client does not listen.
const NOBODY: &str = r#"{"code":-32000,"message":"the client does not listen"}"#;

impl Hub {
    /// Takes what the server says; gives out how many messages of it reached nobody.
    pub(super) fn on_message(&self, bytes: &[u8]) -> Result<u64, NotAMessage> {
        match scan(bytes, &ScanLimits::default()) {
            Ok(Payload::Single(scan)) => Ok(u64::from(!self.reaches(bytes, &scan))),
            Ok(Payload::Batch(_)) => {
                let elements = batch_elements(bytes).unwrap_or_default();
                Ok(elements.iter().filter_map(|element| self.on_message(element.of(bytes)).ok()).sum())
            }
            Err(_) => Err(NotAMessage),
        }
    }

    /// Brings one message where it belongs; false when there is no such place.
    fn reaches(&self, bytes: &[u8], scan: &Scan) -> bool {
        match scan.kind {
            Kind::Response => self.on_response(bytes, scan),
            Kind::Request => self.on_request(bytes, scan),
            Kind::Notification => self.on_notification(bytes, scan),
        }
    }

    fn on_response(&self, bytes: &[u8], scan: &Scan) -> bool {
        let Some(id) = scan.id else { return false };
        let Some(Pending { flight, original }) = self.state.borrow_mut().pending.remove(id.of(bytes)) else {
            return false;
        };
        let mut places: Vec<(Span, &[u8])> = vec![(id, &original)];
        let subscription = scan.result.and_then(|result| result_subscription_id(bytes, result));
        if let Some(span) = subscription.filter(|span| span.of(bytes) == id.of(bytes)) {
            places.push((span, &original));
        }
        places.sort_by_key(|(span, _)| span.start);
        flight.push_response(splice(bytes, &places));
        if flight.purpose == Purpose::Opens
            && scan.is_error
            && let Some(seat) = flight.seat
        {
            self.end_seat(seat);
        }
        true
    }

    fn on_notification(&self, bytes: &[u8], scan: &Scan) -> bool {
        let is = |name: &str| scan.method.is_some_and(|method| method.eq_str(bytes, name));
        if is("notifications/progress") {
            let Some(span) = scan.params.and_then(|params| progress_token(bytes, params)) else {
                return false;
            };
            let found = self.state.borrow().tokens.get(span.of(bytes)).cloned();
            return found.is_some_and(|found| self.push(&found, bytes, span));
        }
        if let Some(span) = scan.meta.and_then(|meta| subscription_id(bytes, meta)) {
            let found = self.state.borrow().pending.get(span.of(bytes)).cloned();
            return found.is_some_and(|found| self.push(&found, bytes, span));
        }
        let is_news = is("notifications/resources/updated")
            || is("notifications/tools/list_changed")
            || is("notifications/prompts/list_changed")
            || is("notifications/resources/list_changed");
        let prefer = if is_news { Prefer::Listener } else { Prefer::Request };
        let mut state = self.state.borrow_mut();
        if state.seats.is_empty() {
            // Of several requests nobody could tell whose it is.
            let [flight] = state.unseated.as_slice() else { return false };
            let flight = flight.clone();
            drop(state);
            return self.push_bounded(&flight, bytes.to_vec());
        }
        let mut reached = false;
        for seat in state.seats.values_mut() {
            reached |= seat.deliver(bytes.to_vec(), prefer).is_ok();
        }
        reached
    }

    fn on_request(&self, bytes: &[u8], scan: &Scan) -> bool {
        let is_ping = scan.method.is_some_and(|method| method.eq_str(bytes, "ping"));
        let id = scan.id.map(|id| id.of(bytes)).unwrap_or_default();
        if self.is_shared {
            if is_ping {
                self.answer(id, "result", "{}")
            } else {
                self.answer(id, "error", NOT_SHARED)
            }
            return is_ping;
        }
        let mut state = self.state.borrow_mut();
        let Some(seat) = state.seats.values_mut().next() else { return false };
        if is_ping && !seat.is_heard() {
            drop(state);
            self.answer(id, "result", "{}");
            return true;
        }
        let refused = seat.deliver(bytes.to_vec(), Prefer::Request).is_err();
        drop(state);
        if refused {
            self.answer(id, "error", NOBODY);
        }
        !refused
    }

    /// Answers a request of the server's in its client's stead.
    fn answer(&self, id: &[u8], member: &str, value: &str) {
        let mut message = b"{\"jsonrpc\":\"2.0\",\"id\":".to_vec();
        message.extend_from_slice(id);
        message.extend_from_slice(format!(",\"{member}\":{value}}}").as_bytes());
        self.send_own(message);
    }

    fn push(&self, to: &Pending, bytes: &[u8], name: Span) -> bool {
        self.push_bounded(&to.flight, splice(bytes, &[(name, &to.original)]))
    }

    fn push_bounded(&self, flight: &Rc<Flight>, message: Vec<u8>) -> bool {
        let is_slow = self.is_shared
            && self.backlog.bytes() > MAX_SHARED_BACKLOG_BYTES
            && flight.waiting_bytes() > MAX_SLOW_BYTES;
        if is_slow {
            flight.close(Closed::Slow);
            return false;
        }
        flight.push(message);
        true
    }
}

/// Whether a request leaves something with the server that belongs to the session.
pub(super) fn leaves_state(bytes: &[u8], scan: &Scan) -> bool {
    scan.method.is_some_and(|method| {
        method.eq_str(bytes, "resources/subscribe") || method.eq_str(bytes, "logging/setLevel")
    })
}

impl std::fmt::Display for SeatId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
