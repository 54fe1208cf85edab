//! Owns the load driver under test: its upstream server, its runs and their reports.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::gateway::beside_test;
use crate::process::Finished;
use crate::{Gateway, Process};

/// How long the driver's server may take to say where it listens.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The driver's own server, with sessions. It ends with this value, and by itself after 150 s.
#[derive(Debug)]
pub struct FastServer {
    _process: Process,
    /// Its MCP endpoint.
    pub url: String,
}

impl FastServer {
    /// Starts it.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start() -> Self {
        let mut command = driver();
        command.args(["upstream", "--listen", "127.0.0.1:0", "--sessions", "--for", "150s"]);
        let mut process = Process::start("mcp-bench upstream", &mut command);
        let url = process.wait_line(START_LIMIT, |line| {
            line.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned)
        });
        Self { _process: process, url }
    }
}

/// The load driver beside the running test.
///
/// # Panics
/// When it is not built.
#[must_use]
pub fn driver() -> Command {
    let path = beside_test("mcp-bench");
    assert!(path.is_file(), "no {}: build it with `cargo build --release -p mcp-bench`", path.display());
    Command::new(path)
}

/// Runs the driver with these options towards a gateway that it is to trust; its report, and what it said besides.
///
/// # Panics
/// When it fails, takes longer than `limit` or reports nothing.
pub fn report_of(gateway: &Gateway, options: &[&str], limit: Duration) -> (Value, String) {
    let mut command = driver();
    command.args(options).args(["--json", "-"]).arg("--ca-file").arg(&gateway.cert.ca_file);
    let finished = Process::start("mcp-bench", &mut command).finish(limit);
    let told = finished.stderr.join("\n");
    assert!(finished.status.success(), "{options:?}: {}: {told}", finished.status);
    (report(&finished), told)
}

/// The report that a run printed.
///
/// # Panics
/// When it printed none.
#[must_use]
pub fn report(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout.join("\n")).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}
