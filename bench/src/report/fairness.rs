//! Steady calls beside a few connections that flood the server.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::Latency;

/// The section of `mcp-bench hold --flood`.
#[derive(Debug, Serialize)]
pub struct FairnessReport {
    /// Connections that call as fast as they are answered, in the second half of the time.
    pub flood_connections: usize,
    /// Steady calls that were due in the first half.
    pub calm: Latency,
    /// Steady calls that were due in the second half.
    pub flooded: Latency,
    /// 99 % latency of the flooded half over that of the calm one.
    pub p99_ratio: f64,
    /// The flood's right answers.
    pub flood_calls: u64,
    /// Its right answers per second.
    pub flood_per_s: f64,
    /// Its failures, shed calls among them; they are in no other count.
    pub flood_failures: BTreeMap<&'static str, u64>,
    /// Latency of its calls.
    pub flood_latency: Latency,
}

impl fmt::Display for FairnessReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  calm      ")?;
        self.calm.row(f)?;
        write!(f, "  flooded   ")?;
        self.flooded.row(f)?;
        write!(f, "  the flood ")?;
        self.flood_latency.row(f)?;
        write!(
            f,
            "  fairness     p99 {:.2} times the calm one beside {} connections with {} calls ({:.0}/s)",
            self.p99_ratio, self.flood_connections, self.flood_calls, self.flood_per_s
        )?;
        for (kind, count) in &self.flood_failures {
            write!(f, ", {count} {kind}")?;
        }
        writeln!(f)
    }
}
