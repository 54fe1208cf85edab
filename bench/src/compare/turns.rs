//! Runs a job: the targets have their turns A B C, A B C, …, so that what else the machine does falls on all of them.

use serde_json::Value;

use super::job::Job;
use super::report::{CellReport, Turn, number};
use super::stage::{JobError, Stage};
use crate::sys::StopSignals;

/// Exit code of a load command that could not do its work at all.
const COULD_NOT_RUN: i32 = 2;

/// How a job is run.
#[derive(Clone, Copy, Debug)]
pub struct Manner<'a> {
    /// Whose arrival ends it early.
    pub signals: &'a StopSignals,
    /// Show each load's own progress on standard error, else a line per turn.
    pub visible: bool,
}

/// Runs all rounds of `job` on `stage`.
///
/// # Errors
/// [`JobError`], but not for a target that cannot answer: that stands in the report.
pub fn run(job: &Job, stage: &mut Stage, manner: Manner<'_>) -> Result<CellReport, JobError> {
    let mut turns: Vec<Vec<Turn>> = job.targets.iter().map(|_| Vec::new()).collect();
    let mut cannot: Vec<Option<String>> =
        stage.places.iter().map(|place| place.running.as_ref().err().cloned()).collect();
    let mut interrupted = false;
    'rounds: for round in 1..=job.rounds {
        for place in 0..job.targets.len() {
            if cannot[place].is_some() {
                continue;
            }
            match turn(job, stage, place, manner)? {
                None => {
                    interrupted = true;
                    break 'rounds;
                }
                Some(Ok(turn)) => {
                    if !manner.visible {
                        let figure = number(&turn.report, &job.figure);
                        let figure = figure.map_or("no figure".to_owned(), |f| format!("{f:.2}"));
                        let name = &job.targets[place].name;
                        eprintln!("round {round} of {}: {name:<12} {} {figure}", job.rounds, job.figure);
                    }
                    turns[place].push(turn);
                }
                Some(Err(why)) => cannot[place] = Some(why),
            }
        }
    }
    Ok(CellReport::build(job, stage, turns, cannot, interrupted))
}

/// One turn of one target: what came of it, or why it cannot do this; `None` when interrupted.
fn turn(
    job: &Job,
    stage: &mut Stage,
    place: usize,
    manner: Manner<'_>,
) -> Result<Option<Result<Turn, String>>, JobError> {
    let json = stage.folder.file("load.json");
    // An earlier turn's report must not be taken for this one's.
    let _ = std::fs::remove_file(&json);
    let Ok(running) = &stage.places[place].running else { return Ok(None) };
    let spec = &job.targets[place];
    let load = job.load.with(&spec.load_options);
    let arguments = load.arguments(&spec.tool_prefix, running, &json.display().to_string());
    let (code, output) = stage.run_load(place, &arguments, manner.visible, manner.signals)?;
    let Some(code) = code else { return Ok(None) };
    let report = std::fs::read_to_string(&json).ok().and_then(|text| serde_json::from_str(&text).ok());
    let death = stage.places[place].running.as_mut().ok().and_then(|running| running.death());
    match report {
        _ if death.is_some() => Ok(Some(Err(death.unwrap_or_default()))),
        Some(report) if code == 0 || answered(&report, &job.figure) => Ok(Some(Ok(Turn { code, report }))),
        Some(report) => Ok(Some(Err(commonest_failure(&report)))),
        None if code == COULD_NOT_RUN && job.targets.len() > 1 => Ok(Some(Err(last_line(&output)))),
        None => Err(JobError::Load { command: job.load.words(), output }),
    }
}

/// Whether there is a figure in spite of failures.
fn answered(report: &Value, figure: &str) -> bool {
    number(report, "calls.ok").is_some_and(|ok| ok > 0.0)
        || number(report, figure).is_some_and(|figure| figure > 0.0)
}

fn commonest_failure(report: &Value) -> String {
    let details = report.pointer("/failures/details").and_then(Value::as_array);
    let count = |detail: &&Value| number(detail, "count").unwrap_or(0.0) as u64;
    let Some(most) = details.and_then(|d| d.iter().max_by_key(count)) else {
        return "no call was answered".to_owned();
    };
    let text = |key: &str| most[key].as_str().unwrap_or("").to_owned();
    format!("{} {} ({} times)", text("kind"), text("detail"), count(&most))
}

fn last_line(output: &str) -> String {
    output.lines().last().unwrap_or("no output").to_owned()
}
