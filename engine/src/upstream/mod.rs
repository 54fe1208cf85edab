//! Upstream servers as a shard sees them: owns the choice of endpoint, each endpoint's pool, and what has been learned of
//! a server (its era, its tools' mirrored parameters). It never knows a door.

pub(crate) mod answer;
pub(crate) mod call;
pub(crate) mod duplex;
pub(crate) mod knowledge;
pub(crate) mod pool;
pub(crate) mod resolver;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_rustls::TlsConnector;
use mcp_config::{Stdio, StdioMode, Transport};
use rustls_pki_types::ServerName;

use crate::process::Process;
use crate::shard::clock::Millis;
use knowledge::Knowledge;
use pool::Pool;
use resolver::Addresses;

/// One configured server.
pub(crate) struct Upstream {
    pub(crate) name: Rc<str>,
    /// How long the server may keep silent while an answer is due.
    pub(crate) timeout: Duration,
    pub(crate) endpoints: Vec<Rc<Endpoint>>,
    pub(crate) knowledge: Knowledge,
    next: Cell<usize>,
}

/// One address of a server.
pub(crate) struct Endpoint {
    pub(crate) server: u16,
    pub(crate) index: u16,
    /// The `Host` field's value.
    pub(crate) authority: Box<str>,
    /// The request target.
    pub(crate) path: Box<str>,
    pub(crate) addresses: Addresses,
    pub(crate) tls: Option<(TlsConnector, ServerName<'static>)>,
    pub(crate) pool: Rc<Pool>,
    pub(crate) via: Via,
}

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
    /// Whether all sessions share one channel.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Via::Stdio(stdio) if stdio.mode == StdioMode::Shared)
    }
}

impl Upstream {
    pub(crate) fn new(process: &Arc<Process>, server: usize) -> Self {
        let config = &process.config.upstreams[server];
        let endpoints = match &config.transport {
            Transport::StreamableHttp { endpoints, .. }
            | Transport::Sse { endpoints, .. }
            | Transport::WebSocket { endpoints, .. } => endpoints.as_slice(),
            Transport::Stdio(_) => &[],
        };
        let via = || match &config.transport {
            Transport::StreamableHttp { .. } => Via::Http,
            Transport::Sse { .. } => Via::Sse,
            Transport::WebSocket { .. } => Via::WebSocket,
            Transport::Stdio(stdio) => Via::Stdio(stdio.clone()),
        };
        let mut endpoints: Vec<_> = endpoints
            .iter()
            .enumerate()
            .map(|(index, endpoint)| {
                let tls =
                    endpoint.tls.then(|| process.client_tls[server].clone()).flatten().and_then(|config| {
                        let name = ServerName::try_from(endpoint.host.clone()).ok()?;
                        Some((TlsConnector::from(config), name))
                    });
                let host = if endpoint.host.contains(':') {
                    format!("[{}]", endpoint.host)
                } else {
                    endpoint.host.clone()
                };
                let default_port = if endpoint.tls { 443 } else { 80 };
                let authority =
                    if endpoint.port == default_port { host } else { format!("{host}:{}", endpoint.port) };
                Rc::new(Endpoint {
                    server: server as u16,
                    index: index as u16,
                    authority: authority.into(),
                    path: endpoint.path.as_str().into(),
                    addresses: process.addresses[server][index].clone(),
                    tls,
                    pool: Rc::new(Pool::new(&process.config.connection_pool)),
                    via: via(),
                })
            })
            .collect();
        if matches!(config.transport, Transport::Stdio(_)) {
            endpoints.push(Rc::new(Endpoint {
                server: server as u16,
                index: 0,
                authority: Box::default(),
                path: Box::default(),
                addresses: Addresses::default(),
                tls: None,
                pool: Rc::new(Pool::new(&process.config.connection_pool)),
                via: via(),
            }));
        }
        Upstream {
            name: config.name.as_str().into(),
            timeout: config.timeout,
            endpoints,
            knowledge: Knowledge::default(),
            next: Cell::new(0),
        }
    }

    /// The endpoints in the order in which a new session or a stateless request tries them: round robin.
    pub(crate) fn rotation(&self) -> impl Iterator<Item = &Rc<Endpoint>> {
        let count = self.endpoints.len();
        let first = self.next.get();
        self.next.set(first.wrapping_add(1));
        (0..count).map(move |step| &self.endpoints[first.wrapping_add(step) % count])
    }

    /// Connections in use and idle, per endpoint.
    pub(crate) fn pool_sizes(&self) -> impl Iterator<Item = (usize, usize)> {
        self.endpoints.iter().map(|endpoint| endpoint.pool.sizes())
    }

    /// Drops idle connections that are too old or that the server closed; says whether any are left.
    pub(crate) fn drop_idle(&self, now: Millis) -> bool {
        let mut left = false;
        for endpoint in &self.endpoints {
            left |= endpoint.pool.drop_idle(now);
        }
        left
    }
}
