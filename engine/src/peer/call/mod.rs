//! Calls: a message for a server that only its owner reaches is brought to it, and the answer comes back over the same link, as it
//! comes and no faster than it is read. Owns the call's way through, its limits and its deadlines. Never the server's connection.
//!
//! The owner says at once that it has taken a call, as it does of any message; its answer may take as long as the server's
//! `timeout`. Each hop has a window of its own, so a client that reads nothing holds [`WINDOW`] bytes per hop.

mod asked;
pub(super) mod frame;
pub(super) mod inbox;
pub(super) mod serving;

use std::pin::pin;
use std::rc::Rc;

use mcp_shard_store::Owner;

use super::frame::{Forward, Verdict};
use super::link::Failure;
use super::{is_dead, result};
use crate::metrics::Direction;
use crate::respond::Refusal;
use crate::shard::clock::Millis;
use crate::shard::{Elapsed, Shard};
use crate::upstream::answer::Told;
use crate::upstream::call::CallError;
use crate::upstream::duplex::Ask;
pub(super) use asked::Asked;
use frame::Failed;

/// Bytes of an answer that are on their way or wait to be read. More would only wait elsewhere.
pub(super) const WINDOW: usize = 64 << 10;
/// Bytes of an answer in one frame, after which other calls have their turn.
const MAX_PIECE: usize = 32 << 10;
/// Calls of one link in flight, streams without an end among them. What they hold together counts among the shard's unfinished
/// bytes, which are bounded; without that it would be 256 MiB.
pub(super) const MAX_CALLS: usize = 4096;

/// Why an owner was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unasked {
    /// It is no more, and with it the server's part of the session.
    Gone,
    /// It is another process, and no way leads to others.
    NoWay,
    Unreachable,
    /// Whether it asked the server is not known.
    Silent,
    Busy,
    InFlight {
        limit: usize,
    },
    Memory,
    Draining,
}

impl Unasked {
    /// What the client is told.
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Unasked::Gone => Refusal::SessionUnknown,
            Unasked::NoWay => Refusal::ChannelElsewhere,
            Unasked::Unreachable => Refusal::OwnerUnreachable,
            Unasked::Silent => Refusal::OwnerSilent,
            Unasked::Busy => Refusal::OwnerBusy,
            Unasked::InFlight { limit } => Refusal::InFlight { limit },
            Unasked::Memory => Refusal::Memory,
            Unasked::Draining => Refusal::Draining,
        }
    }

    fn of(shard: &Shard, outcome: Result<Verdict, Failure>) -> Self {
        match outcome {
            Ok(Verdict::AnotherBoot | Verdict::NoSuchStream) | Err(Failure::Gone) => Unasked::Gone,
            Ok(Verdict::InFlight { limit }) => Unasked::InFlight { limit },
            Ok(Verdict::Memory) => Unasked::Memory,
            Ok(Verdict::Draining) => Unasked::Draining,
            Ok(Verdict::Accepted | Verdict::Unreachable | Verdict::Refused) => Unasked::Unreachable,
            Err(Failure::NoWay) => Unasked::NoWay,
            Err(Failure::Busy) => Unasked::Busy,
            Err(Failure::Silent) => Unasked::Silent,
            Err(Failure::Unreachable { since }) if is_dead(shard, since) => Unasked::Gone,
            Err(Failure::Unreachable { .. }) => Unasked::Unreachable,
        }
    }
}

/// Asks the owner, and waits until `deadline` for its answer's beginning.
///
/// # Errors
/// [`CallError::Owner`] when the owner was not asked; else what went wrong at the server.
pub(crate) async fn call(
    shard: &Rc<Shard>,
    owner: &Owner,
    server: u16,
    ask: &Ask<'_>,
    deadline: Millis,
) -> Result<Told, CallError> {
    let upstream = &shard.upstream(usize::from(server));
    let forward = Forward::of_call(owner, &upstream.name, ask);
    let sent = match shard.peers.link(&shard.process, owner) {
        Ok(link) => link.call(shard, &forward, ask.body).await,
        Err(failure) => Err(Err(failure)),
    };
    let outcome = sent.as_ref().map_or_else(|outcome| *outcome, |_| Ok(Verdict::Accepted));
    shard.metrics.peer_message(Direction::Out, result(&outcome));
    let asked = sent.map_err(|outcome| CallError::Owner(Unasked::of(shard, outcome)))?;
    match shard.deadline(deadline, pin!(asked.told())).await {
        Ok(told) => told.map_err(Failed::error),
        Err(Elapsed) => Err(CallError::Timeout),
    }
}
