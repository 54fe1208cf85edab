//! The shard's clock: owns "now". Read once per turn; everything in a turn sees the same millisecond. Raw
//! `Instant::now` is called nowhere else in shard code.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime};

/// A point in time, in milliseconds since the process started.
pub(crate) type Millis = u64;

/// Farther than any deadline.
pub(crate) const NEVER: Millis = Millis::MAX;

pub(crate) struct Clock {
    start: Instant,
    now: Cell<Millis>,
}

impl Clock {
    /// `start` is the same for all shards of a process, so that their milliseconds can be compared.
    pub(crate) fn new(start: Instant) -> Self {
        let clock = Clock { start, now: Cell::new(0) };
        clock.refresh();
        clock
    }

    /// Reads the clock; called at the start of each turn.
    pub(crate) fn refresh(&self) {
        self.now.set(self.start.elapsed().as_millis() as Millis);
    }

    /// The time of this turn.
    pub(crate) fn now(&self) -> Millis {
        self.now.get()
    }

    /// `after` from now; [`NEVER`] when that lies beyond the clock.
    pub(crate) fn after(&self, after: Duration) -> Millis {
        self.now.get().saturating_add(u64::try_from(after.as_millis()).unwrap_or(NEVER))
    }

    /// Microseconds since the process started, read now: for latencies.
    pub(crate) fn precise_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    /// Milliseconds since 1970, UTC, read now.
    pub(crate) fn unix_ms(&self) -> u64 {
        SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64)
    }
}
