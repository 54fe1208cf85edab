//! A server under more load than it can take: what it still answers, what it sheds, and when it is well again.

use std::fmt;

use serde::Serialize;

use super::Latency;

/// The section of `mcp-bench overload`.
#[derive(Debug, Serialize)]
pub struct OverloadReport {
    /// Right answers per second in the probe, a closed loop: the sustainable rate.
    pub peak_per_s: f64,
    /// Goodput of the overload over the peak.
    pub goodput_ratio: f64,
    /// From the end of the overload to the end of the first 200 ms whose calls were all answered rightly, 99 % of them
    /// within `recovered_ms`; `None`: not within the time of the run.
    pub recovery_s: Option<f64>,
    /// The limit of that.
    pub recovered_ms: f64,
    /// Probe, overload, after.
    pub phases: Vec<OverloadPhase>,
    /// The same by the second, each phase from its own begin on.
    pub seconds: Vec<OverloadSecond>,
}

/// One phase.
#[derive(Debug, Serialize)]
pub struct OverloadPhase {
    /// `probe`, `overload` or `after`.
    pub name: &'static str,
    /// Its length.
    pub length_s: f64,
    /// Calls due per second; `None`: closed loop.
    pub offered_per_s: Option<f64>,
    /// Right answers per second that came in it.
    pub goodput_per_s: f64,
    /// Calls due in it that were answered rightly.
    pub right: u64,
    /// Calls that the server refused for now (503 with `Retry-After`, or JSON-RPC -32000, retryable).
    pub shed: u64,
    /// Calls that no connection was free for within the client's patience.
    pub unsent: u64,
    /// Calls that failed in any other way.
    pub failed: u64,
    /// Of the right answers, from the time at which each call was due.
    pub latency: Latency,
}

/// One second of a phase.
#[derive(Debug, Serialize)]
pub struct OverloadSecond {
    /// The phase.
    pub phase: &'static str,
    /// Since the phase's begin.
    pub at_s: f64,
    /// Right answers that came in it.
    pub goodput: u64,
    /// Calls due in it that were shed.
    pub shed: u64,
    /// That were not sent.
    pub unsent: u64,
    /// That failed.
    pub failed: u64,
    /// Half of the right answers to calls due in it were faster.
    pub p50_us: f64,
    /// 99 %.
    pub p99_us: f64,
}

impl fmt::Display for OverloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {:<12}{:>10}{:>10}{:>10}{:>10}{:>10}{:>11}{:>11}",
            "overload", "offered/s", "right/s", "shed", "unsent", "failed", "p50 (us)", "p99 (us)"
        )?;
        for phase in &self.phases {
            let offered = phase.offered_per_s.map_or("closed".to_owned(), |rate| format!("{rate:.0}"));
            writeln!(
                f,
                "    {:<10}{offered:>10}{:>10.0}{:>10}{:>10}{:>10}{:>11.0}{:>11.0}",
                phase.name,
                phase.goodput_per_s,
                phase.shed,
                phase.unsent,
                phase.failed,
                phase.latency.p50_us,
                phase.latency.p99_us
            )?;
        }
        write!(f, "    goodput ratio {:.2}, ", self.goodput_ratio)?;
        match self.recovery_s {
            Some(s) => {
                writeln!(f, "well again (p99 within {} ms, nothing lost) after {s:.1} s", self.recovered_ms)
            }
            None => writeln!(f, "not well again (p99 within {} ms, nothing lost)", self.recovered_ms),
        }
    }
}
