//! The client: owns the way of a command through topology, connection and breaker.

use std::rc::Rc;

use mcp_protocol::resp::Reply;

use super::{Command, Lane, Settings};
use crate::StoreError;
use crate::runtime::Runtime;
use crate::stats::ClientStats;

/// Names the connection that vouches for what is cached of a slot: a copy is coherent while [`Client::origin`] of its key
/// gives the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin(pub(crate) u64);

/// What the client tells its owner.
pub trait Events {
    /// These keys changed, or are gone. `None`: any may have, all copies are worthless.
    fn invalidated(&self, keys: Option<&[&[u8]]>);
}

/// How the store is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Every node that should be there is connected, and the breaker is closed.
    Up,
    /// Some node is not connected, or the breaker is probing.
    Impaired,
    /// The breaker is open, or no node is connected.
    Down,
}

/// A shard's client.
pub struct Client<R: Runtime> {
    _runtime: R,
}

impl<R: Runtime> Client<R> {
    /// Starts connecting in the background.
    pub fn new(runtime: R, settings: Settings, events: Rc<dyn Events>) -> Rc<Self> {
        let _ = (settings, events);
        Rc::new(Client { _runtime: runtime })
    }

    /// Sends a command and waits for its reply, at most [`Settings::command_timeout_ms`]. Whoever drops the future leaves
    /// the stream of replies intact; the command may have been carried out.
    ///
    /// # Errors
    /// [`StoreError`]; an error reply is [`StoreError::Refused`].
    pub async fn call(&self, command: &Command<'_>) -> Result<Reply, StoreError> {
        let _ = command;
        Err(StoreError::Unreachable)
    }

    /// Sends a write and waits until `replicas` replicas have it, at most `timeout_ms`. The write's reply.
    ///
    /// # Errors
    /// [`StoreError::NotReplicated`] where the write was made and too few replicas have it; else as [`Client::call`].
    pub async fn call_replicated(
        &self,
        command: &Command<'_>,
        replicas: u32,
        timeout_ms: u64,
    ) -> Result<Reply, StoreError> {
        let _ = (command, replicas, timeout_ms, Lane::Durable);
        Err(StoreError::Unreachable)
    }

    /// Sends what this turn's tasks asked for. The shard calls it at the end of a turn in which
    /// [`Runtime::flush_later`] was called.
    pub fn flush(&self) {}

    /// The connection that vouches for copies of `key`. `None` while no connection does: its node is not connected, or
    /// does not follow keys (RESP2, or `CLIENT TRACKING` refused).
    pub fn origin(&self, key: &[u8]) -> Option<Origin> {
        let _ = key;
        None
    }

    /// How the store is doing.
    pub fn health(&self) -> Health {
        Health::Down
    }

    /// What has been counted; the pipeline's depth begins anew.
    pub fn stats(&self) -> ClientStats {
        ClientStats::default()
    }

    /// Closes all connections; what is in flight fails.
    pub fn close(&self) {}
}
