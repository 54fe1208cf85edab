//! The options of `mcp-bench handshake`.

use std::time::Duration;

use clap::Args;

use super::{LoadArgs, PlanError};
use crate::load::{Handshakes, Plan, Scenario};
use crate::units::{parse_duration, parse_rate};

/// With `--total` and no `--duration` the number of connections alone ends the run, within this time.
const LONGEST_RUN: Duration = Duration::from_secs(24 * 3600);
/// The measured time without `--total`.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

/// Options of `mcp-bench handshake`.
#[derive(Debug, Args)]
pub struct HandshakeArgs {
    /// Connections at the same time, over all threads
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    concurrency: u32,
    /// New connections per second, whatever becomes of those before [default: closed loop]
    #[arg(long, value_parser = parse_rate)]
    rate: Option<f64>,
    /// Measured time [default: 10s, or as long as --total takes]
    #[arg(long, value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Time under load before it
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    warmup: Duration,
    /// End after so many connections
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    total: Option<u64>,
    /// Calls on each connection, with a session where the revision has one; 0: TCP and TLS alone
    #[arg(long, value_name = "N", default_value_t = 0)]
    calls: u32,
    /// Resume TLS sessions with the tickets that the server gave
    #[arg(long)]
    resume: bool,
    /// Longest wait, after the last connection, for the memory of --server-pid to fall
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    settle: Duration,
    #[command(flatten)]
    load: LoadArgs,
}

impl HandshakeArgs {
    /// What to do with the result.
    pub fn load(&self) -> &LoadArgs {
        &self.load
    }

    /// The plan of the run.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn plan(&self) -> Result<Plan, PlanError> {
        let handshakes =
            Handshakes { calls: self.calls, resume: self.resume, total: self.total, settle: self.settle };
        let longest = if self.total.is_some() { LONGEST_RUN } else { DEFAULT_DURATION };
        let duration = self.duration.unwrap_or(longest);
        Ok(Plan {
            rate_per_s: self.rate,
            warmup: self.warmup,
            ..self.load.plan(Scenario::Handshake(handshakes), self.concurrency, duration)?
        })
    }
}
