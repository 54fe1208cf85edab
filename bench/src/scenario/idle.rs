//! `mcp-bench idle`: what a process costs that nobody calls: its resident memory, and the CPU time it uses all the same.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::compare::{JobError, write_report};
use crate::sys::{StopSignals, sample_process};
use crate::units::parse_duration;

/// Options of `mcp-bench idle`.
#[derive(Debug, Args)]
pub struct IdleArgs {
    /// The process
    #[arg(long, value_name = "PID")]
    server_pid: u32,
    /// How long it is watched
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// How long it is left alone before
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    settle: Duration,
    /// Write the result as JSON to a file, or to standard output with `-`
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What was seen.
#[derive(Debug, Serialize)]
pub struct IdleReport {
    /// How long it was watched.
    pub duration_s: f64,
    /// CPU time of all its threads meanwhile.
    pub cpu_ms: f64,
    /// Its threads.
    pub threads: usize,
    /// Resident memory at the end.
    pub resident_bytes: u64,
}

/// Watches the process and prints what it saw.
///
/// # Errors
/// When the process cannot be read, or the report not be written.
pub fn idle(args: &IdleArgs) -> Result<(), JobError> {
    let signals = StopSignals::block()?;
    let read = || {
        sample_process(args.server_pid)
            .map_err(|e| io::Error::new(e.kind(), format!("--server-pid {}: {e}", args.server_pid)))
    };
    read()?;
    signals.wait(args.settle);
    let (from, start) = (read()?, Instant::now());
    signals.wait(args.duration);
    let (to, elapsed) = (read()?, start.elapsed());
    let report = IdleReport {
        duration_s: elapsed.as_secs_f64(),
        cpu_ms: to.busy().saturating_sub(from.busy()).as_secs_f64() * 1e3,
        threads: to.threads.len(),
        resident_bytes: to.resident_bytes,
    };
    write_report(&report, args.json.as_deref())
}

impl fmt::Display for IdleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "idle for {:.1} s: {:.2} ms of CPU, {:.1} MiB resident, {} threads",
            self.duration_s,
            self.cpu_ms,
            self.resident_bytes as f64 / 1048576.0,
            self.threads
        )
    }
}
