//! Endpoint addresses: owns the look-up of host names, on a thread of its own, because looking up blocks. A shard only
//! reads the latest answer.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mcp_config::Endpoint;

/// How often names are looked up again. The system's resolver does not tell a record's time to live; half a minute
/// follows a moved service without asking often.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(30);

/// What a host name stands for at the moment; empty while it could not be looked up.
#[derive(Clone, Default)]
pub(crate) struct Addresses(Arc<ArcSwap<Vec<SocketAddr>>>);

impl Addresses {
    /// The address to try `attempt`-th.
    pub(crate) fn get(&self, attempt: usize) -> Option<SocketAddr> {
        let addresses = self.0.load();
        (attempt < addresses.len()).then(|| addresses[attempt])
    }
}

struct Name {
    host: String,
    port: u16,
    addresses: Addresses,
}

impl Name {
    fn look_up(&self) {
        match (self.host.as_str(), self.port).to_socket_addrs() {
            Ok(found) => {
                let mut found: Vec<_> = found.collect();
                // IPv4 first: where a name has both, a server on loopback often listens on that only.
                found.sort_by_key(SocketAddr::is_ipv6);
                if **self.addresses.0.load() != found {
                    tracing::debug!(host = self.host, ?found, "addresses");
                    self.addresses.0.store(Arc::new(found));
                }
            }
            // What was known stays in use.
            Err(error) => tracing::warn!(host = self.host, %error, "a server's name could not be looked up"),
        }
    }
}

/// Looks all names up once and keeps doing so in the background while any of them is a name.
pub(crate) struct Resolver {
    names: Vec<Name>,
}

impl Resolver {
    pub(crate) fn new() -> Self {
        Resolver { names: Vec::new() }
    }

    /// Takes an endpoint's host; an address is its own answer.
    pub(crate) fn add(&mut self, endpoint: &Endpoint) -> Addresses {
        let known = match endpoint.host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, endpoint.port)],
            Err(_) => Vec::new(),
        };
        let is_name = known.is_empty();
        let addresses = Addresses(Arc::new(ArcSwap::from_pointee(known)));
        if is_name {
            let name =
                Name { host: endpoint.host.clone(), port: endpoint.port, addresses: addresses.clone() };
            name.look_up();
            self.names.push(name);
        }
        addresses
    }

    /// # Errors
    /// The system's, when it gives no thread.
    pub(crate) fn start(self) -> io::Result<()> {
        if self.names.is_empty() {
            return Ok(());
        }
        std::thread::Builder::new().name("resolver".into()).spawn(move || {
            loop {
                std::thread::sleep(LOOK_UP_AGAIN);
                self.names.iter().for_each(Name::look_up);
            }
        })?;
        Ok(())
    }
}
