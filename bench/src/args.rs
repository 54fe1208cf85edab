//! The command line: its shape by `clap`, and each subcommand's options made from it. It starts nothing.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::units::parse_duration;
use crate::upstream;

/// Measures MCP servers and gateways, and serves as a fast upstream for them.
#[derive(Debug, Parser)]
#[command(name = "mcp-bench", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve MCP over plain HTTP, at a few microseconds per call
    Upstream(UpstreamArgs),
}

/// Options of `mcp-bench upstream`.
#[derive(Debug, Args)]
pub struct UpstreamArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:3001")]
    listen: SocketAddr,
    /// Server threads
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Mint a session at initialize and demand it afterwards (legacy revisions)
    #[arg(long)]
    sessions: bool,
    /// Hold every answer back for so long
    #[arg(long, default_value = "0ms", value_parser = parse_duration)]
    delay: Duration,
    /// Bytes of text that the tool `fixed` returns
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=16_777_216))]
    result_bytes: u32,
    /// How requests are answered
    #[arg(long, value_enum, default_value_t = Answer::Json)]
    answer: Answer,
    /// Stop each thread once, for --stall-for, before the answer to its N-th call
    #[arg(long, value_name = "N", requires = "stall_for")]
    stall_at_call: Option<u64>,
    /// How long a thread stops at --stall-at-call
    #[arg(long, value_parser = parse_duration, requires = "stall_at_call")]
    stall_for: Option<Duration>,
    /// End after this time (default: at SIGINT or SIGTERM)
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    run_for: Option<Duration>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Answer {
    Json,
    Sse,
}

impl UpstreamArgs {
    /// The server's options.
    pub fn options(&self) -> upstream::Options {
        upstream::Options {
            listen: self.listen,
            threads: self.threads.into(),
            sessions: self.sessions,
            delay: self.delay,
            result_bytes: self.result_bytes as usize,
            style: match self.answer {
                Answer::Json => upstream::AnswerStyle::Json,
                Answer::Sse => upstream::AnswerStyle::Sse,
            },
            stall: self
                .stall_at_call
                .zip(self.stall_for)
                .map(|(at_call, pause)| upstream::Stall { at_call, pause }),
            run_for: self.run_for,
        }
    }
}
