//! Greetings of many servers as one: owns what a client is told of capabilities, instructions and revisions by
//! `initialize` and `server/discover`. The one place here where text is put together anew.

use serde_json::{Map, Value, json};

use super::{Federation, MISSING_SERVERS};
use crate::mcp::Revision;

const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// What the gateway says of itself.
#[derive(Clone, Copy, Debug)]
pub struct ServerInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
}

/// What a server said of itself.
#[derive(Clone, Debug)]
pub struct Hello {
    /// The revision that `initialize` agreed on; `None` in an answer to `server/discover`.
    revision: Option<Revision>,
    /// The revisions that `server/discover` names.
    supported: Vec<Revision>,
    capabilities: Map<String, Value>,
    instructions: Option<String>,
    ttl_ms: u64,
    public: bool,
}

impl Hello {
    /// Reads a response to `initialize` or `server/discover`; `None` where it is an error or none of either.
    pub fn read(response: &[u8]) -> Option<Self> {
        let mut response: Value = serde_json::from_slice(response).ok()?;
        let result = response.get_mut("result")?;
        let capabilities = match result.get_mut("capabilities").map(Value::take) {
            Some(Value::Object(capabilities)) => capabilities,
            _ => return None,
        };
        let revision = |value: &Value| Revision::parse(value.as_str()?.as_bytes());
        let agreed = result.get("protocolVersion").and_then(revision);
        let supported: Vec<_> = result
            .get("supportedVersions")
            .and_then(Value::as_array)
            .map(|all| all.iter().filter_map(revision).collect())
            .unwrap_or_default();
        if agreed.is_none() && supported.is_empty() {
            return None;
        }
        let instructions = result.get("instructions").and_then(Value::as_str).filter(|text| !text.is_empty());
        Some(Hello {
            revision: agreed,
            supported,
            capabilities,
            instructions: instructions.map(str::to_owned),
            ttl_ms: result.get("ttlMs").and_then(Value::as_u64).unwrap_or(0),
            public: result.get("cacheScope").and_then(Value::as_str) == Some("public"),
        })
    }

    /// The revision that `initialize` agreed on.
    pub fn revision(&self) -> Option<Revision> {
        self.revision
    }
}

/// Writes the response to `initialize` that is made of these servers' own, and says its revision: the latest that any of
/// them agreed to, because each server is spoken to in its own. `None` where there is none.
pub fn write_initialize(
    federation: &Federation,
    id: &[u8],
    hellos: &[(usize, Hello)],
    missing: &[usize],
    info: ServerInfo<'_>,
) -> Option<(Vec<u8>, Revision)> {
    let revision = hellos.iter().filter_map(|(_, hello)| hello.revision).max()?;
    let mut result = common(federation, hellos);
    result.insert("protocolVersion".to_owned(), revision.as_str().into());
    result.insert("serverInfo".to_owned(), json!({"name": info.name, "version": info.version}));
    if !missing.is_empty() {
        result.insert("_meta".to_owned(), json!({MISSING_SERVERS: names(federation, missing)}));
    }
    Some((response(id, result), revision))
}

/// Writes the response to `server/discover` that is made of these servers' own.
pub fn write_discover(
    federation: &Federation,
    id: &[u8],
    hellos: &[(usize, Hello)],
    missing: &[usize],
    info: ServerInfo<'_>,
) -> Vec<u8> {
    let mut result = common(federation, hellos);
    let supported: Vec<_> = Revision::ALL
        .iter()
        .filter(|revision| hellos.iter().any(|(_, hello)| hello.supported.contains(revision)))
        .map(|revision| Value::from(revision.as_str()))
        .collect();
    let ttl = hellos.iter().map(|(_, hello)| hello.ttl_ms).min().filter(|_| missing.is_empty());
    let public = hellos.iter().all(|(_, hello)| hello.public);
    let mut meta = json!({SERVER_INFO: {"name": info.name, "version": info.version}});
    if !missing.is_empty() {
        meta[MISSING_SERVERS] = names(federation, missing);
    }
    result.insert("resultType".to_owned(), "complete".into());
    result.insert("supportedVersions".to_owned(), supported.into());
    result.insert("ttlMs".to_owned(), ttl.unwrap_or(0).into());
    result.insert("cacheScope".to_owned(), if public { "public" } else { "private" }.into());
    result.insert("_meta".to_owned(), meta);
    response(id, result)
}

/// What both kinds of greeting say.
fn common(federation: &Federation, hellos: &[(usize, Hello)]) -> Map<String, Value> {
    let mut capabilities = Map::new();
    let mut instructions = Vec::new();
    for (server, hello) in hellos {
        unite(&mut capabilities, &hello.capabilities);
        if let Some(text) = &hello.instructions {
            instructions.push(format!("# {}\n\n{text}", federation.name(*server)));
        }
    }
    let mut result = Map::new();
    result.insert("capabilities".to_owned(), capabilities.into());
    if !instructions.is_empty() {
        result.insert("instructions".to_owned(), instructions.join("\n\n").into());
    }
    result
}

/// Adds what another server can do: whatever one of them can, all can together. Of two values that cannot both hold, the
/// first server's stays.
fn unite(all: &mut Map<String, Value>, more: &Map<String, Value>) {
    // The depth is bounded by the JSON reader's own limit.
    for (key, value) in more {
        match (all.get_mut(key), value) {
            (Some(Value::Object(all)), Value::Object(more)) => unite(all, more),
            (Some(Value::Bool(all)), Value::Bool(more)) => *all |= more,
            (Some(_), _) => {}
            (None, value) => {
                all.insert(key.clone(), value.clone());
            }
        }
    }
}

fn names(federation: &Federation, servers: &[usize]) -> Value {
    servers.iter().map(|server| Value::from(federation.name(*server))).collect()
}

fn response(id: &[u8], result: Map<String, Value>) -> Vec<u8> {
    let mut out = b"{\"jsonrpc\":\"2.0\",\"id\":".to_vec();
    out.extend_from_slice(id);
    out.extend_from_slice(b",\"result\":");
    out.extend_from_slice(Value::Object(result).to_string().as_bytes());
    out.push(b'}');
    out
}
