//! The gateway's configuration: TOML text and environment variables in, one validated [`Config`] out.
//!
//! Owns the file's shape, the ranges of every value, and the text of every complaint about them. It never opens a
//! file, a socket or a thread, and never reads the process's environment by itself: the caller hands both in. It never
//! holds a secret: a password is named by the environment variable that carries it.

#![warn(clippy::pedantic)]
#![allow(clippy::must_use_candidate, clippy::missing_errors_doc, clippy::module_name_repetitions)]

mod defaults;
mod types;

pub use types::{
    CircuitBreaker, Config, ConnectionPool, Driver, Endpoint, Level, Log, LogFormat, Redis, RedisAuth,
    RedisTls, RedisTopology, RedisUrl, Runtime, Server, Session, Shards, Store, Tls, TlsFiles, TlsVersion,
    Transport, Upstream, UpstreamTls,
};
