//! Owns what an MCP client of either era does: its messages, and the sending of the usual ones.

use serde_json::{Value, json};

use crate::{Connection, Response};

/// The modern revision.
pub const MODERN: &str = "2026-07-28";
/// The newest legacy revision.
pub const LEGACY: &str = "2025-11-25";

/// What every POST of an MCP client has.
pub const POST_HEADERS: [(&str, &str); 2] =
    [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];

/// The `_meta` that every modern request needs.
#[must_use]
pub fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1.0.0"},
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

/// A modern request with its `_meta`; `params` is an object.
#[must_use]
pub fn modern(id: impl Into<Value>, method: &str, mut params: Value) -> Value {
    params["_meta"] = meta();
    request(id, method, params)
}

/// The header fields that mirror a modern request.
#[must_use]
pub fn mirrored<'a>(method: &'a str, name: Option<&'a str>) -> Vec<(&'static str, &'a str)> {
    let mut headers = vec![("mcp-protocol-version", MODERN), ("mcp-method", method)];
    headers.extend(name.map(|name| ("mcp-name", name)));
    headers
}

/// A modern `tools/call`.
#[must_use]
pub fn modern_call(id: impl Into<Value>, tool: &str, arguments: Value) -> Value {
    modern(id, "tools/call", json!({"name": tool, "arguments": arguments}))
}

/// A request.
#[must_use]
pub fn request(id: impl Into<Value>, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params})
}

/// The request that opens a session of `revision`.
#[must_use]
pub fn initialize(revision: &str) -> Value {
    let client = json!({"name": "test", "version": "1.0.0"});
    request(1, "initialize", json!({"protocolVersion": revision, "capabilities": {}, "clientInfo": client}))
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
    connection.post(path, &mirrored("tools/call", Some(tool)), &modern_call(1, tool, arguments))
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
