//! Sessions in Redis: owns where a session's record is written, when a copy of it may be believed, and what happens to
//! sessions while Redis is away. One store per shard. It never talks to Redis but through its client.
//!
//! # What a look-up is served from
//!
//! In this order; "home" is the shard that opened a session which Redis does not have yet.
//!
//! | what is there | served | counted as |
//! | --- | --- | --- |
//! | a copy, and the connection under which it was read vouches for it (where Redis does not say what changes: for 2 s) | the copy, no command | `hit` |
//! | some session of the process waits to be written, and the id's home has it | the home's record | `local` |
//! | Redis answers | its answer; `GET` and `PTTL` in one write, shared by all that ask at the same time | `miss` |
//! | Redis has a record that this version cannot read | [`StoreError::Malformed`](crate::StoreError::Malformed) | `miss`, `malformed` |
//! | Redis has a record of a server that is not configured here | nothing: unknown here | `miss` |
//! | Redis cannot be asked ([`is_outage`](crate::StoreError::is_outage)), a copy is there and its session's life not over | the copy | `miss`, `stale` |
//! | Redis cannot be asked, no copy | the error: an id is not unknown because nobody could be asked | `miss` |
//!
//! # What makes a copy worthless
//!
//! | event | the copy |
//! | --- | --- |
//! | Redis says that the key changed; a deletion or a failed touch here | is gone |
//! | the connection is lost, the slot moves, a failover; Redis says that anything may have changed | is believed no more, and serves as `stale` |
//! | an update here begins | is believed no more; the new one takes its place when Redis has it |
//! | any of these between a question and its answer | is gone, or not believed from the start |
//!
//! # What happens to changes while Redis is away
//!
//! | change | when Redis fails |
//! | --- | --- |
//! | create, [`WhenStoreDown::Keep`] | the session is kept at home, told to the client, and written when Redis is back; [`Full`](crate::StoreError::Full) beyond [`Settings::max_unwritten`]. Other pods do not know it until then, and it ends with the process; one that drains had better wait while [`RedisSessions::stats`] counts any |
//! | create, [`WhenStoreDown::Refuse`] | the error; where too few replicas have it, it is deleted again as well as that goes |
//! | update, delete of a session that waits | act on the home's record, and succeed. One that Redis may have all the same is ended there as soon as it answers, and is known to other pods until then |
//! | update, delete of any other | the error. After an update the older copy may serve as `stale`; after a delete none does |
//! | telling that a session is used | is tried again with its next use, at most sixteen times in its life |
//!
//! # How a session that waits is written
//!
//! | what happened meanwhile | what is done |
//! | --- | --- |
//! | nothing | `SET NX`: a record that is there is this one, or a later one of another pod |
//! | it was updated, also while it was being written | `SET` |
//! | it was ended or its life is over, and nothing of it can have reached Redis | nothing |
//! | the same, but it may have reached Redis, also while it was being written | it is ended there |
//! | another pod ended it, since an earlier write was carried out without our knowing | it is ended here; the pod left a mark, which stays for a minute |
//! | fewer replicas than demanded have it | it is written again |

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

pub use commands::SessionCommands;
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
