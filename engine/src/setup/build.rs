//! Making a setup: owns what of the one before stays, what is made anew, and what keeps a configuration from being taken over.
//! Never a shard's part.
//!
//! What is made has no effect before the whole of it is: an error leaves everything as it was.

use std::path::PathBuf;
use std::sync::Arc;

use mcp_config::{Config, HttpVersion, Transport, Upstream};
use mcp_protocol::mcp::federation::Federation;
use rustls::ClientConfig;

use super::{Server, Setup};
use crate::reload::files::{self, Seen};
use crate::shard::table::endpoints::ServerRows;
use crate::tls;
use crate::tls::config::TrustError;
use crate::upstream::breaker::Limits;
use crate::upstream::h2;
use crate::upstream::resolver::sites::Sites;
use crate::upstream::resolver::{Batch, Resolver};

/// Names of servers that one process has seen: each that was taken off leaves a few hundred bytes, and 4 KiB of endpoints'
/// rows are given back.
const MAX_NAMES: usize = 4096;

/// Why a configuration cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// A file that a server's TLS needs.
    #[error("server {server:?}: {error}")]
    Trust { server: String, error: TrustError },
    /// No thread for looking names up.
    #[error("no thread for looking names up: {0}")]
    Thread(#[from] std::io::Error),
    /// Names that were given up cannot be told from new ones.
    #[error("this process has seen {MAX_NAMES} different names of servers: a restart is needed for more")]
    TooManyNames,
}

/// A setup that is being made.
pub(crate) struct Build<'a> {
    config: &'a Config,
    batch: Batch,
}

impl<'a> Build<'a> {
    /// Makes a setup of a configuration; `before` is the one that it replaces. Endpoints' names are looked up when the result
    /// is complete.
    ///
    /// # Errors
    /// [`SetupError`]; then nothing has changed.
    pub(crate) fn run(
        before: Option<&Setup>,
        config: &'a Config,
        resolver: &mut Resolver,
    ) -> Result<Setup, SetupError> {
        let mut build = Build { config, batch: Batch::default() };
        let mut servers: Vec<Arc<Server>> = before.map_or_else(Vec::new, |before| before.servers.clone());
        let wanted = |name: &str| config.upstreams.iter().any(|upstream| upstream.name == name);
        for server in &mut servers {
            if !server.is_gone && !wanted(&server.settings.name) {
                *server = Arc::new(gone(server));
            }
        }
        for settings in &config.upstreams {
            let number = servers.iter().position(|server| server.settings.name == settings.name);
            let number = number.unwrap_or(servers.len());
            let made = build.server(number, servers.get(number).map(Arc::as_ref), settings)?;
            match (servers.get_mut(number), made) {
                (Some(_), None) => {}
                (Some(place), Some(server)) => *place = Arc::new(server),
                (None, Some(_)) if number >= MAX_NAMES => return Err(SetupError::TooManyNames),
                (None, made) => servers.extend(made.map(Arc::new)),
            }
        }
        resolver.follow(build.batch)?;
        Ok(Setup {
            host_names: config.server.allowed_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            federation: Federation::with_gone(
                servers.iter().map(|server| (&*server.settings.name, !server.is_gone)),
            ),
            servers,
            config: config.clone(),
        })
    }

    /// A server as it is configured now; `None` where nothing of it has changed.
    fn server(
        &mut self,
        number: usize,
        old: Option<&Server>,
        settings: &Upstream,
    ) -> Result<Option<Server>, SetupError> {
        let (known, old) = (old, old.filter(|old| !old.is_gone));
        let tls_seen = see(settings);
        let limits = Limits::new(&self.config.circuit_breaker);
        let (pool, retry) = (self.config.connection_pool.clone(), self.config.retry.clone());
        if let Some(old) = old
            && (&old.settings, &old.limits, &old.pool, &old.retry) == (settings, &limits, &pool, &retry)
            && old.tls_seen == tls_seen
        {
            return Ok(None);
        }
        let same_place = old.filter(|old| {
            old.settings.transport == settings.transport
                && old.settings.reach.discovery == settings.reach.discovery
        });
        let same_tls = same_place
            .filter(|old| old.settings.reach.http == settings.reach.http && old.tls_seen == tls_seen);
        let client_tls = match same_tls {
            Some(old) => old.client_tls.clone(),
            None => client_tls(settings)?.map(Arc::new),
        };
        let (sites, following) = match (same_place, settings.transport.remote()) {
            (Some(old), _) => (old.sites.clone(), old.following.clone()),
            (None, Some((urls, _))) => {
                let (sites, following) = self.batch.add(&settings.name, settings.reach.discovery, urls);
                (sites, Some(following))
            }
            (None, None) => (Sites::local("stdio"), None),
        };
        Ok(Some(Server {
            number: number as u16,
            settings: settings.clone(),
            is_gone: false,
            pool,
            retry,
            limits,
            client_tls,
            tls_seen,
            list_changes: known.map(|known| known.list_changes.clone()).unwrap_or_default(),
            sites,
            following,
            rows: same_place.map_or_else(|| Arc::new(ServerRows::new()), |old| old.rows.clone()),
            processes: known.map(|known| known.processes.clone()).unwrap_or_default(),
        }))
    }
}

/// What is left of a server that is taken off.
fn gone(server: &Server) -> Server {
    Server {
        number: server.number,
        settings: server.settings.clone(),
        is_gone: true,
        pool: server.pool.clone(),
        retry: server.retry.clone(),
        limits: server.limits,
        client_tls: None,
        tls_seen: see(&server.settings),
        list_changes: server.list_changes.clone(),
        sites: Arc::default(),
        following: None,
        rows: Arc::new(ServerRows::none()),
        processes: server.processes.clone(),
    }
}

/// The files that a server's TLS is made of.
pub(super) fn tls_files(upstream: &Upstream) -> Vec<PathBuf> {
    let Some((_, tls)) = upstream.transport.remote() else { return Vec::new() };
    let own = tls.files.iter().flat_map(|files| [files.cert_file.clone(), files.key_file.clone()]);
    tls.ca_file.clone().into_iter().chain(own).collect()
}

pub(super) fn see(upstream: &Upstream) -> Vec<Seen> {
    tls_files(upstream).iter().map(|file| files::see(file)).collect()
}

/// How an upstream's certificates are verified, by its own CA file or by the system's roots, and what is shown to it.
fn client_tls(upstream: &Upstream) -> Result<Option<ClientConfig>, SetupError> {
    let Some((endpoints, tls)) = upstream.transport.remote() else { return Ok(None) };
    if !endpoints.iter().any(|endpoint| endpoint.tls) {
        return Ok(None);
    }
    let mut config = tls::config::trusting(tls.ca_file.as_deref(), tls.files.as_ref())
        .map_err(|error| SetupError::Trust { server: upstream.name.clone(), error })?;
    let offered: &[&[u8]] = match (&upstream.transport, upstream.reach.http) {
        // A WebSocket begins with HTTP/1.1.
        (Transport::WebSocket { .. }, _) | (_, HttpVersion::V1_1) => &[],
        (_, HttpVersion::V2) => &[h2::ALPN],
        (_, HttpVersion::Auto) => &[h2::ALPN, b"http/1.1"],
    };
    config.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Some(config))
}
