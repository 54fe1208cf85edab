//! A scenario's matrix spread out: each combination of its values is a job. Pure, and complete before anything is started,
//! so that a wrong word in the last cell does not show after an hour.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value as Json;
use toml::{Table, Value};

use super::file::ScenarioFile;
use super::options::{options, scale};
use crate::compare::{Job, Load, MAX_ROUNDS, check_names, check_upstream};
use crate::targets::{TargetKind, TargetSpec};

/// Cells of one scenario at most.
const MAX_CELLS: usize = 1000;

/// What the command line says over the file.
#[derive(Clone, Debug)]
pub struct Overrides {
    /// Multiplies connections and times.
    pub scale: f64,
    /// Turns of each target.
    pub rounds: Option<u32>,
    /// The gateway's program.
    pub gateway: Option<PathBuf>,
}

impl Default for Overrides {
    fn default() -> Self {
        Self { scale: 1.0, rounds: None, gateway: None }
    }
}

/// One combination of the matrix.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The matrix's values in it, as the file has them.
    pub values: BTreeMap<String, Json>,
    /// What is measured.
    pub job: Job,
}

/// Which table a matrix's key goes to.
#[derive(Clone, Copy, Debug)]
enum Into {
    Upstream,
    Target,
    Load,
}

type Choice<'a> = (Into, &'a String, &'a Value);

/// All cells of a scenario; the load varies fastest, so that upstream and targets are started seldom.
///
/// # Errors
/// A sentence that names what is wrong.
pub fn cells(file: &ScenarioFile, over: &Overrides) -> Result<Vec<Cell>, String> {
    let rounds = over.rounds.unwrap_or(file.compare.rounds);
    if !(1..=MAX_ROUNDS).contains(&rounds) {
        return Err(format!("compare.rounds: 1 to {MAX_ROUNDS}, not {rounds}"));
    }
    let cells = combinations(file)?
        .into_iter()
        .map(|choices| cell(file, &choices, rounds, over))
        .collect::<Result<Vec<_>, _>>()?;
    for goal in &file.goals {
        goal.check(&cells)?;
    }
    Ok(cells)
}

fn combinations(file: &ScenarioFile) -> Result<Vec<Vec<Choice<'_>>>, String> {
    let matrix = &file.matrix;
    let tables =
        [(Into::Target, &matrix.target), (Into::Upstream, &matrix.upstream), (Into::Load, &matrix.load)];
    let mut all: Vec<Vec<Choice<'_>>> = vec![Vec::new()];
    for (into, table) in tables {
        for (key, values) in table {
            let Some(values) = values.as_array().filter(|values| !values.is_empty()) else {
                return Err(format!("matrix: `{key}` is no list of values"));
            };
            if all[0].iter().any(|(_, other, _)| *other == key) {
                return Err(format!("matrix: `{key}` is in two tables"));
            }
            if all.len() * values.len() > MAX_CELLS {
                return Err(format!("matrix: more than {MAX_CELLS} cells"));
            }
            all = all
                .into_iter()
                .flat_map(|cell| values.iter().map(move |value| [&cell[..], &[(into, key, value)]].concat()))
                .collect();
        }
    }
    Ok(all)
}

