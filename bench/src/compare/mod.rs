//! `mcp-bench compare`: two or more targets in front of one upstream, measured in turn in one run.
//!
//! A job's way: [`Job`] (what) → [`Stage`] (upstream and targets, all up) → [`run`] (turns) → [`CellReport`]. Each turn is one of our own
//! load commands as a child process, so that every turn begins with the same fresh client and every load command can be
//! compared. Scenarios are made of jobs, too.

mod args;
mod job;
mod report;
mod stage;
mod table;
mod turns;

pub use args::{CompareArgs, compare};
pub(crate) use args::{check_names, write_report};
pub use job::{Job, Load, check_upstream};
pub use report::{CellReport, IdleBytes, Ratio, TargetReport, Turn};
pub(crate) use report::{median, number};
pub use stage::{JobError, Stage};
pub use turns::{Manner, run};

/// Targets of one job at most.
pub const MAX_TARGETS: usize = 16;
/// Rounds of one job at most.
pub const MAX_ROUNDS: u32 = 1000;
/// The figure that is compared unless another is named.
pub const DEFAULT_FIGURE: &str = "server.cpu_us_per_call";
