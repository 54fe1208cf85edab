//! `mcp-bench scenario`: one TOML file says what is measured and which goals the figures must meet.
//!
//! A file's way: [`ScenarioFile`] (its shape) → [`Cell`]s (its matrix spread out, each a job of `compare`) → reports → [`Goal`]s checked.
//! A load is one of our own subcommands and its table becomes that command's options, so every command that reports can
//! stand in a scenario.

mod args;
mod cells;
mod file;
mod goal;
mod idle;
mod options;
mod table;

pub use args::{ScenarioArgs, ScenarioReport, scenario};
pub use cells::{Cell, Overrides, cells};
pub use file::{ScenarioError, ScenarioFile};
pub use goal::{Goal, GoalReport, Verdict};
pub use idle::{IdleArgs, IdleReport, idle};
