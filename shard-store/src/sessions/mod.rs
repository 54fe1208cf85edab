//! Sessions in Redis: owns where a session's record is written, when a copy of it may be believed, and what happens to
//! sessions while Redis is away. One store per shard. It never talks to Redis but through its client.

mod commands;
mod copies;
mod flight;
mod key;
mod store;
mod unwritten;
mod writer;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

pub use commands::Commands;
pub use copies::{Copies, FALLBACK_TTL_MS};
pub use key::PREFIX;
pub use store::RedisSessions;

use crate::Millis;
use crate::record::Directory;

/// What becomes of a new session while Redis is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenStoreDown {
    /// It is kept in this process and written when Redis is back.
    #[default]
    Keep,
    /// It is refused.
    Refuse,
}

/// How sessions are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The sliding life of a session, in milliseconds; from 16 on.
    pub ttl_ms: Millis,
    /// Replicas that must have a change before it counts as made; 0: the master's word is enough.
    pub replicas: u32,
    /// How long to wait for them, in milliseconds.
    pub replicas_timeout_ms: u64,
    /// What becomes of a new session while Redis is away.
    pub when_store_down: WhenStoreDown,
    /// Sessions of this shard that may wait to be written, at some 500 bytes each.
    pub max_unwritten: usize,
}

/// What the store of a shard is made of.
pub struct Parts<R, P, C> {
    /// The shard.
    pub runtime: R,
    /// The shard's client; it follows [`PREFIX`].
    pub client: Rc<C>,
    /// The client's [`Events`](crate::redis::Events).
    pub copies: Rc<Copies>,
    /// The names that stand in records.
    pub directory: Rc<Directory>,
    /// The other shards.
    pub peers: P,
    /// Sessions of this process that wait to be written: one number, shared by all shards.
    pub unwritten: Arc<AtomicU64>,
}

#[cfg(test)]
mod tests;
