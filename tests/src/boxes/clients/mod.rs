//! Owns clients that call a tool again and again, each through one door, over the balancer, as their protocols and the
//! official SDKs have it: they see a connection's end before they use it again, hear goodbyes, come back with their session, and
//! ask again only what the gateway said that it did not take.
//!
//! A call is failed when its caller would have seen an error: an answer that is one, a connection that could not be made, or
//! one that broke before the answer. Nothing that failed is tried again.

mod framed;
mod http;
mod listener;
mod sse;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use serde_json::{Value, json};

use super::ledger::{Call, Door, Ledger};
use super::net::Namespace;
use super::servers::zone_of;
use crate::mcp::{modern_call, request};

/// Between two calls of a client.
const PACE: Duration = Duration::from_millis(50);
/// Between two tries of a call that the gateway did not take.
const AGAIN: Duration = Duration::from_millis(20);
/// How long one is tried.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the balancer is, and whom to trust.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where it takes HTTPS.
    pub https: SocketAddr,
    /// Where it takes MCPB.
    pub mcpb: SocketAddr,
    /// The authorities of the gateways' certificates.
    pub tls: Arc<ClientConfig>,
}

/// Whose requests a client makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Era {
    /// 2025-11-25, in a session.
    Legacy,
    /// 2026-07-28.
    Modern,
}

/// Clients at work.
#[derive(Debug)]
pub struct Clients {
    ledger: Arc<Ledger>,
    stopped: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    /// The gateway has not taken it, and said so: it is sent again elsewhere.
    NotTaken,
    /// Its caller sees an error.
    Failed(String),
    /// Its session is unknown.
    SessionLost(String),
}

type Outcome = Result<Value, Trouble>;

/// One client's side of a door.
trait Client {
    /// Calls the tool and gives the response.
    fn call(&mut self, ledger: &Ledger, number: u64) -> Outcome;

    /// Begins anew, without the session that it had.
    fn forget(&mut self);
}

impl Clients {
    /// Starts them in a network: at each door three with a session and two without; at each of the three paths of a stream
    /// one that listens; one that makes a connection for every call; one that opens sessions and leaves them.
    #[must_use]
    pub fn start(network: &Namespace, target: &Target) -> Self {
        let (ledger, stopped) = (Arc::new(Ledger::default()), Arc::new(AtomicBool::new(false)));
        let mut clients = Self { ledger, stopped, workers: Vec::new() };
        let mut all: Vec<(Door, Era, Box<dyn Client + Send>)> = Vec::new();
        for era in [Era::Legacy, Era::Legacy, Era::Legacy, Era::Modern, Era::Modern] {
            all.push((Door::Http1, era, Box::new(http::Http1::new(target, era, true))));
            all.push((Door::H2, era, Box::new(http::Http2::new(target, era))));
            all.push((Door::Ws, era, Box::new(framed::Ws::new(target, era))));
            all.push((Door::Mcpb, era, Box::new(framed::Mcpb::new(target, era))));
            if era == Era::Legacy {
                all.push((Door::Sse, era, Box::new(sse::Sse::new(target))));
            }
        }
        all.push((Door::Fresh, Era::Modern, Box::new(http::Http1::new(target, Era::Modern, false))));
        all.push((Door::Opener, Era::Legacy, Box::new(http::Opener::new(target))));
        for (number, (door, era, client)) in all.into_iter().enumerate() {
            let (network, ledger, stopped) =
                (network.clone(), clients.ledger.clone(), clients.stopped.clone());
            clients.workers.push(std::thread::spawn(move || {
                network.enter();
                work((number, door, era), client, &ledger, &stopped);
            }));
        }
        for number in 0..3 {
            let (network, target) = (network.clone(), target.clone());
            let (ledger, stopped) = (clients.ledger.clone(), clients.stopped.clone());
            clients.workers.push(std::thread::spawn(move || {
                network.enter();
                listener::listen(number, &target, &ledger, &stopped);
            }));
        }
        clients
    }

    /// What became of their calls.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Ends their work.
    ///
    /// # Panics
    /// When one of them did.
    pub fn finish(mut self) -> Arc<Ledger> {
        self.stopped.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.join().expect("no client panics");
        }
        self.ledger.clone()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // The clients of a failed test see this flag and their connections break, and end.
        self.stopped.store(true, Ordering::SeqCst);
    }
}

fn work(
    (worker, door, era): (usize, Door, Era),
    mut client: Box<dyn Client + Send>,
    ledger: &Ledger,
    stopped: &AtomicBool,
) {
    let (mut number, mut zone) = (0, None);
    // What has a session is bound to the server that opened it.
    let is_bound = era == Era::Legacy && door != Door::Opener;
    while !stopped.load(Ordering::SeqCst) {
        number += 1;
        let begun = Instant::now();
        let (again, outcome) = until_taken(&mut *client, ledger, number, begun);
        if let Ok(answer) = &outcome {
            zone = zone_of(answer).filter(|_| is_bound);
        }
        let lost = matches!(outcome, Err(Trouble::SessionLost(_)));
        let why = match outcome {
            Ok(_) => None,
            Err(Trouble::NotTaken) => Some("not taken by anybody".to_owned()),
            Err(Trouble::Failed(why) | Trouble::SessionLost(why)) => Some(why),
        };
        ledger.note(Call { client: worker, door, begun, took: begun.elapsed(), again, zone, why, lost });
        if lost {
            client.forget();
            zone = None;
        }
        std::thread::sleep(PACE);
    }
}

/// Makes a call; how often it was sent again, and what it came to.
fn until_taken(client: &mut dyn Client, ledger: &Ledger, number: u64, begun: Instant) -> (u32, Outcome) {
    let mut again = 0;
    loop {
        let outcome = client.call(ledger, number);
        if outcome != Err(Trouble::NotTaken) || begun.elapsed() > PATIENCE {
            return (again, outcome);
        }
        again += 1;
        std::thread::sleep(AGAIN);
    }
}

fn message(era: Era, tool: &str, number: u64) -> Value {
    match era {
        Era::Legacy => request(number, "tools/call", json!({"name": tool, "arguments": {}})),
        Era::Modern => modern_call(number, tool, json!({})),
    }
}

/// What a response means.
fn judge(response: Value) -> Outcome {
    let Some(error) = response.get("error") else {
        return match zone_of(&response) {
            Some(_) => Ok(response),
            None => Err(Trouble::Failed(format!("another answer: {response}"))),
        };
    };
    let is_draining = error["message"] == "shutting down" && error["data"]["retryable"] == true;
    match error["code"].as_i64() {
        _ if is_draining => Err(Trouble::NotTaken),
        Some(-32001) => Err(Trouble::SessionLost(response.to_string())),
        _ => Err(Trouble::Failed(response.to_string())),
    }
}

fn failed(what: &str, why: impl std::fmt::Display) -> Trouble {
    Trouble::Failed(format!("{what}: {why}"))
}
