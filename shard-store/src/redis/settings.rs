//! How the client reaches Redis: owns the settings and their defaults. Never a key of a configuration file.

use crate::runtime::Address;

/// Credentials; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    /// The ACL user; `None` is Redis' `default`.
    pub username: Option<String>,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Auth({})", self.username.as_deref().unwrap_or("default"))
    }
}

/// How the nodes are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One node.
    Single(Address),
    /// The master that the sentinels name.
    Sentinel {
        /// The master's name.
        master: String,
        /// The sentinels.
        sentinels: Vec<Address>,
        /// What to authenticate with at the sentinels.
        auth: Option<Auth>,
    },
    /// A cluster, learned from any of its nodes.
    Cluster(Vec<Address>),
}

/// Everything that the client is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How the nodes are found.
    pub topology: Topology,
    /// What to authenticate with at each node.
    pub auth: Option<Auth>,
    /// Whether nodes are reached by TLS: those of a cluster are then at the TLS ports that they name.
    pub tls: bool,
    /// Number of the logical database; 0 in a cluster.
    pub database: u16,
    /// Keys under this prefix are followed: [`Events::invalidated`](super::Events::invalidated). Empty: none.
    pub tracked_prefix: Vec<u8>,
    /// How long a command may take, over all its tries, in milliseconds.
    pub command_timeout_ms: u64,
    /// How long connecting may take, with TLS and login, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Commands in flight or waiting to be sent, per connection.
    pub window: usize,
    /// The largest reply, in bytes.
    pub max_reply_bytes: usize,
    /// First and longest pause between two tries to connect to a node, in milliseconds; jittered.
    pub backoff_ms: (u64, u64),
    /// Failures in a row that open the breaker.
    pub failure_threshold: u32,
    /// Successful probes that close it.
    pub success_threshold: u32,
}

impl Settings {
    /// The defaults for a topology: 500 ms for a command, 2 s to connect, 10,000 commands in flight, 1 MiB replies, 20 ms
    /// to 1 s between tries, 5 failures open the breaker and 2 probes close it.
    pub fn new(topology: Topology) -> Self {
        Settings {
            topology,
            auth: None,
            tls: false,
            database: 0,
            tracked_prefix: Vec::new(),
            command_timeout_ms: 500,
            connect_timeout_ms: 2_000,
            window: 10_000,
            max_reply_bytes: 1 << 20,
            backoff_ms: (20, 1_000),
            failure_threshold: 5,
            success_threshold: 2,
        }
    }
}
