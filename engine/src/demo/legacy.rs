//! The legacy era: revisions with an `initialize` handshake and sessions, 2025-03-26 to 2025-11-25.
//!
//! Owns what these revisions say about Streamable HTTP (`basic/transports`) and the lifecycle. It never serves a message
//! without a session, except `initialize`.

use serde_json::{Value, json};

use super::Shared;
use super::connection::{Answer, Slow, error, result};
use super::http::Request;
use super::modern;
use super::tools::{self, Outcome};

/// Most messages of a batch.
const MAX_BATCH: usize = 16;

/// A legacy revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Revision {
    V2025_03_26,
    V2025_06_18,
    V2025_11_25,
}

impl Revision {
    /// All of them, newest first.
    pub(super) const ALL: [Self; 3] = [Self::V2025_11_25, Self::V2025_06_18, Self::V2025_03_26];

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|revision| revision.as_str() == text)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
        }
    }

    /// Whether tools may have an output schema and structured results.
    fn is_structured(self) -> bool {
        self >= Self::V2025_06_18
    }

    /// Whether several messages may come in one array.
    fn has_batches(self) -> bool {
        self == Self::V2025_03_26
    }
}

/// The session that a request names, with its revision.
struct Session<'a> {
    id: &'a str,
    revision: Revision,
}

/// Answers a POST that isn't modern.
pub(super) fn answer_post(shared: &Shared, request: &Request, message: &Value) -> Answer {
    if message["method"] == "initialize" {
        return initialize(shared, message);
    }
    let session = match session(shared, request, &message["id"]) {
        Ok(session) => session,
        Err(refusal) => return refusal,
    };
    match message {
        Value::Object(_) => answer_one(session.revision, message),
        Value::Array(messages) if session.revision.has_batches() => {
            if messages.is_empty() || messages.len() > MAX_BATCH {
                let text = format!("A batch has 1 to {MAX_BATCH} messages");
                return Answer::refusal(&Value::Null, -32600, &text);
            }
            Answer::Batch(messages.iter().map(|message| answer_one(session.revision, message)).collect())
        }
        _ => Answer::refusal(&Value::Null, -32600, "A message must be an object"),
    }
}

/// Answers a GET: a stream of the session's messages.
pub(super) fn answer_get(shared: &Shared, request: &Request) -> Answer {
    if request.header("mcp-protocol-version") == Some(modern::REVISION) {
        return Answer::Empty { status: 405 };
    }
    match session(shared, request, &Value::Null) {
        Ok(session) => Answer::Events { session: session.id.to_owned() },
        Err(refusal) => refusal,
    }
}

/// Answers a DELETE: the end of the session.
pub(super) fn answer_delete(shared: &Shared, request: &Request) -> Answer {
    if request.header("mcp-protocol-version") == Some(modern::REVISION) {
        return Answer::Empty { status: 405 };
    }
    match session(shared, request, &Value::Null) {
        Ok(session) => {
            // Another DELETE may have come first; the session has ended either way.
            shared.sessions.end(session.id);
            Answer::Empty { status: 200 }
        }
        Err(refusal) => refusal,
    }
}

/// The session of a request, or what to answer for want of one.
fn session<'a>(shared: &Shared, request: &'a Request, id: &Value) -> Result<Session<'a>, Answer> {
    if let Some(version) = request.header("mcp-protocol-version")
        && Revision::parse(version).is_none()
    {
        return Err(modern::unsupported_version(id, version));
    }
    let Some(session) = request.header("mcp-session-id") else {
        return Err(Answer::refusal(id, -32600, "The Mcp-Session-Id header is missing"));
    };
    match shared.sessions.revision(session) {
        Some(revision) => Ok(Session { id: session, revision }),
        None => Err(Answer::Message {
            status: 404,
            session: None,
            message: error(id, -32600, "There is no such session"),
        }),
    }
}

fn initialize(shared: &Shared, message: &Value) -> Answer {
    let id = &message["id"];
    if !is_id(id) || message["jsonrpc"] != "2.0" {
        return Answer::refusal(&Value::Null, -32600, "initialize must be a JSON-RPC request");
    }
    let Some(requested) = message["params"]["protocolVersion"].as_str() else {
        return Answer::ok(error(id, -32602, "`protocolVersion` must be a string"));
    };
    let revision = Revision::parse(requested).unwrap_or(Revision::ALL[0]);
    let Ok(session) = shared.sessions.open(revision) else {
        let message = error(id, -32603, "No session could be made");
        return Answer::Message { status: 500, session: None, message };
    };
    let initialized = json!({
        "protocolVersion": revision.as_str(),
        "capabilities": { "tools": {} },
        "serverInfo": modern::server_info(),
        "instructions": modern::INSTRUCTIONS,
    });
    Answer::Message { status: 200, session: Some(session), message: result(id, initialized) }
}

/// Answers one message of a session.
fn answer_one(revision: Revision, message: &Value) -> Answer {
    let id = &message["id"];
    if message["jsonrpc"] != "2.0" {
        return Answer::refusal(&Value::Null, -32600, "`jsonrpc` must be \"2.0\"");
    }
    let Some(method) = message["method"].as_str() else {
        let is_response = is_id(id) && (message.get("result").is_some() || message.get("error").is_some());
        return if is_response {
            Answer::Empty { status: 202 }
        } else {
            Answer::refusal(&Value::Null, -32600, "This is no JSON-RPC message")
        };
    };
    match message.get("id") {
        None => return Answer::Empty { status: 202 },
        Some(id) if !is_id(id) => {
            return Answer::refusal(&Value::Null, -32600, "`id` must be a string or an integer");
        }
        Some(_) => {}
    }
    match method {
        "ping" => Answer::ok(result(id, json!({}))),
        "tools/list" => {
            let tools = tools::definitions(revision.is_structured());
            Answer::ok(result(id, json!({ "tools": tools })))
        }
        "tools/call" => call(revision, id, &message["params"]),
        _ => Answer::ok(error(id, -32601, "Method not found")),
    }
}

fn call(revision: Revision, id: &Value, params: &Value) -> Answer {
    let Some(name) = params["name"].as_str() else {
        return Answer::ok(error(id, -32602, "`name` must be a string"));
    };
    match tools::call(name, &params["arguments"], revision.is_structured()) {
        Outcome::Done(done) => Answer::ok(result(id, Value::Object(done))),
        Outcome::Slow(call) => Answer::Slow(Slow {
            id: id.clone(),
            call,
            progress_token: progress_token(params),
            finish: Value::Object,
        }),
        Outcome::UnknownTool => Answer::ok(error(id, -32602, &format!("Unknown tool: {name}"))),
    }
}

/// The request's progress token, if it has a valid one.
pub(super) fn progress_token(params: &Value) -> Option<Value> {
    params["_meta"].get("progressToken").filter(|token| is_id(token)).cloned()
}

/// Whether a value can be a request's id or a progress token: a string or an integer.
pub(super) fn is_id(value: &Value) -> bool {
    value.is_string() || value.is_i64() || value.is_u64()
}
