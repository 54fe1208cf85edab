//! An exchange: one message and what becomes of it. Owns the order of the phases; each phase has its file. The same way
//! for every door:
//!
//! 1. **read**: the body is scanned into a message (here);
//! 2. **limit**: a principal or address that sends too much is told to wait ([`limit`]);
//! 3. **attach**: a legacy message belongs to a session ([`legacy`]), a modern one carries everything itself ([`modern`]);
//! 4. **route** and **forward**: a server's endpoint is asked ([`forward`]);
//! 5. **relay**: the answer goes back as it comes ([`relay`]);
//! 6. **account**: latency and status are counted (here).

mod ask;
mod cached;
mod eras;
mod federation;
mod forward;
mod headers;
mod identify;
mod legacy;
mod limit;
mod message;
mod modern;
mod probe;
mod relay;
mod scope;
mod trace;
mod watch;

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;

use mcp_protocol::Span;
use mcp_protocol::jsonrpc::{Kind, Payload, Scan, ScanLimits, scan};
use mcp_protocol::mcp::{OTHER_METHOD, Revision, method_index};

use crate::door::Reply;
use crate::metrics::{OrphanResult, RequestLabels, Took};
use crate::policy::admission::Verb;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::conn::Gone;
use crate::shard::tasks::{Stay, is_left};
pub(crate) use federation::FederatedReply;
use federation::Way;
pub(crate) use legacy::{
    Resumed, drop_session, end_unasked, find_stream, is_session_alive, open_stream, resume,
};
pub(crate) use message::{FrameOrigin, HttpHead, Inbound, Message, Origin, same_id};
pub(crate) use probe::{discover, start as start_probes};
pub(crate) use scope::Scope;
pub(crate) use trace::find as find_trace;

/// The request that opens a stream of what a modern server says by itself.
const LISTEN: &str = "subscriptions/listen";

/// Why an exchange ended without an answer of the server's.
enum Ended {
    /// Answered by the gateway.
    Refused(Refusal),
    /// The client is gone.
    Gone,
    /// The client was gone before it could learn of the session that it opened.
    Unclaimed,
    /// The answer had begun and broke off: the connection cannot be used again.
    Broken(Refusal),
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Ended::Refused(refusal)
    }
}

impl From<Gone> for Ended {
    fn from(_: Gone) -> Self {
        Ended::Gone
    }
}

/// What has been read of the message, for the answer's id and the metrics.
#[derive(Default)]
struct Read {
    method: Option<usize>,
    /// Where a request's raw id stands in the body.
    id: Option<Span>,
    /// Where `params._meta` stands in the body.
    meta: Option<Span>,
    /// The message opens a stream that lasts until either side has enough of it.
    listens: bool,
}

/// Counts an exchange for as long as it is in flight, however it ends.
struct InFlight(Rc<Shard>);

