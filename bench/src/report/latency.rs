//! A distribution of times: percentiles, and how many were over fixed limits. Pure.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Limits (µs) over which calls are counted.
const OVER_US: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];
/// Steps of the curve from each quantile to half of what is above it.
const CURVE_STEPS: u32 = 5;
/// Times above this count as this (ns): one hour.
const MAX_LATENCY_NS: u64 = 3_600_000_000_000;
/// Significant digits of a time.
const DIGITS: u8 = 3;

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
    /// The whole curve: in ever finer steps towards the slowest.
    pub curve: Vec<CurvePoint>,
}

/// A point of the curve: this share of the calls took at most this time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CurvePoint {
    /// The share, 0 to 1.
    pub quantile: f64,
    /// The time.
    pub us: f64,
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
        let over = |limit_us: u64| Over {
            over_us: limit_us,
            calls: histogram.len() - histogram.count_between(0, limit_us * 1000),
        };
        let point = |quantile: f64| CurvePoint { quantile, us: us_at(histogram, quantile) };
        Self {
            p50_us: us_at(histogram, 0.5),
            p90_us: us_at(histogram, 0.9),
            p99_us: us_at(histogram, 0.99),
            p999_us: us_at(histogram, 0.999),
            max_us: us_at(histogram, 1.0),
            mean_us: if histogram.is_empty() { 0.0 } else { histogram.mean() / 1e3 },
            over: OVER_US.into_iter().map(over).filter(|o| o.calls > 0).collect(),
            curve: histogram
                .iter_quantiles(CURVE_STEPS)
                .map(|step| point(step.quantile_iterated_to()))
                .collect(),
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

/// An empty histogram of nanoseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_LATENCY_NS, DIGITS).expect("constant bounds that the crate allows")
}

/// The time (µs) that this share (0 to 1) of a histogram of nanoseconds does not exceed.
pub(super) fn us_at(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e3
}
