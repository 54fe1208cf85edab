//! The life of a stream: owns its opening, its patience, and what becomes of its session at its end. Never a message.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;

use mcp_protocol::mcp::OTHER_METHOD;
use mcp_protocol::sse::write_event;
use mcp_shard_store::SessionId;

use super::account;
use super::stream::Stream;
use crate::door::reply::Framing;
use crate::door::{self, Reply};
use crate::exchange::{self, Inbound, Origin};
use crate::metrics::{Protocol, Rejection};
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::clock::Millis;

/// Caches and relays must let every event through the moment it comes.
const FIELDS: &[u8] =
    b"Content-Type: text/event-stream\r\nCache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n";

/// Opens a stream and stays with it to its end. While it is open, its task is small: what opening and ending take is boxed
/// for as long as they last.
pub(crate) fn open(shard: Rc<Shard>, inbound: Inbound, reply: Reply) -> impl Future<Output = ()> {
    let begin = Box::pin(begin(shard, inbound, reply));
    async move {
        let Some(open) = begin.await else { return };
        stay(&open.shard, &open.stream).await;
        let reply = open.stream.take_reply();
        drop(open);
        if let Some(reply) = reply {
            Box::pin(end(reply)).await;
        }
    }
}

async fn end(mut reply: Reply) {
    reply.end();
    reply.done().await;
}

/// A stream that is open; when it is dropped, whatever for, the stream's session ends.
struct Open {
    shard: Rc<Shard>,
    stream: Rc<Stream>,
}

impl Open {
    fn new(shard: &Rc<Shard>, stream: Rc<Stream>) -> Self {
        shard.streams.insert(&stream);
        // Besides the connection that it has, or that it shares.
        shard.metrics.connection_opened(Protocol::Sse);
        Open { shard: shard.clone(), stream }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Open { shard, stream } = self;
        shard.metrics.connection_closed(Protocol::Sse);
        shard.streams.remove(&stream.id);
        stream.stop(shard);
        let inbound = stream.last_words();
        let own_shard = shard.clone();
        shard.core.tasks.spawn(|| async move { exchange::end_unasked(&own_shard, &inbound).await });
    }
}

async fn begin(shard: Rc<Shard>, inbound: Inbound, mut reply: Reply) -> Option<Open> {
    let started_us = shard.core.clock.precise_us();
    let outcome = open_session(&shard, &inbound).await;
    let opened = match outcome {
        Ok(id) => {
            reply.begin(200, FIELDS, Framing::Stream);
            let mut first = Vec::new();
            write_event(&mut first, Some("endpoint"), None, &endpoint(&inbound, &id));
            // A client that is gone is noticed by its door, which ends this task.
            let _ = reply.push(&first);
            Ok(id)
        }
        Err(refusal) => {
            shard.metrics.refused(refusal.row().reason);
            reply.refuse(&refusal, None);
            Err(())
        }
    };
    account(&shard, &inbound, OTHER_METHOD, reply.status(), started_us);
    let (scope, peer) = (inbound.scope, inbound.peer);
    let authorization = inbound.message.authorization().map(String::from_utf8_lossy).map(Rc::from);
    inbound.message.give_back(&shard);
    match opened {
        Ok(id) => Some(Open::new(&shard, Stream::new(&shard, (id, scope, peer), authorization, reply))),
        Err(()) => {
            reply.done().await;
            None
        }
    }
}

async fn open_session(shard: &Rc<Shard>, inbound: &Inbound) -> Result<SessionId, Refusal> {
    door::check_room(shard)?;
    exchange::open_stream(shard, inbound, shard.peers.own().clone()).await
}

/// The URI for messages, relative to the stream's own, which is how the client reached this server.
fn endpoint(inbound: &Inbound, id: &SessionId) -> Vec<u8> {
    let mut endpoint = match &inbound.message.origin {
        Origin::Http(http) => http.head.path.of(&http.bytes).to_vec(),
        Origin::Frame(_) => Vec::new(),
    };
    endpoint.extend_from_slice(b"?sessionId=");
    endpoint.extend_from_slice(&id.text());
    endpoint
}

/// Waits for the end; says that the stream is alive while it is silent, and uses the session once in a while, so that it
/// lives as long as its stream.
async fn stay(shard: &Rc<Shard>, stream: &Rc<Stream>) {
    let mut touch_at = touch_after(shard, stream);
    loop {
        let until = touch_at.min(stream.comment_at(shard));
        let ended = pin!(poll_fn(|cx| stream.poll_ended(shard, cx)));
        if shard.deadline(until, ended).await.is_ok() {
            return;
        }
        let now = shard.core.clock.now();
        if now >= stream.comment_at(shard) {
            stream.comment(shard);
        }
        if now < touch_at {
            continue;
        }
        if !stream.is_initialized() {
            shard.metrics.rejected(Rejection::IdleTimeout);
            return;
        }
        let id = stream.id.text();
        if !Box::pin(exchange::is_session_alive(shard, &id)).await {
            return;
        }
        touch_at = touch_after(shard, stream);
    }
}

/// A stream whose client says nothing is idle; the session of any other is used well before it would end.
fn touch_after(shard: &Shard, stream: &Stream) -> Millis {
    let config = &shard.setup().config;
    let touch = config.session.ttl / 2;
    let patience = if stream.is_initialized() { touch } else { touch.min(config.server.idle_timeout) };
    shard.core.clock.after(patience)
}
