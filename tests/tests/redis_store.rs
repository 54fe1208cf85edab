//! Setup: two session stores, each with a client of its own, on one Redis: a server alone, a master with sentinels, a cluster; on
//! either of the gateway's connection drivers. No gateway is involved.
//! Claim: they keep what every session store promises; the body of that test is the same that the memory store passes.

use std::rc::Rc;
use std::sync::Arc;

use mcp_engine::runtime::Executor;
use mcp_engine::standalone::{self, StoreRuntime, StoreTls};
use mcp_shard_store::contract::{self, Stage};
use mcp_shard_store::memory::{Peers, StoreMail};
use mcp_shard_store::record::Directory;
use mcp_shard_store::redis::{Auth, Client, Health, Settings, Topology};
use mcp_shard_store::runtime::{Address, Runtime};
use mcp_shard_store::sessions::{self, Copies, PREFIX, Parts, RedisSessions, WhenStoreDown};
use mcp_shard_store::{Millis, SessionStore};
use mcp_system_tests::redis::{Node, Redis, RedisCluster, RedisOptions, RedisSentinel, Store};

/// A session's life.
const TTL_MS: Millis = 2_000;
/// By when a client must have connected.
const LIMIT_MS: Millis = 20_000;

#[test]
fn on_one_server() {
    let store = Redis::start(&RedisOptions::new());
    keeps_its_promises(&Settings::new(Topology::Single(address(store.node()))), None);
}

#[test]
fn on_one_server_by_tls_and_password() {
    let store = Redis::start(&RedisOptions::new().tls().user("gateway", "s3cret"));
    let mut settings = Settings::new(Topology::Single(address(store.node())));
    settings.auth = Some(Auth { username: Some("gateway".to_owned()), password: "s3cret".to_owned() });
    let tls = StoreTls::new(Some(&store.cert.ca_file), false, None).expect("an authority");
    keeps_its_promises(&settings, Some(tls));
}

#[test]
fn on_a_sentinel_set() {
    let store = RedisSentinel::start(&RedisOptions::new().password("s3cret"));
    let auth = Some(Auth { username: None, password: "s3cret".to_owned() });
    let sentinels = store.sentinels.iter().map(address).collect();
    let topology = Topology::Sentinel { master: "mymaster".to_owned(), sentinels, auth: None };
    keeps_its_promises(&Settings { auth, ..Settings::new(topology) }, None);
}

#[test]
fn on_a_cluster() {
    let store = RedisCluster::start(&RedisOptions::new());
    // Two are enough to find the others by.
    let topology = Topology::Cluster(store.nodes()[4..].iter().map(address).collect());
    keeps_its_promises(&Settings::new(topology), None);
}

#[test]
fn on_a_cluster_by_tls_and_password() {
    let store = RedisCluster::start(&RedisOptions::new().tls().password("s3cret"));
    let auth = Some(Auth { username: None, password: "s3cret".to_owned() });
    let topology = Topology::Cluster(store.nodes().iter().map(address).collect());
    let tls = StoreTls::new(Some(&store.cert.ca_file), false, None).expect("an authority");
    keeps_its_promises(&Settings { auth, ..Settings::new(topology) }, Some(tls));
}

fn keeps_its_promises(settings: &Settings, tls: Option<StoreTls>) {
    for driver in [Executor::IoUring, Executor::Epoll] {
        let settings = Settings { tls: tls.is_some(), ..settings.clone() };
        let tls = tls.clone();
        let ran = standalone::run(driver, tls, |runtime| async move {
            let stage = Shard(runtime);
            let (one, other) = (stage.store(0, &settings).await, stage.store(1, &settings).await);
            contract::check(&*one, &*other, TTL_MS, &stage).await;
        });
        ran.expect("a shard");
    }
}

/// Both stores' shard.
struct Shard(StoreRuntime);

impl Stage for Shard {
    fn now(&self) -> Millis {
        self.0.now()
    }

    async fn pass(&self, ms: Millis) {
        // A deadline on what never ends is a pause.
        let ended = self.0.deadline(self.now() + ms, std::future::pending::<()>()).await;
        assert!(ended.is_err());
    }
}

impl Shard {
    /// A store whose client is connected.
    async fn store(&self, number: u16, settings: &Settings) -> Rc<impl SessionStore + use<>> {
        let copies = Rc::new(Copies::new());
        let settings = Settings { tracked_prefix: PREFIX.to_vec(), ..settings.clone() };
        let client = Client::new(self.0.clone(), settings, copies.clone());
        self.0.on_flush(&client, |client| client.flush());
        let until = self.now() + LIMIT_MS;
        while client.health() != Health::Up {
            assert!(self.now() < until, "{:?}", client.stats());
            self.pass(10).await;
        }
        let parts = Parts {
            runtime: self.0.clone(),
            client,
            copies,
            directory: Rc::new(Directory::new(vec!["one".into()])),
            peers: Alone,
            unwritten: Arc::default(),
        };
        let settings = sessions::Settings {
            ttl_ms: TTL_MS,
            replicas: 0,
            replicas_timeout_ms: 100,
            when_store_down: WhenStoreDown::Refuse,
            max_unwritten: 1,
        };
        RedisSessions::new(number, settings, parts)
    }
}

/// No other shard: each store is a process of its own.
struct Alone;

impl Peers for Alone {
    fn count(&self) -> usize {
        1
    }

    fn send(&self, _shard: usize, _mail: StoreMail) -> bool {
        false
    }
}

fn address(node: &Node) -> Address {
    let addr = node.client_addr();
    Address { host: addr.ip().to_string().into(), port: addr.port() }
}
