//! The modern era (2026-07-28): owns the header rules, and what is learned of a server's tools for them. Stateless: nothing here outlives the request but that knowledge.

use std::rc::Rc;

use mcp_protocol::http1::Method;
use mcp_protocol::jsonrpc::{Kind, Scan};
use mcp_protocol::mcp::{
    MirroredHeaders, ModernError, Revision, ToolHeaders, check_modern, check_modern_body, check_params,
    learn_from_tools_list, write_mirrored, write_params,
};

use super::ask::{self, Asker};
use super::cached;
use super::eras;
use super::forward::{self, Request, Sent};
use super::legacy::{again, lists_tools};
use super::relay::{self, Opening};
use super::watch::learn_hints;
use super::{Ended, Inbound, Message, Origin};
use crate::door::Reply;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::upstream::Upstream;

/// Pages of a list that the gateway asks for.
const MAX_PAGES: usize = 16;

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
    let upstream = &shard.upstream(inbound.server());
    let requested = http.protocol_version().unwrap_or_default();
    eras::check_modern(shard, upstream, Asker::client(inbound), requested).await?;
    let is = |name: &str| scan.method.is_some_and(|method| method.eq_str(&http.body, name));
    let tool = if is("tools/call") { known_tool(shard, inbound, upstream, scan).await } else { None };
    check_or_mirror(http, scan, tool.as_deref()).map_err(Refusal::Modern)?;
    let listens = is("subscriptions/listen");
    if listens && shard.is_draining() {
        return Err(Refusal::Draining.into());
    }
    if let Some(list) = cached::asked(scan, &http.body) {
        let what = (list, scan, true);
        let ask = async |reply: &mut Reply| pass(shard, inbound, scan, false, reply).await;
        return Box::pin(cached::list(shard, inbound, upstream, what, reply, ask)).await;
    }
    pass(shard, inbound, scan, listens, reply).await
}

/// Asks the server and brings its answer back.
async fn pass(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    scan: &Scan,
    listens: bool,
    reply: &mut Reply,
) -> Result<(), Ended> {
    let http = &inbound.message;
    let upstream = &shard.upstream(inbound.server());
    let request =
        Request { verb: Method::Post, message: http, peer: inbound.peer, again: again(scan, &http.body) };
    let sent = forward::to_any(shard, &request, upstream).await?;
    eras::look_at_modern(shard, upstream, sent.answer.status());
    let request_id = scan.id.map(|id| id.of(&http.body));
    let opening = Opening {
        expects_answer: scan.kind == Kind::Request,
        listens,
        lists_tools: lists_tools(scan, &http.body),
        session: None,
    };
    relay::answer(shard, upstream, sent, opening, request_id, reply).await
}

/// What a modern message must say of itself: over HTTP in headers and body alike, over frames in its body alone.
pub(super) fn check_rules(message: &Message, scan: &Scan) -> Result<(), ModernError> {
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
    let mut cursor = None;
    for _ in 0..MAX_PAGES {
        let asker = Asker::client(inbound);
        let Sent { answer, mut trial } =
            ask::list_tools(shard, upstream, asker, cursor.as_deref()).await.ok()?;
        let (body, scan) = ask::read_answer(shard, upstream, answer).await.ok()??;
        trial.passed();
        if scan.is_error {
            return None;
        }
        tools.extend(learn_from_tools_list(&body));
        learn_hints(upstream, &body);
        let value: serde_json::Value = serde_json::from_slice(&body).ok()?;
        match value["result"]["nextCursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Some(tools),
        }
    }
    Some(tools)
}
