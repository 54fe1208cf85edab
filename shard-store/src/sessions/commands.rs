//! What the session store asks of the client: owns the seam at which a test puts a Redis of its own. Never a retry.

use mcp_protocol::resp::Reply;

use crate::StoreError;
use crate::redis::{Client, Command, Health, Origin};
use crate::runtime::Runtime;

/// A client for Redis, as far as sessions need one; what each call does is [`Client`]'s.
#[allow(async_fn_in_trait)] // One shard is one thread: no caller needs these futures to be Send.
pub trait Commands: 'static {
    /// Sends a command and waits for its reply.
    ///
    /// # Errors
    /// As [`Client::call`].
    async fn call(&self, command: &Command<'_>) -> Result<Reply, StoreError>;

    /// Sends a write and waits until `replicas` replicas have it.
    ///
    /// # Errors
    /// As [`Client::call_replicated`].
    async fn call_replicated(
        &self,
        command: &Command<'_>,
        replicas: u32,
        timeout_ms: u64,
    ) -> Result<Reply, StoreError>;

    /// The connection that vouches for copies of `key`.
    fn origin(&self, key: &[u8]) -> Option<Origin>;

    /// How the store is doing.
    fn health(&self) -> Health;
}

impl<R: Runtime> Commands for Client<R> {
    async fn call(&self, command: &Command<'_>) -> Result<Reply, StoreError> {
        Client::call(self, command).await
    }

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
