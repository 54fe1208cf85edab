//! Sockets and readiness: owns the two connection drivers of a shard (an own io_uring, or epoll),
//! listeners, and the sockets and streams that tasks wait on. It never knows a protocol; see `ARCHITECTURE.md`, "Connection drivers".

mod epoll;
pub(crate) mod event;
pub(crate) mod listener;
pub(crate) mod probe;
pub(crate) mod reactor;
pub(crate) mod ring;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod token;
