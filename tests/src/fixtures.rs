//! Owns well-behaved MCP servers of each era, as far as tests of the gateway need them: they answer every request with what
//! they saw, and keep what they saw. A test can answer single requests itself.

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::mcp::MODERN;
use crate::upstream::{After, ScriptedUpstream, UpstreamRequest, answer, answer_json};

/// Most requests that are kept.
const MAX_KEPT: usize = 100_000;

/// A server with what it saw.
#[derive(Debug)]
pub struct Fixture {
    /// The server.
    pub server: ScriptedUpstream,
    seen: Seen,
}

/// Answers a request in the fixture's place; `None` leaves it to the fixture.
pub trait Override: Fn(&UpstreamRequest, &mut TcpStream) -> Option<After> + Send + Sync + 'static {}
impl<F: Fn(&UpstreamRequest, &mut TcpStream) -> Option<After> + Send + Sync + 'static> Override for F {}

type Seen = Arc<Mutex<Vec<UpstreamRequest>>>;

impl Fixture {
    /// A legacy server: each `initialize` opens a session `upstream-1`, `upstream-2`, …; every other request is answered with
    /// its own params as the result, a DELETE with 200.
    #[must_use]
    pub fn legacy(first: impl Override) -> Self {
        Self::legacy_on(loopback(), first)
    }

    /// As [`Self::legacy`], on a listener of the test's own.
    #[must_use]
    pub fn legacy_on(listener: TcpListener, first: impl Override) -> Self {
        let sessions = AtomicUsize::new(0);
        Self::start(listener, move |request, stream| {
            if let Some(after) = first(request, stream) {
                return after;
            }
            if request.is("DELETE") {
                return answer(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", After::KeepOpen);
            }
            if request.is("GET") {
                return answer(
                    stream,
                    "HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n",
                    After::KeepOpen,
                );
            }
            let message = request.json();
            if message["method"] == "initialize" {
                let session = sessions.fetch_add(1, Ordering::SeqCst) + 1;
                let status = format!("200 OK\r\nmcp-session-id: upstream-{session}");
                return answer_json(stream, &status, &initialized(&message));
            }
            // 2026-07-28, "Backward Compatibility": a server of this era does not know what has no session.
            if request.header("mcp-session-id").is_none() {
                return answer_json(
                    stream,
                    "400 Bad Request",
                    &error(&message, -32600, "a session is required"),
                );
            }
            match message {
                Value::Array(batch) => {
                    let answers = batch.iter().map(|one| response(one, one["params"].clone())).collect();
                    answer_json(stream, "200 OK", &Value::Array(answers))
                }
                one => echo(stream, &one),
            }
        })
    }

    /// A modern server that knows `tools` (a JSON array of definitions): every other request than `server/discover` and
    /// `tools/list` is answered with its own params as the result.
    #[must_use]
    pub fn modern(tools: Value, first: impl Override) -> Self {
        Self::modern_on(loopback(), tools, first)
    }

    /// As [`Self::modern`], on a listener of the test's own.
    #[must_use]
    pub fn modern_on(listener: TcpListener, tools: Value, first: impl Override) -> Self {
        Self::start(listener, move |request, stream| {
            if let Some(after) = first(request, stream) {
                return after;
            }
            let message = request.json();
            let result = match message["method"].as_str() {
                Some("initialize") => {
                    let refused = error(&message, -32601, "this server has no initialize");
                    return answer_json(stream, "404 Not Found", &refused);
                }
                Some("server/discover") => {
                    json!({"supportedVersions": [MODERN], "capabilities": {"tools": {}}})
                }
                Some("tools/list") => json!({"tools": tools}),
                _ => return echo(stream, &message),
            };
            answer_json(stream, "200 OK", &response(&message, result))
        })
    }

    /// Its MCP endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// What it was asked, without the gateway's own questions.
    #[must_use]
    pub fn seen(&self) -> Vec<UpstreamRequest> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|request| !request.is_own()).cloned().collect()
    }

    fn start(
        listener: TcpListener,
        script: impl Fn(&UpstreamRequest, &mut TcpStream) -> After + Send + Sync + 'static,
    ) -> Self {
        let seen = Seen::default();
        let kept = seen.clone();
        let server = ScriptedUpstream::start_on(listener, move |request, stream| {
            {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                assert!(kept.len() < MAX_KEPT, "more requests than a fixture keeps");
                kept.push(request.clone());
            }
            script(request, stream)
        });
        Self { server, seen }
    }
}

impl UpstreamRequest {
    /// Whether it has this HTTP method.
    #[must_use]
    pub fn is(&self, method: &str) -> bool {
        self.head.first().is_some_and(|line| line.split(' ').next() == Some(method))
    }
}

fn loopback() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

/// Leaves every request to the fixture.
pub fn nothing(_: &UpstreamRequest, _: &mut TcpStream) -> Option<After> {
    None
}

/// The response to a request.
#[must_use]
pub fn response(message: &Value, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": message["id"], "result": result})
}

/// The response to an `initialize`: a server of the revision that it asks for, with tools.
#[must_use]
pub fn initialized(message: &Value) -> Value {
    let result = json!({
        "protocolVersion": message["params"]["protocolVersion"],
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "fixture", "version": "1.0.0"},
    });
    response(message, result)
}

/// The error that answers a request.
#[must_use]
pub fn error(message: &Value, code: i64, text: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": message["id"], "error": {"code": code, "message": text}})
}

fn echo(stream: &mut TcpStream, message: &Value) -> After {
    if message.get("id").is_none() || message.get("method").is_none() {
        return answer(stream, "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n", After::KeepOpen);
    }
    answer_json(stream, "200 OK", &response(message, message["params"].clone()))
}