impl InFlight {
    fn new(shard: &Rc<Shard>) -> Self {
        shard.metrics.exchange_started();
        InFlight(shard.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.metrics.exchange_ended();
    }
}

/// Takes a message all its way.
pub(crate) async fn run(shard: Rc<Shard>, mut inbound: Inbound, mut reply: Reply) {
    let _in_flight = InFlight::new(&shard);
    let started_us = shard.core.clock.precise_us();
    let mut read = Read::default();
    if inbound.scope == Scope::All {
        reply = Reply::Federated(FederatedReply::new(&shard, reply));
    }
    let mut place = inbound.place.take();
    let outcome = {
        let mut handling = pin!(handle(&shard, &inbound, &mut read, &mut reply));
        poll_fn(|cx| {
            // What nobody waits for keeps nobody else from being served.
            if is_left() {
                place = None;
            }
            handling.as_mut().poll(cx)
        })
        .await
    };
    shard.core.tasks.set_stay(Stay::No);
    if is_left() {
        shard.metrics.orphan_ended(orphan_result(&outcome));
    }
    match outcome {
        Ok(()) | Err(Ended::Gone | Ended::Unclaimed) => {}
        Err(Ended::Broken(refusal)) => {
            shard.metrics.refused(refusal.row().reason);
            reply.break_off(&refusal);
        }
        Err(Ended::Refused(refusal)) => {
            shard.metrics.refused(refusal.row().reason);
            reply.refuse(&refusal, read.id.map(|id| id.of(&inbound.message.body)));
        }
    }
    let labels = RequestLabels {
        server: inbound.scope.label(),
        method: read.method.unwrap_or(OTHER_METHOD) as u8,
        status: reply.status(),
        protocol: inbound.message.protocol(),
    };
    let took = Took::between(started_us, shard.core.clock.precise_us());
    let took = (!read.listens).then_some(took);
    shard.metrics.request(labels, took, || trace::find(&shard, &inbound.message, read.meta));
    inbound.message.give_back(&shard);
    // A client that is slow to read keeps nobody from being served.
    drop(place);
    reply.done().await;
}

/// How an exchange ended that went on without its client.
fn orphan_result(outcome: &Result<(), Ended>) -> OrphanResult {
    match outcome {
        Ok(()) | Err(Ended::Unclaimed) => OrphanResult::Finished,
        // Nobody is gone only when it was too much.
        Err(Ended::Gone) => OrphanResult::TooLarge,
        Err(Ended::Refused(_) | Ended::Broken(_)) => OrphanResult::Failed,
    }
}

async fn handle(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    read: &mut Read,
    reply: &mut Reply,
) -> Result<(), Ended> {
    // A connection that is bound to a server outlives it for a moment.
    if inbound.scope.is_gone(shard) {
        return Err(Refusal::UnknownServer { name: inbound.scope.name(shard).to_string() }.into());
    }
    match inbound.verb {
        Verb::Message => handle_message(shard, inbound, read, reply).await,
        Verb::Listen => {
            read.listens = true;
            limit::check(shard, inbound, 1).await?;
            match inbound.scope {
                Scope::One(_) => legacy::listen(shard, inbound, reply).await,
                Scope::All => Box::pin(federation::listen(shard, inbound, reply)).await,
            }
        }
        Verb::End if inbound.scope == Scope::All => Box::pin(federation::end(shard, inbound, reply)).await,
        Verb::End => legacy::end(shard, inbound, reply).await,
    }
}

async fn handle_message(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    read: &mut Read,
    reply: &mut Reply,
) -> Result<(), Ended> {
    let body = &inbound.message.body;
    let payload = match inbound.message.scanned() {
        Some(scan) => Payload::Single(scan),
        None => scan(body, &ScanLimits::default()).map_err(|failure| {
            read.id = failure.id;
            Refusal::Scan(failure.error)
        })?,
    };
    match payload {
        Payload::Single(scan) => {
            read.method = scan.method.map(|method| method_index(method.decode(body).as_bytes()));
            read.meta = scan.meta;
            read.listens = scan.method.is_some_and(|method| method.eq_str(body, LISTEN));
            if scan.kind == Kind::Request {
                read.id = scan.id;
            }
            if scan.kind != Kind::Response {
                limit::check(shard, inbound, 1).await?;
            }
            if inbound.scope == Scope::All {
                let way = if is_modern(&inbound.message, &scan) { Way::Modern } else { Way::Legacy };
                Box::pin(federation::message(shard, inbound, &scan, way, reply)).await
            } else if is_modern(&inbound.message, &scan) {
                modern::message(shard, inbound, &scan, reply).await
            } else {
                legacy::message(shard, inbound, &scan, reply).await
            }
        }
        // Its messages may be for several servers.
        Payload::Batch(_) if inbound.scope == Scope::All => Err(Refusal::Batch.into()),
        Payload::Batch(batch) => {
            let asked = batch.iter().filter(|scan| scan.kind != Kind::Response).count();
            limit::check(shard, inbound, asked).await?;
            legacy::batch(shard, inbound, &batch, reply).await
        }
    }
}

/// Whether a message is of the modern era: it says so in its header or in its `_meta`, or its method exists in no other
/// (versioning.mdx, "Backward Compatibility with Initialization-Based Versions").
fn is_modern(message: &Message, scan: &Scan) -> bool {
    let by_header = message.protocol_version().and_then(Revision::parse).is_some_and(Revision::is_modern);
    let only_modern = scan.method.is_some_and(|method| {
        method.eq_str(&message.body, "server/discover") || method.eq_str(&message.body, LISTEN)
    });
    by_header || only_modern || scan.meta_protocol_version.is_some()
}
