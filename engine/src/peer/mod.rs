//! The way to a session's owner: brings a message that arrived at one shard to the shard that holds what only one can hold, over
//! frames of MCPB (layout in [`frame`]), within the process by a Unix socket per shard, between processes by TLS with
//! certificates on both sides. Where that is the client's stream, the answer leaves by it ([`forward`]); where it is the only
//! way to a server, the answer comes back ([`call()`]). Owns these connections, their bounds and their back-off. Never a client's
//! connection.
//!
//! A message takes at most one hop between processes and one between shards: what came over TLS may go on to the right shard
//! of this process, what came over a Unix socket goes nowhere else.
//!
//! Invariants: an owner is its process, so a message for one that was restarted is never given to its successor; whoever
//! waits for an owner waits [`ANSWER_TIMEOUT`] at most; idle connections cost nothing.

mod call;
mod frame;
mod link;
mod serve;
mod settings;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mcp_shard_store::{Owner, SessionId};

use crate::door::sse::Arrived;
use crate::exchange::{self, Scope};
use crate::metrics::{Direction, PeerResult};
use crate::process::Process;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::clock::Millis;
pub(crate) use call::{Unasked, call};
use frame::{Forward, Verdict};
use link::{Failure, Link};
use serve::Listeners;
pub(crate) use serve::accept;
pub(crate) use settings::Identity;

/// How long an owner may take to say that it has a message: it has nothing else to do for that.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an owner that cannot be reached is hoped for; then its streams are over.
const DEAD_AFTER: Duration = Duration::from_secs(1);
/// Other processes that one shard talks to.
const MAX_PODS: usize = 256;

/// A shard's part of the way.
pub(crate) struct Peers {
    own: Owner,
    listeners: Listeners,
    links: RefCell<HashMap<Target, Rc<Link>>>,
    tasks: Rc<Cell<usize>>,
}

/// Where a link leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Target {
    /// Another shard of this process.
    Shard(u16),
    /// Another process, whichever of its shards accepts.
    Pod(SocketAddr),
}

impl Peers {
    /// Starts listening.
    ///
    /// # Errors
    /// The system's, with what was tried.
    pub(crate) fn new(process: &Arc<Process>, shard: usize) -> io::Result<Self> {
        let own = process.identity.owner(shard as u16);
        Ok(Peers {
            listeners: Listeners::bind(process, &own)?,
            own,
            links: RefCell::default(),
            tasks: Rc::default(),
        })
    }

    /// What the sessions of this shard's streams say of it.
    pub(crate) fn own(&self) -> &Owner {
        &self.own
    }

    /// Has the shard's driver tell of those who connect.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn register(&self, reactor: &crate::net::reactor::Reactor) -> io::Result<()> {
        self.listeners.register(reactor)
    }

    /// Tasks that live as long as their connections: no exchange is one of them.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks.get()
    }

    /// The link to an owner.
    fn link(&self, process: &Process, owner: &Owner) -> Result<Rc<Link>, Failure> {
        let target = if owner.boot == self.own.boot {
            Target::Shard(owner.shard)
        } else if owner.pod == self.own.pod && !owner.pod.is_empty() {
            return Err(Failure::Gone);
        } else {
            let is_reachable = process.identity.reaches_others();
            let address = owner.pod.parse().ok().filter(|_| is_reachable);
            Target::Pod(address.ok_or(Failure::NoWay)?)
        };
        let mut links = self.links.borrow_mut();
        if links.len() >= MAX_PODS + process.mailboxes.len() {
            links.retain(|_, link| link.is_wanted());
        }
        let is_full = links.len() >= MAX_PODS + process.mailboxes.len();
        match links.entry(target) {
            Entry::Occupied(link) => Ok(link.get().clone()),
            Entry::Vacant(_) if is_full => Err(Failure::Busy),
            Entry::Vacant(place) => Ok(place.insert(Rc::new(Link::new(target))).clone()),
        }
    }
}

/// Counts a task among [`Peers::tasks`] as long as it lives.
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(peers: &Peers) -> Self {
        peers.tasks.set(peers.tasks.get() + 1);
        Counted(peers.tasks.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Brings a message to its stream's owner, and waits until that has taken it.
///
/// # Errors
/// [`Refusal::SessionUnknown`] when the owner is no more, or holds no such stream; what keeps it from taking the message;
/// what is in the way to it.
pub(crate) async fn forward(
    shard: &Rc<Shard>,
    owner: &Owner,
    id: &SessionId,
    scope: Scope,
    arrived: Arrived,
) -> Result<(), Refusal> {
    let scope_name = scope.name(shard);
    let forward = Forward::new(owner, id, &scope_name, &arrived.with);
    let sent = match shard.peers.link(&shard.process, owner) {
        Ok(link) => link.forward(shard, &forward, &arrived.body).await,
        Err(failure) => Err(failure),
    };
    shard.metrics.peer_message(Direction::Out, result(&sent));
    match sent {
        Ok(Verdict::Accepted) => Ok(()),
        outcome => Err(refusal(shard, id, outcome).await),
    }
}

/// What the client is told of a message that its owner has not taken.
async fn refusal(shard: &Rc<Shard>, id: &SessionId, outcome: Result<Verdict, Failure>) -> Refusal {
    match outcome {
        Ok(Verdict::AnotherBoot) | Err(Failure::Gone) => {
            exchange::drop_session(shard, id).await;
            Refusal::SessionUnknown
        }
        Ok(verdict) => verdict.refusal(),
        Err(Failure::NoWay) => Refusal::OwnerElsewhere,
        Err(Failure::Busy) => Refusal::OwnerBusy,
        Err(Failure::Silent) => Refusal::OwnerSilent,
        Err(Failure::Unreachable { since }) if is_dead(shard, since) => Refusal::SessionUnknown,
        Err(Failure::Unreachable { .. }) => Refusal::OwnerUnreachable,
    }
}

/// Whether an owner that has not been reached since then is taken for dead.
fn is_dead(shard: &Shard, since: Millis) -> bool {
    shard.core.clock.now() >= since + DEAD_AFTER.as_millis() as Millis
}

fn result(sent: &Result<Verdict, Failure>) -> PeerResult {
    match sent {
        Ok(Verdict::Accepted) => PeerResult::Accepted,
        Ok(_) => PeerResult::Refused,
        Err(Failure::Busy) => PeerResult::Busy,
        Err(Failure::NoWay | Failure::Gone | Failure::Unreachable { .. }) => PeerResult::Unreachable,
        Err(Failure::Silent) => PeerResult::TimedOut,
    }
}
