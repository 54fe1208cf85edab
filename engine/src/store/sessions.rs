//! A shard's sessions, wherever they are kept: owns the choice between this process's memory and Redis. Never a rule of MCP.

use std::rc::Rc;
use std::time::Duration;

use mcp_shard_store::memory::{MemoryStore, StoreMail};
use mcp_shard_store::record::Directory;
use mcp_shard_store::sessions::RedisSessions;
use mcp_shard_store::stats::SessionStats;
use mcp_shard_store::{Millis, Record, SessionId, SessionStore, StoreError};

use super::runtime::StoreRuntime;
use crate::setup::Setup;
use crate::shard::Neighbours;

/// How long a shard may take to answer another one.
const MAIL_PATIENCE: Duration = Duration::from_secs(1);

pub(crate) enum Sessions {
    Memory(MemoryStore<Neighbours>),
    Redis {
        store: Rc<RedisSessions<StoreRuntime, Neighbours>>,
        /// How long its longest question may take.
        patience: Duration,
    },
}

impl Sessions {
    /// How long a question may take; the store's own deadlines are earlier.
    pub(crate) fn patience(&self) -> Duration {
        match self {
            Sessions::Memory(_) => MAIL_PATIENCE,
            Sessions::Redis { patience, .. } => MAIL_PATIENCE + *patience,
        }
    }

    /// The servers' names, by number, from now on.
    pub(crate) fn know(&self, setup: &Setup) {
        match self {
            Sessions::Memory(_) => {}
            Sessions::Redis { store, .. } => store.know(directory(setup)),
        }
    }

    /// Sessions that this shard keeps in memory.
    pub(crate) fn kept(&self) -> u64 {
        match self {
            Sessions::Memory(store) => store.sessions() as u64,
            Sessions::Redis { store, .. } => store.stats().unwritten,
        }
    }

    /// Takes mail from another shard's store.
    pub(crate) fn on_mail(&self, mail: StoreMail, now: Millis) {
        match self {
            Sessions::Memory(store) => store.on_mail(mail, now),
            Sessions::Redis { store, .. } => store.on_mail(mail, now),
        }
    }

    /// Drops what has ended; says whether there is more to look after.
    pub(crate) fn keep_house(&self, now: Millis) -> bool {
        match self {
            Sessions::Memory(store) => {
                store.expire(now);
                store.sessions() > 0
            }
            Sessions::Redis { store, .. } => {
                store.expire(now);
                store.needs_housekeeping()
            }
        }
    }

    /// What has been counted of those in Redis.
    pub(crate) fn stats(&self) -> Option<SessionStats> {
        match self {
            Sessions::Memory(_) => None,
            Sessions::Redis { store, .. } => Some(store.stats()),
        }
    }
}

impl SessionStore for Sessions {
    async fn create(&self, record: Record, now: Millis) -> Result<SessionId, StoreError> {
        match self {
            Sessions::Memory(store) => store.create(record, now).await,
            Sessions::Redis { store, .. } => store.create(record, now).await,
        }
    }

    async fn get(&self, id: &SessionId, now: Millis) -> Result<Option<Rc<Record>>, StoreError> {
        match self {
            Sessions::Memory(store) => store.get(id, now).await,
            Sessions::Redis { store, .. } => store.get(id, now).await,
        }
    }

    async fn update(&self, id: &SessionId, record: Record, now: Millis) -> Result<bool, StoreError> {
        match self {
            Sessions::Memory(store) => store.update(id, record, now).await,
            Sessions::Redis { store, .. } => store.update(id, record, now).await,
        }
    }

    async fn delete(&self, id: &SessionId, now: Millis) -> Result<bool, StoreError> {
        match self {
            Sessions::Memory(store) => store.delete(id, now).await,
            Sessions::Redis { store, .. } => store.delete(id, now).await,
        }
    }
}

/// What servers are called in records. Those that are gone are still known, so that sessions with all servers outlive one.
pub(super) fn directory(setup: &Setup) -> Rc<Directory> {
    Rc::new(Directory::new(setup.servers.iter().map(|server| server.settings.name.clone()).collect()))
}
