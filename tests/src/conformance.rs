//! Owns runs of the official suite `@modelcontextprotocol/conformance` and the reading of their results, down to every check.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::peers::{installed, node, peers};
use crate::{Gateway, Process, TempDir, TestCert};

/// How long the tunnel may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a run of the suite may take; its scenarios have limits of their own.
const RUN_LIMIT: Duration = Duration::from_secs(600);
/// Length of the time stamp at the end of the name of a result's directory, with its hyphen.
const STAMP_LEN: usize = "-2026-07-28T00-00-00-000Z".len();

/// How a check ended, mildest first: of checks of one name the worst counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Tells something, judges nothing.
    Info,
    /// Held.
    Success,
    /// Could not be tried.
    Skipped,
    /// A SHOULD that did not hold.
    Warning,
    /// A MUST that did not hold.
    Failure,
}

/// A check's verdict and, when it did not hold, why.
#[derive(Debug, Clone)]
pub struct Check {
    /// How it ended.
    pub verdict: Verdict,
    /// The suite's message.
    pub message: String,
}

/// What a run came to: per scenario, per check.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Checks by name, by scenario.
    pub scenarios: BTreeMap<String, BTreeMap<String, Check>>,
}

/// The scenarios that cannot do with TLS (as of 0.2.0-alpha.12): the first names a host that no certificate of the gateway's
/// may be valid for, the others speak plain HTTP whatever the URL says.
const TUNNELLED: [&str; 3] =
    ["dns-rebinding-protection", "http-header-validation", "http-custom-header-server-validation"];

/// Runs all that `revision` requires, and what the suite adds unscored, against the server at `url`.
///
/// # Panics
/// When the suite is not installed, does not end, or leaves no results.
#[must_use]
pub fn run_directly(url: &str, revision: &str) -> Report {
    run(url, &["--requirements", revision], None)
}

/// As [`run_directly`], through a gateway, at its endpoint of `server`. The scenarios that cannot do with TLS go
/// through a tunnel.
///
/// # Panics
/// When the suite is not installed, does not end, or leaves no results.
#[must_use]
pub fn run_through(gateway: &Gateway, server: &str, revision: &str) -> Report {
    let mut report = run(&gateway.url(server), &["--requirements", revision], Some(&gateway.cert));
    let tunnelled: Vec<&str> =
        TUNNELLED.into_iter().filter(|name| report.scenarios.contains_key(*name)).collect();
    let tunnel = Tunnel::to(gateway);
    let url = format!("http://127.0.0.1:{}/mcp/{server}", tunnel.port);
    for scenario in tunnelled {
        let again = run(&url, &["--scenario", scenario, "--spec-version", revision], None);
        report.scenarios.extend(again.scenarios);
    }
    report
}

fn run(url: &str, what: &[&str], cert: Option<&TestCert>) -> Report {
    let results = TempDir::new();
    let mut command = node();
    command
        .arg(installed("node/node_modules/@modelcontextprotocol/conformance/dist/index.js"))
        .args(["server", "--url", url])
        .args(what)
        .arg("--output-dir")
        .arg(results.path())
        .current_dir(results.path());
    if let Some(cert) = cert {
        command.envs(cert.client_env());
    }
    let finished = Process::start("conformance", &mut command).finish(RUN_LIMIT);
    let report = Report::read(results.path());
    assert!(!report.scenarios.is_empty(), "the suite left nothing:\n{}", finished.stderr.join("\n"));
    report
}

/// A tunnel from plain TCP to a gateway's TLS.
struct Tunnel {
    port: String,
    _process: Process,
}

impl Tunnel {
    fn to(gateway: &Gateway) -> Self {
        let mut command = node();
        command.arg(peers().join("node/tunnel.mjs"));
        command.args([gateway.addr.ip().to_string(), gateway.addr.port().to_string()]);
        let mut process = Process::start("tunnel", command.envs(gateway.cert.client_env()));
        let port = process.wait_line(START_LIMIT, |line| line.strip_prefix("ready ").map(str::to_owned));
        Self { port, _process: process }
    }
}

