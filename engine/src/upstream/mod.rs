//! Upstream servers as a shard sees them: owns what a server is called, its endpoints, and what has been learned of it (its
//! era, its tools' mirrored parameters). It never knows a door.

pub(crate) mod answer;
pub(crate) mod balance;
pub(crate) mod breaker;
pub(crate) mod call;
pub(crate) mod duplex;
mod endpoint;
mod fleet;
pub(crate) mod h2;
pub(crate) mod health;
pub(crate) mod knowledge;
pub(crate) mod lists;
pub(crate) mod pool;
pub(crate) mod resolver;
pub(crate) mod retry;
pub(crate) mod trial;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mcp_config::{Stdio, StdioMode, Transport};

use crate::process::Process;
use crate::shard::Shard;
use crate::shard::clock::Millis;
use crate::shard::table::endpoints::ServerRows;
pub(crate) use endpoint::Endpoint;
pub(crate) use fleet::Candidates;
use fleet::Fleet;
use knowledge::Knowledge;
use lists::Lists;
use retry::Budget;

/// How messages get to an endpoint.
pub(crate) enum Via {
    /// A request of Streamable HTTP for each.
    Http,
    /// A WebSocket for each session.
    WebSocket,
    /// A stream of HTTP with SSE for each session.
    Sse,
    /// The standard streams of processes, which stand for the server's only endpoint.
    Stdio(Stdio),
}

impl Via {
    fn of(transport: &Transport) -> Self {
        match transport {
            Transport::StreamableHttp { .. } => Via::Http,
            Transport::Sse { .. } => Via::Sse,
            Transport::WebSocket { .. } => Via::WebSocket,
            Transport::Stdio(stdio) => Via::Stdio(stdio.clone()),
        }
    }

    /// Whether all sessions share one channel.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Via::Stdio(stdio) if stdio.mode == StdioMode::Shared)
    }
}

/// One configured server.
pub(crate) struct Upstream {
    pub(crate) name: Rc<str>,
    /// How long the server may keep silent while an answer is due.
    pub(crate) timeout: Duration,
    pub(crate) knowledge: Knowledge,
    pub(crate) lists: Lists,
    pub(crate) retries: Budget,
    /// Whether a client keeps to one endpoint.
    pub(crate) has_affinity: bool,
    fleet: Fleet,
    process: Arc<Process>,
    index: usize,
}

impl Upstream {
    pub(crate) fn new(process: &Arc<Process>, server: usize, shard: usize) -> Self {
        let config = &process.config.upstreams[server];
        Upstream {
            name: config.name.as_str().into(),
            timeout: config.timeout,
            knowledge: Knowledge::default(),
            lists: Lists::new(&process.list_changes[server]),
            retries: Budget::new(&process.config.retry, process.mailboxes.len()),
            has_affinity: config.reach.affinity,
            fleet: Fleet::new(process, server, shard),
            process: process.clone(),
            index: server,
        }
    }

    /// Whether the gateway may ask the server on its own account while no client does: to ask others, it would have to start
    /// a process or open a channel.
    pub(crate) fn is_probed(&self) -> bool {
        matches!(self.process.config.upstreams[self.index].transport, Transport::StreamableHttp { .. })
    }

    /// Which server it is.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// What all shards know of the server.
    pub(crate) fn shared(&self) -> &ServerRows {
        &self.process.table.endpoints.servers[self.index]
    }

    /// The endpoints of the moment.
    pub(crate) fn endpoints(&self, shard: &Shard) -> Rc<[Rc<Endpoint>]> {
        self.fleet.endpoints(shard)
    }

    /// The endpoints that `is_usable`, in the order in which a new session or a stateless request tries them. `client` is
    /// what stays the same for a client, where the server [`has_affinity`](Upstream::has_affinity).
    pub(crate) fn candidates(
        &self,
        shard: &Shard,
        client: Option<&[u8]>,
        is_usable: impl Fn(&Endpoint) -> bool,
    ) -> Candidates {
        self.fleet.candidates(shard, client, is_usable)
    }

    /// The endpoint that a session's record names; `None` once it is gone, and with it the session.
    pub(crate) fn endpoint(&self, shard: &Shard, label: &str) -> Option<Rc<Endpoint>> {
        self.fleet.endpoints(shard).iter().find(|endpoint| *endpoint.label == *label).cloned()
    }

    /// Connections in use and idle, by the endpoint's place.
    pub(crate) fn pool_sizes(&self, shard: &Shard) -> Vec<(u16, (usize, usize))> {
        self.fleet.endpoints(shard).iter().map(|endpoint| (endpoint.index, endpoint.sizes())).collect()
    }

    /// Drops idle connections that are too old or that the server closed; says whether any are left.
    pub(crate) fn drop_idle(&self, shard: &Shard, now: Millis) -> bool {
        let mut left = false;
        for endpoint in &*self.fleet.endpoints(shard) {
            left |= endpoint.drop_idle(now);
        }
        left
    }
}
