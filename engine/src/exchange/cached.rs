//! A server's lists out of memory: owns whether a request's answer may be one that was given before, for whom it is kept, and
//! the one question that concurrent ones share. What is kept are the server's raw bytes; the id alone is spliced.
//!
//! Whose a list is: everybody's, where the server says `cacheScope: "public"`. Else it is whoever's who proves himself in the
//! same way: all header fields that go to the server count, but for those that are known to prove nothing.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use mcp_protocol::Span;
use mcp_protocol::jsonrpc::{Kind, Payload, Scan, ScanLimits, scan};
use mcp_protocol::mcp::federation::{Freshness, List, asks_only_for_page};
use mcp_protocol::mcp::method_index;

use super::headers::write_identity;
use super::{Ended, FederatedReply, Inbound};
use crate::door::Reply;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::upstream::Upstream;
use crate::upstream::lists::Key;

/// Bytes by which a client proves itself; a list for one who needs more is not kept.
const MAX_IDENTITY_BYTES: usize = 8 << 10;
/// The longest that any list is kept, whatever its server says.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// The list that a request asks for, where its answer may be kept.
pub(super) fn asked(scan: &Scan, body: &[u8]) -> Option<List> {
    let list = scan.method.and_then(|method| List::of(&method.decode(body)))?;
    (scan.kind == Kind::Request && list != List::Tasks && scan.id.is_some()).then_some(list)
}

/// Answers a list's request from memory, or by `ask`, whose answer is kept as long as its server says; an older server's as
/// long as the configuration says.
pub(super) async fn list(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    upstream: &Upstream,
    (list, scan, modern): (List, &Scan, bool),
    reply: &mut Reply,
    ask: impl AsyncFnOnce(&mut Reply) -> Result<(), Ended>,
) -> Result<(), Ended> {
    let Some(key) = key(shard, inbound, list, scan, modern) else { return ask(reply).await };
    let lists = &upstream.lists;
    let id = scan.id.map(|id| id.of(&inbound.message.body)).unwrap_or_default();
    let now = || shard.core.clock.now();
    let by = shard.core.clock.after(upstream.timeout);
    // Whoever has waited once asks for itself, so that a slow server does not make a queue.
    for may_wait in [true, false] {
        if let Some((text, place)) = lists.find(&key, now()) {
            shard.metrics.list_from_memory(inbound.server() as u16);
            let whole = [&text[..place.start], id, &text[place.end..]].concat();
            reply.full(200, b"Content-Type: application/json\r\n", &whole);
            return Ok(());
        }
        if lists.is_unkept(&key, now()) {
            return ask(reply).await;
        }
        let Some(turn) = lists.turn(&key) else {
            if may_wait {
                let _ = shard.deadline(by, pin!(lists.asked(&key))).await;
                continue;
            }
            return ask(reply).await;
        };
        let changes = lists.begin(&key);
        let mut collecting = Reply::Federated(FederatedReply::collect(shard));
        let outcome = ask(&mut collecting).await;
        let (status, fields, body) = collected(upstream, outcome, collecting)?;
        match kept_for(shard, &body, modern) {
            Some((place, freshness)) if freshness.ttl_ms > 0 && status == 200 => {
                let whose = if freshness.public { None } else { key.whose.clone() };
                let until = now() + freshness.ttl_ms.min(MAX_AGE.as_millis() as u64);
                let place = place.start as usize..place.end as usize;
                lists.keep(Key { whose, ..key.clone() }, &body, place, (changes, now(), until));
            }
            Some(_) => lists.on_unkept(&key, now()),
            None => {}
        }
        drop(turn);
        reply.full(status, &fields, &body);
        return Ok(());
    }
    ask(reply).await
}

/// What was collected; the client waits, so the end of the collecting is not the client's.
fn collected(
    upstream: &Upstream,
    outcome: Result<(), Ended>,
    reply: Reply,
) -> Result<(u16, Vec<u8>, Vec<u8>), Ended> {
    let server = || upstream.name.to_string();
    let malformed = |what| Ended::Refused(Refusal::UpstreamMalformed { server: server(), what });
    match (outcome, reply) {
        (Err(Ended::Refused(refusal) | Ended::Broken(refusal)), _) => Err(refusal.into()),
        (Err(Ended::Unclaimed), _) => Err(Refusal::UpstreamClosed { server: server() }.into()),
        (Err(Ended::Gone), _) => Err(malformed("more than a message may hold")),
        (Ok(()), Reply::Federated(reply)) => match reply.into_parts() {
            (200, _, body) if body.is_empty() => Err(malformed("no response to the request")),
            parts => Ok(parts),
        },
        (Ok(()), _) => Err(malformed("no response to the request")),
    }
}

/// Where the id stands in a list's response, and how long the list may be kept.
fn kept_for(shard: &Shard, body: &[u8], modern: bool) -> Option<(Span, Freshness)> {
    let Ok(Payload::Single(scan)) = scan(body, &ScanLimits::default()) else { return None };
    let id = scan.id.filter(|_| scan.kind == Kind::Response && !scan.is_error && scan.result.is_some())?;
    let freshness = if modern {
        Freshness::of(body)
    } else {
        let ttl = shard.setup().config.list_cache.ttl.unwrap_or_default();
        Freshness { ttl_ms: ttl.as_millis() as u64, public: false }
    };
    Some((id, freshness))
}

/// What the answer depends on; `None` where that cannot be said, or an older server's lists are not to be kept.
fn key(shard: &Shard, inbound: &Inbound, list: List, scan: &Scan, modern: bool) -> Option<Key> {
    if !modern && shard.setup().config.list_cache.ttl.is_none() {
        return None;
    }
    let body = &inbound.message.body;
    if !asks_only_for_page(body, scan.params) {
        return None;
    }
    let whose = shard.with_scratch(|identity| {
        write_identity(identity, &inbound.message);
        (identity.len() <= MAX_IDENTITY_BYTES).then(|| Box::from(&identity[..]))
    })?;
    Some(Key {
        method: method_index(list.method().as_bytes()) as u8,
        kind: list.kind() as u8,
        modern,
        cursor: scan.cursor.map(|cursor| cursor.decode(body).into()),
        whose: Some(whose),
    })
}
