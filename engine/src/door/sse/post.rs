//! A POST for a stream: owns the step from the request to a message that the stream's owner has taken. Never the message's
//! answer, which is the stream's.

use std::rc::Rc;

use mcp_protocol::jsonrpc::{Kind, Payload, Scan, ScanLimits, scan};
use mcp_protocol::mcp::{OTHER_METHOD, method_index};
use mcp_shard_store::SessionId;

use super::account;
use super::state::With;
use super::stream::Arrived;
use crate::door::Reply;
use crate::exchange::{self, Inbound, Origin, Scope};
use crate::respond::Refusal;
use crate::shard::Shard;

/// The parameter that names the session in the URI of the stream's first event.
const PARAMETER: &[u8] = b"sessionId=";

/// Takes a message to its stream, and answers 202 once it is there.
pub(crate) async fn post(shard: Rc<Shard>, mut inbound: Inbound, mut reply: Reply) {
    let started_us = shard.core.clock.precise_us();
    let read = read(&inbound.message.body);
    // The client may try to send it again under its id.
    let id = read.as_ref().ok().and_then(|scan| scan.id.filter(|_| scan.kind == Kind::Request));
    let id = id.map(|id| id.of(&inbound.message.body).to_vec());
    let method = read.as_ref().ok().and_then(|scan| scan.method);
    let method =
        method.map_or(OTHER_METHOD, |method| method_index(method.decode(&inbound.message.body).as_bytes()));
    let taken = match read {
        Ok(scan) => hand_over(&shard, &mut inbound, scan).await,
        Err(refusal) => Err(refusal),
    };
    match taken {
        // The exchange that has begun counts the request.
        Ok(()) => reply.full(202, b"", b""),
        Err(refusal) => {
            shard.metrics.refused(refusal.row().reason);
            reply.refuse(&refusal, id.as_deref());
            account(&shard, &inbound, method, reply.status(), started_us);
        }
    }
    inbound.message.give_back(&shard);
    drop(inbound.place);
    reply.done().await;
}

fn read(body: &[u8]) -> Result<Scan, Refusal> {
    match scan(body, &ScanLimits::default()) {
        Ok(Payload::Single(scan)) => Ok(scan),
        // 2024-11-05 has none.
        Ok(Payload::Batch(_)) => Err(Refusal::Batch),
        Err(failure) => Err(Refusal::Scan(failure.error)),
    }
}

async fn hand_over(shard: &Rc<Shard>, inbound: &mut Inbound, scan: Scan) -> Result<(), Refusal> {
    let id = session(inbound).ok_or(Refusal::StreamRequired)?;
    let id = SessionId::parse(id).ok_or(Refusal::SessionUnknown)?;
    let owner = exchange::find_stream(shard, inbound, &id).await?;
    let body = std::mem::take(&mut inbound.message.body);
    let arrived = Arrived { body, scan, with: with(shard, inbound) };
    if owner == *shard.peers.own() {
        return take(shard, &id, inbound.scope, arrived);
    }
    crate::peer::forward(shard, &owner, &id, inbound.scope, arrived).await
}

/// Gives a message to a stream of this shard.
///
/// # Errors
/// [`Refusal::SessionUnknown`] when there is no such stream of this server; why the stream does not take it.
pub(crate) fn take(shard: &Rc<Shard>, id: &SessionId, scope: Scope, arrived: Arrived) -> Result<(), Refusal> {
    let stream = shard.streams.get(id).filter(|stream| stream.scope == scope);
    stream.ok_or(Refusal::SessionUnknown)?.accept(shard, arrived)
}

fn session(inbound: &Inbound) -> Option<&[u8]> {
    let Origin::Http(http) = &inbound.message.origin else { return None };
    let query = http.head.query?.of(&http.bytes);
    query.split(|&byte| byte == b'&').find_map(|pair| pair.strip_prefix(PARAMETER))
}

fn with(shard: &Shard, inbound: &Inbound) -> With {
    let authorization = inbound.message.authorization().map(String::from_utf8_lossy).map(Rc::from);
    let fields = shard.with_scratch(|fields| {
        inbound.message.write_other_fields(fields);
        (!fields.is_empty()).then(|| Rc::from(&**fields))
    });
    With { authorization, fields, peer: Some(inbound.peer) }
}