fn cell(file: &ScenarioFile, choices: &[Choice<'_>], rounds: u32, over: &Overrides) -> Result<Cell, String> {
    let (mut upstream, mut targets, mut load) =
        (file.upstream.clone(), file.targets.clone(), file.load.clone());
    let mut values = BTreeMap::new();
    for (into, key, value) in choices {
        let put = |table: &mut Table| drop(table.insert((*key).clone(), (*value).clone()));
        match into {
            Into::Upstream => put(&mut upstream),
            Into::Target => targets.iter_mut().for_each(put),
            Into::Load => put(&mut load),
        }
        values.insert((*key).clone(), serde_json::to_value(value).map_err(|e| e.to_string())?);
    }
    let job = Job {
        upstream: options(&upstream)?,
        targets: targets.into_iter().map(|table| target(table, over)).collect::<Result<_, _>>()?,
        load: load_of(load, over.scale)?,
        rounds,
        figure: file.compare.figure.clone(),
    };
    check_names(&job.targets).map_err(|e| e.to_string())?;
    check_upstream(&job.upstream)?;
    for target in &job.targets {
        job.load.with(&target.load_options).check()?;
    }
    Ok(Cell { values, job })
}

fn target(mut table: Table, over: &Overrides) -> Result<TargetSpec, String> {
    let load_options = match table.remove("load") {
        None => Vec::new(),
        Some(Value::Table(mut load)) => {
            scale(&mut load, over.scale);
            options(&load)?
        }
        Some(other) => return Err(format!("target.load: `{other}` is no table")),
    };
    let mut spec: TargetSpec = table.try_into().map_err(|e: toml::de::Error| format!("target: {e}"))?;
    spec.load_options = load_options;
    if spec.name.is_empty() {
        spec.kind.name().clone_into(&mut spec.name);
    }
    if spec.kind == TargetKind::Gateway && over.gateway.is_some() {
        spec.program.clone_from(&over.gateway);
    }
    spec.check().map_err(|e| e.to_string())?;
    Ok(spec)
}

fn load_of(mut table: Table, factor: f64) -> Result<Load, String> {
    let mut text = |key: &str| match table.remove(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("load.{key}: `{other}` is no text")),
    };
    let kind = text("kind")?.ok_or("load.kind is missing: the load command, like \"run\"")?;
    let tool = text("tool")?;
    scale(&mut table, factor);
    Ok(Load { kind, tool, options: options(&table)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> ScenarioFile {
        let head = "title = 't'\nwhy = 'w'\n";
        toml::from_str(&format!("{head}{text}")).unwrap()
    }

    const MATRIX: &str = "
        [[target]]
        kind = 'gateway'
        [[target]]
        kind = 'haproxy'
        [load]
        kind = 'run'
        tool = 'fixed'
        duration = '2s'
        [compare]
        rounds = 3
        [matrix.upstream]
        answer = ['json', 'sse']
        [matrix.load]
        connections = [1, 64]
        [[goal]]
        figure = 'ratio.haproxy'
        max = 0.8
        where = { connections = 64 }
    ";

    #[test]
    fn a_matrix_is_spread_out_with_the_load_varying_fastest() {
        let cells = cells(&file(MATRIX), &Overrides::default()).unwrap();
        let seen: Vec<_> = cells
            .iter()
            .map(|c| format!("{} {}", c.job.upstream.join(" "), c.job.load.options.join(" ")))
            .collect();
        assert_eq!(
            seen,
            [
                "--answer json --connections 1 --duration 2s",
                "--answer json --connections 64 --duration 2s",
                "--answer sse --connections 1 --duration 2s",
                "--answer sse --connections 64 --duration 2s"
            ]
        );
        assert_eq!(cells[1].values["connections"], 64);
        assert_eq!(cells[0].job.rounds, 3);
        assert_eq!(cells[0].job.targets[1].name, "haproxy");
    }

    #[test]
    fn what_the_command_line_says_wins_and_labels_stay() {
        let over = Overrides { scale: 0.5, rounds: Some(1), gateway: Some("/g".into()) };
        let cells = cells(&file(MATRIX), &over).unwrap();
        assert_eq!(cells[1].job.load.options.join(" "), "--connections 32 --duration 1000ms");
        assert_eq!((cells[1].job.rounds, &cells[1].values["connections"]), (1, &Json::from(64)));
        assert_eq!(cells[1].job.targets[0].program, Some("/g".into()));
        assert_eq!(cells[1].job.targets[1].program, None);
    }

    #[test]
    fn wrong_words_are_found_before_anything_runs() {
        let cases = [
            ("[[target]]\nkind='gateway'\n[load]\nkind='fly'", "fly"),
            ("[[target]]\nkind='gateway'\n[load]\nkind='run'\nspeed=1", "--speed"),
            ("[[target]]\nkind='gateway'\nload={speed=1}\n[load]\nkind='run'", "--speed"),
            ("[[target]]\nkind='gateway'\nload=1\n[load]\nkind='run'", "load"),
            ("[[target]]\nkind='gateway'\nshape=1\n[load]\nkind='run'", "shape"),
            ("[[target]]\nkind='gateway'\n[[target]]\nkind='gateway'\n[load]\nkind='run'", "name"),
            ("[upstream]\nx=1\n[[target]]\nkind='gateway'\n[load]\nkind='run'", "--x"),
            ("[[target]]\nkind='gateway'\n[load]\nkind='run'\n[matrix.load]\nconnections=5", "connections"),
            ("[[target]]\nkind='gateway'\n[load]\nkind='run'\n[[goal]]\nfigure='a'", "min"),
            ("[[target]]\nkind='gateway'\n[load]\nkind='run'\n[[goal]]\nfigure='ratio.x'\nmax=1", "x"),
        ];
        for (text, word) in cases {
            let error = cells(&file(text), &Overrides::default()).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        let cell_that_is_not = MATRIX.replace("{ connections = 64 }", "{ connections = 65 }");
        assert!(cells(&file(&cell_that_is_not), &Overrides::default()).unwrap_err().contains("65"));
    }
}
