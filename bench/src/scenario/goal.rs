//! Goals: which figure of a report has to lie where. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use toml::Table;

use super::cells::Cell;
use crate::compare::{CellReport, TargetReport, median};

/// One goal. Its figure is a path into the load's JSON report and must hold in every turn; with `median.` before it, the
/// median of the turns must. Two more begin otherwise: `ratio.NAME`, the median ratio of the first target to another, and
/// `memory.…`, from the target's memory group.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    /// The path.
    pub figure: String,
    /// The path of a figure of the same turn by which it is divided.
    #[serde(default)]
    pub over: Option<String>,
    /// Of which target; default: the first.
    #[serde(default)]
    pub target: Option<String>,
    /// Smallest value that meets it.
    #[serde(default)]
    pub min: Option<f64>,
    /// Largest value that meets it.
    #[serde(default)]
    pub max: Option<f64>,
    /// The matrix's values of the cells that it counts for; default: all.
    #[serde(default, rename = "where")]
    pub cells: Table,
}

/// What became of a goal in one cell.
#[derive(Clone, Debug, Serialize)]
pub struct GoalReport {
    /// The goal in words.
    pub goal: String,
    /// The cell in words; empty where there is only one.
    pub cell: String,
    /// The figure nearest to missing it.
    pub figure: Option<f64>,
    /// Whether it is met.
    pub verdict: Verdict,
}

/// Whether a goal is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is.
    Met,
    /// It is not.
    Missed,
    /// The report has no such figure; counts as missed.
    NoFigure,
    /// It names a target that was left out because it is not installed.
    Skipped,
}

impl Goal {
    /// Whether it can be checked at all.
    pub(super) fn check(&self, cells: &[Cell]) -> Result<(), String> {
        let wrong = |reason: String| Err(format!("goal `{}`: {reason}", self.figure));
        if self.min.is_none() && self.max.is_none() {
            return wrong("min, max or both".to_owned());
        }
        let targets = || cells.iter().flat_map(|cell| &cell.job.targets);
        let named = self.figure.strip_prefix("ratio.").or(self.target.as_deref());
        if let Some(name) = named.filter(|name| targets().all(|target| target.name != *name)) {
            return wrong(format!("no target `{name}`"));
        }
        if !cells.iter().any(|cell| self.counts_for(&cell.values)) {
            return wrong(format!("no cell where {}", self.cells.to_string().trim()));
        }
        Ok(())
    }

    /// Checks it in one cell; `None` where it does not count.
    pub(super) fn judge(&self, report: &CellReport) -> Option<GoalReport> {
        if !self.counts_for(&report.cell) {
            return None;
        }
        let cell: Vec<_> = report
            .cell
            .iter()
            .map(|(key, value)| format!("{key}={}", value.as_str().map_or(value.to_string(), str::to_owned)))
            .collect();
        let (figure, verdict) = match self.values(report) {
            Values::Skipped => (None, Verdict::Skipped),
            Values::Found(values) => self.judge_values(&values),
        };
        Some(GoalReport { goal: self.to_string(), cell: cell.join(" "), figure, verdict })
    }

    /// The value nearest to missing it, and the verdict on all of them.
    fn judge_values(&self, values: &[f64]) -> (Option<f64>, Verdict) {
        let room = |value: f64| {
            let below = self.max.map_or(f64::INFINITY, |max| max - value);
            let above = self.min.map_or(f64::INFINITY, |min| value - min);
            below.min(above)
        };
        let nearest = values.iter().copied().min_by(|a, b| room(*a).total_cmp(&room(*b)));
        match nearest {
            None => (None, Verdict::NoFigure),
            Some(value) if room(value) >= 0.0 => (nearest, Verdict::Met),
            Some(_) => (nearest, Verdict::Missed),
        }
    }

