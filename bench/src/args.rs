//! The command line: its shape by `clap`, and each subcommand's options made from it. It starts nothing; only the
//! target's name is resolved and the CA file read.

mod handshake;
mod overload;
mod stream;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use memchr::memmem::Finder;

use crate::compare::CompareArgs;
use crate::load::{
    AnswerForm, CallSpec, Plan, Protocol, Requests, Scenario, SourceRange, Target, TargetError, Trust,
    TrustError, client_config,
};
use crate::mcp::Revision;
use crate::scenario::{IdleArgs, ScenarioArgs};
use crate::units::{parse_duration, parse_rate};
use crate::upstream;

pub use handshake::HandshakeArgs;
pub use overload::OverloadArgs;
pub use stream::StreamArgs;

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
    /// Call a tool over some connections and measure
    Run(RunArgs),
    /// Bring up many connections, each with its session, hold them, and let calls go round
    Hold(HoldArgs),
    /// Make short connections, one after the other, and measure their handshakes
    Handshake(HandshakeArgs),
    /// Call a tool that answers with many events, and measure them
    Stream(StreamArgs),
    /// Find the rate that the server sustains, call at twice that rate, and see it recover
    Overload(OverloadArgs),
    /// Serve MCP over plain HTTP, at a few microseconds per call
    Upstream(UpstreamArgs),
    /// Measure targets in turn, A B A B, and print the ratios of their figures
    Compare(CompareArgs),
    /// Run a scenario file and check its goals
    Scenario(ScenarioArgs),
    /// Measure a process that nobody calls
    Idle(IdleArgs),
}

/// Why the arguments make no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The URL.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The CA file.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// An `https` target without a word on whom to trust.
    #[error("https needs --ca-file FILE, or --insecure to accept any certificate")]
    NoTrust,
    /// A value that cannot be sent.
    #[error("{0}")]
    Request(String),
}

/// Options of `mcp-bench run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Connections over all threads, each with a session of its own
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    connections: u32,
    /// Measured time
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// Time under load before it
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    warmup: Duration,
    /// Calls per second over all connections: an open loop, latency from the intended time [default: closed loop]
    #[arg(long, value_parser = parse_rate)]
    rate: Option<f64>,
    #[command(flatten)]
    load: LoadArgs,
}

/// Options of `mcp-bench hold`.
#[derive(Debug, Args)]
pub struct HoldArgs {
    /// Connections over all threads, each with a session of its own
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    connections: u32,
    /// New connections per second
    #[arg(long, default_value = "1000/s", value_parser = parse_rate)]
    ramp: f64,
    /// How long the connections are held, once all are up
    #[arg(long = "hold", value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    duration: Duration,
    /// How long they rest once all are up, before their memory is read and the calls begin
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    rest: Duration,
    /// Calls per second, going round all connections
    #[arg(long, default_value = "1000/s", value_parser = parse_rate)]
    rate: f64,
    /// Further connections, on a thread of their own, that call as fast as they are answered during the second half
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=15_000))]
    flood: u32,
    #[command(flatten)]
    load: LoadArgs,
}

/// What `run` and `hold` have in common.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The MCP endpoint: https:// (HTTP/1.1), h2:// (the same by HTTP/2), wss://, sse:// (HTTP with SSE), mcpb://, http:// or ws://
    #[arg(long)]
    url: String,
    /// MCP revision to speak
    #[arg(long, default_value = "2025-11-25", value_parser = parse_revision)]
    revision: Revision,
    /// Tool to call [default: echo; of `stream`: stream]
    #[arg(long)]
    tool: Option<String>,
    /// Its arguments
    #[arg(long, value_name = "JSON", default_value = r#"{"text":"hi"}"#)]
    arguments: String,
    /// Each answer must contain this text (as it stands in JSON), else it counts as wrong
    #[arg(long, value_name = "TEXT")]
    expect: Option<String>,
    /// Form that each answer must have; `any` accepts both
    #[arg(long, value_enum, default_value_t = AnswerArg::Any)]
    answer: AnswerArg,
    /// Client threads, each with a loop and a table of open files of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Further header field; may be given often
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// Bearer token
    #[arg(long)]
    token: Option<String>,
    /// Accept any server certificate
    #[arg(long, conflicts_with = "ca_file")]
    insecure: bool,
    /// PEM file of the certificates to trust
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Calls in flight per connection, over all but HTTP/1.1
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    in_flight: u8,
    /// Leave the sessions at the end; else each is ended by a DELETE, where there is one
    #[arg(long)]
    keep_sessions: bool,
    /// One session for all connections
    #[arg(long)]
    shared_session: bool,
    /// Longest wait for a connection's set-up or an answer
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    timeout: Duration,
    /// First source address, or `off` [default: 127.0.1.1 when the target is in 127.0.0.0/8]
    #[arg(long, value_name = "ADDRESS", value_parser = parse_source)]
    source_base: Option<Source>,
    /// Connections per source address; then the next address is used
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=28_000))]
    per_source: u16,
    /// Measure this process's CPU and memory
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Write the result as JSON to a file, or to standard output with `-`
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the latencies by interval as an HdrHistogram log
    #[arg(long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,
    /// Write the report as one HTML page with charts
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Failures that still count as success (exit code 0)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_errors: u64,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Off,
    Base(Ipv4Addr),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AnswerArg {
    Any,
    Json,
    Sse,
}

