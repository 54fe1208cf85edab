//! A distribution of times: percentiles, and how many were over fixed limits. Pure.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Limits (µs) over which calls are counted.
const OVER_US: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];
/// A distribution of times.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// Half of the calls were faster.
    pub p50_us: f64,
    /// 90 %.
    pub p90_us: f64,
    /// 99 %.
    pub p99_us: f64,
    /// 99.9 %.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
    /// The mean.
    pub mean_us: f64,
    /// How many calls took longer than each limit.
    pub over: Vec<Over>,
}

/// Calls that took longer than a limit.
#[derive(Debug, Serialize)]
pub struct Over {
    /// The limit.
    pub over_us: u64,
    /// The calls.
    pub calls: u64,
}

impl Latency {
    /// The distribution of a histogram of nanoseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let us = |ns: u64| ns as f64 / 1e3;
        let at = |quantile: f64| us(histogram.value_at_quantile(quantile));
        let over = |limit_us: u64| Over {
            over_us: limit_us,
            calls: histogram.len() - histogram.count_between(0, limit_us * 1000),
        };
        Self {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: us(histogram.max()),
            mean_us: if histogram.is_empty() { 0.0 } else { histogram.mean() / 1e3 },
            over: OVER_US.into_iter().map(over).filter(|o| o.calls > 0).collect(),
        }
    }

    /// The five figures in columns, and the line's end.
    pub(super) fn row(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for us in [self.p50_us, self.p90_us, self.p99_us, self.p999_us, self.max_us] {
            write!(f, "{us:>10.1}")?;
        }
        writeln!(f)
    }
}
