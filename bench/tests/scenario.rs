//! `mcp-bench scenario`: files run cell by cell, goals decide the exit code, and every scenario that ships is valid.

#![allow(clippy::unwrap_used, reason = "a failure in a test is its message")]

mod common;

use std::path::{Path, PathBuf};

use common::{bench, report};
use mcp_bench::scenario::{Overrides, ScenarioFile, cells};

/// Two cells on the bundled upstream alone.
const SMALL: &str = r#"
title = "Small"
why = "To test the tool."
[[target]]
kind = "direct"
[load]
kind = "run"
duration = "400ms"
warmup = "0ms"
[matrix.upstream]
answer = ["json", "sse"]
[matrix.load]
connections = [2, 4]
[[goal]]
figure = "failures.total"
max = 0
[[goal]]
figure = "connections.opened"
over = "connections.wanted"
min = 1
max = 1
where = { connections = 4, answer = "sse" }
"#;

#[test]
fn each_combination_is_a_cell_and_each_goal_is_checked_where_it_counts() {
    let file = file("small", SMALL);
    let (code, report) = report(&["scenario", &file, "--scale", "0.5"]);
    assert_eq!(code, 0, "{report:#}");
    let cells: Vec<_> = report["cells"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cell| {
            let opened = &cell["targets"][0]["turns"][0]["report"]["connections"]["opened"];
            (cell["cell"]["answer"].as_str().unwrap(), opened.as_u64().unwrap())
        })
        .collect();
    assert_eq!(cells, [("json", 1), ("json", 2), ("sse", 1), ("sse", 2)]);
    let goals = report["goals"].as_array().unwrap();
    assert_eq!(goals.len(), 5, "{goals:#?}");
    assert!(goals.iter().all(|goal| goal["verdict"] == "met"), "{goals:#?}");
}

#[test]
fn a_goal_that_is_missed_or_has_no_figure_is_no_success() {
    for (change, verdict) in [("min = 2\nmax = 2", "missed"), ("min = 1\nmax = 1", "no-figure")] {
        let mut text = SMALL.replace("[2, 4]", "[4]").replace("\"json\", \"sse\"", "\"sse\"");
        text = text.replace("min = 1\nmax = 1", change);
        if verdict == "no-figure" {
            text = text.replace("connections.opened", "connections.imagined");
        }
        let (code, report) = report(&["scenario", &file(verdict, &text)]);
        assert_eq!(code, 1, "{report:#}");
        assert_eq!(report["goals"][1]["verdict"], verdict, "{:#}", report["goals"]);
    }
}

#[test]
fn a_process_that_is_not_called_is_watched() {
    let text = "title = 't'\nwhy = 'w'\n[[target]]\nkind = 'direct'\n[load]\nkind = 'idle'\nduration = '300ms'\nsettle = '10ms'\n[[goal]]\nfigure = 'resident_bytes'\nmin = 1";
    let (code, report) = report(&["scenario", &file("idle", text)]);
    assert_eq!(code, 0, "{report:#}");
    let seen = &report["cells"][0]["targets"][0]["turns"][0]["report"];
    assert!(seen["duration_s"].as_f64() >= Some(0.3), "{seen:#}");
}

#[test]
fn a_wrong_file_is_named_with_what_is_wrong() {
    let wrong = SMALL.replace("warmup", "warm_up");
    let output = bench(&["scenario", &file("wrong", &wrong)]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("wrong.toml") && told.contains("--warm-up"), "{told}");
}

#[test]
fn every_scenario_that_ships_is_valid_and_listed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let output = bench(&["scenario", "--list", folder.to_str().unwrap()]);
    let listed = String::from_utf8(output.stdout).unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let scenario = ScenarioFile::read(&path).unwrap_or_else(|e| panic!("{e}"));
        let cells = cells(&scenario, &Overrides::default());
        assert!(cells.is_ok_and(|cells| !cells.is_empty()), "{}", path.display());
        assert!(!scenario.goals.is_empty(), "{} has no goal", path.display());
        assert!(listed.contains(&scenario.title), "{} is not listed:\n{listed}", path.display());
        count += 1;
    }
    assert!(count >= 13, "{count} scenarios in {}", folder.display());
}

fn file(name: &str, text: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("scenarios");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{name}.toml"));
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}
