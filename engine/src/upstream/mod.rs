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

use crate::setup::Server;
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

    /// Whether each session has a process, whose faults say nothing of the others'.
    pub(crate) fn is_a_sessions_own_process(&self) -> bool {
        matches!(self, Via::Stdio(stdio) if stdio.mode == StdioMode::PerSession)
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
    pub(crate) knowledge: Rc<Knowledge>,
    pub(crate) lists: Rc<Lists>,
    pub(crate) retries: Budget,
    /// Whether a client keeps to one endpoint.
    pub(crate) has_affinity: bool,
    fleet: Rc<Fleet>,
    server: Arc<Server>,
}

impl Upstream {
    /// A server as the `shard`-th of `shards` sees it. What is not touched by the change from what it was `before` stays.
    pub(crate) fn new(
        server: &Arc<Server>,
        (shard, shards): (usize, usize),
        before: Option<&Upstream>,
    ) -> Self {
        let same_place = before.filter(|before| before.server.is_same_place(server));
        let alike = before.filter(|before| before.server.reaches_alike(server));
        Upstream {
            name: server.settings.name.as_str().into(),
            timeout: server.settings.timeout,
            knowledge: same_place.map(|before| before.knowledge.clone()).unwrap_or_default(),
            lists: same_place
                .map_or_else(|| Rc::new(Lists::new(&server.list_changes)), |before| before.lists.clone()),
            retries: Budget::new(&server.retry, shards),
            has_affinity: server.settings.reach.affinity,
            fleet: alike.map_or_else(|| Rc::new(Fleet::new(server, shard)), |before| before.fleet.clone()),
            server: server.clone(),
        }
    }

    /// What is configured of it.
    pub(crate) fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Whether the gateway may ask the server on its own account while no client does: to ask others, it would have to start
    /// a process or open a channel.
    pub(crate) fn is_probed(&self) -> bool {
        !self.server.is_gone && matches!(self.server.settings.transport, Transport::StreamableHttp { .. })
    }

    /// Which server it is.
    pub(crate) fn index(&self) -> usize {
        self.server.number.into()
    }

    /// What all shards know of the server.
    pub(crate) fn shared(&self) -> &ServerRows {
        &self.server.rows
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
