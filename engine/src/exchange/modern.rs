//! The modern era (2026-07-28): owns the header rules, the check that the server speaks it, and what is learned of its
//! tools for that. Stateless: nothing here outlives the request but that knowledge.

use std::cell::OnceCell;
use std::pin::pin;
use std::rc::Rc;

use mcp_protocol::http1::{Method, is_event_stream, is_json};
use mcp_protocol::jsonrpc::{Kind, Payload, Scan, ScanLimits, scan};
use mcp_protocol::mcp::{
    MirroredHeaders, ModernError, Revision, ToolHeaders, check_modern, check_modern_body, check_params,
    learn_from_tools_list, write_mirrored, write_params,
};
use mcp_protocol::sse::Decoder;

use super::forward::{self, Target};
use super::legacy::is_repeatable;
use super::relay::{self, Opening};
use super::{Ended, FrameOrigin, Inbound, Message, Origin};
use crate::door::Reply;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::upstream::Upstream;
use crate::upstream::answer::Answer;
use crate::upstream::call::CallError;
use crate::upstream::knowledge::Era;

/// Errors by which a server of the modern era is recognised (versioning.mdx): they exist in no other.
const MODERN_ERRORS: &[i64] = &[-32020, -32021, -32022];
/// What a server without the modern endpoint says when it does not say it in JSON-RPC.
const LEGACY_STATUSES: &[u16] = &[400, 404, 405, 406, 415];
/// Bytes of an answer to the gateway's own questions, and pages of a list.
const MAX_ANSWER_BYTES: usize = 4 << 20;
const MAX_PAGES: usize = 16;
/// What the gateway says of itself when it asks on its own account.
const META: &str = concat!(
    r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
    r#""io.modelcontextprotocol/clientInfo":{"name":"mcp-gateway","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""},"io.modelcontextprotocol/clientCapabilities":{}}"#,
);

/// A message of a modern client.
pub(super) async fn message(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    scan: &Scan,
    reply: &mut Reply,
) -> Result<(), Ended> {
    let http = &inbound.message;
    if scan.kind == Kind::Response {
        return Err(Refusal::UnexpectedResponse.into());
    }
    check_rules(http, scan).map_err(Refusal::Modern)?;
    let upstream = &shard.upstreams[inbound.server()];
    if era(shard, inbound, upstream).await? == Era::LegacyOnly {
        let requested = http.protocol_version().unwrap_or_default();
        return Err(Refusal::LegacyServer {
            server: upstream.name.to_string(),
            requested: String::from_utf8_lossy(requested).into_owned(),
        }
        .into());
    }
    let is = |name: &str| scan.method.is_some_and(|method| method.eq_str(&http.body, name));
    let tool = if is("tools/call") { known_tool(shard, inbound, upstream, scan).await } else { None };
    check_or_mirror(http, scan, tool.as_deref()).map_err(Refusal::Modern)?;
    let listens = is("subscriptions/listen");
    if listens && shard.is_draining() {
        return Err(Refusal::Draining.into());
    }
    let repeatable = is_repeatable(scan, &http.body);
    let (answer, _) = forward::to_any(shard, inbound, upstream, repeatable).await?;
    let request_id = scan.id.map(|id| id.of(&http.body));
    let opening = Opening { expects_answer: scan.kind == Kind::Request, listens, session: None };
    relay::answer(shard, upstream, answer, opening, request_id, reply).await
}

/// Whether the server speaks the modern era: asked once by `server/discover`, which every such server must implement.
async fn era(shard: &Rc<Shard>, inbound: &Inbound, upstream: &Upstream) -> Result<Era, Refusal> {
    if let Some(era) = upstream.knowledge.era(shard.core.clock.now()) {
        return Ok(era);
    }
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":"mcp-gateway-discover","method":"server/discover","params":{{{META}}}}}"#
    );
    let answer = own_question(shard, inbound, upstream, "server/discover", body).await?;
    let status = answer.status();
    // Where nothing is learned, the client's own request gets the server's own answer.
    if matches!(status, 401 | 403 | 408 | 429) || status >= 500 {
        return Ok(Era::Modern);
    }
    let era = match read_answer(shard, upstream, answer)
        .await
        .map_err(|error| forward::refusal(upstream, &error))?
    {
        Some((_, scan)) if !scan.is_error => Era::Modern,
        Some((_, scan)) if scan.error_code.is_some_and(|code| MODERN_ERRORS.contains(&code)) => Era::Modern,
        Some(_) => Era::LegacyOnly,
        None if LEGACY_STATUSES.contains(&status) => Era::LegacyOnly,
        None => return Ok(Era::Modern),
    };
    upstream.knowledge.learn_era(era, shard.core.clock.now());
    Ok(era)
}

