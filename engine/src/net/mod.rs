//! Sockets and readiness: owns the epoll descriptor of a shard, listeners, and the sockets that tasks wait on. It never
//! knows a protocol. Everything is edge triggered and registered once; see `ARCHITECTURE.md`, "The connection layer".

pub(crate) mod listener;
pub(crate) mod probe;
pub(crate) mod reactor;
pub(crate) mod socket;
pub(crate) mod token;
