//! What the session store asks of the client beyond single commands: owns the seam at which its tests put a Redis of their
//! own. Never a retry.

use mcp_protocol::resp::Reply;

use crate::StoreError;
use crate::redis::{Client, Command, Commands, Health, Origin};
use crate::runtime::Runtime;

/// A client for Redis, as far as sessions need one; [`Client`] is.
#[allow(async_fn_in_trait)] // One shard is one thread: no caller needs these futures to be Send.
pub trait SessionCommands: Commands + 'static {
    /// See [`Client::call_replicated`].
    ///
    /// # Errors
    /// As there.
    async fn call_replicated(
        &self,
        command: &Command<'_>,
        replicas: u32,
        timeout_ms: u64,
    ) -> Result<Reply, StoreError>;

    /// See [`Client::origin`].
    fn origin(&self, key: &[u8]) -> Option<Origin>;

    /// See [`Client::health`].
    fn health(&self) -> Health;
}

impl<R: Runtime> SessionCommands for Client<R> {
    async fn call_replicated(
        &self,
        command: &Command<'_>,
        replicas: u32,
        timeout_ms: u64,
    ) -> Result<Reply, StoreError> {
        Client::call_replicated(self, command, replicas, timeout_ms).await
    }

    fn origin(&self, key: &[u8]) -> Option<Origin> {
        Client::origin(self, key)
    }

    fn health(&self) -> Health {
        Client::health(self)
    }
}
