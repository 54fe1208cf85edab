//! Owns real Redis servers for tests: one alone, a master with replicas and sentinels, a cluster; the faults that befall
//! them, and how gateways are told of them. All are on free ports of 127.0.0.1, in folders of their own, and none outlives
//! its test. Never a client of the product's.
//!
//! Every node keeps what it was told in an append-only file, so that a node that was killed comes back with its data, as one
//! with a disk does. A node dies with the thread that started it: the test's main thread starts, kills and restarts.

pub mod churn;
mod cluster;
mod node;
pub mod pods;
mod resp;
mod sentinel;
mod single;

use std::time::Duration;

pub(crate) use cluster::NODE_TIMEOUT_MS;
pub use cluster::RedisCluster;
pub use node::{Node, Place};
pub use resp::{Reply, Resp};
pub use sentinel::RedisSentinel;
pub use single::Redis;

use crate::{GatewayConfig, TestCert, eventually};

/// How long servers may take to find each other.
const JOIN_LIMIT: Duration = Duration::from_secs(60);
/// The variable from which gateways take the password.
const PASSWORD_ENV: &str = "REDIS_AUTH_TOKEN";

/// What servers are started with. Made by [`RedisOptions::new`]: no password, no TLS.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    login: Option<(String, String)>,
    tls: bool,
    lines: Vec<String>,
}

/// A store that gateways can be pointed at, whatever its topology.
pub trait Store {
    /// Points a gateway at it.
    fn configure(&self, config: GatewayConfig) -> GatewayConfig;

    /// Its data nodes; sentinels are none.
    fn nodes(&self) -> &[Node];

    /// Its data nodes, for faults.
    fn nodes_mut(&mut self) -> &mut [Node];

    /// Index of the node that is the master of keys with the hash tag `tag`, as those see it who decide that; `None` while
    /// nobody says.
    fn master_of(&self, tag: &str) -> Option<usize>;

    /// Waits until another node than `old` is the master of `tag` and takes writes, and returns it.
    ///
    /// # Panics
    /// When that is not so within `limit`.
    fn failover_done(&self, tag: &str, old: usize, limit: Duration) -> usize {
        eventually("another node is master", limit, || {
            self.master_of(tag).filter(|new| *new != old && self.takes_writes(*new, tag))
        })
    }

    /// Waits until a write to the master of `tag` is acknowledged by a replica.
    ///
    /// # Panics
    /// When that is not so within `limit`.
    fn replicated(&self, tag: &str, limit: Duration) {
        eventually("a replica follows the master", limit, || {
            let master = self.nodes().get(self.master_of(tag)?)?;
            let mut resp = master.log_in().ok()?;
            let kept = resp.ask(&["SET", &probe_key(tag), "1", "PX", "1000"]).ok()?;
            let replicas = resp.ask(&["WAIT", "1", "500"]).ok()?.integer()?;
            (!kept.is_error() && replicas >= 1).then_some(())
        });
    }

    /// Whether a node takes writes of keys with the hash tag `tag`.
    fn takes_writes(&self, node: usize, tag: &str) -> bool {
        let reply = self.nodes()[node].try_ask(&["SET", &probe_key(tag), "1", "PX", "1000"]);
        reply.is_ok_and(|reply| !reply.is_error())
    }
}

impl RedisOptions {
    /// No password, no TLS, nothing else.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks clients for a password (`requirepass`).
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.login = Some((String::new(), password.to_owned()));
        self
    }

    /// Knows one user only, with a password; for a server that is alone.
    #[must_use]
    pub fn user(mut self, user: &str, password: &str) -> Self {
        self.login = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// Serves clients by TLS, with an authority of its own.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Adds a line to the configuration file, such as `maxmemory 8mb`.
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// What a data node starts from.
    fn spec(&self, name: String, cert: &TestCert) -> node::Spec {
        let mut lines = vec![
            // Written through to the kernel before a command is answered: a killed process loses nothing.
            "appendonly yes".to_owned(),
            "appendfsync no".to_owned(),
            "save \"\"".to_owned(),
            "repl-diskless-sync yes".to_owned(),
            "repl-diskless-sync-delay 0".to_owned(),
            "enable-debug-command yes".to_owned(),
        ];
        match &self.login {
            Some((user, password)) if user.is_empty() => {
                lines.push(format!("requirepass {password}"));
                lines.push(format!("masterauth {password}"));
            }
            Some((user, password)) => {
                lines.push("user default off".to_owned());
                lines.push(format!("user {user} on >{password} ~* &* +@all"));
            }
            None => {}
        }
        if self.tls {
            lines.push(format!("tls-cert-file {}", cert.cert_file.display()));
            lines.push(format!("tls-key-file {}", cert.key_file.display()));
            lines.push(format!("tls-ca-cert-file {}", cert.ca_file.display()));
            lines.push("tls-auth-clients no".to_owned());
        }
        lines.extend(self.lines.iter().cloned());
        node::Spec { name, tls: self.tls, login: self.login.clone(), lines, ..node::Spec::default() }
    }

    /// What a gateway must know of login and TLS.
    fn configure(&self, mut config: GatewayConfig, cert: &TestCert) -> GatewayConfig {
        if let Some((user, password)) = &self.login {
            if !user.is_empty() {
                config = config.set("gateway.redis.auth", &format!("username = {user:?}"));
            }
            config = config
                .set("gateway.redis.auth", &format!("password_env = {PASSWORD_ENV:?}"))
                .env(PASSWORD_ENV, password);
        }
        if self.tls {
            config = config
                .set("gateway.redis.tls", "enabled = true")
                .set("gateway.redis.tls", &format!("ca_file = {:?}", cert.ca_file));
        }
        config
    }
}

/// The key by which the harness tries whether a node takes writes.
fn probe_key(tag: &str) -> String {
    format!("harness:{{{tag}}}:probe")
}

/// The nodes' client addresses as an array of TOML.
fn addresses(nodes: &[Node]) -> String {
    let addresses: Vec<String> = nodes.iter().map(|node| node.client_addr().to_string()).collect();
    format!("{addresses:?}")
}
