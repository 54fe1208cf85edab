//! Connections that live only for a moment: what their handshakes cost, and whether the server's memory comes back.

use std::fmt;

use serde::Serialize;

use super::Latency;

/// The section of `mcp-bench handshake`.
#[derive(Debug, Serialize)]
pub struct HandshakeReport {
    /// Done over the whole run.
    pub handshakes: u64,
    /// Per second of the measured time.
    pub per_s: f64,
    /// Full TLS handshakes.
    pub full: u64,
    /// Of these, those that took a further round trip (HelloRetryRequest).
    pub retried: u64,
    /// Resumed TLS sessions.
    pub resumed: u64,
    /// Connections without TLS.
    pub plain: u64,
    /// Connections whose peer answered our end of sending with a reset instead of its own end.
    pub reset_at_close: u64,
    /// Calls on each connection.
    pub calls_per_connection: u32,
    /// From the intended begin of the connection to the end of its handshake, in the measured time.
    pub latency: Latency,
    /// The client's CPU per handshake, calls and close included.
    pub client_cpu_us: f64,
    /// The measured process's CPU per handshake, calls and close included.
    pub server_cpu_us: Option<f64>,
    /// The measured process's resident memory.
    pub memory: Option<Memory>,
}

/// Resident memory over a run of short connections.
#[derive(Debug, Serialize)]
pub struct Memory {
    /// Before the first connection, or where there is a warm-up, at its end: after the connections that made the process
    /// touch its code and its receive buffers for the first time.
    pub before_bytes: u64,
    /// At the end of the measured time.
    pub end_bytes: u64,
    /// The least after the last connection, within the time of `--settle`.
    pub settled_bytes: u64,
    /// When that was reached, after the last connection.
    pub settled_s: f64,
    /// The settled memory over that before.
    pub settled_ratio: f64,
}

impl fmt::Display for HandshakeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  handshake ")?;
        self.latency.row(f)?;
        writeln!(
            f,
            "  handshakes   {} ({:.0}/s): {} full ({} with a retry), {} resumed, {} without TLS; {} reset at close",
            self.handshakes,
            self.per_s,
            self.full,
            self.retried,
            self.resumed,
            self.plain,
            self.reset_at_close
        )?;
        write!(
            f,
            "  per handshake with {} calls: client CPU {:.1} us",
            self.calls_per_connection, self.client_cpu_us
        )?;
        match self.server_cpu_us {
            Some(us) => writeln!(f, ", server CPU {us:.1} us")?,
            None => writeln!(f)?,
        }
        let mib = |bytes: u64| bytes as f64 / 1048576.0;
        match &self.memory {
            Some(m) => writeln!(
                f,
                "  memory       {:.1} MiB before, {:.1} MiB at the end, {:.1} MiB after {:.1} s of rest ({:.2} of before)",
                mib(m.before_bytes),
                mib(m.end_bytes),
                mib(m.settled_bytes),
                m.settled_s,
                m.settled_ratio
            ),
            None => Ok(()),
        }
    }
}
