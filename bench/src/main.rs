//! Args → run → exit code; everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use mcp_bench::args::{Cli, Command};
use mcp_bench::upstream;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Upstream(args) => upstream::run(&args.options()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("mcp-bench: {e}");
            ExitCode::FAILURE
        }
    }
}