/// What a modern message must say of itself: over HTTP in headers and body alike, over frames in its body alone.
fn check_rules(message: &Message, scan: &Scan) -> Result<(), ModernError> {
    match &message.origin {
        Origin::Http(http) => {
            let mirrored = MirroredHeaders {
                protocol_version: message.protocol_version(),
                method: http.head.mcp_method.map(|span| span.of(&http.bytes)),
                name: http.head.mcp_name.map(|span| span.of(&http.bytes)),
            };
            check_modern(&mirrored, &message.body, scan, Revision::MODERN)
        }
        Origin::Frame(_) => check_modern_body(&message.body, scan, Revision::MODERN),
    }
}

/// `Mcp-Param-*` against the body where a client sent them; a client of frames sends no headers, so the gateway writes
/// all that mirror the body.
fn check_or_mirror(message: &Message, scan: &Scan, tool: Option<&ToolHeaders>) -> Result<(), ModernError> {
    let arguments = scan.arguments.map(|arguments| arguments.of(&message.body));
    match (&message.origin, tool) {
        (Origin::Http(http), Some(tool)) => {
            check_params(tool, http.head.headers.iter(&http.bytes), arguments)
        }
        (Origin::Http(_), None) => Ok(()),
        (Origin::Frame(frame), tool) => {
            let mut lines = Vec::new();
            write_mirrored(&mut lines, &message.body, scan, Revision::V2026_07_28);
            if let Some(tool) = tool {
                write_params(&mut lines, tool, arguments)?;
            }
            // The lines are set here only, and a message comes by once.
            let _ = frame.mirrored.set(lines);
            Ok(())
        }
    }
}

/// The mirrored parameters of the tool that is called, if the gateway knows some; it asks the server for them.
async fn known_tool(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    upstream: &Upstream,
    scan: &Scan,
) -> Option<Rc<ToolHeaders>> {
    if upstream.knowledge.should_ask_tools(shard.core.clock.now()) {
        let asking = Asking(upstream);
        if let Some(tools) = ask_tools(shard, inbound, upstream).await {
            upstream.knowledge.learn_tools(tools, &shard.core.clock);
        }
        drop(asking);
    }
    upstream.knowledge.tool(&scan.name?.decode(&inbound.message.body))
}

/// However the asking ends, the next request may ask again.
struct Asking<'a>(&'a Upstream);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.knowledge.give_up_tools();
    }
}

async fn ask_tools(shard: &Rc<Shard>, inbound: &Inbound, upstream: &Upstream) -> Option<Vec<ToolHeaders>> {
    let mut tools = Vec::new();
    let mut cursor = String::new();
    for _ in 0..MAX_PAGES {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":"mcp-gateway-tools","method":"tools/list","params":{{{META}{cursor}}}}}"#
        );
        let answer = own_question(shard, inbound, upstream, "tools/list", body).await.ok()?;
        let (body, scan) = read_answer(shard, upstream, answer).await.ok()??;
        if scan.is_error {
            return None;
        }
        tools.extend(learn_from_tools_list(&body));
        let value: serde_json::Value = serde_json::from_slice(&body).ok()?;
        match value["result"]["nextCursor"].as_str() {
            Some(next) => cursor = format!(",\"cursor\":{}", serde_json::Value::from(next)),
            None => return Some(tools),
        }
    }
    Some(tools)
}

/// Asks the server something on the gateway's own account, with the client's credential.
async fn own_question(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    upstream: &Upstream,
    method: &str,
    body: String,
) -> Result<Answer, Refusal> {
    let mirrored = format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\n").into_bytes();
    let origin = FrameOrigin {
        authorization: inbound
            .message
            .authorization()
            .and_then(|value| std::str::from_utf8(value).ok())
            .map(Rc::from),
        mirrored: OnceCell::from(mirrored),
        ..FrameOrigin::default()
    };
    let message = Message { origin: Origin::Frame(Box::new(origin)), body: body.into_bytes() };
    let mut last = None;
    for endpoint in upstream.rotation() {
        let target = Target { upstream, endpoint, session: None, owner: None };
        match forward::to_endpoint(shard, Method::Post, &message, &target, true, inbound.peer).await {
            Ok(answer) => return Ok(answer),
            Err(error) => last = Some(forward::refusal(upstream, &error)),
        }
    }
    Err(last.unwrap_or(Refusal::UpstreamConnect { server: upstream.name.to_string() }))
}

/// Reads a whole answer, JSON or SSE, to its JSON-RPC response; `None` when it is complete and holds none.
///
/// # Errors
/// [`CallError`] when the answer is late, broken off or too large: that says nothing about the server's era.
async fn read_answer(
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
