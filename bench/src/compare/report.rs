//! What came of a job: per target its turns and their medians, and how the first target compares with the others. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::job::Job;
use super::stage::Stage;
use crate::targets::{GroupReport, TargetKind, TlsFacts};

/// A job's result.
#[derive(Debug, Serialize)]
pub struct CellReport {
    /// What sets this cell of a scenario's matrix apart; empty outside of one.
    pub cell: BTreeMap<String, Value>,
    /// The load command, without its target.
    pub load: String,
    /// Turns asked for per target.
    pub rounds: u32,
    /// Path of the figure compared.
    pub figure: String,
    /// Ended early by a signal.
    pub interrupted: bool,
    /// The targets in their order.
    pub targets: Vec<TargetReport>,
    /// The first target's figure divided by that of each other, by its name.
    pub ratio: BTreeMap<String, Ratio>,
}

/// What came of one target.
#[derive(Debug, Serialize)]
pub struct TargetReport {
    /// Its name in this run.
    pub name: String,
    /// What it is.
    pub kind: TargetKind,
    /// Worker threads.
    pub threads: u16,
    /// Its program's words about its version.
    pub version: Option<String>,
    /// What TLS it negotiates with us.
    pub tls: Option<TlsFacts>,
    /// Why it has no figures, or no further ones.
    pub cannot: Option<String>,
    /// Medians over its turns.
    pub median: Medians,
    /// Failures of all turns.
    pub failures: u64,
    /// Its memory group.
    pub memory: Option<GroupReport>,
    /// Why there is no memory group though one was asked for.
    pub no_group: Option<String>,
    /// Its turns.
    pub turns: Vec<Turn>,
}

/// One turn of a target.
#[derive(Debug, Serialize)]
pub struct Turn {
    /// The load command's exit code.
    pub code: i32,
    /// Its report.
    pub report: Value,
}

/// Medians over the turns; absent where the load reports no such figure.
#[derive(Debug, Serialize)]
pub struct Medians {
    /// The figure compared.
    pub figure: Option<f64>,
    /// CPU per call.
    pub cpu_us_per_call: Option<f64>,
    /// Of that, in user mode.
    pub user_us_per_call: Option<f64>,
    /// Of that, in the kernel.
    pub system_us_per_call: Option<f64>,
    /// Latency.
    pub p50_us: Option<f64>,
    /// Latency.
    pub p99_us: Option<f64>,
    /// Right answers per second.
    pub calls_per_s: Option<f64>,
    /// Of a load that holds connections: what each costs, idle.
    pub idle: Option<IdleBytes>,
}

/// What an idle connection costs the target (bytes).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct IdleBytes {
    /// Growth of resident memory per connection.
    pub resident: f64,
    /// Growth of its memory group per connection, the kernel's memory with it; absent without a group.
    pub group: Option<f64>,
}

/// Ratios of two targets' figures, one per round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many.
    pub rounds: usize,
}

impl CellReport {
    pub(super) fn build(
        job: &Job,
        stage: &mut Stage,
        turns: Vec<Vec<Turn>>,
        cannot: Vec<Option<String>>,
        interrupted: bool,
    ) -> Self {
        let mut targets = Vec::new();
        for ((place, turns), cannot) in stage.places.iter_mut().zip(turns).zip(cannot) {
            let median_of =
                |path: &str| median(turns.iter().filter_map(|t| number(&t.report, path)).collect());
            // A load without calls reports zeros for what it does not have.
            let of_calls = |path: &str| median_of(path).filter(|value| *value > 0.0);
            let mut report = TargetReport {
                name: place.spec.name.clone(),
                kind: place.spec.kind,
                threads: place.spec.threads,
                version: None,
                tls: None,
                cannot,
                median: Medians {
                    figure: median_of(&job.figure),
                    cpu_us_per_call: of_calls("server.cpu_us_per_call"),
                    user_us_per_call: of_calls("server.user_us_per_call"),
                    system_us_per_call: of_calls("server.system_us_per_call"),
                    p50_us: of_calls("latency.p50_us"),
                    p99_us: of_calls("latency.p99_us"),
                    calls_per_s: of_calls("calls.rate_per_s"),
                    idle: median_of("server.bytes_per_connection").filter(|_| job.load.kind == "hold").map(
                        |resident| IdleBytes {
                            resident,
                            group: median_of("server.cgroup.bytes_per_connection"),
                        },
                    ),
                },
                failures: turns.iter().filter_map(|t| number(&t.report, "failures.total")).sum::<f64>()
                    as u64,
                memory: None,
                no_group: None,
                turns,
            };
            if let Ok(running) = &mut place.running {
                report.version.clone_from(&running.version);
                report.tls.clone_from(&running.tls);
                report.no_group.clone_from(&running.no_group);
                report.memory = running.group_report();
            }
            targets.push(report);
        }
        Self {
            cell: BTreeMap::new(),
            load: job.load.words(),
            rounds: job.rounds,
            figure: job.figure.clone(),
            interrupted,
            ratio: ratios(&targets, &job.figure),
            targets,
        }
    }

    /// The target of this name.
    pub fn target(&self, name: &str) -> Option<&TargetReport> {
        self.targets.iter().find(|target| target.name == name)
    }
}

impl TargetReport {
    /// A figure of each of its turns, by its path.
    pub fn figures(&self, path: &str) -> Vec<f64> {
        self.turns.iter().filter_map(|turn| number(&turn.report, path)).collect()
    }
}

/// The number at a path like `server.threads.0.cores`.
pub(crate) fn number(report: &Value, path: &str) -> Option<f64> {
    report.pointer(&format!("/{}", path.replace('.', "/")))?.as_f64()
}

/// The middle value; the mean of the two in the middle where their number is even.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

fn ratios(targets: &[TargetReport], figure: &str) -> BTreeMap<String, Ratio> {
    let Some((first, others)) = targets.split_first() else { return BTreeMap::new() };
    others
        .iter()
        .filter_map(|other| {
            let pairs = first.turns.iter().zip(&other.turns);
            let values: Vec<_> = pairs
                .filter_map(|(a, b)| Some(number(&a.report, figure)? / number(&b.report, figure)?))
                .filter(|ratio| ratio.is_finite())
                .collect();
            let ratio = Ratio {
                rounds: values.len(),
                min: values.iter().copied().fold(f64::INFINITY, f64::min),
                max: values.iter().copied().fold(0.0, f64::max),
                median: median(values)?,
            };
            Some((other.name.clone(), ratio))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn target(name: &str, figures: &[f64]) -> TargetReport {
        TargetReport {
            name: name.to_owned(),
            kind: TargetKind::Gateway,
            threads: 1,
            version: None,
            tls: None,
            cannot: None,
            median: Medians {
                figure: None,
                cpu_us_per_call: None,
                user_us_per_call: None,
                system_us_per_call: None,
                p50_us: None,
                p99_us: None,
                calls_per_s: None,
                idle: None,
            },
            failures: 0,
            memory: None,
            no_group: None,
            turns: figures.iter().map(|f| Turn { code: 0, report: json!({"a": {"b": f}}) }).collect(),
        }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let targets = [
            target("ours", &[8.0, 12.0, 30.0]),
            target("theirs", &[10.0, 12.0, 20.0]),
            target("silent", &[0.0]),
            target("absent", &[]),
        ];
        let ratios = ratios(&targets, "a.b");
        // Not the ratio of the medians (1.0 by chance of round 2 only): 0.8, 1.0 and 1.5.
        assert_eq!(ratios["theirs"], Ratio { median: 1.0, min: 0.8, max: 1.5, rounds: 3 });
        assert_eq!(ratios.len(), 1);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
