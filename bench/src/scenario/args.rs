//! The command line of `mcp-bench scenario`, and what runs a file from begin to end.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::cells::{Cell, Overrides, cells};
use super::file::{ScenarioError, ScenarioFile};
use super::goal::{GoalReport, Verdict};
use crate::compare::{self, CellReport, JobError, MAX_ROUNDS, Manner, Stage, write_report};
use crate::sys::{StopSignals, keep_to};

/// Where `--list` looks unless told.
const FOLDER: &str = "bench/scenarios";
/// Scenarios of a folder at most.
const MAX_FILES: usize = 1000;

/// Options of `mcp-bench scenario`.
#[derive(Debug, Args)]
pub struct ScenarioArgs {
    /// The scenario's file; with --list, a folder of them [default: bench/scenarios]
    #[arg(required_unless_present = "list")]
    path: Option<PathBuf>,
    /// Say what scenarios there are
    #[arg(long)]
    list: bool,
    /// Multiply connections, totals and times
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", value_parser = parse_scale)]
    scale: f64,
    /// Turns of each target, instead of the file's
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MAX_ROUNDS as i64))]
    rounds: Option<u32>,
    /// The gateway's program [default: mcp-gateway beside this one, or in PATH]
    #[arg(long, value_name = "PATH")]
    gateway: Option<PathBuf>,
    /// Go on without a target that is not installed
    #[arg(long)]
    skip_missing: bool,
    /// Write the result as JSON to a file, or to standard output with `-`
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A scenario's result.
#[derive(Debug, Serialize)]
pub struct ScenarioReport {
    /// Its file's name, without extension.
    pub name: String,
    /// From the file.
    pub title: String,
    /// From the file.
    pub why: String,
    /// The factor of `--scale`.
    pub scale: f64,
    /// What came of each cell.
    pub cells: Vec<CellReport>,
    /// What became of each goal in each of its cells.
    pub goals: Vec<GoalReport>,
}

/// Runs what the command line says. Whether all goals were met.
///
/// # Errors
/// When the file is wrong, or something cannot be run.
pub fn scenario(args: &ScenarioArgs) -> Result<bool, Box<dyn std::error::Error>> {
    let path = args.path.as_deref().unwrap_or_else(|| Path::new(FOLDER));
    if args.list {
        return list(path).map(|()| true);
    }
    let file = ScenarioFile::read(path)?;
    let over = Overrides { scale: args.scale, rounds: args.rounds, gateway: args.gateway.clone() };
    let cells =
        cells(&file, &over).map_err(|reason| ScenarioError::Value { path: path.to_owned(), reason })?;
    if !file.cpus.is_empty() {
        keep_to(&file.cpus).map_err(|e| ScenarioError::Value {
            path: path.to_owned(),
            reason: format!("cpus {:?}: {e}", file.cpus),
        })?;
    }
    let reports = run_all(&cells, args.skip_missing)?;
    let judge = |goal: &super::Goal| reports.iter().filter_map(|r| goal.judge(r)).collect::<Vec<_>>();
    let goals: Vec<_> = file.goals.iter().flat_map(judge).collect();
    let ended_early = reports.len() < cells.len() || reports.iter().any(|report| report.interrupted);
    let report = ScenarioReport {
        name: name_of(path),
        title: file.title,
        why: file.why,
        scale: args.scale,
        cells: reports,
        goals,
    };
    write_report(&report, args.json.as_deref())?;
    let met = |goal: &GoalReport| matches!(goal.verdict, Verdict::Met | Verdict::Skipped);
    Ok(!ended_early && report.goals.iter().all(met))
}

/// Runs the cells in their order, on one stage as long as it fits; ends early when interrupted.
fn run_all(cells: &[Cell], skip_missing: bool) -> Result<Vec<CellReport>, JobError> {
    let signals = StopSignals::block()?;
    let mut stage: Option<Stage> = None;
    let mut reports = Vec::new();
    for (number, cell) in cells.iter().enumerate() {
        let job = &cell.job;
        if cells.len() > 1 {
            eprintln!("cell {} of {}: {}", number + 1, cells.len(), job.load.words());
        }
        // The old stage ends before the next begins: both would not fit into the limits of one machine.
        let kept = stage.take().filter(|stage| stage.fits(&job.upstream, &job.targets));
        let stage = match kept {
            Some(kept) => stage.insert(kept),
            None => stage.insert(Stage::open(&job.upstream, &job.targets, skip_missing)?),
        };
        // One long turn shows its own progress; many short ones a line each.
        let visible = job.rounds == 1 && job.targets.len() == 1;
        let mut report = compare::run(job, stage, Manner { signals: &signals, visible })?;
        report.cell.clone_from(&cell.values);
        let interrupted = report.interrupted;
        reports.push(report);
        if interrupted {
            break;
        }
    }
    Ok(reports)
}

fn list(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    use std::io::Write;
    let read = |source| ScenarioError::Read { path: folder.to_owned(), source };
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .map_err(read)?
        .take(MAX_FILES)
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    let mut out = std::io::stdout();
    for path in files {
        let file = ScenarioFile::read(&path)?;
        writeln!(out, "{:<14} {}\n{:<14} {}", name_of(&path), file.title, "", file.why)?;
    }
    Ok(())
}

fn name_of(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

fn parse_scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(scale) if scale > 0.0 && scale <= 100.0 => Ok(scale),
        _ => Err(format!("`{text}` is not a factor above 0 and up to 100")),
    }
}
