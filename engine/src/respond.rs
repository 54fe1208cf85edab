//! The one table from an error to its answer: owns HTTP status, JSON-RPC code, metric label and text of every refusal that
//! the gateway makes by itself, for every door. It never sends anything.

use mcp_protocol::http1::{ChunkError, HeadError};
use mcp_protocol::jsonrpc::ScanError;
use mcp_protocol::mcp::federation::Unroutable;
use mcp_protocol::mcp::{ModernError, Revision};
use mcp_protocol::ws::UpgradeError;
use mcp_shard_store::StoreError;
use mcp_shard_store::error::Retry;

use crate::metrics::Shed;

/// Seconds that a client is asked to wait before it tries again.
pub(crate) const RETRY_AFTER_S: u64 = 1;

/// Why the gateway answers a message by itself; sorted by blame: peer, upstream, store, us.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The request's head breaks HTTP/1.1 or a limit.
    Head(HeadError),
    /// The request's chunked body breaks RFC 9112.
    Chunk(ChunkError),
    /// The head did not arrive in time.
    HeaderTimeout,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body is larger than `gateway.server.max_body`.
    BodyTooLarge { limit: usize },
    /// The `Host` is none of the gateway's names.
    Host { host: String },
    /// The `Origin` is not allowed.
    Origin { origin: String },
    /// There is nothing at this path.
    Path,
    /// No server has this name.
    UnknownServer { name: String },
    /// The path exists, the method does not.
    MethodNotAllowed { allow: &'static str },
    /// The request cannot become a WebSocket.
    Upgrade(UpgradeError),
    /// `Accept` excludes what MCP answers with.
    NotAcceptable { wanted: &'static str },
    /// `Content-Type` is not JSON.
    MediaType,
    /// `Content-Encoding` other than identity.
    ContentEncoding,
    /// The body is no JSON-RPC message.
    Scan(ScanError),
    /// A rule of revision 2026-07-28 is broken.
    Modern(ModernError),
    /// `MCP-Protocol-Version` names no legacy revision that we know.
    Revision { requested: String },
    /// A batch where the session's revision has none.
    Batch,
    /// A batch that holds `initialize` (2025-03-26, lifecycle).
    BatchedInitialize,
    /// A response from a client of a revision in which clients send none.
    UnexpectedResponse,
    /// A legacy message without `Mcp-Session-Id`.
    SessionRequired,
    /// A message for a stream that does not say which.
    StreamRequired,
    /// The session is unknown, ended or another server's.
    SessionUnknown,
    /// A modern client reached a server that speaks legacy revisions only.
    LegacyServer { server: String, requested: String },
    /// A client with `initialize` reached a server that has none.
    ModernServer { server: String, requested: String },
    /// No connection to any endpoint of the server.
    UpstreamConnect { server: String },
    /// The server did not answer within its `timeout`.
    UpstreamTimeout { server: String },
    /// The server closed or reset the connection before its answer was complete.
    UpstreamClosed { server: String },
    /// The server's answer is no MCP answer.
    UpstreamMalformed { server: String, what: &'static str },
    /// The server answered with an error that is not JSON.
    UpstreamStatus { server: String, status: u16 },
    /// None of the server's endpoints takes requests: their breakers are open, or their health checks fail.
    NoEndpoint { server: String, retry_after_ms: u64 },
    /// All connections of the pool stayed busy.
    PoolExhausted { server: String },
    /// As many processes of a stdio server run as may.
    ProcessesExhausted { server: String },
    /// The store did not do what it was asked.
    Store(StoreError),
    /// Another gateway holds the session's stream, and there is no way to it.
    OwnerElsewhere,
    /// Another gateway held the session's server, or one before this did, and there is no way to it.
    ChannelElsewhere,
    /// The owner of the session's stream or server cannot be reached.
    OwnerUnreachable,
    /// The owner did not say in time whether it has taken the message.
    OwnerSilent,
    /// As many messages are on their way to the owner as may be.
    OwnerBusy,
    /// The shard holds as many unfinished bytes as it may.
    Memory,
    /// More requests came of one principal or address than may.
    RateLimited { retry_after_ms: u64 },
    /// As many messages of a connection are in flight as may be.
    InFlight { limit: usize },
    /// The shard has as much to do as it can do in time.
    Overloaded { why: Shed },
    /// The gateway is shutting down.
    Draining,
    /// A message to all servers that none of them can be meant by.
    Unroutable { error: Unroutable, modern: bool },
    /// Of all servers, none answered in time.
    AllMissing,
}

/// One row of the table.
pub(crate) struct Row {
    pub(crate) status: u16,
    pub(crate) code: i64,
    /// The `reason` label of `mcp_gateway_routing_errors_total`.
    pub(crate) reason: &'static str,
    pub(crate) retryable: bool,
}

const INVALID_REQUEST: i64 = -32600;
/// Implementation-defined server error: the answer was not the server's.
const GATEWAY: i64 = -32000;
/// What the official SDKs use for an unknown session.
const SESSION_UNKNOWN: i64 = -32001;
const UNSUPPORTED_REVISION: i64 = -32022;

impl Refusal {
    /// The table.
    pub(crate) fn row(&self) -> Row {
        let (status, code, reason, retryable) = match self {
            Refusal::Head(error) => (error.status(), INVALID_REQUEST, "http_head", false),
            Refusal::Chunk(_) => (400, INVALID_REQUEST, "http_chunk", false),
            Refusal::HeaderTimeout => (408, INVALID_REQUEST, "header_timeout", true),
            Refusal::BodyTimeout => (408, INVALID_REQUEST, "body_timeout", true),
            Refusal::BodyTooLarge { .. } => (413, INVALID_REQUEST, "body_too_large", false),
            Refusal::Host { .. } => (403, INVALID_REQUEST, "host", false),
            Refusal::Origin { .. } => (403, INVALID_REQUEST, "origin", false),
            Refusal::Path => (404, INVALID_REQUEST, "path", false),
            Refusal::UnknownServer { .. } => (404, INVALID_REQUEST, "server_unknown", false),
            Refusal::MethodNotAllowed { .. } => (405, INVALID_REQUEST, "method_not_allowed", false),
            Refusal::Upgrade(error) => (error.status(), INVALID_REQUEST, "upgrade", false),
            Refusal::NotAcceptable { .. } => (406, INVALID_REQUEST, "not_acceptable", false),
            Refusal::MediaType => (415, INVALID_REQUEST, "media_type", false),
            Refusal::ContentEncoding => (415, INVALID_REQUEST, "content_encoding", false),
            Refusal::Scan(error) => (400, error.json_rpc_code(), "json_rpc", false),
            Refusal::Modern(error) => (error.status(), error.code(), "modern_headers", false),
            Refusal::Revision { .. } => (400, UNSUPPORTED_REVISION, "revision", false),
            Refusal::Batch => (400, INVALID_REQUEST, "batch", false),
            Refusal::BatchedInitialize => (400, INVALID_REQUEST, "batched_initialize", false),
            Refusal::UnexpectedResponse => (400, INVALID_REQUEST, "unexpected_response", false),
            Refusal::SessionRequired => (400, INVALID_REQUEST, "session_required", false),
            Refusal::StreamRequired => (400, INVALID_REQUEST, "stream_required", false),
            Refusal::SessionUnknown => (404, SESSION_UNKNOWN, "session_unknown", false),
            Refusal::LegacyServer { .. } => (400, UNSUPPORTED_REVISION, "legacy_server", false),
            Refusal::ModernServer { .. } => (400, UNSUPPORTED_REVISION, "modern_server", false),
            Refusal::UpstreamConnect { .. } => (502, GATEWAY, "upstream_connect", true),
            Refusal::UpstreamTimeout { .. } => (504, GATEWAY, "upstream_timeout", true),
            Refusal::UpstreamClosed { .. } => (502, GATEWAY, "upstream_closed", true),
            Refusal::UpstreamMalformed { .. } => (502, GATEWAY, "upstream_malformed", false),
            Refusal::UpstreamStatus { .. } => (502, GATEWAY, "upstream_status", true),
            Refusal::NoEndpoint { .. } => (503, GATEWAY, "no_endpoint", true),
            Refusal::PoolExhausted { .. } => (503, GATEWAY, "pool_exhausted", true),
            Refusal::ProcessesExhausted { .. } => (503, GATEWAY, "processes_exhausted", true),
            Refusal::Store(error) => (503, GATEWAY, store_reason(error), is_worth_another_try(error)),
            Refusal::RateLimited { .. } => (429, GATEWAY, "rate_limited", true),
            Refusal::OwnerElsewhere => (503, GATEWAY, "owner_elsewhere", true),
            Refusal::ChannelElsewhere => (404, SESSION_UNKNOWN, "channel_elsewhere", false),
            Refusal::OwnerUnreachable => (503, GATEWAY, "owner_unreachable", true),
            Refusal::OwnerSilent => (503, GATEWAY, "owner_silent", true),
            Refusal::OwnerBusy => (503, GATEWAY, "owner_busy", true),
            Refusal::Memory => (503, GATEWAY, "memory", true),
            Refusal::InFlight { .. } => (429, GATEWAY, "in_flight", true),
            Refusal::Overloaded { .. } => (503, GATEWAY, "overloaded", true),
            Refusal::Draining => (503, GATEWAY, "draining", true),
            // 404 is what a modern client expects of a method that is none; to a legacy one it would mean its session.
            Refusal::Unroutable { error: error @ Unroutable::Method { .. }, modern: true } => {
                (404, error.code(), "unroutable", false)
            }
            Refusal::Unroutable { error: error @ Unroutable::Response, .. } => {
                (400, error.code(), "unroutable", false)
            }
            Refusal::Unroutable { error, .. } => (200, error.code(), "unroutable", false),
            Refusal::AllMissing => (504, GATEWAY, "all_missing", true),
        };
        Row { status, code, reason, retryable }
    }

    /// Why the request was shed, where another time would have been better: its sender is told when, and not read before.
    pub(crate) fn shed(&self) -> Option<Shed> {
        match self {
            Refusal::Overloaded { why } => Some(*why),
            Refusal::PoolExhausted { .. } => Some(Shed::Pool),
            _ => None,
        }
    }

    /// Seconds after which it may go better.
    pub(crate) fn retry_after_s(&self) -> u64 {
        match self {
            Refusal::RateLimited { retry_after_ms } | Refusal::NoEndpoint { retry_after_ms, .. } => {
                retry_after_ms.div_ceil(1000).max(1)
            }
            _ => RETRY_AFTER_S,
        }
    }

    /// The sentence for the client.
    pub(crate) fn message(&self) -> String {
        match self {
            Refusal::Head(error) => error.to_string(),
            Refusal::Chunk(error) => error.to_string(),
            Refusal::HeaderTimeout => "the request's head did not arrive in time".into(),
            Refusal::BodyTimeout => "the request's body did not arrive in time".into(),
            Refusal::BodyTooLarge { limit } => format!("the body is larger than {limit} bytes"),
            Refusal::Host { host } => {
                format!("Host {host:?} is none of this gateway's names; see gateway.server.allowed_hosts")
            }
            Refusal::Origin { origin } => {
                format!("Origin {origin:?} is not allowed; see gateway.server.allowed_origins")
            }
            Refusal::Path => {
                "nothing is served at this path; MCP is at /mcp and /mcp/<server>, as WebSocket at /ws and /ws/<server>, \
                 as HTTP with SSE at /sse and /sse/<server>"
                    .into()
            },
            Refusal::UnknownServer { name } => format!("no server is named {name:?}"),
            Refusal::MethodNotAllowed { allow } => format!("this path allows {allow}"),
            Refusal::Upgrade(error) => error.to_string(),
            Refusal::NotAcceptable { wanted } => format!("Not Acceptable: the client must accept {wanted}"),
            Refusal::MediaType => "Content-Type must be application/json".into(),
            Refusal::ContentEncoding => "the body must not be encoded".into(),
            Refusal::Scan(error) => error.to_string(),
            Refusal::Modern(error) => error.message(),
            Refusal::Revision { requested } => format!("Unsupported protocol version: {requested:?}"),
            Refusal::Batch => "the session's protocol revision has no batches".into(),
            Refusal::BatchedInitialize => "initialize must not be part of a batch".into(),
            Refusal::UnexpectedResponse => "clients of this protocol revision send no responses".into(),
            Refusal::SessionRequired => "Mcp-Session-Id is required; a session begins with initialize".into(),
            Refusal::StreamRequired => {
                "sessionId is required; messages go to the URI that the stream's first event names".into()
            }
            Refusal::SessionUnknown => "Session not found".into(),
            Refusal::LegacyServer { server, .. } => {
                format!(
                    "Unsupported protocol version: server {server:?} speaks revisions with initialize only"
                )
            }
            Refusal::ModernServer { server, .. } => {
                format!("Unsupported protocol version: server {server:?} speaks 2026-07-28, without initialize")
            }
            Refusal::UpstreamConnect { server } => format!("server {server:?} cannot be reached"),
            Refusal::UpstreamTimeout { server } => format!("server {server:?} did not answer in time"),
            Refusal::UpstreamClosed { server } => format!("server {server:?} broke off its answer"),
            Refusal::UpstreamMalformed { server, what } => format!("server {server:?} answered with {what}"),
            Refusal::UpstreamStatus { server, status } => {
                format!("server {server:?} answered with HTTP {status}")
            }
            Refusal::NoEndpoint { server, .. } => {
                format!("server {server:?} failed too often and is left alone for a while")
            }
            Refusal::PoolExhausted { server } => format!("all connections to server {server:?} are busy"),
            Refusal::ProcessesExhausted { server } => {
                format!("as many processes of server {server:?} run as may; see max_processes")
            }
            Refusal::Store(error) => store_message(error).into(),
            Refusal::RateLimited { .. } => "too many requests".into(),
            Refusal::OwnerElsewhere => {
                "another gateway holds the session's stream; see gateway.peers".into()
            }
            Refusal::ChannelElsewhere => {
                "Session not found: another gateway holds its server, or one before this did; see gateway.peers".into()
            }
            Refusal::OwnerUnreachable => "the gateway that holds the session cannot be reached".into(),
            Refusal::OwnerSilent => "the gateway that holds the session did not answer in time".into(),
            Refusal::OwnerBusy => "too many messages are on their way to the gateway that holds the session".into(),
            Refusal::Memory => "the gateway holds as many unfinished messages as it may".into(),
            Refusal::InFlight { limit } => format!("{limit} messages are in flight, as many as may be"),
            Refusal::Overloaded { .. } => "the gateway is overloaded".into(),
            Refusal::Draining => "shutting down".into(),
            Refusal::Unroutable { error, .. } => error.to_string(),
            Refusal::AllMissing => "no server answered in time".into(),
        }
    }

    /// The `data` member of the JSON-RPC error, as JSON text.
    fn data(&self) -> Option<String> {
        let supported = |revisions: &mut dyn Iterator<Item = &Revision>, requested: &str| {
            let revisions: Vec<_> = revisions.map(|revision| revision.as_str()).collect();
            serde_json::json!({ "supported": revisions, "requested": requested }).to_string()
        };
        match self {
            Refusal::Modern(error) => error.data(),
            Refusal::Revision { requested } | Refusal::LegacyServer { requested, .. } => {
                Some(supported(&mut Revision::LEGACY.iter().rev(), requested))
            }
            Refusal::ModernServer { requested, .. } => {
                Some(supported(&mut Revision::MODERN.iter(), requested))
            }
            _ if self.row().retryable => {
                // Whoever asked for a change must know that it may have been made.
                let unknown = match self {
                    Refusal::Store(error) => error.retry() == Retry::Unknown,
                    Refusal::OwnerSilent => true,
                    _ => false,
                };
                let outcome = if unknown { ",\"outcome\":\"unknown\"" } else { "" };
                Some(format!("{{\"retryable\":true,\"retry_after\":{}{outcome}}}", self.retry_after_s()))
            }
            _ => None,
        }
    }

    /// The answer as a JSON-RPC error; `id` is the request's raw id, `null` when there is none.
    pub(crate) fn write_json(&self, id: Option<&[u8]>, out: &mut Vec<u8>) {
        let message = serde_json::Value::String(self.message()).to_string();
        out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
        out.extend_from_slice(id.unwrap_or(b"null"));
        out.extend_from_slice(b",\"error\":{\"code\":");
        out.extend_from_slice(self.row().code.to_string().as_bytes());
        out.extend_from_slice(b",\"message\":");
        out.extend_from_slice(message.as_bytes());
        if let Some(data) = self.data() {
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(data.as_bytes());
        }
        out.extend_from_slice(b"}}");
    }
}

/// A full store may have room later; else what the error says of itself counts.
fn is_worth_another_try(error: &StoreError) -> bool {
    matches!(error, StoreError::Full { .. }) || error.retry() != Retry::Useless
}

/// The `reason` label of a store's error.
fn store_reason(error: &StoreError) -> &'static str {
    match error {
        StoreError::Full { .. } => "store_full",
        StoreError::Busy => "store_busy",
        StoreError::NoRandom => "no_random",
        StoreError::Unreachable => "store_unreachable",
        StoreError::Timeout(_) => "store_timeout",
        StoreError::Lost(_) => "store_lost",
        StoreError::Refused { .. } => "store_refused",
        StoreError::Malformed(_) => "store_malformed",
        StoreError::NotReplicated { .. } => "store_not_replicated",
    }
}

/// What a client is told of a store's error: nothing of the store's own words, which may name keys.
fn store_message(error: &StoreError) -> &'static str {
    match error {
        StoreError::Full { .. } => "no room for another session",
        StoreError::Busy => "the session store has as many questions as it takes",
        StoreError::NoRandom => "no session can be opened at the moment",
        StoreError::Unreachable => "the session store cannot be reached",
        StoreError::Timeout(_) => "the session store did not answer in time",
        StoreError::Lost(_) => "the connection to the session store broke",
        StoreError::Refused { .. } => "the session store refused",
        StoreError::Malformed(_) => "the session store cannot be understood",
        StoreError::NotReplicated { .. } => "the session store does not have enough replicas",
    }
}

