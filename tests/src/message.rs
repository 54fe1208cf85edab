//! Owns the MCP messages that tests write by hand, with the header fields that have to go along with them.

use serde_json::{Value, json};

/// What every POST of an MCP client has.
pub const POST_HEADERS: [(&str, &str); 2] =
    [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];

/// `initialize` of 2025-11-25.
#[must_use]
pub fn initialize(id: &Value) -> Value {
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1.0.0"},
    });
    json!({"jsonrpc": "2.0", "id": id, "method": "initialize", "params": params})
}

/// A request of 2026-07-28 with all that its `_meta` needs; `params` is an object.
#[must_use]
pub fn modern(id: &Value, method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1.0.0"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

/// A `tools/call` of 2026-07-28.
#[must_use]
pub fn modern_call(id: &Value, tool: &str, arguments: &Value) -> Value {
    modern(id, "tools/call", json!({"name": tool, "arguments": arguments}))
}

/// The fields that a `tools/call` of 2026-07-28 mirrors, besides [`POST_HEADERS`].
#[must_use]
pub fn modern_call_headers(tool: &str) -> [(&'static str, &str); 3] {
    [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", tool)]
}
