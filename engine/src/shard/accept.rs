//! Accepting: owns how many connections a shard takes at a time, and the pause when descriptors run out. What a connection
//! says is its door's.

use std::rc::Rc;
use std::time::Duration;

use super::Shard;
use super::conn::Conn;
use super::table;
use crate::metrics::Rejection;
use crate::net::listener::Accepted;
use crate::net::token::{Kind, Token};

/// Connections accepted per event: each brings a handshake, the most expensive thing that a stranger can ask for, so 16 of
/// them are 1 to 2 ms of a turn. While the shard lags, or so many handshakes wait already, one: the listener's backlog
/// holds the others.
pub(super) const ACCEPTS_PER_EVENT: usize = 16;
const ACCEPTS_WHEN_LAGGING: usize = 1;
const MANY_POSTPONED: usize = 256;
/// How long accepting pauses when descriptors or memory ran out.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(250);

impl Shard {
    pub(super) fn accept(self: &Rc<Self>, number: usize) {
        let lags = self.overload.is_lagging() || self.postponed.borrow().len() >= MANY_POSTPONED;
        let most = if lags { ACCEPTS_WHEN_LAGGING } else { ACCEPTS_PER_EVENT };
        let mut arrived = Vec::new();
        let outcome = {
            let listeners = self.listeners.borrow();
            let Some((listener, _)) = listeners.get(number) else { return };
            let door = listener.door;
            (listener.accept(most, |descriptor, peer| arrived.push((descriptor, peer))), door)
        };
        for (descriptor, peer) in arrived {
            match self.process.table.enter(peer) {
                Ok(()) => Conn::open(self, descriptor, peer, outcome.1),
                Err(table::Full::Process) => self.metrics.rejected(Rejection::MaxConnections),
                Err(table::Full::Address) => self.metrics.rejected(Rejection::MaxConnectionsPerIp),
            }
        }
        if outcome.0 == Accepted::Exhausted {
            self.metrics.rejected(Rejection::Exhausted);
            self.pause_listener(number);
        }
    }

    /// Lets through who has begun to connect, and nobody else.
    pub(super) fn leave_newcomers(&self) {
        for (listener, _) in self.listeners.borrow().iter() {
            if let Err(error) = listener.ignore_newcomers() {
                tracing::warn!(%error, "a listener goes on until the drain: who connects as it closes may be reset");
            }
        }
    }

    fn pause_listener(&self, number: usize) {
        let listeners = self.listeners.borrow();
        let Some((listener, timer)) = listeners.get(number) else { return };
        let token = Token::plain(Kind::Listener, number);
        match self.core.reactor.set_level(listener.descriptor(), token, false) {
            Ok(()) => self.arm(timer, token, self.core.clock.after(ACCEPT_BACKOFF)),
            Err(error) => tracing::error!(%error, "accepting could not be paused"),
        }
    }

    pub(super) fn resume_listener(&self, token: Token, tick: u64) {
        let listeners = self.listeners.borrow();
        let Some((listener, timer)) = listeners.get(token.index as usize) else { return };
        if self.core.came_up(timer, token, tick)
            && let Err(error) = self.core.reactor.set_level(listener.descriptor(), token, true)
        {
            crate::fatal::end(&format!("accepting could not be resumed: {error}"));
        }
    }
}
