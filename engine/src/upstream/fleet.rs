//! A server's endpoints as a shard sees them: owns which there are at the moment, following what the resolver finds, and
//! hands them out in the order of trying. Never a connection's state.
//!
//! Invariant: an endpoint that stays keeps its pool; one that is gone ends with its last exchange.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use futures_rustls::TlsConnector;
use mcp_config::{Balance, Discovery};
use rustls_pki_types::ServerName;

use super::Via;
use super::balance::{Choice, Order, mix, order};
use super::endpoint::{Endpoint, Security};
use super::h2::Lines;
use super::pool::Pool;
use super::resolver::sites::{Site, authority};
use super::trial::Place;
use crate::setup::Server;
use crate::shard::Shard;

/// Added per draw: the golden ratio's, which visits every number before any twice (SplitMix64).
const RANDOM_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

type Endpoints = Rc<[Rc<Endpoint>]>;

pub(super) struct Fleet {
    server: Arc<Server>,
    /// The version of the server's sites that `endpoints` shows.
    shown: Cell<u64>,
    endpoints: RefCell<Endpoints>,
    turn: Cell<usize>,
    random: Cell<u64>,
}

/// Endpoints to try, the best first.
pub(crate) struct Candidates {
    endpoints: Endpoints,
    order: Order,
}

impl Iterator for Candidates {
    type Item = Rc<Endpoint>;

    fn next(&mut self) -> Option<Rc<Endpoint>> {
        self.order.next().map(|place| self.endpoints[place].clone())
    }
}

impl Fleet {
    pub(super) fn new(server: &Arc<Server>, shard: usize) -> Self {
        let fleet = Fleet {
            server: server.clone(),
            shown: Cell::new(0),
            endpoints: RefCell::new(Rc::new([])),
            // Shards begin at different endpoints, so that few messages spread, too.
            turn: Cell::new(shard),
            random: Cell::new(mix(shard as u64)),
        };
        fleet.show(|_| {});
        fleet
    }

    /// The endpoints of the moment.
    pub(super) fn endpoints(&self, shard: &Shard) -> Endpoints {
        if self.server.sites.version() != self.shown.get() {
            self.show(|index| shard.metrics.forget_endpoint(self.server.number, index));
        }
        self.endpoints.borrow().clone()
    }

    pub(super) fn candidates(
        &self,
        shard: &Shard,
        client: Option<&[u8]>,
        is_usable: impl Fn(&Endpoint) -> bool,
    ) -> Candidates {
        let endpoints = self.endpoints(shard);
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        self.random.set(self.random.get().wrapping_add(RANDOM_STEP));
        let choice = OfEndpoints { endpoints: &endpoints, is_usable };
        let order = order(&choice, self.balance(), turn, mix(self.random.get()), client);
        Candidates { endpoints, order }
    }

    fn balance(&self) -> Balance {
        self.server.settings.reach.balance
    }

    /// Takes over what the resolver found; `forget` is told each place whose endpoint is another one now.
    fn show(&self, forget: impl Fn(u16)) {
        // Read first: what changes meanwhile is seen next time.
        self.shown.set(self.server.sites.version());
        let sites = self.server.sites.load();
        let old = self.endpoints.borrow().clone();
        let endpoints: Endpoints = sites
            .iter()
            .filter_map(|site| {
                // One that was gone for a while has another place.
                let is_same = |kept: &&Rc<Endpoint>| kept.key == site.key && kept.index == site.index;
                if let Some(kept) = old.iter().find(is_same) {
                    kept.move_to(&site.addresses);
                    return Some(kept.clone());
                }
                forget(site.index);
                self.endpoint(site)
            })
            .collect();
        self.endpoints.replace(endpoints);
    }

    fn endpoint(&self, site: &Site) -> Option<Rc<Endpoint>> {
        let upstream = &self.server.settings;
        let Some((urls, tls)) = upstream.transport.remote() else {
            return Some(Rc::new(self.endpoint_at(site, String::new(), String::new(), Security::Plain)));
        };
        let url = &urls[site.url];
        let (host, port) = match upstream.reach.discovery {
            Discovery::Name | Discovery::Addresses => (&*url.host, url.port),
            Discovery::Srv => (&*site.host, site.port),
        };
        let name = tls.server_name.as_deref().unwrap_or(host).trim_end_matches('.').to_owned();
        let security = match (&self.server.client_tls, ServerName::try_from(name)) {
            (Some(config), Ok(name)) if url.tls => Security::Tls((TlsConnector::from(config.clone()), name)),
            _ if url.tls => Security::Unprovable,
            _ => Security::Plain,
        };
        let default_port = if url.tls { 443 } else { 80 };
        let authority = authority(host, port, default_port);
        Some(Rc::new(self.endpoint_at(site, authority, url.path.clone(), security)))
    }

    fn endpoint_at(&self, site: &Site, authority: String, path: String, security: Security) -> Endpoint {
        let upstream = &self.server.settings;
        Endpoint {
            server: self.server.number,
            index: site.index,
            key: site.key,
            label: site.label.clone(),
            authority: authority.into(),
            path: path.into(),
            addresses: RefCell::new(site.addresses.clone()),
            security,
            http: upstream.reach.http,
            lines: Lines::default(),
            connect_timeout: upstream.reach.connect_timeout,
            pool: Rc::new(Pool::new(&self.server.pool)),
            place: Place::claim(&self.server, site),
            checks: Cell::default(),
            silent_until: Cell::new(0),
            via: Via::of(&upstream.transport),
        }
    }
}

/// What balancing asks of endpoints.
struct OfEndpoints<'a, F> {
    endpoints: &'a [Rc<Endpoint>],
    is_usable: F,
}

impl<F: Fn(&Endpoint) -> bool> Choice for OfEndpoints<'_, F> {
    fn count(&self) -> usize {
        self.endpoints.len()
    }

    fn is_usable(&self, place: usize) -> bool {
        (self.is_usable)(&self.endpoints[place])
    }

    fn is_full(&self, place: usize) -> bool {
        self.endpoints[place].pool.is_full()
    }

    fn load(&self, place: usize) -> u32 {
        self.endpoints[place].pool.load()
    }

    fn key(&self, place: usize) -> u32 {
        self.endpoints[place].key
    }
}
