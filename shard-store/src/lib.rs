//! The store: owns the interface by which a shard keeps what must outlive a connection, and the memory store behind it.
//! It never opens a socket by itself and knows nothing of HTTP; time comes in as milliseconds.
//!
//! A session record has one home; every shard may cache it, and the home's invalidations keep the caches coherent. With
//! the memory store the home is a partition owned by one shard of this process.

pub mod id;
pub mod memory;
pub mod record;

pub use id::SessionId;
pub use record::Record;

/// Milliseconds on the caller's clock; the same clock for all shards of a process.
pub type Millis = u64;

/// Why the store did not answer; sorted by blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The caller's: the store holds as many sessions as it may.
    #[error("the store holds {limit} sessions, as many as it may")]
    Full {
        /// The limit of this partition.
        limit: usize,
    },
    /// The store's: its queue is full. Safe to try again: nothing was changed.
    #[error("the store's queue is full")]
    Busy,
    /// Ours: the system gave no random bytes for a session id.
    #[error("no random bytes for a session id")]
    NoRandom,
}

/// What a shard asks of a store. All calls end; none blocks the shard.
#[allow(async_fn_in_trait)] // One shard is one thread: no caller needs these futures to be Send.
pub trait SessionStore {
    /// Keeps a new session and mints its id: 128 random bits, visible ASCII.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::NoRandom`]; nothing is kept then.
    async fn create(&self, record: Record, now: Millis) -> Result<SessionId, StoreError>;

    /// Looks a session up and extends its life. `None`: unknown, ended or expired.
    ///
    /// # Errors
    /// [`StoreError::Busy`].
    async fn get(&self, id: &SessionId, now: Millis) -> Result<Option<std::rc::Rc<Record>>, StoreError>;

    /// Replaces a session's record; `false` when there is no such session.
    ///
    /// # Errors
    /// [`StoreError::Busy`]; the record is as it was.
    async fn update(&self, id: &SessionId, record: Record, now: Millis) -> Result<bool, StoreError>;

    /// Ends a session for every shard; `false` when there was none.
    ///
    /// # Errors
    /// [`StoreError::Busy`]; the session lives on.
    async fn delete(&self, id: &SessionId, now: Millis) -> Result<bool, StoreError>;
}
