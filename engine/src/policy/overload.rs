//! Overload of a shard: owns how many requests it takes at a time, which messages it may refuse, and when a client that was
//! refused is read again. Functions of what they are told and of `now`; never IO, never a clock.
//!
//! A request that is refused still costs a TLS record each way, about half of one that is served, so refusing everything
//! above the limit as it comes would eat the capacity that it is meant to save: at twice the sustainable rate nothing
//! would be left. Therefore a connection that was told `Retry-After` is not read until then ([`Overload::hold_until`]);
//! its next request waits in the kernel, and a client that asks again at once costs no more than one that obeys.
//!
//! The limit follows the shard's queueing delay (what a socket that is ready waits for its turn) as CoDel does (RFC 8289):
//! while even the shortest delay of a window is above the target, the queue stands, and fewer requests are taken at a
//! time. A queue that empties now and then is a burst, and is served.

use std::cell::Cell;
use std::rc::Rc;

use mcp_protocol::Span;
use mcp_protocol::jsonrpc::{Kind, Payload, Scan, ScanLimits, scan};

use crate::metrics::Shed;
use crate::respond::RETRY_AFTER_S;
use crate::shard::clock::Millis;

/// How long a delay must stand before it counts (RFC 8289, section 4.2, "interval").
const WINDOW_MS: u64 = 100;
/// Without a measurement for this long, the shard was idle.
const IDLE_MS: u64 = 2000;
/// Requests in flight that are never refused for delay: 1,024 small calls are some 40 ms of one core, and a closed loop
/// of so many clients is a busy shard, not an overloaded one.
const LEAST_LIMIT: usize = 1024;
/// The limit's steps per window: down by an eighth of what is in flight, up by a half, so that a shard is back at its
/// maximum within a second.
const STEP_DOWN: usize = 8;
const STEP_UP: usize = 2;
/// Time between two held connections that are read again: 4,000 refusals a second are some 5 % of a core.
const RELEASE_SPACING_US: u64 = 250;
/// Longest that a connection is held, however many are.
const MAX_HOLD_MS: u64 = 10_000;

/// One shard's admission of requests.
pub(crate) struct Overload {
    /// Requests in flight above which further ones are refused whatever the delay.
    max: Cell<usize>,
    least: Cell<usize>,
    target_us: Cell<u64>,
    limit: Cell<usize>,
    in_flight: Cell<usize>,
    window: Cell<Window>,
    lagging: Cell<bool>,
    next_release_us: Cell<u64>,
}

#[derive(Clone, Copy)]
struct Window {
    began: Millis,
    measured: Millis,
    shortest_us: u64,
}

impl Window {
    fn new(now: Millis) -> Self {
        Window { began: now, measured: now, shortest_us: u64::MAX }
    }
}

