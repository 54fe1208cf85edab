//! The command line of `mcp-bench compare`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::job::{Job, Load, check_upstream};
use super::stage::{JobError, Stage};
use super::turns::{self, Manner};
use super::{DEFAULT_FIGURE, MAX_ROUNDS, MAX_TARGETS};
use crate::sys::StopSignals;
use crate::targets::{TargetKind, TargetSpec};

/// Options of `mcp-bench compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Targets, the first of which is compared with each other one
    #[arg(long, value_enum, value_delimiter = ',', default_value = "gateway,haproxy")]
    targets: Vec<TargetKind>,
    /// Turns of each target
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=MAX_ROUNDS as i64))]
    rounds: u32,
    /// Connections of each turn
    #[arg(long, value_name = "N")]
    connections: Option<u32>,
    /// Measured time of each turn
    #[arg(long, value_name = "DURATION")]
    duration: Option<String>,
    /// Time under load before it
    #[arg(long, value_name = "DURATION")]
    warmup: Option<String>,
    /// MCP revision to speak
    #[arg(long)]
    revision: Option<String>,
    /// The load command of a turn
    #[arg(long, default_value = "run")]
    load: String,
    /// Path in the load's JSON report of the figure that is compared
    #[arg(long, value_name = "PATH", default_value = DEFAULT_FIGURE)]
    figure: String,
    /// Worker threads of each target
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// CPUs that each target may use, as in 0,1 [default: all]
    #[arg(long, value_delimiter = ',', value_name = "CPU")]
    cpus: Vec<usize>,
    /// The gateway's program [default: mcp-gateway beside this one, or in PATH]
    #[arg(long, value_name = "PATH")]
    gateway: Option<PathBuf>,
    /// The gateway's connection driver: io_uring or epoll
    #[arg(long)]
    driver: Option<String>,
    /// Memory limit of each target, like 2GiB
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<String>,
    /// Where the target `url` is
    #[arg(long)]
    url: Option<String>,
    /// The process of the target `url`
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Put before the tool's name in calls to the target `url`
    #[arg(long, value_name = "TEXT", default_value = "")]
    tool_prefix: String,
    /// Go on without a target that is not installed
    #[arg(long)]
    skip_missing: bool,
    /// How the upstream answers: json or sse
    #[arg(long, value_name = "FORM")]
    upstream_answer: Option<String>,
    /// Bytes that the upstream's tool `fixed` returns; calls it
    #[arg(long, value_name = "N")]
    result_bytes: Option<u32>,
    /// Threads of the upstream
    #[arg(long, default_value_t = 1, value_name = "N")]
    upstream_threads: u16,
    /// Write the result as JSON to a file, or to standard output with `-`
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Further options of the load command, behind `--`
    #[arg(last = true, value_name = "OPTION")]
    more: Vec<String>,
}

/// Runs the comparison and prints it. Whether every target answered every call.
///
/// # Errors
/// [`JobError`].
pub fn compare(args: &CompareArgs) -> Result<bool, JobError> {
    let job = args.job()?;
    let signals = StopSignals::block()?;
    let mut stage = Stage::open(&job.upstream, &job.targets, args.skip_missing)?;
    let report = turns::run(&job, &mut stage, Manner { signals: &signals, visible: false })?;
    drop(stage);
    write_report(&report, args.json.as_deref())?;
    let clean = |t: &super::TargetReport| t.failures == 0 && !t.turns.is_empty();
    Ok(!report.interrupted && report.targets.iter().all(clean))
}

impl CompareArgs {
    fn job(&self) -> Result<Job, JobError> {
        let mut targets = Vec::new();
        for kind in &self.targets {
            let spec = self.target(*kind);
            spec.check()?;
            targets.push(spec);
        }
        check_names(&targets)?;
        let mut upstream = vec![format!("--threads={}", self.upstream_threads)];
        let mut options = Vec::new();
        let push = |list: &mut Vec<String>, name: &str, value: Option<String>| {
            list.extend(value.map(|value| format!("--{name}={value}")));
        };
        push(&mut upstream, "answer", self.upstream_answer.clone());
        push(&mut upstream, "result-bytes", self.result_bytes.map(|n| n.to_string()));
        push(&mut options, "connections", self.connections.map(|n| n.to_string()));
        push(&mut options, "duration", self.duration.clone());
        push(&mut options, "warmup", self.warmup.clone());
        push(&mut options, "revision", self.revision.clone());
        options.extend_from_slice(&self.more);
        let load =
            Load { kind: self.load.clone(), options, tool: self.result_bytes.map(|_| "fixed".to_owned()) };
        check_upstream(&upstream).map_err(JobError::Spec)?;
        load.check().map_err(JobError::Spec)?;
        Ok(Job { upstream, targets, load, rounds: self.rounds, figure: self.figure.clone() })
    }

    fn target(&self, kind: TargetKind) -> TargetSpec {
        let mut spec = TargetSpec::new(kind);
        spec.threads = self.threads;
        spec.cpus.clone_from(&self.cpus);
        spec.memory_limit.clone_from(&self.memory_limit);
        match kind {
            TargetKind::Gateway => {
                spec.program.clone_from(&self.gateway);
                if let Some(driver) = &self.driver {
                    let runtime = toml::Table::from_iter([("driver".to_owned(), driver.clone().into())]);
                    let gateway = toml::Table::from_iter([("runtime".to_owned(), runtime.into())]);
                    spec.config.insert("gateway".to_owned(), gateway.into());
                }
            }
            TargetKind::Url => {
                spec.url.clone_from(&self.url);
                spec.server_pid = self.server_pid;
                spec.tool_prefix.clone_from(&self.tool_prefix);
            }
            _ => {}
        }
        spec
    }
}

/// Names tell targets apart, and there is a limit to their number.
pub(crate) fn check_names(targets: &[TargetSpec]) -> Result<(), JobError> {
    let names: BTreeSet<_> = targets.iter().map(|target| &target.name).collect();
    if targets.is_empty() || targets.len() > MAX_TARGETS {
        return Err(JobError::Spec(format!("1 to {MAX_TARGETS} targets, not {}", targets.len())));
    }
    if names.len() < targets.len() {
        return Err(JobError::Spec("each target needs a name of its own".to_owned()));
    }
    Ok(())
}

/// The table goes to standard output, or to standard error where the JSON takes its place.
pub(crate) fn write_report<R: Serialize + std::fmt::Display>(
    report: &R,
    json: Option<&Path>,
) -> Result<(), JobError> {
    match json {
        Some(path) if path == Path::new("-") => {
            write!(io::stderr(), "{report}")?;
            serde_json::to_writer_pretty(io::stdout(), report).map_err(io::Error::from)?;
            writeln!(io::stdout())?;
        }
        _ => write!(io::stdout(), "{report}")?,
    }
    if let Some(path) = json.filter(|path| *path != Path::new("-")) {
        let mut file = File::create(path)?;
        serde_json::to_writer_pretty(&mut file, report).map_err(io::Error::from)?;
        file.write_all(b"\n")?;
    }
    Ok(())
}
