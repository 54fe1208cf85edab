//! The gateway's configuration: TOML text and environment variables in, one validated [`Config`] out.
//!
//! Owns the file's shape, the ranges of every value, and the text of every complaint about them. It never opens a
//! file, a socket or a thread, and never reads the process's environment by itself: the caller hands both in. It never
//! holds a secret: a password is named by the environment variable or the file that carries it.

mod address;
mod convert;
mod defaults;
mod error;
mod keys;
mod limits;
mod names;
mod print;
mod raw;
mod reader;
mod reload;
mod types;
mod units;

pub use error::{Errors, Problem};
pub use reload::{Difference, Reload};
pub use types::{
    Balance, CircuitBreaker, Config, ConnectionPool, Discovery, Dns, Driver, Endpoint, EnvVar, Federation,
    Health, HealthKind, HttpVersion, Level, ListCache, Log, LogFormat, Overload, Password, Peers, RateKey,
    RateLimit, Reach, Redis, RedisAuth, RedisTls, RedisTopology, RedisUrl, Retry, Runtime, Server, Session,
    Shards, Stdio, StdioMode, Store, Tls, TlsFiles, TlsVersion, Transport, Upstream, UpstreamTls,
    WhenStoreDown,
};
pub use units::parse_size;

use raw::RawConfig;
use reader::Reader;

/// Stands as the origin of what is missing when there is no file.
const NO_FILE: &str = "configuration";

impl Config {
    /// Reads a configuration file's text and the environment, which wins.
    ///
    /// `file` is the origin to name in messages (usually the path) and the TOML text; `None` is an empty file. `env` is
    /// all of the environment (taken by `std::env::vars_os`, because `vars` panics at what isn't UTF-8); a variable counts when its name, in any case, begins with `MCP_GATEWAY__`. The segments
    /// after that are the key's path, joined by `__` and without the leading `gateway`:
    /// `MCP_GATEWAY__SERVER__MAX_CONNECTIONS=50000`, `MCP_GATEWAY__SERVERS__0__NAME=files`. A list is separated by commas
    /// or written as a TOML array.
    ///
    /// # Errors
    /// All problems together: syntax errors, unknown keys and variables, wrong types, values out of range, and rules that
    /// span keys.
    pub fn load(
        file: Option<(&str, &str)>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Errors> {
        let mut raw = RawConfig::default();
        let mut problems = Vec::new();
        let mut origin = NO_FILE;
        if let Some((name, text)) = file {
            origin = name;
            raw.add_file(name, text, &mut problems);
        }
        raw.add_env(env, &mut problems);
        let mut reader = Reader::new(&raw, origin, problems);
        let config = convert::config(&mut reader, raw.servers);
        Errors::check(reader.into_problems())?;
        Ok(config)
    }

    /// The effective configuration in the file's shape, with every key that applies. [`Config::load`] of it gives this
    /// configuration again.
    pub fn to_toml(&self) -> String {
        print::config(self)
    }
}
