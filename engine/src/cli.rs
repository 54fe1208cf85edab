//! The command line: owns subcommands, where the configuration comes from, and exit codes. 0: fine; 1: the gateway could
//! not come up; 2: the configuration or the command line is wrong. `connect` says its own ([`crate::connect`]).

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mcp_config::{Config, Level, LogFormat};

use crate::connect::{self, ConnectArgs};
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
    match cli.command {
        Some(Command::Check { file }) => match load(Some(&file)) {
            Ok(_) => say(&format!("{}: ok\n", file.display())),
            Err(text) => refuse(&text),
        },
        Some(Command::PrintConfig) => match load(cli.config.as_deref()) {
            Ok(config) => say(&config.to_toml()),
            Err(text) => refuse(&text),
        },
        Some(Command::Connect(args)) => connect::main(args),
        Some(Command::KeepProcesses) => keeper::main(),
        None | Some(Command::Serve) => match load(cli.config.as_deref()) {
            Ok(config) => serve(config),
            Err(text) => refuse(&text),
        },
    }
}

fn serve(config: Config) -> ExitCode {
    start_log(&config);
    match boot::serve(config) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("mcp-gateway: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

fn load(file: Option<&Path>) -> Result<Config, String> {
    let text = match file {
        None => None,
        Some(file) => {
            let text =
                std::fs::read_to_string(file).map_err(|error| format!("{}: {error}\n", file.display()))?;
            Some((file.display().to_string(), text))
        }
    };
    let environment = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    let source = text.as_ref().map(|(origin, text)| (origin.as_str(), text.as_str()));
    Config::load(source, environment).map_err(|errors| errors.to_string())
}

fn start_log(config: &Config) {
    let level = match config.log.level {
        Level::Trace => tracing::Level::TRACE,
        Level::Debug => tracing::Level::DEBUG,
        Level::Info => tracing::Level::INFO,
        Level::Warn => tracing::Level::WARN,
        Level::Error => tracing::Level::ERROR,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Json => log.json().init(),
        LogFormat::Text => log.with_ansi(false).init(),
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
