//! Questions to name servers: owns what is asked for a name and how long the answer counts. Never when it is asked again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::name_server::TokioConnectionProvider;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::xfer::Protocol;
use hickory_resolver::{ResolveError, TokioResolver};
use mcp_config::Dns;

use super::sites::Found;
use crate::upstream::balance::MAX_ENDPOINTS;

/// How long one question to one name server may take, and how often it is asked.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
const ASKS: usize = 2;

pub(super) struct Lookup(TokioResolver);

impl Lookup {
    /// Asks the configured name servers, or those of `/etc/resolv.conf`; where that cannot be read only `/etc/hosts` is
    /// left.
    pub(super) fn new(dns: &Dns) -> Self {
        let of_system = dns.servers.is_empty().then(TokioResolver::builder_tokio);
        let mut builder = match of_system {
            Some(Ok(builder)) => builder,
            other => {
                if let Some(Err(error)) = other {
                    tracing::warn!(%error, "/etc/resolv.conf names no name servers; see gateway.dns.servers");
                }
                let mut config = ResolverConfig::new();
                for &server in &dns.servers {
                    config.add_name_server(NameServerConfig::new(server, Protocol::Udp));
                    config.add_name_server(NameServerConfig::new(server, Protocol::Tcp));
                }
                TokioResolver::builder_with_config(config, TokioConnectionProvider::default())
            }
        };
        let options = builder.options_mut();
        // When to ask again is decided by the answers' own time to live, once.
        options.cache_size = 0;
        options.timeout = ASK_TIMEOUT;
        options.attempts = ASKS;
        options.ip_strategy = hickory_resolver::config::LookupIpStrategy::Ipv4AndIpv6;
        Lookup(builder.build())
    }

    /// The addresses of a name, at most [`MAX_ENDPOINTS`], and how long they count.
    ///
    /// # Errors
    /// The name server's, or none answers; also that there is no address.
    pub(super) async fn addresses(
        &self,
        host: &str,
        port: u16,
    ) -> Result<(Vec<SocketAddr>, Duration), ResolveError> {
        let answer = self.0.lookup_ip(host).await?;
        let mut addresses: Vec<_> =
            answer.iter().map(|address| SocketAddr::new(address, port)).take(MAX_ENDPOINTS).collect();
        // IPv4 first: where a name has both, a server on loopback often listens on that only.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        Ok((addresses, left(answer.valid_until())))
    }

    /// What the SRV records of a name stand for, and how long they count. Only the most preferred are taken (RFC 2782's
    /// lowest priority); weights say nothing here, because the server's own balancing is configured.
    ///
    /// # Errors
    /// As for [`Lookup::addresses`]; a target without an address is left out while another has one.
    pub(super) async fn services(&self, name: &str) -> Result<(Vec<Found>, Duration), ResolveError> {
        let answer = self.0.srv_lookup(name).await?;
        let preferred = answer.iter().map(SRV::priority).min();
        let records: Vec<_> = answer
            .iter()
            // A root target says that the service is not there (RFC 2782).
            .filter(|record| Some(record.priority()) == preferred && !record.target().is_root())
            .take(MAX_ENDPOINTS)
            .collect();
        let mut ttl = left(answer.as_lookup().valid_until());
        let mut found = Vec::with_capacity(records.len());
        let mut failed = None;
        let targets = records.iter().map(|record| async {
            let target = record.target().to_utf8();
            let addresses = self.addresses(&target, record.port()).await;
            (target, record.port(), addresses)
        });
        for (target, port, addresses) in join_all(targets).await {
            match addresses {
                Ok((addresses, counts_for)) => {
                    ttl = ttl.min(counts_for);
                    found.push(Found { host: target.trim_end_matches('.').into(), port, addresses });
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if found.is_empty() => Err(error),
            _ if found.is_empty() => Err(ResolveError::from("the name's SRV records lead nowhere")),
            _ => Ok((found, ttl)),
        }
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}
