//! How long something took: owns the buckets of latencies, and a histogram of them. A histogram is a few words, so that a
//! copy of all of them for a scrape takes a shard no time to speak of.

/// Upper bounds of the buckets, in microseconds: 0.5 ms to 60 s.
pub(crate) const BOUNDS_US: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];
/// The buckets: one for each bound, and one for what is above them.
pub(crate) const BUCKETS: usize = BOUNDS_US.len() + 1;

/// The bucket of a latency.
pub(crate) fn bucket(us: u64) -> usize {
    BOUNDS_US.partition_point(|&bound| bound < us)
}

/// A histogram.
#[derive(Clone, Copy, Default)]
pub(crate) struct Latency {
    /// By bucket, each without those below.
    pub(crate) counts: [u64; BUCKETS],
    pub(crate) sum_us: u64,
}

impl Latency {
    pub(crate) fn record(&mut self, us: u64) {
        self.counts[bucket(us)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    pub(crate) fn add(&mut self, other: &Latency) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        assert_eq!(bucket(0), 0);
        for (number, &bound) in BOUNDS_US.iter().enumerate() {
            assert_eq!((bucket(bound), bucket(bound + 1)), (number, number + 1));
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn what_is_added_up_is_what_both_have_seen() {
        let (mut one, mut other) = (Latency::default(), Latency::default());
        one.record(700);
        other.record(700);
        other.record(u64::MAX);
        one.add(&other);
        assert_eq!((one.counts[1], one.counts[BUCKETS - 1], one.count()), (2, 1, 3));
        assert_eq!(one.sum_us, u64::MAX);
    }
}
