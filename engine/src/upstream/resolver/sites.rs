//! Where a server is at the moment: owns its sites, which the resolver's thread writes and shards read, and which place
//! each has in metrics and among breakers. Never a look-up, never a connection.
//!
//! Invariants: only the resolver's thread writes; a site keeps its place while it is there, so that all shards mean the same
//! endpoint by the same number; a place that was given up is taken last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use mcp_config::{Discovery, Endpoint};

use crate::upstream::balance::{MAX_ENDPOINTS, hash};

/// One endpoint of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// Its place in metrics and among breakers, below [`MAX_ENDPOINTS`].
    pub(crate) index: u16,
    /// Stands for `label` where clients are spread.
    pub(crate) key: u32,
    /// Which of the configured URLs it comes from.
    pub(crate) url: usize,
    /// The host that it is reached by; an IPv6 address without its brackets.
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
    /// What it is called in metrics, in the log and in sessions' records, in every process; different for each.
    pub(crate) label: Arc<str>,
    /// To be tried in order; empty while none is known.
    pub(crate) addresses: Arc<[SocketAddr]>,
}

/// All sites of a server.
#[derive(Default)]
pub(crate) struct Sites {
    /// Counts changes, so that a shard sees with one read that there is none.
    version: AtomicU64,
    now: ArcSwap<Vec<Site>>,
}

