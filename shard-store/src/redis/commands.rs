//! What the parts that are built on the client need of it: owns the seam at which their tests put a Redis of their own.

use std::rc::Rc;

use mcp_protocol::resp::Reply;

use super::{Client, Command};
use crate::StoreError;
use crate::runtime::Runtime;

/// Carries commands out; [`Client`] does.
#[allow(async_fn_in_trait)] // One shard is one thread: no caller needs these futures to be Send.
pub trait Commands {
    /// See [`Client::call`].
    ///
    /// # Errors
    /// As there.
    async fn call(&self, command: &Command<'_>) -> Result<Reply, StoreError>;
}

impl<R: Runtime> Commands for Client<R> {
    async fn call(&self, command: &Command<'_>) -> Result<Reply, StoreError> {
        Client::call(self, command).await
    }
}

impl<C: Commands> Commands for Rc<C> {
    async fn call(&self, command: &Command<'_>) -> Result<Reply, StoreError> {
        C::call(self, command).await
    }
}
