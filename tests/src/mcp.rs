//! Owns what an MCP client of either era does: its messages, with less to say than in [`crate::message`], and the sending of the
//! usual ones.

use serde_json::{Value, json};

use crate::{Connection, Response, message};

/// The modern revision.
pub const MODERN: &str = "2026-07-28";
/// The newest legacy revision.
pub const LEGACY: &str = "2025-11-25";

/// The `_meta` that every modern request needs.
#[must_use]
pub fn meta() -> Value {
    modern(Value::Null, "", json!({}))["params"]["_meta"].take()
}

/// A modern request with its `_meta`.
#[must_use]
pub fn modern(id: impl Into<Value>, method: &str, params: Value) -> Value {
    message::modern(&id.into(), method, params)
}

/// The header fields that mirror a modern request.
#[must_use]
pub fn mirrored<'a>(method: &'a str, name: Option<&'a str>) -> Vec<(&'static str, &'a str)> {
    let mut headers = vec![("mcp-protocol-version", MODERN), ("mcp-method", method)];
    headers.extend(name.map(|name| ("mcp-name", name)));
    headers
}

/// A request.
#[must_use]
pub fn request(id: impl Into<Value>, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params})
}

/// The request that opens a session of `revision`.
#[must_use]
pub fn initialize(revision: &str) -> Value {
    let mut message = message::initialize(&json!(1));
    message["params"]["protocolVersion"] = json!(revision);
    message
}

/// Calls a modern server's tool over `connection`.
///
/// # Errors
/// When the connection fails or the answer is malformed.
pub fn call(
    connection: &mut Connection,
    path: &str,
    tool: &str,
    arguments: Value,
) -> std::io::Result<Response> {
    let message = modern(1, "tools/call", json!({"name": tool, "arguments": arguments}));
    connection.post(path, &mirrored("tools/call", Some(tool)), &message)
}

/// Opens a session of `revision` and returns its id.
///
/// # Panics
/// When that fails.
pub fn open_session(connection: &mut Connection, path: &str, revision: &str) -> String {
    let answer = connection.post(path, &[], &initialize(revision)).expect("an answer to initialize");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["result"]["protocolVersion"], revision, "{}", answer.text());
    let id = answer.header("mcp-session-id").expect("a session id");
    id.to_owned()
}

/// The header fields of a message in a session.
#[must_use]
pub fn in_session<'a>(session: &'a str, revision: &'a str) -> [(&'static str, &'a str); 2] {
    [("mcp-session-id", session), ("mcp-protocol-version", revision)]
}

/// Posts a request in a session.
///
/// # Errors
/// When the connection fails or the answer is malformed.
pub fn post_in_session(
    connection: &mut Connection,
    path: &str,
    session: &str,
    message: &Value,
) -> std::io::Result<Response> {
    connection.post(path, &in_session(session, LEGACY), message)
}
