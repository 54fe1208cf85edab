//! The gateway's own questions to modern servers: owns their texts and the reading of their answers whole. They go the way of
//! every message, retries and breakers included. Never what follows from an answer.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;

use mcp_protocol::http1::{Method, is_event_stream, is_json};
use mcp_protocol::jsonrpc::{Kind, Payload, Scan, ScanLimits, scan};
use mcp_protocol::sse::Decoder;

use super::forward::{self, Again, Request, Sent};
use super::{FrameOrigin, Inbound, Message, Origin};
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::upstream::Upstream;
use crate::upstream::answer::Answer;
use crate::upstream::call::CallError;

/// Bytes of an answer to the gateway's own questions.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// What the gateway says of itself when it asks on its own account.
const META: &str = concat!(
    r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
    r#""io.modelcontextprotocol/clientInfo":{"name":"mcp-gateway","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""},"io.modelcontextprotocol/clientCapabilities":{}}"#,
);

/// On whose behalf is asked: a server may answer no one else.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    authorization: Option<&'a [u8]>,
    peer: IpAddr,
}

impl<'a> Asker<'a> {
    /// The client of a message.
    pub(super) fn client(inbound: &'a Inbound) -> Self {
        Asker { authorization: inbound.message.authorization(), peer: inbound.peer }
    }
}

/// The message that asks `server/discover`.
pub(super) fn discover_message(authorization: Option<&[u8]>) -> Message {
    let id = "mcp-gateway-discover";
    question(authorization, id, "server/discover", "")
}

/// Asks `server/discover`, which every modern server must implement.
///
/// # Errors
/// As [`forward::to_any`].
pub(super) async fn discover(
    shard: &Rc<Shard>,
    upstream: &Upstream,
    asker: Asker<'_>,
) -> Result<Sent, Refusal> {
    send(shard, upstream, &discover_message(asker.authorization), asker.peer).await
}

/// Asks for a page of `tools/list`; `cursor` is what the page before gave.
///
/// # Errors
/// As [`forward::to_any`].
pub(super) async fn list_tools(
    shard: &Rc<Shard>,
    upstream: &Upstream,
    asker: Asker<'_>,
    cursor: Option<&str>,
) -> Result<Sent, Refusal> {
    let cursor =
        cursor.map(|cursor| format!(",\"cursor\":{}", serde_json::Value::from(cursor))).unwrap_or_default();
    let message = question(asker.authorization, "mcp-gateway-tools", "tools/list", &cursor);
    send(shard, upstream, &message, asker.peer).await
}

fn question(authorization: Option<&[u8]>, id: &str, method: &str, params: &str) -> Message {
    let mirrored = format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\n").into_bytes();
    let origin = FrameOrigin {
        authorization: authorization.and_then(|value| std::str::from_utf8(value).ok()).map(Rc::from),
        mirrored: OnceCell::from(mirrored),
        ..FrameOrigin::default()
    };
    let body = format!(r#"{{"jsonrpc":"2.0","id":"{id}","method":"{method}","params":{{{META}{params}}}}}"#);
    Message { origin: Origin::Frame(Box::new(origin)), body: body.into_bytes() }
}

async fn send(
    shard: &Rc<Shard>,
    upstream: &Upstream,
    message: &Message,
    peer: IpAddr,
) -> Result<Sent, Refusal> {
    let request = Request { verb: Method::Post, message, peer, again: Again::Harmless };
    forward::to_any(shard, &request, upstream).await
}

/// Reads a whole answer, JSON or SSE, to its JSON-RPC response; `None` when it is complete and holds none.
///
/// # Errors
/// [`CallError`] when the answer is late, broken off or too large.
pub(super) async fn read_answer(
    shard: &Rc<Shard>,
    upstream: &Upstream,
    mut answer: Answer,
) -> Result<Option<(Vec<u8>, Scan)>, CallError> {
    let (json, events) = (is_json(answer.content_type()), is_event_stream(answer.content_type()));
    let by = shard.core.clock.after(upstream.timeout);
    let response = |bytes: Vec<u8>| match scan(&bytes, &ScanLimits::default()) {
        Ok(Payload::Single(found)) if found.kind == Kind::Response => Some((bytes, found)),
        Ok(_) | Err(_) => None,
    };
    let too_large = || CallError::Malformed("an answer that is too large");
    let mut body = Vec::new();
    let mut decoder = Decoder::new(MAX_ANSWER_BYTES);
    let mut decoded = Vec::new();
    loop {
        let next = {
            let next = pin!(answer.next());
            shard.deadline(by, next).await
        };
        let Some(piece) = next.map_err(|_| CallError::Timeout)?? else { break };
        let bytes = answer.bytes(piece);
        if events {
            decoder.push(bytes, &mut decoded).map_err(|_| too_large())?;
            if let Some(found) = decoded.drain(..).find_map(|event| response(event.data.into_bytes())) {
                return Ok(Some(found));
            }
        } else if body.len() + bytes.len() > MAX_ANSWER_BYTES {
            return Err(too_large());
        } else {
            body.extend_from_slice(bytes);
        }
    }
    Ok(if json { response(body) } else { None })
}
