//! What one thread counts, and the sum over threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::failure::FailureCounts;
use super::overload::Overloads;
use super::stream::EventCounts;
use crate::report::{Intervals, histogram};

/// Counts that the driver reads while a thread runs. Written by that thread only.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Progress {
    /// Connections set up and alive.
    pub(super) up: AtomicU64,
    /// Calls answered rightly, warm-up included.
    pub(super) ok: AtomicU64,
    /// Failures of any kind.
    pub(super) failed: AtomicU64,
    /// What is counted besides calls: handshakes, or events of streams.
    pub(super) units: AtomicU64,
}

impl Progress {
    pub(super) fn publish(&self, up: u64, ok: u64, failed: u64) {
        self.up.store(up, Ordering::Relaxed);
        self.ok.store(ok, Ordering::Relaxed);
        self.failed.store(failed, Ordering::Relaxed);
    }
}

/// What a thread hands over at its end.
#[derive(Debug)]
pub(super) struct ThreadStats {
    /// From the intended time to the checked answer (ns), right answers of the measured time only.
    pub(super) latency: Histogram<u64>,
    /// The same from the time of sending (ns).
    pub(super) from_send: Histogram<u64>,
    /// `latency` by interval of time, from the start on.
    pub(super) intervals: Intervals,
    pub(super) failures: FailureCounts,
    /// Calls answered rightly, warm-up included.
    pub(super) ok: u64,
    /// Right answers that came within the measured time.
    pub(super) ok_in_window: u64,
    /// Connections set up the first time, and again.
    pub(super) opened: u64,
    pub(super) reopened: u64,
    /// Connections that ended without our doing, idle or not.
    pub(super) lost: u64,
    /// Connections alive at the end.
    pub(super) up: u64,
    /// Sessions ended at the end.
    pub(super) sessions_ended: u64,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    pub(super) handshakes: HandshakeCounts,
    pub(super) events: EventCounts,
    /// `latency` of calls due before the flood, and during it.
    pub(super) calm: Histogram<u64>,
    pub(super) flooded: Histogram<u64>,
    /// What the flooding connections counted; set once, after the threads' end.
    pub(super) flood: Option<Box<ThreadStats>>,
    pub(super) overload: Overloads,
}

/// Handshakes of `mcp-bench handshake`, as the client saw them.
#[derive(Debug)]
pub(super) struct HandshakeCounts {
    /// Connections begun.
    pub(super) begun: u64,
    pub(super) full: u64,
    /// Full ones that took a further round trip.
    pub(super) retried: u64,
    pub(super) resumed: u64,
    /// Connections without TLS.
    pub(super) plain: u64,
    /// Those within the measured time.
    pub(super) in_window: u64,
    /// Connections whose peer answered our end with a reset.
    pub(super) reset_at_close: u64,
    /// From the intended begin to the end of the handshake (ns), in the measured time.
    pub(super) latency: Histogram<u64>,
}

impl HandshakeCounts {
    fn new() -> Self {
        Self {
            begun: 0,
            full: 0,
            retried: 0,
            resumed: 0,
            plain: 0,
            in_window: 0,
            reset_at_close: 0,
            latency: histogram(),
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.full + self.retried + self.resumed + self.plain
    }

    fn merge(&mut self, other: Self) {
        self.begun += other.begun;
        self.full += other.full;
        self.retried += other.retried;
        self.resumed += other.resumed;
        self.plain += other.plain;
        self.in_window += other.in_window;
        self.reset_at_close += other.reset_at_close;
        self.latency += other.latency;
    }
}

impl ThreadStats {
    pub(super) fn new() -> Self {
        Self {
            latency: histogram(),
            from_send: histogram(),
            intervals: Intervals::new(Duration::from_secs(1)),
            failures: FailureCounts::default(),
            ok: 0,
            ok_in_window: 0,
            opened: 0,
            reopened: 0,
            lost: 0,
            up: 0,
            sessions_ended: 0,
            sent_bytes: 0,
            received_bytes: 0,
            handshakes: HandshakeCounts::new(),
            events: EventCounts::new(),
            calm: histogram(),
            flooded: histogram(),
            flood: None,
            overload: Overloads::default(),
        }
    }

    /// Records a measured call.
    pub(super) fn record(&mut self, latency_ns: u64, from_send_ns: u64) {
        self.latency.saturating_record(latency_ns.max(1));
        self.from_send.saturating_record(from_send_ns.max(1));
    }

    /// Adds another thread's counts.
    pub(super) fn merge(&mut self, other: Self) {
        self.latency += other.latency;
        self.from_send += other.from_send;
        self.intervals.merge(other.intervals);
        self.failures.merge(other.failures);
        self.ok += other.ok;
        self.ok_in_window += other.ok_in_window;
        self.opened += other.opened;
        self.reopened += other.reopened;
        self.lost += other.lost;
        self.up += other.up;
        self.sessions_ended += other.sessions_ended;
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.handshakes.merge(other.handshakes);
        self.events.merge(other.events);
        self.calm += other.calm;
        self.flooded += other.flooded;
        self.overload.merge(other.overload);
    }
}
