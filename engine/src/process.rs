//! What all shards of a process share, read-only but for the table of atomics and the setup, which is replaced as a whole: owns
//! the mailboxes and the TLS material. Never a connection, never a lock on a message's way.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use crate::keeper::Keeper;
use crate::peer::Identity;
use crate::reload::Reloads;
use crate::setup::Setup;
use crate::shard::mailbox::{Mail, Mailbox};
use crate::shard::table::Table;
use crate::store::Reach;
use crate::tls::rotating::Rotating;

/// Bytes that all shards together may hold for unfinished requests and slow readers: 2,000 attackers that each leave
/// 128 KiB unfinished. Above it, what would grow is refused.
const BUFFERED_BYTES: usize = 256 << 20;

pub(crate) struct Process {
    pub(crate) setup: ArcSwap<Setup>,
    pub(crate) start: Instant,
    pub(crate) table: Table,
    pub(crate) mailboxes: Vec<Arc<Mailbox>>,
    pub(crate) server_tls: Arc<ServerConfig>,
    /// For the binary port.
    pub(crate) binary_tls: Arc<ServerConfig>,
    /// What the gateway proves itself by: to clients, the first; to other gateways, where it reaches them.
    pub(crate) certificates: Vec<Arc<Rotating>>,
    /// How Redis is reached, where something is kept there.
    pub(crate) store: Option<Reach>,
    /// Who keeps the processes of stdio servers, where there are any.
    pub(crate) keeper: Option<Keeper>,
    /// Who this process is to others that hold streams.
    pub(crate) identity: Identity,
    /// All shards listen and the admin listener serves: only then is the process ready.
    pub(crate) serving: AtomicBool,
    /// The process was told to end: it is not ready any more, whether the drain has begun or not.
    pub(crate) leaving: AtomicBool,
    /// What became of configurations that were read again.
    pub(crate) reloads: Reloads,
    /// Each shard reports here that it listens, or why not.
    pub(crate) listening: SyncSender<Result<(), String>>,
}

impl Process {
    /// What is configured at the moment.
    pub(crate) fn setup(&self) -> Arc<Setup> {
        self.setup.load_full()
    }

    /// Says something to every shard.
    pub(crate) fn tell_shards(&self, mail: impl Fn() -> Mail) {
        for mailbox in &self.mailboxes {
            while mailbox.send(mail()).is_err() {
                // The shard empties its mailbox every turn.
                std::thread::yield_now();
            }
        }
    }

    /// Bytes that one shard may hold.
    pub(crate) fn shard_budget_bytes(&self) -> usize {
        BUFFERED_BYTES / self.mailboxes.len()
    }

    /// Whether a `Host` (or an `Origin`'s authority) names this gateway: an address, `localhost`, a name that the
    /// certificate vouches for, or one that the configuration lists. An address cannot be rebound by DNS; a name that
    /// is none of these may have been.
    pub(crate) fn is_own_host(&self, setup: &Setup, authority: &[u8]) -> bool {
        let Ok(authority) = std::str::from_utf8(authority) else { return false };
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        };
        if host.parse::<IpAddr>().is_ok() {
            return true;
        }
        let host = host.trim_end_matches('.');
        let is_it = |name: &String| names(name, host) || name.eq_ignore_ascii_case(authority);
        host.eq_ignore_ascii_case("localhost")
            || setup.host_names.iter().any(is_it)
            || self.certificates.first().is_some_and(|certificate| certificate.has_name(is_it))
    }
}

/// Whether `pattern` (a lower-case name, or `*.` and a name) stands for `host`.
fn names(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => host
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
        None => host.eq_ignore_ascii_case(pattern),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_one_label_and_no_case() {
        assert!(names("mcp.example.com", "MCP.Example.com"));
        assert!(names("*.example.com", "a.example.com"));
        assert!(!names("*.example.com", "a.b.example.com"));
        assert!(!names("*.example.com", "example.com"));
        assert!(!names("*.example.com", ".example.com"));
        // With a port, the name stands for that port only: the host alone is another text.
        assert!(names("mcp.example.com:8443", "MCP.example.com:8443"));
        assert!(!names("mcp.example.com:8443", "mcp.example.com"));
    }
}
