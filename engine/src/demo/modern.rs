//! The modern era: revision 2026-07-28, stateless, with metadata in every request.
//!
//! Owns the checks of headers against the body (`basic/transports/streamable-http`, "Server Validation") and the methods
//! of this revision. It never reads a session.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::connection::{Answer, Slow, error, result};
use super::http::Request;
use super::legacy::{Revision, is_id, progress_token};
use super::tools::{self, Outcome};

/// The revision of this era.
pub(super) const REVISION: &str = "2026-07-28";

/// What the server tells a model about itself, in both eras.
pub(super) const INSTRUCTIONS: &str = "A demonstration server with three small tools: echo, add and slow.";

const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const META_SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
const META_SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// How long a list may be cached, in milliseconds; the tools never change.
const TTL_MS: u64 = 3_600_000;

const HEADER_MISMATCH: i64 = -32020;
const UNSUPPORTED_VERSION: i64 = -32022;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;

/// Whether a POST belongs to this era: by its header, or by metadata that names no legacy revision.
pub(super) fn is_modern(request: &Request, message: &Value) -> bool {
    let in_body = message["params"]["_meta"].get(META_VERSION);
    let is_legacy = |version: &Value| version.as_str().and_then(Revision::parse).is_some();
    request.header("mcp-protocol-version") == Some(REVISION)
        || in_body.is_some_and(|version| !is_legacy(version))
}

/// Answers a POST of this era.
pub(super) fn answer(request: &Request, message: &Value) -> Answer {
    let (id, method) = match (message.get("id"), message["method"].as_str()) {
        (_, Some(_)) if message["jsonrpc"] != "2.0" => {
            return Answer::refusal(&Value::Null, -32600, "`jsonrpc` must be \"2.0\"");
        }
        // The core protocol has no notification to a server over HTTP; others are accepted and mean nothing.
        (None, Some(_)) => return Answer::Empty { status: 202 },
        (Some(id), Some(method)) if is_id(id) => (id, method),
        _ => return Answer::refusal(&Value::Null, -32600, "A message must be a request or a notification"),
    };
    let params = &message["params"];
    if let Err(refusal) = check(request, id, method, params) {
        return refusal;
    }
    match method {
        "server/discover" => discover(id),
        "tools/list" => {
            let list = json!({ "tools": tools::definitions(true) });
            Answer::ok(result(id, cacheable(list)))
        }
        "tools/call" => call(id, params),
        "subscriptions/listen" => listen(id, params),
        _ => Answer::Message {
            status: 404,
            session: None,
            message: error(id, METHOD_NOT_FOUND, "Method not found"),
        },
    }
}

/// The refusal of a version, naming those that are supported.
pub(super) fn unsupported_version(id: &Value, requested: &str) -> Answer {
    let mut message = error(id, UNSUPPORTED_VERSION, "Unsupported protocol version");
    message["error"]["data"] = json!({ "supported": supported(), "requested": requested });
    Answer::Message { status: 400, session: None, message }
}

/// Name and version of this server.
pub(super) fn server_info() -> Value {
    json!({ "name": "mcp-gateway-demo", "version": env!("CARGO_PKG_VERSION") })
}

/// Headers against the body first, then the version, then the required metadata.
fn check(request: &Request, id: &Value, method: &str, params: &Value) -> Result<(), Answer> {
    let mismatch = |text: &str| Answer::refusal(id, HEADER_MISMATCH, &format!("Header mismatch: {text}"));
    let Some(version) = request.header("mcp-protocol-version") else {
        return Err(mismatch("MCP-Protocol-Version is missing"));
    };
    let meta = &params["_meta"];
    if let Some(in_body) = meta.get(META_VERSION)
        && in_body.as_str() != Some(version)
    {
        return Err(mismatch("MCP-Protocol-Version differs from the body"));
    }
    if version != REVISION {
        return Err(unsupported_version(id, version));
    }
    match request.header("mcp-method") {
        None => return Err(mismatch("Mcp-Method is missing")),
        Some(header) if header != method => return Err(mismatch("Mcp-Method differs from the body")),
        Some(_) => {}
    }
    let named = match method {
        "tools/call" | "prompts/get" => params["name"].as_str(),
        "resources/read" => params["uri"].as_str(),
        _ => None,
    };
    if let Some(name) = named {
        let header = request.header("mcp-name").ok_or_else(|| mismatch("Mcp-Name is missing"))?;
        let decoded = decode(header).ok_or_else(|| mismatch("Mcp-Name is malformed"))?;
        if decoded != name {
            return Err(mismatch("Mcp-Name differs from the body"));
        }
    }
    for (key, present) in [
        (META_VERSION, meta[META_VERSION].is_string()),
        (META_CAPABILITIES, meta[META_CAPABILITIES].is_object()),
    ] {
        if !present {
            return Err(Answer::refusal(id, INVALID_PARAMS, &format!("`_meta` lacks `{key}`")));
        }
    }
    Ok(())
}