    fn values(&self, report: &CellReport) -> Values {
        if let Some(name) = self.figure.strip_prefix("ratio.") {
            let missing = report.target(name).is_some_and(is_left_out);
            return match report.ratio.get(name) {
                None if missing => Values::Skipped,
                ratio => Values::Found(ratio.iter().map(|r| r.median).collect()),
            };
        }
        let target = match &self.target {
            Some(name) => report.target(name),
            None => report.targets.first(),
        };
        let Some(target) = target else { return Values::Found(Vec::new()) };
        if is_left_out(target) {
            return Values::Skipped;
        }
        let figures = self.figures(target, &self.figure);
        let Some(over) = &self.over else { return Values::Found(figures) };
        let divided = figures.iter().zip(self.figures(target, over)).map(|(a, b)| a / b);
        Values::Found(divided.filter(|value| value.is_finite()).collect())
    }

    fn figures(&self, target: &TargetReport, path: &str) -> Vec<f64> {
        if let Some(path) = path.strip_prefix("memory.") {
            let memory = serde_json::to_value(target.memory).unwrap_or_default();
            return crate::compare::number(&memory, path).into_iter().collect();
        }
        match path.strip_prefix("median.") {
            Some(path) => median(target.figures(path)).into_iter().collect(),
            None => target.figures(path),
        }
    }

    fn counts_for(&self, cell: &BTreeMap<String, serde_json::Value>) -> bool {
        self.cells.iter().all(|(key, wanted)| {
            serde_json::to_value(wanted).is_ok_and(|wanted| cell.get(key) == Some(&wanted))
        })
    }
}

enum Values {
    Found(Vec<f64>),
    Skipped,
}

fn is_left_out(target: &TargetReport) -> bool {
    target.version.is_none() && target.turns.is_empty() && target.tls.is_none() && target.cannot.is_some()
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(target) = &self.target {
            write!(f, "{target}: ")?;
        }
        write!(f, "{}", self.figure)?;
        if let Some(over) = &self.over {
            write!(f, " / {over}")?;
        }
        match (self.min, self.max) {
            (Some(min), Some(max)) if min == max => write!(f, " = {min}"),
            (Some(min), Some(max)) => write!(f, " from {min} to {max}"),
            (Some(min), None) => write!(f, " >= {min}"),
            (None, Some(max)) => write!(f, " <= {max}"),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(text: &str) -> Goal {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn every_turn_must_meet_a_goal() {
        let at_most = goal("figure = 'x'\nmax = 5");
        assert_eq!(at_most.judge_values(&[1.0, 5.0]), (Some(5.0), Verdict::Met));
        assert_eq!(at_most.judge_values(&[1.0, 6.0, 2.0]), (Some(6.0), Verdict::Missed));
        let at_least = goal("figure = 'x'\nmin = 5");
        assert_eq!(at_least.judge_values(&[9.0, 4.0]), (Some(4.0), Verdict::Missed));
        let between = goal("figure = 'x'\nmin = 1\nmax = 9");
        assert_eq!(between.judge_values(&[2.0, 8.5]), (Some(8.5), Verdict::Met));
        assert_eq!(between.judge_values(&[]), (None, Verdict::NoFigure));
    }

    #[test]
    fn a_goal_reads_like_a_sentence() {
        assert_eq!(goal("figure = 'a.b'\nover = 'c'\nmax = 1.1").to_string(), "a.b / c <= 1.1");
        assert_eq!(goal("figure = 'a'\nmin = 0\nmax = 0\ntarget = 't'").to_string(), "t: a = 0");
    }

    #[test]
    fn a_goal_counts_where_all_its_values_are() {
        let goal = goal("figure = 'x'\nmax = 1\nwhere = { connections = 64, answer = 'sse' }");
        let cell = |n: u32, answer: &str| {
            BTreeMap::from([("connections".to_owned(), n.into()), ("answer".to_owned(), answer.into())])
        };
        assert!(goal.counts_for(&cell(64, "sse")));
        assert!(!goal.counts_for(&cell(1, "sse")) && !goal.counts_for(&cell(64, "json")));
    }
}
