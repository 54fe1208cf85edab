//! `initialize` on a channel that sessions share: owns the gateway's own greeting of the server and what of it each session is
//! told. Never a session's own `initialize`, which passes as it is.
//!
//! The gateway offers no capabilities of a client: what a shared server asks could be meant for any session.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use mcp_protocol::Span;
use mcp_protocol::jsonrpc::{Payload, Scan, ScanLimits, scan};
use mcp_protocol::mcp::Revision;
use mcp_protocol::mcp::correlate::splice;

use super::flight::Purpose;
use super::hub::{Greeting, Hub, Outgoing};
use super::{is_response, seat, told};
use crate::shard::clock::Millis;
use crate::shard::{Elapsed, Shard};
use crate::upstream::answer::Told;
use crate::upstream::call::CallError;

const INITIALIZE: &str = concat!(
    r#"{"jsonrpc":"2.0","id":"mcp-gateway-initialize","method":"initialize","params":{"protocolVersion":"2025-11-25","#,
    r#""capabilities":{},"clientInfo":{"name":"mcp-gateway","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}}}"#,
);
const INITIALIZED: &[u8] = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// Has the server initialized, once per channel; gives out its response, as an error where it is one.
///
/// # Errors
/// [`CallError`] when it does not answer.
pub(super) async fn greet(
    hub: &Rc<Hub>,
    shard: &Rc<Shard>,
    deadline: Millis,
) -> Result<Result<Rc<Vec<u8>>, Vec<u8>>, CallError> {
    let known = poll_fn(|cx| {
        let mut state = hub.state.borrow_mut();
        match &state.greeting {
            Greeting::Done(response) => Poll::Ready(Some(response.clone())),
            Greeting::Due => Poll::Ready(None),
            Greeting::UnderWay => {
                state.waiting.push(cx.waker().clone());
                Poll::Pending
            }
        }
    });
    match shard.deadline(deadline, pin!(known)).await {
        Ok(Some(response)) => return Ok(Ok(response)),
        Ok(None) => {}
        Err(Elapsed) => return Err(CallError::Timeout),
    }
    hub.state.borrow_mut().greeting = Greeting::UnderWay;
    let under_way = UnderWay(hub);
    let response = ask(hub, shard, deadline).await?;
    let is_error = find(&response).is_none_or(|scan| scan.is_error);
    if is_error {
        return Ok(Err(response));
    }
    let response = Rc::new(response);
    hub.state.borrow_mut().greeting = Greeting::Done(response.clone());
    hub.send_own(INITIALIZED.to_vec());
    drop(under_way);
    Ok(Ok(response))
}

/// A session's `initialize`: it is told what the server told the gateway.
///
/// # Errors
/// As [`greet`].
pub(super) async fn initialize(
    shard: &Rc<Shard>,
    hub: &Rc<Hub>,
    body: &[u8],
    request: &Scan,
    deadline: Millis,
) -> Result<Told, CallError> {
    let id = request.id.map(|id| id.of(body)).unwrap_or_default();
    let wanted = request.init_protocol_version.map(|version| version.span.of(body));
    match greet(hub, shard, deadline).await? {
        Ok(response) => Ok(told::whole(Some(seat(shard, hub)?), told_as(&response, id, wanted))),
        Err(refused) => Ok(told::whole(None, told_as(&refused, id, None))),
    }
}

/// The response under another id. A client that asked for an older revision than the server took is told its own: later
/// ones only add to what it knows.
fn told_as(response: &[u8], id: &[u8], wanted: Option<&[u8]>) -> Vec<u8> {
    let Some(found) = find(response) else { return response.to_vec() };
    let mut places: Vec<(Span, &[u8])> = Vec::new();
    places.extend(found.id.map(|span| (span, id)));
    if let (Some(version), Some(wanted)) = (found.result_protocol_version, wanted)
        && let (Some(spoken), Some(known)) =
            (Revision::parse(version.span.of(response)), Revision::parse(wanted))
        && known < spoken
    {
        places.push((version.span, wanted));
    }
    places.sort_by_key(|(span, _)| span.start);
    splice(response, &places)
}

async fn ask(hub: &Rc<Hub>, shard: &Rc<Shard>, deadline: Millis) -> Result<Vec<u8>, CallError> {
    let Ok(Payload::Single(scan)) = scan(INITIALIZE.as_bytes(), &ScanLimits::default()) else {
        return Err(CallError::Malformed("no message"));
    };
    let messages = [Outgoing { bytes: INITIALIZE.as_bytes(), scan }];
    let (answering, _) = hub.request(shard, (None, Purpose::Opens), &messages, deadline).await?;
    loop {
        let next = pin!(poll_fn(|cx| answering.flight.poll_message(cx)));
        let next = shard.deadline(deadline, next).await.map_err(|Elapsed| CallError::Timeout)?;
        let message = next?.ok_or(CallError::Closed)?;
        if find(&message).is_some() {
            return Ok(message);
        }
    }
}

/// The scan of a message that is a response.
fn find(message: &[u8]) -> Option<Scan> {
    match scan(message, &ScanLimits::default()) {
        Ok(Payload::Single(scan)) if is_response(&scan) => Some(scan),
        Ok(_) | Err(_) => None,
    }
}

/// The greeting is under way; however that ends, those who wait look again.
struct UnderWay<'a>(&'a Hub);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.borrow_mut();
        if matches!(state.greeting, Greeting::UnderWay) {
            state.greeting = Greeting::Due;
        }
        state.wake_waiting();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_told_its_own_id_and_no_later_revision_than_it_knows() {
        let response =
            br#"{"result":{"protocolVersion":"2025-06-18","capabilities":{}},"jsonrpc":"2.0","id":"mcp-gateway-initialize"}"#;
        for (wanted, told) in [
            (&b"2025-03-26"[..], "2025-03-26"),
            (b"2025-06-18", "2025-06-18"),
            (b"2025-11-25", "2025-06-18"),
            (b"nonsense", "2025-06-18"),
        ] {
            let expected = format!(
                r#"{{"result":{{"protocolVersion":"{told}","capabilities":{{}}}},"jsonrpc":"2.0","id":7}}"#
            );
            assert_eq!(told_as(response, b"7", Some(wanted)), expected.as_bytes());
        }
    }
}
