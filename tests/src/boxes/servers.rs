//! Owns a zone's MCP servers: one of 2025-11-25 with sessions and a stream of numbered events that can be resumed, one of
//! 2026-07-28. Both say in the answer to any tool call which zone they are in. They know nothing of each other: a session is
//! one zone's.

use std::collections::HashSet;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::net::Namespace;
use crate::fixtures::{error, initialized, response};
use crate::mcp::MODERN;
use crate::upstream::{After, ScriptedUpstream, UpstreamRequest, answer, answer_json};

/// Between two events of a stream.
pub(super) const EVENT_PERIOD: Duration = Duration::from_millis(100);
/// The port of the server with sessions.
const LEGACY_PORT: u16 = 3001;
/// The port of the server without.
const MODERN_PORT: u16 = 3002;

const TAKEN: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
const ENDED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

/// A zone's servers.
#[derive(Debug)]
pub struct Servers {
    _legacy: ScriptedUpstream,
    _modern: ScriptedUpstream,
}

impl Servers {
    /// Starts those of `zone` on a node.
    ///
    /// # Panics
    /// When the node's ports are taken.
    #[must_use]
    pub fn start(network: &Namespace, ip: Ipv4Addr, zone: usize) -> Self {
        // A listener belongs to the network in which it was made, wherever it is accepted from.
        let network = network.clone();
        let listening = std::thread::spawn(move || {
            network.enter();
            [LEGACY_PORT, MODERN_PORT].map(|port| TcpListener::bind((ip, port)).expect("a port of its own"))
        });
        let [legacy, modern] = listening.join().expect("the servers listen");
        let server =
            Legacy { zone, begun: Instant::now(), sessions: Mutex::default(), opened: AtomicUsize::new(0) };
        Self {
            _legacy: ScriptedUpstream::start_on(legacy, move |request, stream| server.serve(request, stream)),
            _modern: ScriptedUpstream::start_on(modern, move |request, stream| {
                serve_modern(zone, request, stream)
            }),
        }
    }

    /// The endpoints of both at this address: with sessions, and without.
    #[must_use]
    pub fn urls(ip: Ipv4Addr) -> [String; 2] {
        [LEGACY_PORT, MODERN_PORT].map(|port| format!("http://{ip}:{port}/mcp"))
    }
}

struct Legacy {
    zone: usize,
    begun: Instant,
    sessions: Mutex<HashSet<String>>,
    opened: AtomicUsize,
}

impl Legacy {
    fn serve(&self, request: &UpstreamRequest, stream: &mut TcpStream) -> After {
        let message = request.json();
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if message["method"] == "initialize" {
            let number = self.opened.fetch_add(1, Ordering::SeqCst);
            let session = format!("zone-{}-{number}", self.zone);
            let status = format!("200 OK\r\nmcp-session-id: {session}");
            sessions.insert(session);
            return answer_json(stream, &status, &initialized(&message));
        }
        match request.header("mcp-session-id") {
            None => {
                let refused = error(&message, -32600, "a session is required");
                return answer_json(stream, "400 Bad Request", &refused);
            }
            Some(session) if !sessions.contains(session) => {
                return answer_json(stream, "404 Not Found", &error(&message, -32001, "no such session"));
            }
            Some(session) if request.is("DELETE") => {
                sessions.remove(session);
                return answer(stream, ENDED, After::KeepOpen);
            }
            Some(_) => drop(sessions),
        }
        if request.is("GET") {
            return self.tell(request, stream);
        }
        answer_in(self.zone, &message, stream)
    }

    /// Tells the events after the one that the client had last, until it goes: every period has one, whether anybody
    /// listens or not.
    fn tell(&self, request: &UpstreamRequest, stream: &mut TcpStream) -> After {
        let now = || (self.begun.elapsed().as_millis() / EVENT_PERIOD.as_millis()) as u64;
        let last = request.header("last-event-id").and_then(|id| id.parse::<u64>().ok());
        let mut next = last.map_or_else(now, |last| last + 1);
        if stream.write_all(EVENTS.as_bytes()).is_err() {
            return After::Close;
        }
        loop {
            while next <= now() {
                let params = json!({"level": "info", "data": next});
                let message = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": params});
                if write!(stream, "id: {next}\ndata: {message}\n\n").is_err() {
                    return After::Close;
                }
                next += 1;
            }
            std::thread::sleep(EVENT_PERIOD / 2);
        }
    }
}

fn serve_modern(zone: usize, request: &UpstreamRequest, stream: &mut TcpStream) -> After {
    let message = request.json();
    let result = match message["method"].as_str() {
        Some("initialize") => {
            let refused = error(&message, -32601, "this server has no initialize");
            return answer_json(stream, "404 Not Found", &refused);
        }
        Some("server/discover") => json!({
            "resultType": "complete", "supportedVersions": [MODERN], "capabilities": {"tools": {}},
            "ttlMs": 0, "cacheScope": "private",
        }),
        Some("tools/list") => {
            json!({"resultType": "complete", "tools": [], "ttlMs": 0, "cacheScope": "private"})
        }
        _ => return answer_in(zone, &message, stream),
    };
    answer_json(stream, "200 OK", &response(&message, result))
}

/// Answers any request as a tool does that says where it is.
fn answer_in(zone: usize, message: &Value, stream: &mut TcpStream) -> After {
    if message.get("id").is_none() {
        return answer(stream, TAKEN, After::KeepOpen);
    }
    let text = json!([{"type": "text", "text": zone.to_string()}]);
    answer_json(stream, "200 OK", &response(message, json!({"resultType": "complete", "content": text})))
}

/// The zone that an answer names.
#[must_use]
pub(super) fn zone_of(answer: &Value) -> Option<usize> {
    answer["result"]["content"][0]["text"].as_str()?.parse().ok()
}
