//! The store: owns the interface by which a shard keeps what must outlive a connection, and the memory store behind it.
//! It never opens a socket by itself and knows nothing of HTTP; time comes in as milliseconds.
//!
//! A session record has one home; every shard may cache it, and the home's invalidations keep the caches coherent. With
//! the memory store the home is a partition owned by one shard of this process.

mod cache;
#[cfg(any(test, feature = "test-support"))]
pub mod contract;
pub mod error;
pub mod id;
pub mod limiter;
pub mod memory;
pub mod record;
pub mod redis;
pub mod runtime;
pub mod sessions;
pub mod stats;

pub use error::StoreError;
pub use id::SessionId;
pub use record::{Binding, Owner, Record};

/// Milliseconds on the caller's clock; the same clock for all shards of a process.
pub type Millis = u64;

/// What a shard asks of a store. All calls end; none blocks the shard.
#[allow(async_fn_in_trait)] // One shard is one thread: no caller needs these futures to be Send.
pub trait SessionStore {
    /// Keeps a new session and mints its id: 128 random bits, visible ASCII.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::NoRandom`], and what a store that is elsewhere can fail by; the caller never
    /// learned of an id, so nothing that was kept all the same is ever asked for.
    async fn create(&self, record: Record, now: Millis) -> Result<SessionId, StoreError>;

    /// Looks a session up and extends its life. `None`: unknown, ended or expired.
    ///
    /// # Errors
    /// What [`StoreError`] names but for `Full` and `NoRandom`.
    async fn get(&self, id: &SessionId, now: Millis) -> Result<Option<std::rc::Rc<Record>>, StoreError>;

    /// Replaces a session's record; `false` when there is no such session.
    ///
    /// # Errors
    /// As [`SessionStore::get`]; [`StoreError::retry`] says whether the record is as it was.
    async fn update(&self, id: &SessionId, record: Record, now: Millis) -> Result<bool, StoreError>;

    /// Ends a session for every shard; `false` when there was none.
    ///
    /// # Errors
    /// As [`SessionStore::get`]; [`StoreError::retry`] says whether the session lives on.
    async fn delete(&self, id: &SessionId, now: Millis) -> Result<bool, StoreError>;
}
