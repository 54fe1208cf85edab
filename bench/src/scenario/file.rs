//! The shape of a scenario file.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Table;

use super::goal::Goal;
use crate::compare::DEFAULT_FIGURE;

/// Why a file is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// It is not TOML of the right shape.
    #[error("{path}: {source}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A value in it cannot be.
    #[error("{path}: {reason}")]
    Value {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// A scenario as its file says it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioFile {
    /// What it shows, in a few words.
    pub title: String,
    /// Why it is worth showing, in one line.
    pub why: String,
    /// The CPUs of client, upstream, and of targets that name none of their own; empty: all that we may use. A target that
    /// is to have a core for itself needs the others kept off it.
    #[serde(default)]
    pub cpus: Vec<usize>,
    /// Options of `mcp-bench upstream`, with `_` for `-`.
    #[serde(default)]
    pub upstream: Table,
    /// The targets ([`crate::targets::TargetSpec`]); the first is ours.
    #[serde(rename = "target")]
    pub targets: Vec<Table>,
    /// `kind`, the load command, and its options with `_` for `-`.
    pub load: Table,
    /// How several targets are compared.
    #[serde(default)]
    pub compare: Compare,
    /// Lists of values; each combination is a cell.
    #[serde(default)]
    pub matrix: Matrix,
    /// What the figures must be.
    #[serde(default, rename = "goal")]
    pub goals: Vec<Goal>,
}

/// The table `[compare]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compare {
    /// Turns of each target.
    pub rounds: u32,
    /// Path of the figure in the load's JSON report.
    pub figure: String,
}

impl Default for Compare {
    fn default() -> Self {
        Self { rounds: 1, figure: DEFAULT_FIGURE.to_owned() }
    }
}

/// The tables `[matrix.upstream]`, `[matrix.target]` and `[matrix.load]`: lists by key. Keys of `target` count for all targets.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Matrix {
    /// Over `[upstream]`.
    pub upstream: Table,
    /// Over every `[[target]]`.
    pub target: Table,
    /// Over `[load]`.
    pub load: Table,
}

impl ScenarioFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ScenarioError`].
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let read = |source| ScenarioError::Read { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(read)?;
        let shape = |e| ScenarioError::Shape { path: path.to_owned(), source: Box::new(e) };
        toml::from_str(&text).map_err(shape)
    }
}
