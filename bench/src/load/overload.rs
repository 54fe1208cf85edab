//! What `mcp-bench overload` counts: three phases (probe, overload, after), each in windows of [`WINDOW`]. Pure.
//!
//! Right answers per second (goodput) are counted by when they came; everything else belongs to the time at which its
//! call was due.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::worker::as_ns;
use crate::report::histogram;

/// Length of a window.
pub(super) const WINDOW: Duration = Duration::from_millis(200);
/// Windows of one phase: ten minutes. What comes later counts into the last one.
const MAX_WINDOWS: usize = 3000;
/// Latencies of a window above this count as this (µs): a minute.
const MAX_LATENCY_US: u64 = 60_000_000;

/// A phase as the driver gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Phase {
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    /// Calls per second over all threads.
    pub(super) rate_per_s: f64,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Shed,
    Unsent,
    Failed,
}

/// The calls that were due in one window.
#[derive(Debug)]
pub(super) struct Window {
    /// Right answers that came in it.
    pub(super) goodput: u64,
    pub(super) shed: u64,
    pub(super) unsent: u64,
    pub(super) failed: u64,
    /// Right answers' latencies (µs).
    pub(super) latency: Histogram<u32>,
}

impl Window {
    fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, MAX_LATENCY_US, 2);
        let latency = latency.expect("constant bounds that the crate allows");
        Self { goodput: 0, shed: 0, unsent: 0, failed: 0, latency }
    }
}

/// One phase's counts.
#[derive(Debug)]
pub(super) struct PhaseCounts {
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    /// Calls due per second over all threads; `None`: closed loop.
    pub(super) rate_per_s: Option<f64>,
    pub(super) windows: Vec<Window>,
    /// Right answers' latencies (ns).
    pub(super) latency: Histogram<u64>,
}

impl PhaseCounts {
    fn window(&mut self, at_ns: u64) -> &mut Window {
        let index = (at_ns.saturating_sub(self.start_ns) / as_ns(WINDOW)) as usize;
        let index = index.min(MAX_WINDOWS - 1);
        while self.windows.len() <= index {
            self.windows.push(Window::new());
        }
        &mut self.windows[index]
    }

    fn merge(&mut self, other: Self) {
        self.latency += other.latency;
        while self.windows.len() < other.windows.len() {
            self.windows.push(Window::new());
        }
        for (mine, theirs) in self.windows.iter_mut().zip(other.windows) {
            mine.goodput += theirs.goodput;
            mine.shed += theirs.shed;
            mine.unsent += theirs.unsent;
            mine.failed += theirs.failed;
            mine.latency += theirs.latency;
        }
    }

    /// Whether the calls that were due in the window show a server that is well: all answered, 99 % within the limit.
    fn is_well(window: &Window, p99_limit: Duration) -> bool {
        let limit_us = u64::try_from(p99_limit.as_micros()).unwrap_or(u64::MAX);
        let lost = window.shed + window.unsent + window.failed;
        lost == 0 && !window.latency.is_empty() && window.latency.value_at_quantile(0.99) <= limit_us
    }

    /// Time from the phase's begin to the end of its first window that is well.
    pub(super) fn recovery(&self, p99_limit: Duration) -> Option<Duration> {
        let first = self.windows.iter().position(|window| Self::is_well(window, p99_limit))?;
        Some(WINDOW * (first as u32 + 1))
    }
}

/// All phases' counts, in their order; a phase that was never begun is not there.
#[derive(Debug, Default)]
pub(super) struct Overloads {
    pub(super) phases: Vec<PhaseCounts>,
}

impl Overloads {
    /// A phase begins.
    pub(super) fn begin(&mut self, start_ns: u64, end_ns: u64, rate_per_s: Option<f64>) {
        let (windows, latency) = (Vec::new(), histogram());
        self.phases.push(PhaseCounts { start_ns, end_ns, rate_per_s, windows, latency });
    }

    pub(super) fn on_right(&mut self, due_ns: u64, now_ns: u64) {
        if let Some(phase) = self.phase_at(now_ns).filter(|phase| now_ns < phase.end_ns) {
            phase.window(now_ns).goodput += 1;
        }
        if let Some(phase) = self.phase_at(due_ns) {
            let latency_ns = (now_ns - due_ns).max(1);
            phase.latency.saturating_record(latency_ns);
            phase.window(due_ns).latency.saturating_record((latency_ns / 1000).max(1));
        }
    }

    pub(super) fn on_other(&mut self, due_ns: u64, outcome: Outcome) {
        let Some(phase) = self.phase_at(due_ns) else { return };
        let window = phase.window(due_ns);
        match outcome {
            Outcome::Shed => window.shed += 1,
            Outcome::Unsent => window.unsent += 1,
            Outcome::Failed => window.failed += 1,
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        if self.phases.is_empty() {
            *self = other;
            return;
        }
        for (mine, theirs) in self.phases.iter_mut().zip(other.phases) {
            mine.merge(theirs);
        }
    }

    /// The phase that this time lies in, or behind; `None` before the first one (its warm-up).
    fn phase_at(&mut self, at_ns: u64) -> Option<&mut PhaseCounts> {
        self.phases.iter_mut().rev().find(|phase| phase.start_ns <= at_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn calls_count_where_they_were_due_and_goodput_where_it_came() {
        let mut counts = Overloads::default();
        counts.begin(100 * MS, 500 * MS, None);
        counts.begin(500 * MS, 900 * MS, None);
        counts.on_right(50 * MS, 60 * MS); // Warm-up.
        counts.on_right(450 * MS, 520 * MS);
        counts.on_other(460 * MS, Outcome::Shed);
        counts.on_right(700 * MS, 950 * MS); // Came after the end.
        let [first, second] = &counts.phases[..] else { panic!("two phases") };
        assert_eq!((first.latency.len(), first.windows[1].shed), (1, 1));
        assert_eq!(first.windows.iter().map(|w| w.goodput).sum::<u64>(), 0);
        assert_eq!((second.latency.len(), second.windows[0].goodput), (1, 1));
    }

    #[test]
    fn recovery_is_the_end_of_the_first_window_without_loss_and_delay() {
        let mut counts = Overloads::default();
        counts.begin(0, 2000 * MS, None);
        let limit = Duration::from_millis(50);
        counts.on_right(10 * MS, 20 * MS);
        counts.on_other(20 * MS, Outcome::Shed);
        counts.on_right(250 * MS, 350 * MS); // Too late.
        assert_eq!(counts.phases[0].recovery(limit), None);
        counts.on_right(650 * MS, 660 * MS);
        assert_eq!(counts.phases[0].recovery(limit), Some(Duration::from_millis(800)));
    }

    #[test]
    fn threads_add_up() {
        let make = |due_ms: u64| {
            let mut counts = Overloads::default();
            counts.begin(0, 2000 * MS, None);
            counts.on_right(due_ms * MS, (due_ms + 1) * MS);
            counts.on_other(due_ms * MS, Outcome::Unsent);
            counts
        };
        let mut sum = make(10);
        sum.merge(make(450));
        let windows = &sum.phases[0].windows;
        assert_eq!((windows.len(), windows[0].goodput, windows[2].goodput, windows[2].unsent), (3, 1, 1, 1));
        assert_eq!(sum.phases[0].latency.len(), 2);
    }
}
