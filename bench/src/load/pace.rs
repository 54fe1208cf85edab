//! When calls are due in an open loop. Pure: times in nanoseconds go in and out.
//!
//! Every call has an intended time that no slow answer moves. Latency counts from it, so a stall of the server shows in
//! all the calls that were due meanwhile, and not only in the few that were in flight (coordinated omission).

use std::time::Duration;

/// The schedule of one thread's calls: every `threads`-th call of the whole run.
#[derive(Clone, Debug)]
pub(super) struct Pacer {
    start_ns: u64,
    interval_ns: f64,
    index: u64,
    step: u64,
    total: u64,
}

impl Pacer {
    /// The schedule of thread `thread` of `threads` in a run of `length` at `rate_per_s` calls in all.
    pub(super) fn new(
        start_ns: u64,
        rate_per_s: f64,
        length: Duration,
        thread: usize,
        threads: usize,
    ) -> Self {
        let total = (rate_per_s * length.as_secs_f64()).round() as u64;
        Self { start_ns, interval_ns: 1e9 / rate_per_s, index: thread as u64, step: threads as u64, total }
    }

    /// The intended time of the next call; `None` when there is none left.
    pub(super) fn next_due_ns(&self) -> Option<u64> {
        (self.index < self.total).then(|| self.start_ns + (self.index as f64 * self.interval_ns) as u64)
    }

    /// Takes the next call if it is due.
    pub(super) fn take_due(&mut self, now_ns: u64) -> Option<u64> {
        let due = self.next_due_ns().filter(|due| *due <= now_ns)?;
        self.index += self.step;
        Some(due)
    }

    /// Calls not yet taken.
    pub(super) fn left(&self) -> u64 {
        self.total.saturating_sub(self.index).div_ceil(self.step)
    }

    /// Drops the calls that are due at `end_ns` or later.
    pub(super) fn cut(&mut self, end_ns: u64) {
        let before_end = (end_ns.saturating_sub(self.start_ns) as f64 / self.interval_ns).ceil() as u64;
        self.total = self.total.min(before_end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(mut pacer: Pacer) -> Vec<u64> {
        std::iter::from_fn(|| pacer.take_due(u64::MAX)).collect()
    }

    #[test]
    fn threads_share_one_schedule_without_gap_or_double() {
        let length = Duration::from_millis(10);
        let mut all = Vec::new();
        for thread in 0..3 {
            let pacer = Pacer::new(1000, 1000.0, length, thread, 3);
            let left = pacer.left();
            let mine = times(pacer);
            assert_eq!(left, mine.len() as u64);
            all.extend(mine);
        }
        all.sort_unstable();
        assert_eq!(all, (0..10).map(|i| 1000 + i * 1_000_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_late_thread_gets_the_intended_times_not_its_own() {
        let mut pacer = Pacer::new(0, 1000.0, Duration::from_millis(5), 0, 1);
        assert_eq!(pacer.take_due(0), Some(0));
        assert_eq!(pacer.take_due(999_999), None);
        assert_eq!(pacer.take_due(3_500_000), Some(1_000_000));
        assert_eq!(pacer.take_due(3_500_000), Some(2_000_000));
        assert_eq!(pacer.left(), 2);
        pacer.cut(4_000_000);
        assert_eq!(pacer.left(), 1);
    }
}
