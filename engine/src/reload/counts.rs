//! What became of configurations that were read again: owns the numbers for the page of metrics. Never a decision.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// How a reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was taken over.
    Ok = 0,
    /// It says what was read before.
    Unchanged = 1,
    /// Something is wrong with it.
    Refused = 2,
}

/// The `result` labels, by [`Outcome`].
pub(crate) const OUTCOMES: [&str; 3] = ["ok", "unchanged", "refused"];

/// The numbers.
pub(crate) struct Reloads {
    outcomes: [AtomicU64; OUTCOMES.len()],
    last: AtomicU64,
    taken_unix_s: AtomicU64,
    pending: AtomicU64,
}

impl Reloads {
    /// The start has read a configuration.
    pub(crate) fn new() -> Self {
        let taken_unix_s = AtomicU64::new(now_unix_s());
        Reloads {
            outcomes: Default::default(),
            last: AtomicU64::new(0),
            taken_unix_s,
            pending: AtomicU64::new(0),
        }
    }

    pub(super) fn note(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
        self.last.store(outcome as u64, Ordering::Relaxed);
        if outcome == Outcome::Ok {
            self.taken_unix_s.store(now_unix_s(), Ordering::Relaxed);
        }
    }

    pub(super) fn set_pending(&self, keys: usize) {
        self.pending.store(keys as u64, Ordering::Relaxed);
    }

    /// How often each [`Outcome`] was.
    pub(crate) fn outcomes(&self) -> [u64; OUTCOMES.len()] {
        self.outcomes.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Whether what was read last was no worse than what is in force.
    pub(crate) fn is_fine(&self) -> bool {
        self.last.load(Ordering::Relaxed) != Outcome::Refused as u64
    }

    /// When a configuration was taken over last, in seconds since 1970.
    pub(crate) fn taken_unix_s(&self) -> u64 {
        self.taken_unix_s.load(Ordering::Relaxed)
    }

    /// Keys whose new value waits for a restart.
    pub(crate) fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }
}

fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