/// A request's place among those in flight, given back when it is dropped.
pub(crate) struct Place(Rc<Overload>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

impl Overload {
    pub(crate) fn new(config: &mcp_config::Overload) -> Self {
        let overload = Overload {
            max: Cell::default(),
            least: Cell::default(),
            target_us: Cell::default(),
            limit: Cell::default(),
            in_flight: Cell::new(0),
            window: Cell::new(Window::new(0)),
            lagging: Cell::new(false),
            next_release_us: Cell::new(0),
        };
        overload.set(config);
        overload
    }

    /// Admits so from now on. What is in flight stays, and what is measured next decides anew.
    pub(crate) fn set(&self, config: &mcp_config::Overload) {
        let max = config.max_in_flight as usize;
        self.max.set(max);
        self.least.set(max.min(LEAST_LIMIT));
        self.target_us.set(u64::try_from(config.target_delay.as_micros()).unwrap_or(u64::MAX));
        self.limit.set(max);
    }

    /// Why a further request is refused; `None` while it is taken.
    pub(crate) fn refuses(&self) -> Option<Shed> {
        let limit = self.limit.get();
        if self.in_flight.get() < limit {
            return None;
        }
        Some(if limit < self.max.get() { Shed::QueueDelay } else { Shed::InFlight })
    }

    /// Takes a message.
    pub(crate) fn enter(self: &Rc<Self>) -> Place {
        self.in_flight.set(self.in_flight.get() + 1);
        Place(self.clone())
    }

    /// Requests that are taken at a time.
    pub(crate) fn limit(&self) -> usize {
        self.limit.get()
    }

    /// Whether what is ready waits too long: then new connections wait in the listener's backlog.
    pub(crate) fn is_lagging(&self) -> bool {
        self.lagging.get()
    }

    /// Whether a delay is one that must not stand.
    pub(crate) fn is_long(&self, delay_us: u64) -> bool {
        delay_us > self.target_us.get()
    }

    /// A measurement: what became ready waited `delay_us` for its turn.
    pub(crate) fn on_delay(&self, now: Millis, delay_us: u64) {
        let mut window = self.window.get();
        if now.saturating_sub(window.measured) > IDLE_MS {
            window = Window::new(now);
            self.lagging.set(false);
            self.limit.set(self.max.get());
        }
        window.measured = now;
        window.shortest_us = window.shortest_us.min(delay_us);
        if now.saturating_sub(window.began) >= WINDOW_MS {
            let lagging = self.is_long(window.shortest_us);
            self.lagging.set(lagging);
            let limit = self.limit.get();
            self.limit.set(if lagging {
                let taken = limit.min(self.in_flight.get());
                (taken - taken / STEP_DOWN).max(self.least.get())
            } else {
                (limit + limit / STEP_UP + 1).min(self.max.get())
            });
            window = Window::new(now);
        }
        self.window.set(window);
    }

    /// When a connection that was refused now is read again: not before it was asked to come back, and one after the
    /// other.
    pub(crate) fn hold_until(&self, now: Millis) -> Millis {
        let earliest = now + RETRY_AFTER_S * 1000;
        let release_us = (earliest * 1000).max(self.next_release_us.get() + RELEASE_SPACING_US);
        let release_us = release_us.min((now + MAX_HOLD_MS) * 1000);
        self.next_release_us.set(release_us);
        release_us / 1000
    }
}

/// Whether an overloaded shard may refuse this body, and where the id stands that the refusal answers. A response, a
/// notification (a cancellation is one) and what holds any of them must pass: they let other work end. So must what is no
/// message, since its sender needs the real reason.
pub(crate) fn refusable(body: &[u8]) -> Option<Option<Span>> {
    match scan(body, &ScanLimits::default()) {
        Ok(Payload::Single(scan)) => is_refusable(&scan, body).then_some(scan.id),
        Ok(Payload::Batch(batch)) => batch.iter().all(|scan| is_refusable(scan, body)).then_some(None),
        Err(_) => None,
    }
}

/// Whether an overloaded shard may refuse this message: a request, and not `ping`, by which clients tell whether a
/// connection is alive. Refused, it would bring a reconnection, which costs ten calls.
pub(crate) fn is_refusable(scan: &Scan, body: &[u8]) -> bool {
    scan.kind == Kind::Request && !scan.method.is_some_and(|method| method.eq_str(body, "ping"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn overload(max_in_flight: u32) -> Rc<Overload> {
        Rc::new(Overload::new(&mcp_config::Overload {
            max_in_flight,
            target_delay: Duration::from_millis(10),
        }))
    }

    const LONG_US: u64 = 50_000;
    const SHORT_US: u64 = 100;

    /// Measures every 10 ms from `from` until before `to`.
    fn measure(overload: &Overload, from: Millis, to: Millis, delay_us: u64) {
        for now in (from..to).step_by(10) {
            overload.on_delay(now, delay_us);
        }
    }

    #[test]
    fn one_more_than_may_be_in_flight_is_refused_until_one_ends() {
        let overload = overload(2);
        let first = overload.enter();
        assert_eq!(overload.refuses(), None);
        let _second = overload.enter();
        assert_eq!(overload.refuses(), Some(Shed::InFlight));
        drop(first);
        assert_eq!(overload.refuses(), None);
    }

    #[test]
    fn a_standing_queue_lowers_the_limit_step_by_step_and_its_end_raises_it_within_a_second() {
        let overload = overload(10_000);
        let _taken: Vec<_> = (0..4000).map(|_| overload.enter()).collect();
        measure(&overload, 10, 120, LONG_US);
        assert_eq!((overload.limit(), overload.is_lagging()), (3500, true));
        assert_eq!(overload.refuses(), Some(Shed::QueueDelay));
        measure(&overload, 120, 2000, LONG_US);
        assert_eq!(overload.limit(), LEAST_LIMIT);
        measure(&overload, 2000, 3000, SHORT_US);
        assert_eq!((overload.limit(), overload.is_lagging()), (10_000, false));
    }

    #[test]
    fn a_burst_that_ends_within_the_window_changes_nothing() {
        let overload = overload(10_000);
        let _taken: Vec<_> = (0..4000).map(|_| overload.enter()).collect();
        for start in (0..5000).step_by(100) {
            measure(&overload, start, start + 90, LONG_US);
            overload.on_delay(start + 90, SHORT_US);
        }
        assert_eq!((overload.limit(), overload.is_lagging()), (10_000, false));
    }

    #[test]
    fn after_a_pause_what_was_measured_before_no_longer_counts() {
        let overload = overload(10_000);
        measure(&overload, 0, 1000, LONG_US);
        assert!(overload.is_lagging());
        overload.on_delay(1000 + IDLE_MS + 1, LONG_US);
        assert_eq!((overload.limit(), overload.is_lagging()), (10_000, false));
    }

    #[test]
    fn held_connections_come_back_after_a_second_and_one_by_one_but_never_too_late() {
        let overload = overload(1);
        assert_eq!(overload.hold_until(5000), 6000);
        let after = |others: usize| {
            for _ in 0..others {
                overload.hold_until(5000);
            }
            overload.hold_until(5000)
        };
        assert_eq!(after(6), 6001);
        assert_eq!(after(100_000), 5000 + MAX_HOLD_MS);
        // The queue of those that are held is over: the next one waits its second only.
        assert_eq!(overload.hold_until(60_000), 61_000);
    }

    #[test]
    fn only_requests_are_refused_and_ping_is_not() {
        let id = |body: &'static [u8]| refusable(body).map(|id| id.map(|id| id.of(body)));
        assert_eq!(id(br#"{"jsonrpc":"2.0","id":"7","method":"tools/call"}"#), Some(Some(&b"\"7\""[..])));
        assert_eq!(
            id(
                br#"[{"jsonrpc":"2.0","id":1,"method":"tools/list"},{"jsonrpc":"2.0","id":2,"method":"tools/list"}]"#
            ),
            Some(None)
        );
        for passes in [
            &br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#[..],
            br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#,
            br#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            br#"[{"jsonrpc":"2.0","id":1,"method":"tools/list"},{"jsonrpc":"2.0","method":"notifications/x"}]"#,
            br#"{"jsonrpc""#,
        ] {
            assert_eq!(id(passes), None, "{}", String::from_utf8_lossy(passes));
        }
    }
}
