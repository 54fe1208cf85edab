//! Calls that are answered by many events: how many a second, how late, at what cost.

use std::fmt;

use serde::Serialize;

use super::Latency;

/// The section of `mcp-bench stream`.
#[derive(Debug, Serialize)]
pub struct StreamReport {
    /// Streams whose result came after all their events, each in order and whole.
    pub streams: u64,
    /// Events asked for per stream.
    pub events_per_stream: u64,
    /// Events received, over the whole run.
    pub events: u64,
    /// Events per second of the measured time.
    pub per_s: f64,
    /// From an event's making at the upstream to its check here, in the measured time; of events that carry the time of
    /// this machine's clock.
    pub latency: Latency,
    /// The client's CPU per event.
    pub client_cpu_us: f64,
    /// The measured process's CPU per event.
    pub server_cpu_us: Option<f64>,
}

impl fmt::Display for StreamReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  event     ")?;
        self.latency.row(f)?;
        writeln!(
            f,
            "  events       {} ({:.0}/s) in order and whole, {} streams of {} to their end",
            self.events, self.per_s, self.streams, self.events_per_stream
        )?;
        write!(f, "  per event    client CPU {:.2} us", self.client_cpu_us)?;
        match self.server_cpu_us {
            Some(us) => writeln!(f, ", server CPU {us:.2} us"),
            None => writeln!(f),
        }
    }
}
