//! What the Redis client needs of the shard that it runs on: owns the seam to sockets, tasks and time, so that this crate
//! opens no socket and reads no clock by itself. Never a protocol.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use futures_io::{AsyncRead, AsyncWrite};

use crate::Millis;

/// A step's time was over before it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Host name or address; an IPv6 address without brackets.
    pub host: Rc<str>,
    /// TCP port.
    pub port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// A shard, as the client sees it. Cheap to clone; everything stays on one thread.
#[allow(async_fn_in_trait)] // One shard is one thread: no caller needs these futures to be Send.
pub trait Runtime: Clone + 'static {
    /// A connection, encrypted where the configuration says so.
    type Stream: AsyncRead + AsyncWrite + Unpin + 'static;

    /// The time of this turn, in milliseconds since the process started.
    fn now(&self) -> Millis;

    /// Microseconds since the process started, read now: for latencies.
    fn precise_us(&self) -> u64;

    /// Milliseconds since 1970, UTC.
    fn unix_ms(&self) -> u64;

    /// Runs a task beside the others until it ends.
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()>>>);

    /// Connects, with the TLS handshake where the store is reached by TLS. The caller bounds the time.
    ///
    /// # Errors
    /// The system's; `InvalidData` where the node's certificate does not prove its name.
    async fn connect(&self, address: &Address) -> io::Result<Self::Stream>;

    /// Bounds a step of a *spawned* task to the time `at`. A task bounds one step at a time; deadlines come up to 64 ms
    /// late.
    ///
    /// # Errors
    /// [`Elapsed`].
    async fn deadline<T>(&self, at: Millis, step: impl Future<Output = T>) -> Result<T, Elapsed>;

    /// Has [`Client::flush`](crate::redis::Client::flush) called when every task of this turn has run.
    fn flush_later(&self);
}
