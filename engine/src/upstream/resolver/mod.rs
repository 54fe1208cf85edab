//! Endpoint addresses: owns the look-up of host names, on a thread of its own that follows the records' time to live. A
//! shard only reads the latest answer and never waits for one.
//!
//! What was found stays in use while nothing newer is known: a name server that is down, or one that says that a name has no
//! addresses, takes no server away.

mod dns;
pub(crate) mod sites;

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use futures_util::future::join_all;
use mcp_config::{Discovery, Dns, Endpoint};

use dns::Lookup;
use sites::{Directory, Found, Sites};

/// How long the start waits for names; who is not known by then is looked up in the background.
const BOOT_WAIT: Duration = Duration::from_secs(5);
/// How soon a look-up that failed is made again.
const AGAIN: Duration = Duration::from_secs(5);

/// Looks names up once and keeps doing so in the background while there are any.
pub(crate) struct Resolver {
    dns: Dns,
    servers: Vec<Directory>,
    names: Vec<Name>,
}

/// A configured URL whose host is to be looked up.
struct Name {
    server: usize,
    url: usize,
    host: String,
    port: u16,
    discovery: Discovery,
}

impl Resolver {
    pub(crate) fn new(dns: &Dns) -> Self {
        Resolver { dns: dns.clone(), servers: Vec::new(), names: Vec::new() }
    }

    /// Takes a server's URLs; an address is its own answer.
    pub(crate) fn add(&mut self, server: &str, discovery: Discovery, urls: &[Endpoint]) -> Arc<Sites> {
        let mut directory = Directory::new(server, discovery, urls);
        for (number, url) in urls.iter().enumerate() {
            match url.host.parse::<IpAddr>() {
                Ok(address) => {
                    let addresses = vec![SocketAddr::new(address, url.port)];
                    directory.update(
                        number,
                        vec![Found { host: url.host.as_str().into(), port: url.port, addresses }],
                    );
                }
                Err(_) => self.names.push(Name {
                    server: self.servers.len(),
                    url: number,
                    host: url.host.clone(),
                    port: url.port,
                    discovery,
                }),
            }
        }
        let sites = directory.sites();
        self.servers.push(directory);
        sites
    }

    /// Looks up what is to be looked up, and goes on doing so; returns when each name was looked up once, or took too long.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub(crate) fn start(self) -> std::io::Result<()> {
        if self.names.is_empty() {
            return Ok(());
        }
        let count = self.names.len();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let lookup = Lookup::new(&self.dns);
        let (tried, first_tries) = sync_channel(count);
        std::thread::Builder::new().name("resolver".into()).spawn(move || {
            let servers: Vec<_> = self.servers.into_iter().map(RefCell::new).map(Rc::new).collect();
            let watches = self
                .names
                .iter()
                .map(|name| watch(name, servers[name.server].clone(), &lookup, &self.dns, tried.clone()));
            runtime.block_on(join_all(watches));
        })?;
        let by = std::time::Instant::now() + BOOT_WAIT;
        for _ in 0..count {
            let left = by.saturating_duration_since(std::time::Instant::now());
            if first_tries.recv_timeout(left).is_err() {
                tracing::warn!("not all names of servers are known yet");
                break;
            }
        }
        Ok(())
    }
}

/// Follows one name for as long as the process lives.
async fn watch(
    name: &Name,
    server: Rc<RefCell<Directory>>,
    lookup: &Lookup,
    dns: &Dns,
    tried: SyncSender<()>,
) {
    let mut told: Option<String> = None;
    loop {
        let found = match name.discovery {
            Discovery::Name => lookup.addresses(&name.host, name.port).await.map(|(addresses, ttl)| {
                (vec![Found { host: name.host.as_str().into(), port: name.port, addresses }], ttl)
            }),
            Discovery::Addresses => lookup.addresses(&name.host, name.port).await.map(|(addresses, ttl)| {
                let found = |address| Found {
                    host: name.host.as_str().into(),
                    port: name.port,
                    addresses: vec![address],
                };
                (addresses.into_iter().map(found).collect(), ttl)
            }),
            Discovery::Srv => lookup.services(&name.host).await,
        };
        let wait = match found {
            Ok((found, ttl)) => {
                server.borrow_mut().update(name.url, found);
                told = None;
                ttl.clamp(dns.min_ttl, dns.max_ttl)
            }
            Err(error) => {
                // Once for each new reason: what goes on failing would fill the log.
                let error = error.to_string();
                if told.as_ref() != Some(&error) {
                    tracing::warn!(host = name.host, error, "a server's name could not be looked up");
                    told = Some(error);
                }
                AGAIN.clamp(dns.min_ttl, dns.max_ttl)
            }
        };
        // The channel has room for one word of each name; after the first nobody listens.
        let _ = tried.try_send(());
        tokio::time::sleep(wait).await;
    }
}
