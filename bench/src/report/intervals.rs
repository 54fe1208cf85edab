//! Latencies by interval of time: what a client thread records, cheaply, and the sum over threads. Pure.
//!
//! A thread has one histogram for the interval in hand. When the interval is over, its recorded values are packed into a
//! short list and the histogram starts anew, so that an interval costs memory for the values seen and not for those
//! possible. At most [`MAX_INTERVALS`] are kept: a longer run gets intervals of double length.

use std::convert::Infallible;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::latency::{histogram, us_at};

/// Intervals of a run: at 1 s each, ten minutes.
const MAX_INTERVALS: usize = 600;
/// Intervals of less than a second are chosen for runs that have at most so many of them.
const MAX_FINE_INTERVALS: u128 = 60;
/// Lengths that an interval may begin with.
const LENGTHS_MS: [u64; 10] = [50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000];

/// Recorded values (ns) in ascending order, and how often each was.
type Packed = Vec<(u64, u64)>;

/// Latencies of the right answers that came in one interval.
#[derive(Clone, Debug, Serialize)]
pub struct LatencyPoint {
    /// The interval's begin, since the run's begin.
    pub from_s: f64,
    /// Its end.
    pub to_s: f64,
    /// Calls in it.
    pub calls: u64,
    /// Half of them were faster.
    pub p50_us: f64,
    /// 99 %.
    pub p99_us: f64,
    /// The slowest.
    pub max_us: f64,
}

/// The length of the intervals in which a run of this length is best shown: a second, less in a short run.
pub(crate) fn interval_for(run: Duration) -> Duration {
    let fits = |length: &Duration| {
        let limit = if length.as_secs() == 0 { MAX_FINE_INTERVALS } else { MAX_INTERVALS as u128 };
        run.as_nanos() <= length.as_nanos() * limit
    };
    let mut lengths = LENGTHS_MS.into_iter().map(Duration::from_millis);
    lengths.find(fits).unwrap_or(Duration::from_secs(60))
}

/// Latencies by interval, as one thread records them or as the sum of several threads.
#[derive(Debug)]
pub(crate) struct Intervals {
    length_ns: u64,
    /// The interval in hand; its index is the number of those that are done.
    current: Histogram<u64>,
    current_end_ns: u64,
    done: Vec<Packed>,
}

impl Intervals {
    /// Intervals of this length to begin with.
    pub(crate) fn new(length: Duration) -> Self {
        let length_ns = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX).max(1);
        Self { length_ns, current: histogram(), current_end_ns: 0, done: Vec::new() }
    }

    /// Records a call answered at `at_ns`, counted from the begin of the first interval. Times never go back by more
    /// than the interval in hand.
    pub(crate) fn record(&mut self, at_ns: u64, latency_ns: u64) {
        if at_ns >= self.current_end_ns {
            self.turn_to(at_ns);
        }
        self.current.saturating_record(latency_ns.max(1));
    }

    /// Adds what another thread recorded from the same begin on.
    pub(crate) fn merge(&mut self, mut other: Self) {
        other.close();
        self.close();
        if self.done.is_empty() {
            *self = other;
            return;
        }
        while self.length_ns < other.length_ns {
            self.double_length();
        }
        while other.length_ns < self.length_ns {
            other.double_length();
        }
        if self.done.len() < other.done.len() {
            self.done.resize(other.done.len(), Packed::new());
        }
        for (mine, theirs) in self.done.iter_mut().zip(other.done) {
            *mine = merged(std::mem::take(mine), theirs);
        }
    }

    /// Ends the recording.
    pub(crate) fn finish(mut self) -> History {
        self.close();
        History { length: Duration::from_nanos(self.length_ns), intervals: self.done }
    }

    /// Makes the interval of `at_ns` the one in hand.
    fn turn_to(&mut self, at_ns: u64) {
        self.close();
        while at_ns / self.length_ns >= MAX_INTERVALS as u64 {
            self.double_length();
        }
        let index = (at_ns / self.length_ns) as usize;
        if index < self.done.len() {
            // Doubling closed the interval that goes on now.
            let last = self.done.pop().unwrap_or_default();
            unpack(&last, &mut self.current);
        }
        self.done.resize(index, Packed::new());
        self.current_end_ns = (index as u64 + 1).saturating_mul(self.length_ns);
    }

    /// Packs the interval in hand. The next record opens it again, or a later one.
    fn close(&mut self) {
        if self.current.is_empty() {
            return;
        }
        let values = self.current.iter_recorded();
        self.done.push(values.map(|v| (v.value_iterated_to(), v.count_since_last_iteration())).collect());
        self.current.reset();
        self.current_end_ns = 0;
    }

    fn double_length(&mut self) {
        self.length_ns = self.length_ns.saturating_mul(2);
        let mut old = std::mem::take(&mut self.done).into_iter();
        while let Some(first) = old.next() {
            self.done.push(merged(first, old.next().unwrap_or_default()));
        }
    }
}

