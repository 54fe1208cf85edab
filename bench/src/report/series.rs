//! The run over time: calls, failures, connections, and the measured process's memory and CPU. Made from readings of
//! counters; it reads nothing itself.

use std::time::Duration;

use serde::Serialize;

use super::intervals::LatencyPoint;
use super::ratio;

/// Readings kept; a longer run drops every second one and reads half as often.
const MAX_READINGS: usize = 600;

/// The run over time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Series {
    /// Begin of the load, since the run's begin; before it connections come up.
    pub load_from_s: f64,
    /// Begin of the measured time; before it is warm-up.
    pub measured_from_s: f64,
    /// Its end.
    pub measured_to_s: f64,
    /// What the counters said, from the run's begin on.
    pub samples: Vec<SamplePoint>,
    /// Latencies of the measured calls.
    pub latency: Vec<LatencyPoint>,
}

/// The time since the point before, and how things stood at its end.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SamplePoint {
    /// When, since the run's begin.
    pub at_s: f64,
    /// Time since the point before.
    pub length_s: f64,
    /// Connections up.
    pub connections: u64,
    /// Calls answered rightly in that time.
    pub right_calls: u64,
    /// Failures in that time.
    pub failures: u64,
    /// Resident memory of the measured process.
    pub resident_bytes: Option<u64>,
    /// Cores that the measured process used in that time.
    pub cores: Option<f64>,
    /// Memory charged to the measured process's control group.
    pub cgroup_bytes: Option<u64>,
    /// The host's slab.
    pub slab_bytes: Option<u64>,
    /// The host's TCP buffers.
    pub tcp_bytes: Option<u64>,
}

/// The counters at one moment; calls, failures and CPU count from the run's begin.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    pub(crate) at: Duration,
    pub(crate) connections: u64,
    pub(crate) right_calls: u64,
    pub(crate) failures: u64,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) busy: Option<Duration>,
    pub(crate) cgroup_bytes: Option<u64>,
    pub(crate) slab_bytes: Option<u64>,
    pub(crate) tcp_bytes: Option<u64>,
}

/// Readings so far, and when the next one is due.
#[derive(Debug)]
pub(crate) struct Readings {
    every: Duration,
    next: Duration,
    list: Vec<Reading>,
}

impl Readings {
    /// To be made this often, from the first one on, which says where things stand at the run's begin.
    pub(crate) fn new(every: Duration, first: Reading) -> Self {
        Self { every, next: first.at + every, list: vec![first] }
    }

    /// When the next one is due, since the run's begin.
    pub(crate) fn next_due(&self) -> Duration {
        self.next
    }

    /// Takes one. The next is due on the next multiple of the interval, however late this one was.
    pub(crate) fn push(&mut self, reading: Reading) {
        if self.list.len() == MAX_READINGS {
            let mut index = 0;
            self.list.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.every *= 2;
        }
        while self.next <= reading.at {
            self.next += self.every;
        }
        self.list.push(reading);
    }

    /// The differences between them.
    pub(crate) fn points(&self) -> Vec<SamplePoint> {
        let point = |pair: &[Reading]| {
            let [a, b] = [pair[0], pair[1]];
            let length_s = b.at.saturating_sub(a.at).as_secs_f64();
            let busy = a.busy.zip(b.busy).map(|(a, b)| b.saturating_sub(a));
            SamplePoint {
                at_s: b.at.as_secs_f64(),
                length_s,
                connections: b.connections,
                right_calls: b.right_calls - a.right_calls,
                failures: b.failures - a.failures,
                resident_bytes: b.resident_bytes,
                cores: busy.map(|busy| ratio(busy.as_secs_f64(), length_s)),
                cgroup_bytes: b.cgroup_bytes,
                slab_bytes: b.slab_bytes,
                tcp_bytes: b.tcp_bytes,
            }
        };
        self.list.windows(2).map(point).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_differences_and_thinning_loses_no_call() {
        let every = Duration::from_millis(100);
        let mut readings = Readings::new(every, Reading::default());
        for i in 1..=5_000 {
            let at = every * i;
            if at >= readings.next_due() {
                readings.push(Reading {
                    at,
                    right_calls: u64::from(i) * 10,
                    busy: Some(at / 2),
                    ..Reading::default()
                });
            }
        }
        let points = readings.points();
        assert!(points.len() < MAX_READINGS);
        let last = points.last().unwrap();
        assert_eq!(points.iter().map(|p| p.right_calls).sum::<u64>(), (last.at_s * 100.0).round() as u64);
        assert!(last.at_s > 490.0, "{last:?}");
        assert!((last.cores.unwrap() - 0.5).abs() < 1e-6);
        assert_eq!(points[0].cores, None);
    }
}
