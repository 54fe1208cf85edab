//! What is configured at the moment: owns the configuration and what follows from it for each server, as one value that is
//! replaced as a whole and never changes. What a shard makes of it is [`crate::shard::view`]'s. Never a connection.
//!
//! Invariant: a server keeps its number for the process's life, also while it is taken off, because records of sessions, metrics
//! and channels name servers by number. A name that comes back gets its own number again, so no number ever stands for two.

mod build;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mcp_config::{Config, ConnectionPool, Retry, Transport, Upstream};
use mcp_protocol::mcp::federation::Federation;
use rustls::ClientConfig;

use crate::reload::files::Seen;
use crate::shard::clock::Millis;
use crate::shard::table::endpoints::ServerRows;
use crate::upstream::breaker::Limits;
use crate::upstream::lists::Changes;
use crate::upstream::resolver::Following;
use crate::upstream::resolver::sites::Sites;
pub(crate) use build::Build;

pub(crate) struct Setup {
    pub(crate) config: Config,
    /// DNS names that a `Host` may say beside the certificate's, in lower case; `*.` in front stands for one label, a port
    /// at the end for itself.
    pub(crate) host_names: Vec<String>,
    /// The servers as one.
    pub(crate) federation: Federation,
    /// All that have been there, by number.
    pub(crate) servers: Vec<Arc<Server>>,
}

/// One server, for all shards.
pub(crate) struct Server {
    pub(crate) number: u16,
    /// What is configured, or was when it was taken off.
    pub(crate) settings: Upstream,
    /// It was taken off: it has no endpoints, and its sessions have ended.
    pub(crate) is_gone: bool,
    pub(crate) pool: ConnectionPool,
    pub(crate) retry: Retry,
    /// When its endpoints' breakers open and close.
    pub(crate) limits: Limits,
    /// How its endpoints are verified, where some are `https`.
    pub(crate) client_tls: Option<Arc<ClientConfig>>,
    /// The files that this was made of, as they were then.
    tls_seen: Vec<Seen>,
    /// Which of its lists have changed.
    pub(crate) list_changes: Arc<Changes>,
    /// Where its endpoints are at the moment, and who looks after that.
    pub(crate) sites: Arc<Sites>,
    following: Option<Arc<Following>>,
    /// What all shards know of its endpoints.
    pub(crate) rows: Arc<ServerRows>,
    /// Its running processes, over all shards.
    pub(crate) processes: Arc<AtomicU32>,
}

impl Setup {
    /// The servers that are there.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.servers.iter().filter(|server| !server.is_gone)
    }

    /// Whether the server of this number is there.
    pub(crate) fn is_there(&self, server: usize) -> bool {
        self.servers.get(server).is_some_and(|server| !server.is_gone)
    }

    /// The number of the server of this name.
    pub(crate) fn number(&self, name: &[u8]) -> Option<u16> {
        let mut present = self.present();
        present.find(|server| server.settings.name.as_bytes() == name).map(|server| server.number)
    }

    /// Each server's name and what its endpoints are called at the moment, by their places; both by number.
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
        self.servers.iter().map(|server| (server.settings.name.clone(), labels(&server.sites))).collect()
    }

    /// The servers none of whose endpoints may be asked now, and how many servers there are.
    pub(crate) fn servers_down(&self, now: Millis) -> (Vec<&str>, usize) {
        let is_down = |server: &&Arc<Server>| {
            let sites = server.sites.load();
            !sites.is_empty() && sites.iter().all(|site| !server.rows.row(site.index.into()).may_serve(now))
        };
        let down = self.present().filter(is_down).map(|server| server.settings.name.as_str()).collect();
        (down, self.present().count())
    }

    /// Processes per server that may have some, over all shards.
    pub(crate) fn processes(&self) -> Vec<(u16, u32)> {
        let stdio = self.present().filter(|server| matches!(server.settings.transport, Transport::Stdio(_)));
        stdio.map(|server| (server.number, server.processes.load(Ordering::Relaxed))).collect()
    }
}

impl Server {
    /// The files by which it is verified and by which the gateway proves itself to it.
    pub(crate) fn tls_files(&self) -> Vec<PathBuf> {
        build::tls_files(&self.settings)
    }

    /// Whether these files are others by now.
    pub(crate) fn has_other_files(&self) -> bool {
        self.tls_seen != build::see(&self.settings)
    }

    /// Whether connections to it are made and kept by the same rules, so that they stay.
    pub(crate) fn reaches_alike(&self, other: &Server) -> bool {
        let same_tls = match (&self.client_tls, &other.client_tls) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        same_tls
            && self.is_same_place(other)
            && self.settings.reach == other.settings.reach
            && (&self.pool, &self.limits) == (&other.pool, &other.limits)
    }

    /// Whether it is the same server at the same place, so that its sessions and what is known of it stay.
    pub(crate) fn is_same_place(&self, other: &Server) -> bool {
        self.is_gone == other.is_gone
            && Arc::ptr_eq(&self.sites, &other.sites)
            && self.settings.transport == other.settings.transport
    }
}
