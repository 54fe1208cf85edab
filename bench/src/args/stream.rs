//! The options of `mcp-bench stream`.

use std::time::Duration;

use clap::Args;

use super::{LoadArgs, PlanError};
use crate::load::{AnswerForm, Plan, Scenario, Streams};
use crate::units::parse_duration;

/// Options of `mcp-bench stream`.
#[derive(Debug, Args)]
pub struct StreamArgs {
    /// Streams at the same time, each on a connection of its own; one that ends is asked for again
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    connections: u32,
    /// Events of each stream, before its result
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(0..=1_000_000_000))]
    events: u64,
    /// Time between two events of a stream, at most 1m; 0ms: as fast as they are read
    #[arg(long, default_value = "0ms", value_parser = parse_duration)]
    interval: Duration,
    /// Bytes of each event's message
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    bytes: u32,
    /// Measured time
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// Time under load before it
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    warmup: Duration,
    #[command(flatten)]
    load: LoadArgs,
}

impl StreamArgs {
    /// What to do with the result.
    pub fn load(&self) -> &LoadArgs {
        &self.load
    }

    /// The plan of the run.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn plan(&self) -> Result<Plan, PlanError> {
        let streams = Streams {
            events: self.events,
            interval_us: u64::try_from(self.interval.as_micros()).unwrap_or(u64::MAX),
            message_bytes: self.bytes as usize,
        };
        let mut spec = self.load.spec("stream");
        spec.arguments = format!(
            r#"{{"events":{},"interval_us":{},"bytes":{}}}"#,
            streams.events, streams.interval_us, streams.message_bytes
        );
        spec.progress = true;
        let plan = self.load.plan_calls(Scenario::Stream(streams), self.connections, self.duration, &spec)?;
        Ok(Plan { warmup: self.warmup, answer_form: AnswerForm::EventStream, ..plan })
    }
}
