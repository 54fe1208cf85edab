//! Owns a cluster in a box: network namespaces as the nodes of three zones, and in them what the high-availability guide puts
//! there: gateways, a Redis Cluster, MCP servers, a balancer in front of the gateways, and clients that do as their protocols
//! say. What befalls it is the test's matter.
//!
//! Everything in it is started by one thread and dies with it; the networks vanish with their [`Network`].

mod balancer;
mod clients;
mod ledger;
mod net;
mod pod;
mod servers;
mod sessions;
pub mod settings;

use std::net::Ipv4Addr;
use std::time::Duration;

pub use balancer::Balancer;
pub use clients::{Clients, Target};
pub use ledger::{Call, Door, Ledger, reasons};
pub use net::{Namespace, Network};
pub use pod::{Deployment, Pod};
pub use servers::Servers;
pub use sessions::{Found, STORE};

use crate::redis::{Place, RedisCluster, RedisOptions, Store};
use crate::{eventually, resources};
use settings::ZONES;

/// By when what was started or asked for is there.
pub const LIMIT: Duration = Duration::from_secs(60);

const BALANCER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);

/// The whole of it. Dropped, everything ends: processes first, then the networks.
#[derive(Debug)]
pub struct ClusterBox {
    /// The clients.
    pub clients: Clients,
    /// The balancer.
    pub balancer: Balancer,
    /// The gateways, one in each zone.
    pub pods: Vec<Pod>,
    /// The store: nodes 0 to 2 began as masters, one in each zone; 3 to 5 are in zones 0 to 2, too.
    pub redis: RedisCluster,
    /// What the gateways are started from.
    pub deployment: Deployment,
    target: Target,
    _servers: Vec<Servers>,
    network: Network,
}

impl ClusterBox {
    /// Starts everything, and waits until every gateway is ready and gets its share of the calls.
    ///
    /// # Panics
    /// When something does not start, or the rights to make networks are missing.
    #[must_use]
    pub fn start() -> Self {
        resources::raise_open_files();
        let mut network = Network::new();
        network.add("balancer", BALANCER);
        // Whatever the test itself asks, it asks from where the clients are.
        network.add("clients", CLIENTS).enter();
        for zone in 0..ZONES {
            for (node, number) in NODES {
                network.add(&name(node, zone), address(zone, number));
            }
        }
        let place = |number: usize| {
            let (zone, node) = (number % ZONES, if number < ZONES { "redis-a" } else { "redis-b" });
            Some(Place { network: network.node(&name(node, zone)), ip: address(zone, number_of(node)) })
        };
        // As in `deploy/redis/cluster`: a slot without a node fails alone.
        let options = RedisOptions::new().line("cluster-require-full-coverage no");
        let redis = RedisCluster::start_at(&options, std::array::from_fn(place));
        let servers: Vec<Ipv4Addr> = (0..ZONES).map(|zone| address(zone, number_of("server"))).collect();
        let running = servers.iter().enumerate();
        let running =
            running.map(|(zone, ip)| Servers::start(&network.node(&name("server", zone)), *ip, zone));
        let running = running.collect();
        let gateways: Vec<Ipv4Addr> = (0..ZONES).map(|zone| address(zone, number_of("gateway"))).collect();
        let stores: Vec<_> = redis.nodes().iter().map(|node| node.client_addr()).collect();
        let addresses = [&gateways[..], &[BALANCER]].concat();
        let deployment = Deployment::new(&addresses, &servers, &stores);
        let pods = gateways.iter().enumerate();
        let mut pods: Vec<Pod> =
            pods.map(|(zone, ip)| Pod::new(&network.node(&name("gateway", zone)), *ip)).collect();
        pods.iter_mut().for_each(|pod| pod.start(&deployment));
        pods.iter_mut().for_each(|pod| pod.wait_ready(&deployment));
        let balancer = Balancer::start(&network.node("balancer"), BALANCER, &gateways);
        for pod in 0..ZONES {
            eventually("the balancer knows the gateway", LIMIT, || balancer.is_up(pod).then_some(()));
        }
        let tls = deployment.trusting(&[0, 1]);
        let target = Target { https: balancer.https(), mcpb: balancer.mcpb(), tls };
        let clients = Clients::start(&network.node("clients"), &target);
        Self { clients, balancer, pods, redis, deployment, target, _servers: running, network }
    }

    /// Pulls all cables of a zone.
    pub fn cut_zone(&self, zone: usize) {
        NODES.iter().for_each(|(node, _)| self.network.cut(&name(node, zone)));
    }

    /// Plugs them in again.
    pub fn mend_zone(&self, zone: usize) {
        NODES.iter().for_each(|(node, _)| self.network.mend(&name(node, zone)));
    }

    /// Starts a gateway that does not run, and waits until it is ready and the balancer knows that.
    ///
    /// # Panics
    /// When that is not so in time.
    pub fn start_pod(&mut self, pod: usize) {
        self.pods[pod].start(&self.deployment);
        self.pods[pod].wait_ready(&self.deployment);
        self.balanced(pod, true);
    }

    /// Waits until the balancer gives a gateway new connections, or does not.
    ///
    /// # Panics
    /// When that is not so in time.
    pub fn balanced(&self, pod: usize, up: bool) {
        let what = format!("the balancer holds gateway {pod} for {}", if up { "ready" } else { "not ready" });
        eventually(&what, LIMIT, || (self.balancer.is_up(pod) == up).then_some(()));
    }

    /// Asks all sessions that clients were told of and that may be there still; writes the result into the ledger.
    #[must_use]
    pub fn ask_sessions(&self, patient: bool) -> Found {
        let ledger = self.clients.ledger();
        let sessions = ledger.sessions();
        let found = sessions::ask_all(&self.target, &self.network.node("clients"), &sessions, patient);
        ledger.asked(sessions.len(), found.stranded.len(), found.lost.len());
        found
    }
}

impl Drop for ClusterBox {
    fn drop(&mut self) {
        // Whoever waits for a node that is cut off, as a dropped server's thread does, is to end.
        (0..ZONES).for_each(|zone| self.mend_zone(zone));
    }
}

/// A zone's nodes, and the last part of their addresses.
const NODES: [(&str, u8); 4] = [("gateway", 10), ("redis-a", 21), ("redis-b", 22), ("server", 30)];

fn name(node: &str, zone: usize) -> String {
    format!("{node}-{zone}")
}

fn number_of(node: &str) -> u8 {
    NODES.iter().find(|(name, _)| *name == node).map_or(0, |(_, number)| *number)
}

fn address(zone: usize, number: u8) -> Ipv4Addr {
    // Zones are few.
    Ipv4Addr::new(10, 77, 1 + zone as u8, number)
}