/// Latencies by interval, complete.
#[derive(Debug)]
pub(crate) struct History {
    length: Duration,
    intervals: Vec<Packed>,
}

impl History {
    /// Each interval's begin, length and histogram, in order; an error of `visit` ends it. Empty ones are passed over.
    pub(crate) fn try_each<E>(
        &self,
        mut visit: impl FnMut(Duration, Duration, &Histogram<u64>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut histogram = histogram();
        for (packed, index) in self.intervals.iter().zip(0..).filter(|(packed, _)| !packed.is_empty()) {
            histogram.reset();
            unpack(packed, &mut histogram);
            visit(self.length * index, self.length, &histogram)?;
        }
        Ok(())
    }

    /// The figures of each interval; the first one begins at `origin` of the run.
    pub(crate) fn points(&self, origin: Duration) -> Vec<LatencyPoint> {
        let mut points = Vec::new();
        let Ok(()) = self.try_each(|from, length, histogram| {
            points.push(LatencyPoint {
                from_s: (origin + from).as_secs_f64(),
                to_s: (origin + from + length).as_secs_f64(),
                calls: histogram.len(),
                p50_us: us_at(histogram, 0.5),
                p99_us: us_at(histogram, 0.99),
                max_us: us_at(histogram, 1.0),
            });
            Ok::<(), Infallible>(())
        });
        points
    }
}

fn unpack(packed: &Packed, into: &mut Histogram<u64>) {
    for (value, count) in packed {
        into.saturating_record_n(*value, *count);
    }
}

fn merged(a: Packed, b: Packed) -> Packed {
    if a.is_empty() || b.is_empty() {
        return if a.is_empty() { b } else { a };
    }
    let mut all = Packed::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
    while let Some((value, count)) = match (a.peek(), b.peek()) {
        (Some(x), Some(y)) if x.0 <= y.0 => a.next(),
        (_, Some(_)) => b.next(),
        (_, None) => a.next(),
    } {
        match all.last_mut() {
            Some((last, sum)) if *last == value => *sum += count,
            _ => all.push((value, count)),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(history: &History) -> Vec<(f64, u64)> {
        history.points(Duration::ZERO).iter().map(|p| (p.from_s, p.calls)).collect()
    }

    #[test]
    fn the_length_follows_from_the_runs() {
        for (run_ms, expected_ms) in
            [(200, 50), (3_000, 50), (10_000, 200), (60_000, 1_000), (600_000, 1_000)]
        {
            assert_eq!(
                interval_for(Duration::from_millis(run_ms)),
                Duration::from_millis(expected_ms),
                "{run_ms}"
            );
        }
        assert_eq!(interval_for(Duration::from_secs(1_000_000)), Duration::from_secs(60));
    }

    #[test]
    fn threads_add_up_interval_by_interval() {
        let second = Duration::from_secs(1);
        let (mut one, mut two) = (Intervals::new(second), Intervals::new(second));
        for at_ms in [100, 900, 3_500] {
            one.record(at_ms * 1_000_000, 5_000);
        }
        two.record(3_900_000_000, 9_000);
        two.record(5_000_000_000, 9_000);
        one.merge(two);
        let history = one.finish();
        assert_eq!(calls(&history), [(0.0, 2), (3.0, 2), (5.0, 1)]);
        let p = &history.points(second)[1];
        assert_eq!((p.from_s, p.to_s), (4.0, 5.0));
        assert!((p.p50_us - 5.0).abs() < 0.01 && (p.max_us - 9.0).abs() < 0.01, "{p:?}");
    }

    #[test]
    fn intervals_are_bounded_and_lose_no_call() {
        let mut long = Intervals::new(Duration::from_millis(50));
        for i in 0..10_000 {
            long.record(i * 20_000_000, 1_000 + i);
        }
        let mut short = Intervals::new(Duration::from_millis(50));
        short.record(70_000_000, 1_000);
        let mut all = Intervals::new(Duration::from_secs(1));
        all.merge(short);
        all.merge(long);
        let points = calls(&all.finish());
        assert!(points.len() <= MAX_INTERVALS, "{}", points.len());
        assert_eq!(points.iter().map(|(_, n)| n).sum::<u64>(), 10_001);
    }
}
