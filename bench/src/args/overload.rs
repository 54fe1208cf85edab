//! The options of `mcp-bench overload`.

use std::time::Duration;

use clap::Args;

use super::{LoadArgs, PlanError};
use crate::load::{Overload, Plan, Scenario};
use crate::units::parse_duration;

/// Options of `mcp-bench overload`.
#[derive(Debug, Args)]
pub struct OverloadArgs {
    /// Connections over all threads; each has one call in flight at most
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    connections: u32,
    /// Calls in flight while the sustainable rate is looked for, in a closed loop
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    probe_calls: u32,
    /// Time of looking for it
    #[arg(long, default_value = "3s", value_parser = parse_phase)]
    probe: Duration,
    /// Time under load before it
    #[arg(long, default_value = "1s", value_parser = parse_phase)]
    warmup: Duration,
    /// The overload, in times of the sustainable rate
    #[arg(long, default_value_t = 2.0, value_parser = parse_factor)]
    factor: f64,
    /// How long it lasts
    #[arg(long, default_value = "10s", value_parser = parse_phase)]
    duration: Duration,
    /// The rate afterwards, in times of the sustainable one
    #[arg(long, default_value_t = 0.5, value_parser = parse_factor)]
    after_factor: f64,
    /// How long that lasts
    #[arg(long, default_value = "5s", value_parser = parse_phase)]
    after: Duration,
    /// How long a call waits for a free connection before it is given up, unsent
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    patience: Duration,
    /// 99 % of the calls within so many milliseconds: the server is well again
    #[arg(long, default_value_t = 50.0, value_parser = parse_factor)]
    recovered_ms: f64,
    #[command(flatten)]
    load: LoadArgs,
}

impl OverloadArgs {
    /// What to do with the result.
    pub fn load(&self) -> &LoadArgs {
        &self.load
    }

    /// The plan of the run.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn plan(&self) -> Result<Plan, PlanError> {
        let overload = Overload {
            probe: self.probe,
            probe_calls: self.probe_calls as usize,
            factor: self.factor,
            after: self.after,
            after_factor: self.after_factor,
            patience: self.patience,
            recovered: Duration::from_secs_f64(self.recovered_ms / 1e3),
        };
        Ok(Plan {
            warmup: self.warmup,
            ..self.load.plan(Scenario::Overload(overload), self.connections, self.duration)?
        })
    }
}

/// A phase's length: the counts have room for ten minutes.
fn parse_phase(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        length if length <= Duration::from_secs(600) => Ok(length),
        _ => Err(format!("`{text}` is longer than 10m")),
    }
}

fn parse_factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor > 0.0 && factor <= 1e6 => Ok(factor),
        _ => Err(format!("`{text}` is not a number above 0, at most 1000000")),
    }
}
