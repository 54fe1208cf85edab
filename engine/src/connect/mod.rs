//! `mcp-gateway connect URL`: a stdio MCP server that is a gateway far away. Messages are lines of standard input and output;
//! the log goes to standard error. A program of its own beside the gateway: it shares the loop, TLS and the protocols with
//! it, nothing else.
//!
//! - [`stdio`] reads and writes lines, [`message`] knows what is in one, [`front`] sees to it that each request is answered
//!   once, and [`settings`] what the client has set;
//! - a door carries messages to the gateway and back: [`http`], or [`duplex`] for those that are one connection;
//! - [`host`] is the loop that all of it runs on.
//!
//! Exit codes: 0 when the client closed the input, went away or had the process ended; 1 when the system refused something;
//! 2 for a wrong command line, token or CA file. A gateway that cannot be reached, or that refuses, is told in the answers.

mod args;
mod duplex;
mod front;
mod host;
mod http;
mod message;
pub(crate) mod pace;
mod settings;
mod stdio;
mod target;
mod token;

use std::cell::Cell;
use std::io::{self, Write};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_rustls::TlsConnector;
use mcp_protocol::jsonrpc::INVALID_REQUEST;
use mcp_shard_store::runtime::Address;
use rustls_pki_types::ServerName;

use crate::signals::Signals;
use crate::{fatal, tls};
pub(crate) use args::ConnectArgs;
use args::Plan;
use duplex::Duplex;
use duplex::mcpb::Mcpb;
use duplex::ws::Ws;
use front::Front;
use host::{Bell, Gate, Host};
use http::Http;
use message::{Fault, Message};
use stdio::{EndOf, Ender, Input, Output, Taken};
use target::Door;

const EXIT_USAGE: u8 = 2;
/// How long answers that are under way are waited for once the input has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(10);
/// How long the gateway may take to end the session.
const GOODBYE: Duration = Duration::from_secs(3);
/// How long the client may take to read the last of them.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Runs until the client leaves.
pub(crate) fn main(args: ConnectArgs) -> ExitCode {
    let ready = args.check().and_then(|plan| {
        let tls = client_tls(&plan)?;
        Ok((plan, tls))
    });
    let (plan, tls) = match ready {
        Ok(ready) => ready,
        Err(text) => return complain(&text, EXIT_USAGE),
    };
    let level = if plan.verbose { tracing::Level::DEBUG } else { tracing::Level::WARN };
    tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).with_ansi(false).init();
    let signals = Signals::of_end();
    fatal::install_panic_hook();
    match run(plan, tls, signals) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error.to_string(), 1),
    }
}

