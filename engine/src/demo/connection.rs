//! One connection: requests in order, each checked as HTTP, handed to its era and answered.
//!
//! Owns the running of slow calls and the keeping of streams. It never decides what an MCP message means.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::http::{Connection, ReadError, Request};
use super::tools::SlowCall;
use super::{MAX_STREAMS, PATH, Shared, legacy, modern};

/// How often an open stream looks whether its session still lives.
const STREAM_TICK: Duration = Duration::from_secs(1);

/// Ticks between two keep-alive comments.
const TICKS_PER_COMMENT: u32 = 15;

/// How a message is to be answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// With one JSON-RPC message, and the id of the session that it opened.
    Message { status: u16, session: Option<String>, message: Value },
    /// With nothing but a status.
    Empty { status: u16 },
    /// With the result of a slow call.
    Slow(Slow),
    /// With the responses of a batch.
    Batch(Vec<Answer>),
    /// With a stream of the session's messages.
    Events { session: String },
    /// With a stream that begins with one message and may end with another.
    Subscription { acknowledgement: Value, completion: Value },
}

/// A slow call that is yet to be run.
#[derive(Debug)]
pub(super) struct Slow {
    pub(super) id: Value,
    pub(super) call: SlowCall,
    pub(super) progress_token: Option<Value>,
    /// Makes the era's result of the tool's.
    pub(super) finish: fn(Map<String, Value>) -> Value,
}

impl Slow {
    fn response(&self) -> Value {
        result(&self.id, (self.finish)(self.call.result()))
    }
}

/// A JSON-RPC response with a result.
pub(super) fn result(id: &Value, result: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

/// A JSON-RPC response with an error; `id` is null when the request's could not be read.
pub(super) fn error(id: &Value, code: i64, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
}

/// Serves the connection until either side ends it.
pub(super) fn serve(stream: TcpStream, shared: &Shared) {
    // An IO error means that the client is gone or too slow; there is nobody left to tell.
    Connection::new(stream).and_then(|connection| serve_requests(connection, shared)).ok();
}

/// Turns a connection away.
pub(super) fn refuse(stream: TcpStream) {
    // The client is told as far as it listens; it is closed in any case.
    Connection::new(stream).and_then(|mut it| it.send_empty(503, &[("Connection", "close")])).ok();
}

fn serve_requests(mut connection: Connection, shared: &Shared) -> io::Result<()> {
    loop {
        let request = match connection.read_request() {
            Ok(request) => request,
            Err(ReadError::Gone) => return Ok(()),
            Err(ReadError::Refused { status }) => {
                connection.send_empty(status, &[("Connection", "close")])?;
                return connection.close_gently();
            }
        };
        let goes_on = respond(&mut connection, shared, &request)?;
        if request.close || !goes_on || shared.stopping() {
            return Ok(());
        }
    }
}

/// Answers a request; says whether the connection can take another.
fn respond(connection: &mut Connection, shared: &Shared, request: &Request) -> io::Result<bool> {
    match answer(shared, request) {
        Answer::Message { status, session, message } => {
            let headers: Vec<_> = session.iter().map(|id| ("Mcp-Session-Id", id.as_str())).collect();
            connection.send_json(status, &headers, &message)?;
        }
        Answer::Empty { status: 405 } => connection.send_empty(405, &[("Allow", "GET, POST, DELETE")])?,
        Answer::Empty { status } => connection.send_empty(status, &[])?,
        Answer::Slow(slow) if slow.progress_token.is_some() => return run_slow_streaming(connection, &slow),
        Answer::Slow(slow) => {
            if !run_slow(connection, &slow, |_, _| Ok(()))? {
                return Ok(false);
            }
            connection.send_json(200, &[], &slow.response())?;
        }
        Answer::Batch(answers) => return run_batch(connection, answers),
        Answer::Events { session } => return keep_events(connection, shared, &session),
        Answer::Subscription { acknowledgement, completion } => {
            return keep_subscription(connection, shared, &acknowledgement, &completion);
        }
    }
    Ok(true)
}

/// The checks of HTTP, then the message's era.
fn answer(shared: &Shared, request: &Request) -> Answer {
    let empty = |status| Answer::Empty { status };
    if request.path != PATH {
        return empty(404);
    }
    if request.header("origin").is_some_and(|origin| !is_loopback_origin(origin)) {
        return empty(403);
    }
    match request.method.as_str() {
        "POST" => {}
        "GET" if !request.accepts("text/event-stream") => return empty(406),
        "GET" => return legacy::answer_get(shared, request),
        "DELETE" => return legacy::answer_delete(shared, request),
        _ => return empty(405),
    }
    if !request.accepts("application/json") || !request.accepts("text/event-stream") {
        return empty(406);
    }
    let media_type = request.header("content-type").and_then(|value| value.split(';').next());
    if !media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json")) {
        return empty(415);
    }
    let message: Value = match serde_json::from_slice(&request.body) {
        Ok(message) => message,
        Err(_) => return Answer::refusal(&Value::Null, -32700, "Parse error"),
    };
    if modern::is_modern(request, &message) {
        modern::answer(request, &message)
    } else {
        legacy::answer_post(shared, request, &message)
    }
}

