//! The command line: owns subcommands, where the configuration comes from, and exit codes. 0: fine; 1: the gateway could
//! not come up; 2: the configuration or the command line is wrong. `connect` says its own ([`crate::connect`]).

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mcp_config::Config;

use crate::connect::{self, ConnectArgs};
use crate::reload::log::LogLevel;
use crate::reload::source::Source;
use crate::{boot, keeper};

const EXIT_CONFIG: u8 = 2;

/// A sharded gateway in front of MCP servers.
#[derive(Parser)]
#[command(version, about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration file (TOML); without one, embedded defaults and a demo server.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve (what is done without a subcommand).
    Serve,
    /// Check a configuration file and the environment's overrides; prints every problem.
    Check {
        /// The file to check.
        file: PathBuf,
    },
    /// Print the effective configuration, every key with its value.
    PrintConfig,
    /// Be a stdio MCP server that is a gateway's: messages are lines of standard input and output.
    Connect(ConnectArgs),
    /// What the gateway starts for itself where it has stdio servers.
    #[command(name = KEEP_PROCESSES, hide = true)]
    KeepProcesses,
}

/// The subcommand of [`keeper`].
pub(crate) const KEEP_PROCESSES: &str = "keep-processes";

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs the program with these arguments, the first of which is the program's name. It claims what a process has once: the
/// log, the panic hook, SIGTERM and SIGINT; a command line that is wrong ends the process.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = Cli::parse_from(arguments);
    let source = Source { file: cli.config };
    match cli.command {
        Some(Command::Check { file }) => match (Source { file: Some(file.clone()) }).read() {
            Ok(_) => say(&format!("{}: ok\n", file.display())),
            Err(text) => refuse(&text),
        },
        Some(Command::PrintConfig) => match source.read() {
            Ok(config) => say(&config.to_toml()),
            Err(text) => refuse(&text),
        },
        Some(Command::Connect(args)) => connect::main(args),
        Some(Command::KeepProcesses) => keeper::main(),
        None | Some(Command::Serve) => match source.read() {
            Ok(config) => serve(source, config),
            Err(text) => refuse(&text),
        },
    }
}

fn serve(source: Source, config: Config) -> ExitCode {
    let log = LogLevel::start(&config.log);
    match boot::serve(source, config, log) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("mcp-gateway: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(text: &str) {
    // Nothing can be done about a standard error that is gone.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn refuse(text: &str) -> ExitCode {
    complain(text.trim_end());
    complain("\n");
    ExitCode::from(EXIT_CONFIG)
}
