//! One endpoint as a shard sees it: owns its addresses, its pool and how it is connected to. Never which endpoint a message
//! goes to.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_rustls::TlsConnector;
use mcp_config::HttpVersion;
use rustls_pki_types::ServerName;

use super::Via;
use super::call::CallError;
use super::h2::{self, Lines};
use super::health::Streak;
use super::pool::Pool;
use super::trial::Place;
use crate::net::stream::Stream;
use crate::shard::clock::Millis;
use crate::shard::{Elapsed, Shard};

/// How often at most the log says of an endpoint that its connections fail.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How a connection is protected.
pub(super) enum Security {
    Plain,
    /// TLS, and the name that the certificate must prove.
    Tls((TlsConnector, ServerName<'static>)),
    /// TLS is wanted, but no certificate could prove the host's name.
    Unprovable,
}

pub(crate) struct Endpoint {
    pub(crate) server: u16,
    /// Its place in metrics and among breakers.
    pub(crate) index: u16,
    /// Stands for `label` where clients are spread.
    pub(super) key: u32,
    /// What it is called in metrics, in the log and in sessions' records.
    pub(crate) label: Arc<str>,
    /// The `Host` field's value.
    pub(crate) authority: Box<str>,
    /// The request target.
    pub(crate) path: Box<str>,
    pub(super) addresses: RefCell<Arc<[SocketAddr]>>,
    pub(super) security: Security,
    pub(super) http: HttpVersion,
    /// Connections of HTTP/2; those of HTTP/1.1 are the pool's.
    pub(super) lines: Lines,
    pub(super) connect_timeout: Duration,
    pub(crate) pool: Rc<Pool>,
    /// Where the table of all shards has its breaker and its health.
    pub(crate) place: Place,
    /// Health checks in a row, at the shard that checks.
    pub(crate) checks: Cell<Streak>,
    pub(crate) via: Via,
    /// When it may be told again that its connections fail.
    pub(super) silent_until: Cell<Millis>,
}

impl Endpoint {
    /// Connects, TLS included, within the server's `connect_timeout` and until `deadline` at most. Where a name has several
    /// addresses, each but the last gets half of the time that is left, so that one that is silent does not hide the others.
    ///
    /// # Errors
    /// [`CallError::Connect`] with the last address's error.
    pub(crate) async fn connect(&self, shard: &Rc<Shard>, deadline: Millis) -> Result<Stream, CallError> {
        let by = deadline.min(shard.core.clock.after(self.connect_timeout));
        let tls = match &self.security {
            Security::Plain => None,
            Security::Tls(tls) => Some(tls),
            Security::Unprovable => {
                let what = "no certificate could prove this host's name; see servers[].tls.server_name";
                return Err(CallError::Connect(io::Error::new(io::ErrorKind::InvalidInput, what)));
            }
        };
        let addresses = self.addresses.borrow().clone();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
        for (number, &address) in addresses.iter().enumerate() {
            let left = by.saturating_sub(shard.core.clock.now());
            let share = if number + 1 < addresses.len() { left / 2 } else { left };
            let connecting = pin!(Stream::connect(&shard.core.reactor, std::iter::once(address), tls));
            match shard.deadline(shard.core.clock.now() + share, connecting).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(Elapsed) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        self.tell(shard, &last);
        Err(CallError::Connect(last))
    }

    /// Goes on at these addresses. What is in flight elsewhere ends there; no idle connection is used again, because none
    /// says which address it has.
    pub(super) fn move_to(&self, addresses: &Arc<[SocketAddr]>) {
        if *self.addresses.borrow() != *addresses {
            self.addresses.replace(addresses.clone());
            self.pool.renew();
            self.lines.renew();
        }
    }

    /// Whether the server is still configured to be there.
    pub(super) fn is_current(&self, shard: &Shard) -> bool {
        shard.upstream(self.server.into()).server().is_same_place(self.place.server())
    }

    /// Whether HTTP/2 is what the next connection will speak, as far as is known.
    pub(super) fn speaks_http2(&self) -> bool {
        match self.http {
            HttpVersion::V1_1 => false,
            HttpVersion::V2 => true,
            HttpVersion::Auto => self.lines.are_spoken(),
        }
    }

    /// Whether HTTP/2 is spoken on this connection: without TLS by prior knowledge, else where the server chose it.
    pub(super) fn is_http2(&self, stream: &Stream) -> bool {
        match self.http {
            HttpVersion::V1_1 => false,
            HttpVersion::V2 if !self.is_encrypted() => true,
            HttpVersion::V2 | HttpVersion::Auto => stream.alpn() == Some(h2::ALPN),
        }
    }

    /// Whether the server may choose HTTP/1.1.
    pub(super) fn may_choose_http1(&self) -> bool {
        self.http == HttpVersion::Auto
    }

    /// Whether its connections are encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        !matches!(self.security, Security::Plain)
    }

    /// Exchanges that hold a place, and connections without an exchange.
    pub(super) fn sizes(&self) -> (usize, usize) {
        let (in_use, idle) = self.pool.sizes();
        (in_use, idle + self.lines.idle())
    }

    /// Drops idle connections that are too old or that the server closed; says whether any are left.
    pub(super) fn drop_idle(&self, now: Millis) -> bool {
        let left = self.pool.drop_idle(now);
        self.lines.drop_idle(now, self.pool.max_idle_time()) || left
    }

    /// A server that is down fails each call: the log says so now and then.
    pub(super) fn tell(&self, shard: &Shard, error: &io::Error) {
        if shard.core.clock.now() < self.silent_until.get() {
            return;
        }
        self.silent_until.set(shard.core.clock.after(TELL_EVERY));
        let upstream = shard.upstream(usize::from(self.server));
        let server = &*upstream.name;
        // The query may hold a key.
        let endpoint = self.label.split('?').next().unwrap_or_default();
        tracing::warn!(server, endpoint, %error, "a connection to an endpoint failed");
    }
}
