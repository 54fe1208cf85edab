//! All servers as one (`/mcp`): owns what becomes of a message that is for all of them. What is for one of them goes on as if
//! it had been sent to that one alone, with the names spliced; what is for several is sent to each by a task of its own,
//! side by side, and what they say makes one answer.
//!
//! What names look like is `protocol`'s (`mcp::federation`); how one server is reached, an exchange's usual way. Never bytes
//! on a wire.

mod feed;
mod gather;
mod hello;
mod legacy;
mod listen;
mod lists;
mod part;
mod reply;

use std::borrow::Cow;
use std::rc::Rc;

use mcp_protocol::jsonrpc::{Kind, Payload, Scan, ScanLimits, scan};
use mcp_protocol::mcp::federation::{Route, ServerInfo};
use mcp_protocol::mcp::method_index;

use super::{Ended, Inbound, modern};
use crate::door::Reply;
use crate::policy::admission::Verb;
use crate::respond::Refusal;
use crate::shard::Shard;
use gather::Outcome;
pub(super) use legacy::{end, end_unasked, find, use_parts};
pub(super) use listen::listen;
pub(crate) use reply::FederatedReply;

/// What the gateway calls itself where it speaks for all servers.
const INFO: ServerInfo<'static> = ServerInfo { name: "mcp-gateway", version: env!("CARGO_PKG_VERSION") };

/// By which rules a message reaches a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// The modern era.
    Modern,
    /// The legacy era; the message is in the client's session with all servers.
    Legacy,
    /// The legacy era; the message is in its server's session already, or begins it.
    Entered,
}

/// What each of some servers is asked.
type Bodies<'b> = Vec<(usize, Cow<'b, [u8]>)>;

/// A message for all servers.
pub(super) async fn message(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    scan: &Scan,
    way: Way,
    reply: &mut Reply,
) -> Result<(), Ended> {
    let body = &inbound.message.body;
    if way == Way::Modern {
        if scan.kind == Kind::Response {
            return Err(Refusal::UnexpectedResponse.into());
        }
        modern::check_rules(&inbound.message, scan).map_err(Refusal::Modern)?;
    }
    // The session comes first: of what is behind it nobody else is told.
    let begins = scan.method.is_some_and(|method| method.eq_str(body, "initialize"));
    let setup = shard.setup();
    let mut servers: Vec<usize> = setup.federation.numbers().collect();
    if way == Way::Legacy && !begins {
        servers = legacy::servers(&setup, &*legacy::check(shard, inbound).await?);
    }
    let route = setup
        .federation
        .route(body, scan)
        .map_err(|error| Refusal::Unroutable { error, modern: way == Way::Modern })?;
    let id = scan.id.map(|id| id.of(body)).unwrap_or_default();
    match route {
        Route::One { server, body, asked } => {
            let mut part = part::message(shard, inbound, server, body.into_owned())?;
            if let Reply::Federated(reply) = reply {
                reply.join(server, asked);
            }
            one(shard, &mut part, way, reply).await
        }
        Route::Notify => notify(shard, inbound, (servers, way), reply).await,
        Route::Each => each(shard, inbound, (servers, way), reply).await,
        Route::Hello if way == Way::Modern => hello::discover(shard, inbound, id, reply).await,
        Route::Hello => hello::initialize(shard, inbound, scan, reply).await,
        Route::List(list, asked) => lists::list(shard, inbound, (list, asked), way, id, reply).await,
        Route::Listen(asked) => listen::subscribe(shard, inbound, asked, id, reply).await,
        Route::Ping => {
            let pong = [b"{\"jsonrpc\":\"2.0\",\"id\":", id, b",\"result\":{}}"].concat();
            json(reply, &pong);
            Ok(())
        }
    }
}

/// Takes a part to its server as the message that it is.
async fn one(shard: &Rc<Shard>, part: &mut Inbound, way: Way, reply: &mut Reply) -> Result<(), Ended> {
    let scan = match scan(&part.message.body, &ScanLimits::default()) {
        _ if part.verb != Verb::Message => None,
        Ok(Payload::Single(scan)) => Some(scan),
        // Taking a name off leaves a message a message.
        Ok(Payload::Batch(_)) => return Err(Refusal::Batch.into()),
        Err(failure) => return Err(Refusal::Scan(failure.error).into()),
    };
    match (way, &scan) {
        (Way::Modern, Some(scan)) => modern::message(shard, part, scan, reply).await,
        (Way::Modern, None) => Err(Refusal::MethodNotAllowed { allow: "POST" }.into()),
        (Way::Legacy, scan) => legacy::message(shard, part, scan.as_ref(), reply).await,
        (Way::Entered, scan) => legacy::hand_on(shard, part, scan.as_ref(), reply).await,
    }
}

/// A notification goes to all that know of the client; what becomes of it at one of them is nobody else's matter.
async fn notify(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    (servers, way): (Vec<usize>, Way),
    reply: &mut Reply,
) -> Result<(), Ended> {
    let outcomes = gather::deliver(shard, part::for_each(shard, inbound, servers)?, way).await;
    let is_taken = |outcome: &Outcome| matches!(outcome, Outcome::Said { .. } | Outcome::Answered { .. });
    if outcomes.iter().any(|(_, outcome)| is_taken(outcome)) {
        reply.full(202, b"", b"");
        return Ok(());
    }
    outcomes.into_iter().next().map_or(Outcome::Silent, |(_, outcome)| outcome).pass_on(reply)
}

/// A request to all, of which one success is the answer, else the first failure.
async fn each(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    (servers, way): (Vec<usize>, Way),
    reply: &mut Reply,
) -> Result<(), Ended> {
    let mut outcomes = gather::deliver(shard, part::for_each(shard, inbound, servers)?, way).await;
    let succeeded = outcomes.iter().position(|(_, outcome)| outcome.is_success());
    if outcomes.is_empty() {
        return Err(Refusal::AllMissing.into());
    }
    outcomes.swap_remove(succeeded.unwrap_or(0)).1.pass_on(reply)
}

/// A whole JSON answer.
fn json(reply: &mut Reply, message: &[u8]) {
    reply.full(200, b"Content-Type: application/json\r\n", message);
}

/// Says in a metric which servers' part of what all were asked is missing.
fn count_missing(shard: &Shard, missing: &[usize], method: &str) {
    for &server in missing {
        shard.metrics.missing(server as u16, method_index(method.as_bytes()) as u8);
    }
}