impl RunArgs {
    /// What to do with the result.
    pub fn load(&self) -> &LoadArgs {
        &self.load
    }

    /// The plan of the run.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn plan(&self) -> Result<Plan, PlanError> {
        Ok(Plan {
            rate_per_s: self.rate,
            warmup: self.warmup,
            ..self.load.plan(Scenario::Run, self.connections, self.duration)?
        })
    }
}

impl HoldArgs {
    /// What to do with the result.
    pub fn load(&self) -> &LoadArgs {
        &self.load
    }

    /// The plan of the run.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn plan(&self) -> Result<Plan, PlanError> {
        Ok(Plan {
            rate_per_s: Some(self.rate),
            ramp_per_s: Some(self.ramp),
            rest: self.rest,
            flood: self.flood as usize,
            ..self.load.plan(Scenario::Hold, self.connections, self.duration)?
        })
    }
}

impl LoadArgs {
    fn plan(&self, scenario: Scenario, connections: u32, duration: Duration) -> Result<Plan, PlanError> {
        self.plan_calls(scenario, connections, duration, &self.spec("echo"))
    }

    fn spec(&self, default_tool: &str) -> CallSpec {
        CallSpec {
            revision: self.revision,
            tool: self.tool.clone().unwrap_or_else(|| default_tool.to_owned()),
            arguments: self.arguments.clone(),
            headers: self.headers.clone(),
            token: self.token.clone(),
            progress: false,
        }
    }

    fn plan_calls(
        &self,
        scenario: Scenario,
        connections: u32,
        duration: Duration,
        spec: &CallSpec,
    ) -> Result<Plan, PlanError> {
        let target = Target::resolve(&self.url)?;
        let http = matches!(target.protocol, Protocol::Http1 | Protocol::Http2);
        if self.shared_session && !http {
            return Err(PlanError::Request(
                "over MCPB, WebSocket and HTTP with SSE every connection has its own session".into(),
            ));
        }
        if self.in_flight > 1 && target.protocol == Protocol::Http1 {
            return Err(PlanError::Request(
                "HTTP/1.1 carries one call at a time: --in-flight is for h2://, wss://, sse:// and mcpb://"
                    .to_owned(),
            ));
        }
        if matches!(scenario, Scenario::Stream(_)) && target.protocol != Protocol::Http1 {
            return Err(PlanError::Request("streams of events are measured over https://".to_owned()));
        }
        if matches!(scenario, Scenario::Handshake(_)) && target.protocol == Protocol::Sse {
            return Err(PlanError::Request(
                "a client over sse:// has two connections: measure handshakes over https://".to_owned(),
            ));
        }
        let connections = connections as usize;
        Ok(Plan {
            scenario,
            tls: self.trust(&target)?.map(|trust| client_config(&trust, target.protocol)).transpose()?,
            requests: Requests::for_target(spec, &target).map_err(PlanError::Request)?,
            source: self.source(target.address),
            target,
            connections,
            threads: usize::from(self.threads).min(connections),
            in_flight: self.in_flight.into(),
            ramp_per_s: None,
            rest: Duration::ZERO,
            rate_per_s: None,
            duration,
            warmup: Duration::ZERO,
            timeout: self.timeout,
            keep_sessions: self.keep_sessions,
            flood: 0,
            shared_session: self.shared_session,
            expect: self.expect.as_ref().map(|text| Finder::new(text).into_owned()),
            answer_form: match self.answer {
                AnswerArg::Any => AnswerForm::Any,
                AnswerArg::Json => AnswerForm::Json,
                AnswerArg::Sse => AnswerForm::EventStream,
            },
            server_pid: self.server_pid,
        })
    }

    fn trust(&self, target: &Target) -> Result<Option<Trust>, PlanError> {
        match &self.ca_file {
            _ if !target.tls => Ok(None),
            Some(path) => Ok(Some(Trust::File(path.clone()))),
            None if self.insecure => Ok(Some(Trust::Anything)),
            None => Err(PlanError::NoTrust),
        }
    }

    fn source(&self, target: SocketAddr) -> Option<SourceRange> {
        let base = match (self.source_base, target.ip()) {
            (Some(Source::Base(base)), IpAddr::V4(_)) => base,
            (None, IpAddr::V4(ip)) if ip.is_loopback() => Ipv4Addr::new(127, 0, 1, 1),
            _ => return None,
        };
        Some(SourceRange { base, per_address: self.per_source.into() })
    }
}

fn parse_revision(text: &str) -> Result<Revision, String> {
    Revision::parse(text.as_bytes()).ok_or_else(|| {
        let known: Vec<_> = Revision::ALL.iter().map(|r| r.name()).collect();
        format!("known revisions: {}", known.join(", "))
    })
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header field is NAME:VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn parse_source(text: &str) -> Result<Source, String> {
    match text {
        "off" => Ok(Source::Off),
        _ => text
            .parse()
            .map(Source::Base)
            .map_err(|_| format!("`{text}` is neither an IPv4 address nor `off`")),
    }
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
