//! The way from a shard to the store: owns what the store's client needs of the shard that it runs on. Never a command.

pub(crate) mod names;
pub(crate) mod runtime;
pub(crate) mod tls;

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use mcp_config::Redis;

use crate::shard::core::Core;
use crate::shard::mailbox::Mailbox;
use names::{Lookups, Names};
use runtime::StoreRuntime;
use tls::StoreTls;

/// What all shards share to reach the store.
pub(crate) struct Reach {
    lookups: Lookups,
    tls: Option<StoreTls>,
}

/// Why the store cannot even be tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReachError {
    #[error("gateway.redis.tls: {0}")]
    Trust(#[from] crate::tls::config::TrustError),
    #[error("no thread for looking names up: {0}")]
    Thread(#[from] io::Error),
}

impl Reach {
    /// # Errors
    /// [`ReachError`].
    pub(crate) fn new(redis: &Redis) -> Result<Self, ReachError> {
        let tls = &redis.tls;
        if tls.enabled && tls.skip_verify {
            tracing::warn!(
                "gateway.redis.tls.skip_verify: ANYBODY on the way to Redis can read and change every session;                  use ca_file instead"
            );
        }
        let tls = match tls.enabled {
            true => Some(StoreTls::new(tls.ca_file.as_deref(), tls.skip_verify, tls.server_name.as_deref())?),
            false => None,
        };
        Ok(Reach { lookups: Lookups::start()?, tls })
    }

    /// One shard's way to the store.
    pub(crate) fn runtime(&self, core: &Rc<Core>, mailbox: &Arc<Mailbox>) -> StoreRuntime {
        StoreRuntime::new(core, Names::new(self.lookups.clone(), mailbox.clone()), self.tls.clone())
    }
}
