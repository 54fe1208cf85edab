//! The numbers of a report that every command has. Pure: no formatting, no arithmetic.
//!
//! Latencies count from the intended time; `from_send` counts from the sending, which in an open loop hides what a
//! stalled server did to the calls behind.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::SystemTime;

use serde::Serialize;

use super::intervals::History;
use super::{
    About, FairnessReport, HandshakeReport, Kernel, Latency, OverloadReport, Series, Server, StreamReport,
    hdr, html,
};
use crate::sys::Host;

/// The whole result.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `run` or `hold`.
    pub scenario: &'static str,
    /// What was spoken: `http1`, `h2`, `ws` or `mcpb`.
    pub protocol: &'static str,
    /// The URL's host and path.
    pub target: String,
    /// `open` (calls at a rate, latency from the intended time) or `closed`.
    pub loop_kind: &'static str,
    /// Calls per second asked for.
    pub rate_wanted_per_s: Option<f64>,
    /// Client threads.
    pub threads: usize,
    /// Measured time, without warm-up.
    pub duration_s: f64,
    /// Connections.
    pub connections: Connections,
    /// Calls.
    pub calls: Calls,
    /// From the intended time to the checked answer; right answers of the measured time.
    pub latency: Latency,
    /// The same calls, from the time of sending.
    pub from_send: Latency,
    /// Failures of calls and connections, warm-up and set-up included.
    pub failures: Failures,
    /// On the wire, TLS included.
    pub bytes: Bytes,
    /// What the client itself cost; beyond one core per thread it is the bottleneck.
    pub client: Client,
    /// The process named by `--server-pid`.
    pub server: Option<Server>,
    /// Short connections (`mcp-bench handshake`).
    pub handshake: Option<HandshakeReport>,
    /// Event streams (`mcp-bench stream`).
    pub stream: Option<StreamReport>,
    /// Steady calls beside a flood (`mcp-bench hold --flood`).
    pub fairness: Option<FairnessReport>,
    /// More load than the server can take (`mcp-bench overload`).
    pub overload: Option<OverloadReport>,
    /// Kernel memory of this host.
    pub kernel: Option<Kernel>,
    /// The run over time.
    pub series: Series,
    /// This host.
    pub host: Host,
    /// Where the report comes from.
    pub about: About,
    /// The latencies behind the series; they go to the HDR log.
    #[serde(skip)]
    pub(crate) history: History,
    /// When their first interval began.
    #[serde(skip)]
    pub(crate) load_started: SystemTime,
}

impl Report {
    /// Something was measured: right answers, or handshakes where no call was asked for.
    pub fn measured_anything(&self) -> bool {
        let bare = self.handshake.as_ref().is_some_and(|h| h.calls_per_connection == 0 && h.handshakes > 0);
        self.calls.ok > 0 || bare
    }

    /// Writes the latencies by interval as an HdrHistogram log.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_hdr(&self, out: &mut impl Write) -> io::Result<()> {
        hdr::write_log(&self.history, self.load_started, out)
    }

    /// Writes the report as one HTML page that needs no other file.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_html(&self, out: &mut impl Write) -> io::Result<()> {
        html::write_page(self, out)
    }
}

/// Connections of a run.
#[derive(Debug, Serialize)]
pub struct Connections {
    /// Asked for; short connections: begun.
    pub wanted: usize,
    /// Set up, with their session; short connections: brought to their end.
    pub opened: u64,
    /// Ended without our doing.
    pub lost: u64,
    /// Made again.
    pub reopened: u64,
    /// Alive at the end.
    pub up_at_end: u64,
    /// Sessions ended by a DELETE, or that the server said it keeps.
    pub sessions_ended: u64,
    /// Time until all were up or given up.
    pub setup_s: f64,
}

/// Calls of a run.
#[derive(Debug, Serialize)]
pub struct Calls {
    /// Answered rightly, warm-up included.
    pub ok: u64,
    /// Right answers that are in the latencies.
    pub measured: u64,
    /// Right answers per second of the measured time.
    pub rate_per_s: f64,
}

/// Failures of a run.
#[derive(Debug, Serialize)]
pub struct Failures {
    /// All.
    pub total: u64,
    /// By kind.
    pub by_kind: BTreeMap<&'static str, u64>,
    /// Each with its detail.
    pub details: Vec<FailureDetail>,
}

/// One failure and how often it was seen.
#[derive(Debug, Serialize)]
pub struct FailureDetail {
    /// Its kind.
    pub kind: &'static str,
    /// What is special about it.
    pub detail: String,
    /// How often.
    pub count: u64,
}

/// Bytes on the wire.
#[derive(Debug, Serialize)]
pub struct Bytes {
    /// By the client.
    pub sent: u64,
    /// By the client.
    pub received: u64,
}

/// The client's own cost in the measured time.
#[derive(Debug, Serialize)]
pub struct Client {
    /// CPU per call.
    pub cpu_us_per_call: f64,
    /// Cores in use.
    pub cores: f64,
}