impl Sites {
    /// A server that is not reached over the network: one endpoint, of this name, without an address.
    pub(crate) fn local(label: &str) -> Arc<Self> {
        let sites = Sites::default();
        sites.store(vec![Site {
            index: 0,
            key: hash(&[label.as_bytes()]),
            url: 0,
            host: "".into(),
            port: 0,
            label: label.into(),
            addresses: [].into(),
        }]);
        Arc::new(sites)
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn load(&self) -> Guard<Arc<Vec<Site>>> {
        self.now.load()
    }

    fn store(&self, sites: Vec<Site>) {
        self.now.store(Arc::new(sites));
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// An endpoint as a look-up found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) host: Arc<str>,
    pub(super) port: u16,
    pub(super) addresses: Vec<SocketAddr>,
}

/// The writer of a server's sites.
pub(super) struct Directory {
    server: String,
    discovery: Discovery,
    urls: Vec<Endpoint>,
    /// Per URL.
    found: Vec<Vec<Found>>,
    /// The key that has each place.
    places: [Option<u32>; MAX_ENDPOINTS],
    /// The place given out last.
    last: usize,
    sites: Arc<Sites>,
}

impl Directory {
    /// A name is one endpoint from the start, without an address; what is discovered is not there before it is found.
    pub(super) fn new(server: &str, discovery: Discovery, urls: &[Endpoint]) -> Self {
        let found = |url: &Endpoint| match discovery {
            Discovery::Name => {
                vec![Found { host: url.host.as_str().into(), port: url.port, addresses: Vec::new() }]
            }
            Discovery::Addresses | Discovery::Srv => Vec::new(),
        };
        let mut directory = Directory {
            server: server.to_owned(),
            discovery,
            urls: urls.to_vec(),
            found: urls.iter().map(found).collect(),
            places: [None; MAX_ENDPOINTS],
            last: MAX_ENDPOINTS - 1,
            sites: Arc::default(),
        };
        directory.publish();
        directory
    }

    pub(super) fn sites(&self) -> Arc<Sites> {
        self.sites.clone()
    }

    /// Takes what a URL's look-up found. The same addresses in another order are the same.
    pub(super) fn update(&mut self, url: usize, mut found: Vec<Found>) {
        let sorted = |found: &Found| {
            let mut addresses = found.addresses.clone();
            addresses.sort_unstable();
            addresses
        };
        for new in &mut found {
            let known = self.found[url].iter().find(|old| old.host == new.host && old.port == new.port);
            if let Some(known) = known
                && sorted(known) == sorted(new)
            {
                new.addresses.clone_from(&known.addresses);
            }
        }
        found.sort_by(|a, b| (&a.host, a.port, &a.addresses).cmp(&(&b.host, b.port, &b.addresses)));
        if self.found[url] != found {
            self.found[url] = found;
            self.publish();
        }
    }

    fn publish(&mut self) {
        let mut sites: Vec<Site> = Vec::new();
        let mut left_out = 0;
        for (url, found) in self.found.iter().enumerate() {
            for found in found {
                let site = self.site(url, found);
                if sites.iter().any(|known| known.key == site.key) {
                    continue;
                }
                if sites.len() < MAX_ENDPOINTS {
                    sites.push(site);
                } else {
                    left_out += 1;
                }
            }
        }
        if left_out > 0 {
            tracing::warn!(
                server = self.server,
                left_out,
                "a server has more than {MAX_ENDPOINTS} endpoints"
            );
        }
        for place in &mut self.places {
            place.take_if(|key| !sites.iter().any(|site| site.key == *key));
        }
        for site in &mut sites {
            site.index = self.place(site.key);
        }
        tracing::debug!(server = self.server, endpoints = ?sites.iter().map(|site| &site.label).collect::<Vec<_>>());
        self.sites.store(sites);
    }

    fn site(&self, url: usize, found: &Found) -> Site {
        let configured = &self.urls[url];
        let named = match (self.discovery, found.addresses.first()) {
            (Discovery::Addresses, Some(address)) => address.to_string(),
            (Discovery::Addresses | Discovery::Srv, _) => authority(&found.host, found.port, 0),
            (Discovery::Name, _) => String::new(),
        };
        let label = match self.discovery {
            Discovery::Name => configured.text.clone(),
            Discovery::Addresses | Discovery::Srv => {
                let scheme = configured.text.split("://").next().unwrap_or_default();
                format!("{scheme}://{named}{}", configured.path)
            }
        };
        Site {
            index: 0,
            key: hash(&[label.as_bytes()]),
            url,
            host: found.host.clone(),
            port: found.port,
            label: label.into(),
            addresses: found.addresses.as_slice().into(),
        }
    }

    /// The place that a site has, or the one that was free for longest, roughly.
    fn place(&mut self, key: u32) -> u16 {
        let held = self.places.iter().position(|place| *place == Some(key));
        let place = held.unwrap_or_else(|| {
            let next = (1..=MAX_ENDPOINTS).map(|step| (self.last + step) % MAX_ENDPOINTS);
            let free = next.into_iter().find(|&place| self.places[place].is_none());
            self.last = free.expect("there are no more sites than places");
            self.last
        });
        self.places[place] = Some(key);
        place as u16
    }
}

/// `host:port`, with the brackets that an IPv6 address needs there; without a port that is the default.
pub(crate) fn authority(host: &str, port: u16, default_port: u16) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    if port == default_port { host } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Endpoint {
        Endpoint::parse(text, "http", "https").unwrap()
    }

    fn at(address: &str) -> Found {
        let address: SocketAddr = address.parse().unwrap();
        Found { host: "pool".into(), port: address.port(), addresses: vec![address] }
    }

    fn seen(sites: &Sites) -> Vec<(u16, String)> {
        sites.load().iter().map(|site| (site.index, site.label.to_string())).collect()
    }

    #[test]
    fn a_name_is_one_endpoint_with_all_its_addresses() {
        let mut directory = Directory::new("s", Discovery::Name, &[url("http://a/x"), url("http://b:1/")]);
        let sites = directory.sites();
        assert_eq!(seen(&sites), [(0, "http://a/x".into()), (1, "http://b:1/".into())]);
        let version = sites.version();
        let found = |addresses: &[&str]| Found {
            host: "b".into(),
            port: 1,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        };
        directory.update(1, vec![found(&["127.0.0.1:1", "127.0.0.2:1"])]);
        let key = sites.load()[1].key;
        assert_eq!((sites.load()[1].addresses.len(), sites.version()), (2, version + 1));
        // Name servers answer in another order each time.
        directory.update(1, vec![found(&["127.0.0.2:1", "127.0.0.1:1"])]);
        assert_eq!(sites.version(), version + 1);
        directory.update(1, vec![found(&["127.0.0.3:1"])]);
        assert_eq!((sites.load()[1].key, sites.load()[1].index), (key, 1));
    }

    #[test]
    fn an_address_keeps_its_place_while_it_is_there() {
        let mut directory = Directory::new("s", Discovery::Addresses, &[url("http://pool:80/mcp")]);
        let sites = directory.sites();
        assert!(sites.load().is_empty());
        directory.update(0, vec![at("127.0.0.1:80"), at("127.0.0.2:80")]);
        let first = seen(&sites);
        let keys: Vec<_> = sites.load().iter().map(|site| site.key).collect();
        assert_eq!(first, [(0, "http://127.0.0.1:80/mcp".into()), (1, "http://127.0.0.2:80/mcp".into())]);
        directory.update(0, vec![at("127.0.0.3:80"), at("127.0.0.2:80")]);
        // The newcomer does not get the place, and with it the past, of the one that left.
        assert_eq!(
            seen(&sites),
            [(1, "http://127.0.0.2:80/mcp".into()), (2, "http://127.0.0.3:80/mcp".into())]
        );
        assert_eq!(sites.load()[0].key, keys[1]);
        directory.update(0, vec![at("127.0.0.1:80")]);
        assert_eq!((sites.load()[0].key, sites.load()[0].index), (keys[0], 3));
    }

    #[test]
    fn there_are_no_more_endpoints_than_places() {
        let mut directory = Directory::new("s", Discovery::Addresses, &[url("http://pool:80/")]);
        for round in 0..3u8 {
            directory.update(0, (0..100).map(|host| at(&format!("127.0.{round}.{host}:80"))).collect());
            let sites = directory.sites();
            let mut places: Vec<_> = sites.load().iter().map(|site| site.index).collect();
            places.sort_unstable();
            assert_eq!(places, (0..MAX_ENDPOINTS as u16).collect::<Vec<_>>());
        }
    }

    /// Records name endpoints by their keys, on gateways of other builds, too.
    #[test]
    fn a_key_depends_on_the_url_and_the_address_alone() {
        let key = |discovery, found: Found| {
            let mut directory = Directory::new("s", discovery, &[url("http://pool:80/mcp")]);
            directory.update(0, vec![found]);
            directory.sites().load()[0].key
        };
        assert_eq!(
            key(Discovery::Name, at("127.0.0.1:80")),
            key(Discovery::Name, at("127.0.0.2:80")),
            "a name is the same endpoint wherever it leads"
        );
        assert_ne!(
            key(Discovery::Addresses, at("127.0.0.1:80")),
            key(Discovery::Addresses, at("127.0.0.2:80"))
        );
        assert_eq!(
            key(Discovery::Srv, Found { host: "a.pool".into(), ..at("127.0.0.1:80") }),
            key(Discovery::Srv, Found { host: "a.pool".into(), ..at("127.0.0.2:80") })
        );
    }
}