/// A header's value, decoded when it has the Base64 sentinel; `None` if it can't be.
fn decode(value: &str) -> Option<Cow<'_, str>> {
    let Some(encoded) = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        let plain = value.bytes().all(|byte| byte == b'\t' || (0x20..0x7f).contains(&byte));
        return plain.then_some(Cow::Borrowed(value));
    };
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok().map(Cow::Owned)
}

fn discover(id: &Value) -> Answer {
    let discovered = json!({
        "supportedVersions": supported(),
        "capabilities": { "tools": {} },
        "instructions": INSTRUCTIONS,
    });
    Answer::ok(result(id, cacheable(discovered)))
}

fn call(id: &Value, params: &Value) -> Answer {
    let Some(name) = params["name"].as_str() else {
        return Answer::refusal(id, INVALID_PARAMS, "`name` must be a string");
    };
    match tools::call(name, &params["arguments"], true) {
        Outcome::Done(done) => Answer::ok(result(id, complete(done))),
        Outcome::Slow(call) => Answer::Slow(Slow {
            id: id.clone(),
            call,
            progress_token: progress_token(params),
            finish: complete,
        }),
        Outcome::UnknownTool => Answer::ok(error(id, INVALID_PARAMS, &format!("Unknown tool: {name}"))),
    }
}

/// Acknowledges a subscription; none of what can be asked for is supported, because nothing here ever changes.
fn listen(id: &Value, params: &Value) -> Answer {
    if !params["notifications"].is_object() {
        return Answer::refusal(id, INVALID_PARAMS, "`notifications` must be an object");
    }
    let mut completion = complete(Map::new());
    completion["_meta"][META_SUBSCRIPTION] = id.clone();
    Answer::Subscription {
        acknowledgement: json!({
            "jsonrpc": "2.0",
            "method": "notifications/subscriptions/acknowledged",
            "params": { "_meta": { META_SUBSCRIPTION: id }, "notifications": {} },
        }),
        completion: result(id, completion),
    }
}

/// Adds what every result of this revision has.
fn complete(mut result: Map<String, Value>) -> Value {
    result.insert("resultType".to_owned(), "complete".into());
    result.insert("_meta".to_owned(), json!({ META_SERVER_INFO: server_info() }));
    Value::Object(result)
}

/// Adds what every result that may be cached has.
fn cacheable(mut result: Value) -> Value {
    result["ttlMs"] = TTL_MS.into();
    result["cacheScope"] = "public".into();
    match result {
        Value::Object(result) => complete(result),
        other => other,
    }
}

fn supported() -> Vec<&'static str> {
    let mut versions = vec![REVISION];
    versions.extend(Revision::ALL.map(Revision::as_str));
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_header_values() {
        for (value, decoded) in [
            ("us-west1", Some("us-west1")),
            ("=?base64?SGVsbG8sIOS4lueVjA==?=", Some("Hello, 世界")),
            ("=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=", Some("=?base64?literal?=")),
            ("=?BASE64?SGVsbG8=?=", Some("=?BASE64?SGVsbG8=?=")),
            ("=?base64?SGVsbG8?=", None),
            ("=?base64?/w==?=", None),
            ("=?base64?!?=", None),
            ("ä", None),
        ] {
            assert_eq!(decode(value).as_deref(), decoded, "{value}");
        }
    }
}
