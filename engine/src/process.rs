//! What all shards of a process share, read-only but for the table of atomics: owns the configuration, the mailboxes, the
//! TLS material and the upstreams' addresses. Never a connection, never a lock on a message's way.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use mcp_config::Config;
use mcp_protocol::mcp::federation::Federation;
use rustls::{ClientConfig, ServerConfig};

use crate::keeper::Keeper;
use crate::peer::Identity;
use crate::shard::clock::Millis;
use crate::shard::mailbox::Mailbox;
use crate::shard::table::Table;
use crate::shard::table::endpoints::ServerRows;
use crate::store::Reach;
use crate::tls::rotating::Rotating;
use crate::upstream::lists::Changes;
use crate::upstream::resolver::sites::Sites;

/// Bytes that all shards together may hold for unfinished requests and slow readers: 2,000 attackers that each leave
/// 128 KiB unfinished. Above it, what would grow is refused.
const BUFFERED_BYTES: usize = 256 << 20;

pub(crate) struct Process {
    pub(crate) config: Config,
    pub(crate) start: Instant,
    pub(crate) table: Table,
    pub(crate) mailboxes: Vec<Arc<Mailbox>>,
    pub(crate) server_tls: Arc<ServerConfig>,
    /// For the binary port.
    pub(crate) binary_tls: Arc<ServerConfig>,
    /// What the gateway proves itself by: to clients, the first; to other gateways, where it reaches them.
    pub(crate) certificates: Vec<Arc<Rotating>>,
    /// DNS names that a `Host` may say beside the certificate's, in lower case; `*.` in front stands for one label, a port
    /// at the end for itself.
    pub(crate) host_names: Vec<String>,
    /// The servers as one.
    pub(crate) federation: Federation,
    /// Per server: which of its lists have changed.
    pub(crate) list_changes: Vec<Arc<Changes>>,
    /// Per server: where its endpoints are at the moment.
    pub(crate) sites: Vec<Arc<Sites>>,
    /// Per server: how its endpoints are verified, for those that have `https` endpoints.
    pub(crate) client_tls: Vec<Option<Arc<ClientConfig>>>,
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
    /// Each shard reports here that it listens, or why not.
    pub(crate) listening: SyncSender<Result<(), String>>,
}

impl Process {
    /// Each server's name and what its endpoints are called at the moment, by their places.
    pub(crate) fn server_names(&self) -> Vec<(String, Vec<String>)> {
        let labels = |sites: &Sites| {
            let sites = sites.load();
            let count = sites.iter().map(|site| usize::from(site.index) + 1).max().unwrap_or(0);
            let mut labels = vec![String::new(); count];
            for site in sites.iter() {
                labels[usize::from(site.index)] = site.label.to_string();
            }
            labels
        };
        let servers = self.config.upstreams.iter().zip(&self.sites);
        servers.map(|(server, sites)| (server.name.clone(), labels(sites))).collect()
    }

    /// Bytes that one shard may hold.
    pub(crate) fn shard_budget_bytes(&self) -> usize {
        BUFFERED_BYTES / self.mailboxes.len()
    }

    /// Sessions that one shard's partition of the memory store may hold.
    pub(crate) fn shard_sessions(&self) -> usize {
        (self.config.session.max_sessions as usize / self.mailboxes.len()).max(1)
    }

    /// The servers none of whose endpoints may be asked now, and how many servers there are.
    pub(crate) fn servers_down(&self, now: Millis) -> (Vec<&str>, usize) {
        let servers = self.config.upstreams.iter().zip(&self.sites).zip(&self.table.endpoints.servers);
        let is_down = |sites: &Sites, rows: &ServerRows| {
            let sites = sites.load();
            !sites.is_empty() && sites.iter().all(|site| !rows.row(site.index.into()).may_serve(now))
        };
        let down = servers.filter(|((_, sites), rows)| is_down(sites, rows));
        (down.map(|((server, _), _)| server.name.as_str()).collect(), self.config.upstreams.len())
    }

    /// Whether a `Host` (or an `Origin`'s authority) names this gateway: an address, `localhost`, a name that the
    /// certificate vouches for, or one that the configuration lists. An address cannot be rebound by DNS; a name that
    /// is none of these may have been.
    pub(crate) fn is_own_host(&self, authority: &[u8]) -> bool {
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
            || self.host_names.iter().any(is_it)
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
