//! Forwarding: owns bringing a message to an endpoint and the translation of what can go wrong there. Never the answer's
//! content.

use std::rc::Rc;

use mcp_protocol::http1::Method;
use mcp_shard_store::Owner;

use super::{Inbound, Message};
use crate::exchange::headers::write_request;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::upstream::answer::Answer;
use crate::upstream::call::{Ask, CallError, ask};
use crate::upstream::{Endpoint, Upstream, Via, duplex};

/// Where a message goes.
pub(super) struct Target<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) endpoint: &'a Rc<Endpoint>,
    /// The server's own session id.
    pub(super) session: Option<&'a [u8]>,
    /// Who holds the server's part of the session, where only one can.
    pub(super) owner: Option<&'a Owner>,
}

/// Sends a client's request to one endpoint.
pub(super) async fn to_endpoint(
    shard: &Rc<Shard>,
    verb: Method,
    message: &Message,
    target: &Target<'_>,
    repeatable: bool,
    peer: std::net::IpAddr,
) -> Result<Answer, CallError> {
    let deadline = shard.core.clock.after(target.upstream.timeout);
    if !matches!(target.endpoint.via, Via::Http) {
        let ask = duplex::Ask {
            verb,
            session: target.session,
            body: &message.body,
            authorization: message.authorization(),
            owner: target.owner,
        };
        let told = Box::pin(duplex::ask(shard, target.endpoint, &ask, deadline)).await;
        return told.map(|told| Answer::Told(Box::new(told)));
    }
    let mut head = shard.take_buffer();
    let (name, body): (&str, &[u8]) = match verb {
        Method::Get => ("GET", b""),
        Method::Delete => ("DELETE", b""),
        _ => ("POST", &message.body),
    };
    write_request(&mut head, name, target.endpoint, message, target.session, peer);
    let outcome =
        ask(shard, target.endpoint, &Ask { method: verb, head: &head, body, repeatable }, deadline).await;
    shard.give_buffer(head);
    outcome.map(Answer::Http1)
}

/// Sends a message that no endpoint is bound to: the next in turn, and the others while nothing was sent.
pub(super) async fn to_any<'a>(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    upstream: &'a Upstream,
    repeatable: bool,
) -> Result<(Answer, &'a Rc<Endpoint>), Refusal> {
    let mut last = None;
    for endpoint in upstream.rotation() {
        let target = Target { upstream, endpoint, session: None, owner: None };
        match to_endpoint(shard, Method::Post, &inbound.message, &target, repeatable, inbound.peer).await {
            Ok(answer) => return Ok((answer, endpoint)),
            Err(error @ (CallError::Connect(_) | CallError::Exhausted)) => last = Some(error),
            Err(error) => return Err(refusal(upstream, &error)),
        }
    }
    Err(refusal(upstream, &last.unwrap_or(CallError::Exhausted)))
}

/// What a failed call means to the client.
pub(super) fn refusal(upstream: &Upstream, error: &CallError) -> Refusal {
    let server = upstream.name.to_string();
    match error {
        CallError::Connect(cause) => {
            tracing::debug!(server, %cause, "an endpoint cannot be reached");
            Refusal::UpstreamConnect { server }
        }
        CallError::Exhausted => Refusal::PoolExhausted { server },
        CallError::Closed => Refusal::UpstreamClosed { server },
        CallError::Timeout => Refusal::UpstreamTimeout { server },
        CallError::Malformed(what) => Refusal::UpstreamMalformed { server, what },
        CallError::Owner(unasked) => unasked.refusal(),
    }
}
