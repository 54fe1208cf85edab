//! Args → run → report → exit code; everything else is in the library.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufWriter, Write};
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
        Command::Overload(args) => load(args.plan(), args.load()),
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
    write_report(&report, args)?;
    Ok(report.measured_anything() && report.failures.total <= args.max_errors)
}

/// The table goes to standard output, or to standard error where the JSON takes its place. The files come first: a reader
/// of the output that goes away costs nobody the result.
fn write_report(report: &Report, args: &LoadArgs) -> Result<(), Box<dyn Error>> {
    if let Some(path) = &args.hdr {
        write_file(path, |out| report.write_hdr(out))?;
    }
    if let Some(path) = &args.html {
        write_file(path, |out| report.write_html(out))?;
    }
    match &args.json {
        None => write!(io::stdout(), "{report}")?,
        Some(path) if path == Path::new("-") => {
            write!(io::stderr(), "{report}")?;
            writeln!(io::stdout(), "{}", serde_json::to_string_pretty(report)?)?;
        }
        Some(path) => {
            write_file(path, |out| {
                serde_json::to_writer_pretty(&mut *out, report)?;
                out.write_all(b"\n")
            })?;
            write!(io::stdout(), "{report}")?;
        }
    }
    Ok(())
}

/// Writes a file whole; an error names it.
fn write_file(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), Box<dyn Error>> {
    let write = || {
        let mut out = BufWriter::new(File::create(path)?);
        content(&mut out)?;
        out.flush()
    };
    write().map_err(|e| format!("{}: {e}", path.display()).into())
}