#[cfg(test)]
mod tests {
    use mcp_shard_store::error::Change;

    use super::*;

    #[test]
    fn an_error_is_valid_json_with_the_request_s_own_id() {
        let refusal = Refusal::UnknownServer { name: "a\"b\n".into() };
        let mut out = Vec::new();
        refusal.write_json(Some(b"\"x\""), &mut out);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["id"], "x");
        assert_eq!(value["error"]["code"], -32600);
        assert!(value["error"]["message"].as_str().unwrap().contains("a\\\"b\\n"));
    }

    #[test]
    fn a_store_s_error_says_whether_to_ask_again_and_what_is_not_known() {
        let unknown = Refusal::Store(StoreError::Timeout(Change::Unknown));
        let nothing = Refusal::Store(StoreError::Unreachable);
        let useless = Refusal::Store(StoreError::refused("ERR secret words"));
        for (refusal, reason, data) in [
            (&unknown, "store_timeout", Some(r#"{"retryable":true,"retry_after":1,"outcome":"unknown"}"#)),
            (&nothing, "store_unreachable", Some(r#"{"retryable":true,"retry_after":1}"#)),
            (&useless, "store_refused", None),
        ] {
            assert_eq!((refusal.row().status, refusal.row().reason), (503, reason));
            assert_eq!(refusal.data().as_deref(), data);
            assert!(!refusal.message().contains("secret"));
        }
    }

    #[test]
    fn a_limit_says_when_it_may_go_better_in_whole_seconds() {
        for (ms, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_999, 60)] {
            let refusal = Refusal::RateLimited { retry_after_ms: ms };
            assert_eq!((refusal.row().status, refusal.retry_after_s()), (429, seconds));
            assert_eq!(refusal.data(), Some(format!(r#"{{"retryable":true,"retry_after":{seconds}}}"#)));
        }
    }

    #[test]
    fn a_retryable_error_says_so_and_a_revision_error_lists_what_is_supported() {
        let mut out = Vec::new();
        Refusal::Draining.write_json(None, &mut out);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            (&value["id"], &value["error"]["data"]["retryable"]),
            (&serde_json::Value::Null, &true.into())
        );

        out.clear();
        Refusal::LegacyServer { server: "old".into(), requested: "2026-07-28".into() }
            .write_json(None, &mut out);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["error"]["code"], -32022);
        assert_eq!(value["error"]["data"]["supported"][0], "2025-11-25");
        assert_eq!(value["error"]["data"]["requested"], "2026-07-28");

        out.clear();
        Refusal::ModernServer { server: "new".into(), requested: "2025-06-18".into() }
            .write_json(None, &mut out);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["error"]["code"], -32022);
        assert!(value["error"]["message"].as_str().unwrap().contains("\"new\""), "{value}");
        let expected = serde_json::json!({"supported": ["2026-07-28"], "requested": "2025-06-18"});
        assert_eq!(value["error"]["data"], expected);
    }
}