/// How the gateway proves who it is.
type Tls = (TlsConnector, ServerName<'static>);

fn run(plan: Plan, tls: Option<Tls>, signals: Signals) -> io::Result<()> {
    let bell = Bell::new()?;
    let (input, ender) = Input::start(io::stdin(), plan.max_message, &bell)?;
    let output = Rc::new(Output::start(io::stdout(), &bell)?);
    end_on_signal(signals, ender)?;
    let lent = output.clone();
    host::run(&bell, |host| serve(host, plan, tls, input, lent))?;
    // Every task is gone, so nobody else writes.
    if let Some(output) = Rc::into_inner(output) {
        output.finish(LAST_LINES);
    }
    Ok(())
}

/// Carries lines until there are no more, then ends the session.
async fn serve(host: Rc<Host>, plan: Plan, tls: Option<Tls>, input: Input, output: Rc<Output>) {
    let front = Front::new(host.clone(), output.clone(), plan.max_message);
    let way = Way::open(&front, plan, tls);
    loop {
        match input.next(&output).await {
            Taken::Line(line) => take(&front, &way, line).await,
            Taken::TooLong => {
                let told = format!("the line is longer than {} bytes", front.max_message);
                front.refuse(None, &Fault::malformed(INVALID_REQUEST, told)).await;
            }
            Taken::End(EndOf::Input) => {
                if host.within(LAST_ANSWERS, front.all_landed()).await.is_err() {
                    tracing::warn!("the last requests were not answered in time");
                }
                break;
            }
            Taken::End(EndOf::Process | EndOf::Client) => break,
        }
    }
    let (over, gate) = (Rc::new(Cell::new(false)), Rc::new(Gate::default()));
    let (told, opened) = (over.clone(), gate.clone());
    // A task of its own, because its steps bound their time themselves.
    host.spawn(async move {
        way.end().await;
        told.set(true);
        opened.open();
    });
    if host.within(GOODBYE, gate.until(|| over.get().then_some(()))).await.is_err() {
        tracing::debug!("the gateway did not hear of the session's end in time");
    }
}

/// The door that messages go through.
enum Way {
    Http(Rc<Http>),
    WebSocket(Rc<Duplex<Ws>>),
    Mcpb(Rc<Duplex<Mcpb>>),
}

impl Way {
    fn open(front: &Rc<Front>, plan: Plan, tls: Option<Tls>) -> Self {
        let endpoint = &plan.target.endpoint;
        let address = Address { host: endpoint.host.as_str().into(), port: endpoint.port };
        match plan.target.door {
            Door::Http => Way::Http(Http::new(front, endpoint, tls, plan.token, &plan.headers)),
            Door::WebSocket => {
                let codec = Ws::new(endpoint, &plan.headers, plan.max_message);
                Way::WebSocket(Duplex::start(front, address, tls, plan.token, codec))
            }
            Door::Mcpb => Way::Mcpb(Duplex::start(front, address, tls, plan.token, Mcpb::default())),
        }
    }

    fn take(&self, message: Message) -> Result<(), Fault> {
        match self {
            Way::Http(door) => door.take(message),
            Way::WebSocket(door) => door.take(message),
            Way::Mcpb(door) => door.take(message),
        }
    }

    /// The client leaves, and its session ends where the gateway can be told. The caller bounds the time.
    async fn end(&self) {
        match self {
            Way::Http(door) => door.end().await,
            Way::WebSocket(door) => door.end().await,
            Way::Mcpb(door) => door.end().await,
        }
    }
}

/// Hands a line to the door, or answers it here where it is no message.
async fn take(front: &Rc<Front>, way: &Way, line: Vec<u8>) {
    if line.trim_ascii().is_empty() {
        return;
    }
    let message = match Message::parse(line) {
        Ok(message) => message,
        Err((line, failure)) => {
            let fault = Fault::malformed(failure.error.json_rpc_code(), failure.error.to_string());
            return front.refuse(failure.id.map(|id| id.of(&line)), &fault).await;
        }
    };
    let requests = message.requests();
    if let Err(fault) = way.take(message) {
        tracing::warn!("a message was not taken: {}", fault.message);
        for id in requests {
            front.refuse(Some(&id.raw), &fault).await;
        }
    }
}

/// The first signal ends as the end of the input does, without waiting for answers; the second ends the process at once.
fn end_on_signal(signals: Signals, ender: Ender) -> io::Result<()> {
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        signals.wait();
        ender.end();
        std::process::exit(128 + signals.wait());
    })?;
    Ok(())
}

fn client_tls(plan: &Plan) -> Result<Option<Tls>, String> {
    let endpoint = &plan.target.endpoint;
    if !endpoint.tls {
        return Ok(None);
    }
    let mut config =
        tls::config::trusting(plan.ca_file.as_deref(), None).map_err(|error| error.to_string())?;
    config.alpn_protocols = match plan.target.door {
        Door::Http | Door::WebSocket => vec![b"http/1.1".to_vec()],
        Door::Mcpb => Vec::new(),
    };
    let name = ServerName::try_from(endpoint.host.clone())
        .map_err(|_| format!("{:?} is no name that a certificate could prove", endpoint.host))?;
    Ok(Some((TlsConnector::from(Arc::new(config)), name)))
}

fn complain(text: &str, code: u8) -> ExitCode {
    // Nothing can be done about a standard error that is gone.
    let _ = writeln!(io::stderr(), "mcp-gateway connect: {}", text.trim_end());
    ExitCode::from(code)
}
