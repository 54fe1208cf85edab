//! Args → run → report → exit code; everything else is in the library.

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use mcp_bench::args::{Cli, Command, LoadArgs};
use mcp_bench::load::{self, Plan};
use mcp_bench::report::Report;
use mcp_bench::{compare, scenario, upstream};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => load(args.plan(), args.load()),
        Command::Hold(args) => load(args.plan(), args.load()),
        Command::Handshake(args) => load(args.plan(), args.load()),
        Command::Stream(args) => load(args.plan(), args.load()),
        Command::Upstream(args) => upstream::run(&args.options()).map(|()| true).map_err(Into::into),
        Command::Compare(args) => compare::compare(&args).map_err(Into::into),
        Command::Scenario(args) => scenario::scenario(&args),
        Command::Idle(args) => scenario::idle(&args).map(|()| true).map_err(Into::into),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("mcp-bench: {e}");
            ExitCode::from(2)
        }
    }
}

/// Runs a plan and writes its report. Whether it succeeded: calls were answered, and few enough failed.
fn load(plan: Result<Plan, impl Error + 'static>, args: &LoadArgs) -> Result<bool, Box<dyn Error>> {
    let report = load::run(&plan?)?;
    write_report(&report, args.json.as_deref())?;
    Ok(report.measured_anything() && report.failures.total <= args.max_errors)
}

/// The table goes to standard output, or to standard error where the JSON takes its place.
fn write_report(report: &Report, json: Option<&Path>) -> Result<(), Box<dyn Error>> {
    match json {
        None => write!(io::stdout(), "{report}")?,
        Some(path) if path == Path::new("-") => {
            write!(io::stderr(), "{report}")?;
            writeln!(io::stdout(), "{}", serde_json::to_string_pretty(report)?)?;
        }
        Some(path) => {
            write!(io::stdout(), "{report}")?;
            let mut file = File::create(path).map_err(|e| format!("{}: {e}", path.display()))?;
            serde_json::to_writer_pretty(&mut file, report)?;
            file.write_all(b"\n")?;
        }
    }
    Ok(())
}
