//! Forwarding: owns bringing a message to an endpoint and the translation of what can go wrong there. Never the answer's
//! content.

use std::net::IpAddr;
use std::rc::Rc;

use mcp_protocol::http1::Method;
use mcp_shard_store::Owner;

use super::{Inbound, Message, identify};
use crate::exchange::headers::write_request;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::clock::Millis;
use crate::upstream::answer::Answer;
use crate::upstream::call::{Ask, CallError, ask};
use crate::upstream::{Candidates, Endpoint, Upstream, Via, duplex};

/// Where a message goes.
pub(super) struct Target<'a> {
    upstream: &'a Upstream,
    endpoint: &'a Rc<Endpoint>,
    /// The server's own session id.
    session: Option<&'a [u8]>,
    /// Who holds the server's part of the session, where only one can.
    owner: Option<&'a Owner>,
    /// Until when a place in a pool may be waited for.
    place_by: Millis,
}

impl<'a> Target<'a> {
    /// One endpoint, with a session there or without.
    pub(super) fn new(
        shard: &Shard,
        upstream: &'a Upstream,
        endpoint: &'a Rc<Endpoint>,
        session: Option<&'a [u8]>,
        owner: Option<&'a Owner>,
    ) -> Self {
        let place_by = shard.core.clock.after(shard.process.config.connection_pool.max_wait);
        Target { upstream, endpoint, session, owner, place_by }
    }

    /// Whether there is a session at the server.
    pub(super) fn has_session(&self) -> bool {
        self.session.is_some()
    }

    /// The server's name.
    pub(super) fn server(&self) -> &'a str {
        &self.upstream.name
    }
}

/// Sends a client's request to one endpoint.
pub(super) async fn to_endpoint(
    shard: &Rc<Shard>,
    verb: Method,
    message: &Message,
    target: &Target<'_>,
    repeatable: bool,
    peer: IpAddr,
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
    let question = Ask { method: verb, head: &head, body, repeatable, place_by: target.place_by };
    let outcome = ask(shard, target.endpoint, &question, deadline).await;
    shard.give_buffer(head);
    outcome
}

/// Sends a message that no endpoint is bound to: to the endpoint that balancing chooses, and to the others while nothing was
/// sent. A place in a pool is waited for no longer than `max_wait` at all of them together.
pub(super) async fn to_any(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    upstream: &Upstream,
    repeatable: bool,
) -> Result<(Answer, Rc<Endpoint>), Refusal> {
    let mut last = None;
    let place_by = shard.core.clock.after(shard.process.config.connection_pool.max_wait);
    for endpoint in candidates(shard, inbound, upstream) {
        let target = Target { upstream, endpoint: &endpoint, session: None, owner: None, place_by };
        match to_endpoint(shard, Method::Post, &inbound.message, &target, repeatable, inbound.peer).await {
            Ok(answer) => return Ok((answer, endpoint)),
            Err(error @ (CallError::Connect(_) | CallError::Exhausted)) => last = Some(error),
            Err(error) => return Err(refusal(upstream, &error)),
        }
    }
    match last {
        Some(error) => Err(refusal(upstream, &error)),
        // Its name stands for nothing at the moment.
        None => Err(Refusal::UpstreamConnect { server: upstream.name.to_string() }),
    }
}

/// The endpoints to try. A client keeps to one, where it is to, by what stays the same when it begins a new session: its
/// principal, and its address where nobody knows that.
pub(super) fn candidates(shard: &Shard, inbound: &Inbound, upstream: &Upstream) -> Candidates {
    let is_usable = |_: &Endpoint| true;
    if !upstream.has_affinity {
        return upstream.candidates(shard, None, is_usable);
    }
    identify::with_principal(shard, &inbound.message, |principal| {
        if identify::is_somebody(principal) {
            return upstream.candidates(shard, Some(principal.as_bytes()), is_usable);
        }
        let address = match inbound.peer {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        upstream.candidates(shard, Some(&address.octets()), is_usable)
    })
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
        CallError::Processes => Refusal::ProcessesExhausted { server },
        CallError::Closed => Refusal::UpstreamClosed { server },
        CallError::Timeout => Refusal::UpstreamTimeout { server },
        CallError::Malformed(what) => Refusal::UpstreamMalformed { server, what },
        CallError::Owner(unasked) => unasked.refusal(),
    }
}