impl Answer {
    /// A JSON-RPC error with the status 400.
    pub(super) fn refusal(id: &Value, code: i64, message: &str) -> Self {
        Self::Message { status: 400, session: None, message: error(id, code, message) }
    }

    /// A JSON-RPC message with the status 200.
    pub(super) fn ok(message: Value) -> Self {
        Self::Message { status: 200, session: None, message }
    }
}

/// Whether a page of this origin was served by this very machine; others may be a rebound name.
fn is_loopback_origin(origin: &str) -> bool {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let is_port = |rest: &str| rest.is_empty() || rest.starts_with(':');
    authority.is_some_and(|authority| {
        let hosts = ["localhost", "127.0.0.1", "[::1]"];
        hosts.iter().any(|host| authority.strip_prefix(host).is_some_and(is_port))
    })
}

/// Goes through the steps and calls `on_step` after each but the last; false when the client went away.
fn run_slow(
    connection: &mut Connection,
    slow: &Slow,
    mut on_step: impl FnMut(&mut Connection, u64) -> io::Result<()>,
) -> io::Result<bool> {
    for step in 1..=slow.call.steps {
        if !connection.wait(slow.call.step) {
            return Ok(false);
        }
        on_step(connection, step)?;
    }
    Ok(true)
}

fn run_slow_streaming(connection: &mut Connection, slow: &Slow) -> io::Result<bool> {
    connection.begin_events()?;
    let total = slow.call.steps;
    let stayed = run_slow(connection, slow, |connection, step| {
        let params = json!({ "progressToken": slow.progress_token, "progress": step, "total": total });
        connection
            .send_event(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params }))
    })?;
    if stayed {
        connection.send_event(&slow.response())?;
        connection.end_events()?;
    }
    Ok(stayed)
}

fn run_batch(connection: &mut Connection, answers: Vec<Answer>) -> io::Result<bool> {
    let mut responses = Vec::new();
    for answer in answers {
        match answer {
            Answer::Message { message, .. } => responses.push(message),
            Answer::Slow(slow) => {
                if !run_slow(connection, &slow, |_, _| Ok(()))? {
                    return Ok(false);
                }
                responses.push(slow.response());
            }
            Answer::Empty { .. } | Answer::Batch(_) | Answer::Events { .. } | Answer::Subscription { .. } => {
            }
        }
    }
    if responses.is_empty() {
        connection.send_empty(202, &[])?;
    } else {
        connection.send_json(200, &[], &Value::Array(responses))?;
    }
    Ok(true)
}

/// Keeps a session's stream open until the client goes, the session ends or the server stops.
fn keep_events(connection: &mut Connection, shared: &Shared, session: &str) -> io::Result<bool> {
    let Some(_permit) = shared.stream_permit() else { return refuse_stream(connection) };
    connection.begin_events()?;
    keep_open(connection, || shared.sessions.revision(session).is_some())?;
    connection.end_events()?;
    Ok(false)
}

/// Keeps a subscription open until the client goes or the server stops; in the latter case says so.
fn keep_subscription(
    connection: &mut Connection,
    shared: &Shared,
    acknowledgement: &Value,
    completion: &Value,
) -> io::Result<bool> {
    let Some(_permit) = shared.stream_permit() else { return refuse_stream(connection) };
    connection.begin_events()?;
    connection.send_event(acknowledgement)?;
    keep_open(connection, || true)?;
    if shared.stopping() {
        connection.send_event(completion)?;
        connection.end_events()?;
    }
    Ok(false)
}

/// Sends comments until the client goes, the server stops or `lives` says no.
fn keep_open(connection: &mut Connection, lives: impl Fn() -> bool) -> io::Result<()> {
    for tick in 0_u32.. {
        if tick % TICKS_PER_COMMENT == 0 {
            connection.send_comment()?;
        }
        // A stopping server ends the socket's receiving side, which looks like a client that went away.
        if !connection.wait(STREAM_TICK) || !lives() {
            return Ok(());
        }
    }
    Ok(())
}

fn refuse_stream(connection: &mut Connection) -> io::Result<bool> {
    let message = format!("{MAX_STREAMS} streams are open, which is the most");
    connection.send_json(503, &[], &error(&Value::Null, -32603, &message))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_a_loopback_origin() {
        for origin in
            ["http://localhost", "http://localhost:3000", "https://127.0.0.1:1", "http://[::1]:8080"]
        {
            assert!(is_loopback_origin(origin), "{origin}");
        }
        for origin in
            ["null", "http://localhost.evil.example", "http://127.0.0.1.evil.example", "http://a", ""]
        {
            assert!(!is_loopback_origin(origin), "{origin}");
        }
    }
}