/// The scenarios that pass directly, as `tests/peers/conformance-baseline.json` has them for `revision`.
///
/// # Panics
/// When the file is not of its form.
#[must_use]
pub fn baseline(revision: &str) -> Vec<String> {
    let path = peers().join("conformance-baseline.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let all: Value = serde_json::from_str(&text).expect("the baseline is JSON");
    let passing = all[revision]["pass"].as_array().expect("the baseline has the revision");
    passing.iter().map(|name| name.as_str().expect("names are strings").to_owned()).collect()
}

impl Report {
    /// The scenarios in which no check failed or warned, and at least one held.
    #[must_use]
    pub fn passing(&self) -> Vec<String> {
        let good = |checks: &BTreeMap<String, Check>| {
            checks.values().all(|check| check.verdict < Verdict::Warning)
                && checks.values().any(|check| check.verdict == Verdict::Success)
        };
        self.scenarios.iter().filter(|(_, checks)| good(checks)).map(|(name, _)| name.clone()).collect()
    }

    /// What held in `self` and did not in `other`, one line per check, empty when all did.
    #[must_use]
    pub fn lost_in(&self, other: &Self) -> String {
        let mut lost = String::new();
        for (scenario, checks) in &self.scenarios {
            let theirs = other.scenarios.get(scenario);
            for (name, check) in checks.iter().filter(|(_, check)| check.verdict == Verdict::Success) {
                let their = theirs.and_then(|checks| checks.get(name));
                if their.is_some_and(|their| their.verdict <= check.verdict) {
                    continue;
                }
                let got = their.map_or("not there".to_owned(), |their| {
                    format!("{:?}: {}", their.verdict, their.message)
                });
                // Writing to a string cannot fail.
                let _ = writeln!(lost, "{scenario} / {name}: {got}");
            }
        }
        lost
    }

    fn read(results: &Path) -> Self {
        let mut report = Self::default();
        for entry in std::fs::read_dir(results).expect("the results' directory").flatten() {
            let Ok(text) = std::fs::read_to_string(entry.path().join("checks.json")) else { continue };
            let name = entry.file_name().to_string_lossy().into_owned();
            let scenario =
                name.strip_prefix("server-").and_then(|name| name.get(..name.len().checked_sub(STAMP_LEN)?));
            let scenario = scenario.unwrap_or_else(|| panic!("{name} is no name of results"));
            let checks: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            report.scenarios.insert(scenario.to_owned(), collect(&checks));
        }
        report
    }
}

fn collect(checks: &Value) -> BTreeMap<String, Check> {
    let mut all: BTreeMap<String, Check> = BTreeMap::new();
    for check in checks.as_array().into_iter().flatten() {
        let verdict = match check["status"].as_str() {
            Some("SUCCESS") => Verdict::Success,
            Some("INFO") => Verdict::Info,
            Some("SKIPPED") => Verdict::Skipped,
            Some("WARNING") => Verdict::Warning,
            _ => Verdict::Failure,
        };
        let id = check["id"].as_str().unwrap_or_default().to_owned();
        let message = check["errorMessage"].as_str().unwrap_or_default().to_owned();
        let worst = all.entry(id).or_insert(Check { verdict, message: message.clone() });
        if worst.verdict < verdict {
            *worst = Check { verdict, message };
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(json: &str) -> Report {
        let dir = TempDir::new();
        let results = dir.path().join("server-tools-list-2026-07-28T00-00-00-000Z");
        std::fs::create_dir(&results).expect("made");
        std::fs::write(results.join("checks.json"), json).expect("written");
        Report::read(dir.path())
    }

    #[test]
    fn the_worst_of_a_checks_verdicts_counts() {
        let good = report(r#"[{"id":"a","status":"SUCCESS"},{"id":"b","status":"INFO"}]"#);
        assert_eq!(good.passing(), ["tools-list"]);
        let bad =
            report(r#"[{"id":"a","status":"SUCCESS"},{"id":"a","status":"WARNING","errorMessage":"late"}]"#);
        assert_eq!(bad.passing(), [""; 0]);
        assert_eq!(good.lost_in(&bad), "tools-list / a: Warning: late\n");
        assert_eq!(good.lost_in(&good), "");
        assert_eq!(good.lost_in(&Report::default()), "tools-list / a: not there\n");
    }
}
