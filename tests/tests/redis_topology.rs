//! Setup: the store's client alone, on a shard of its own, on a real cluster or a real Sentinel set. No gateway is involved.
//! Claim: the client finds its way whatever moves: commands for one key keep their order while slots move, and no write
//! that a replica has is lost, nor answered by anything but a typed error, when a master dies, falls silent, or its
//! connections are cut.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mcp_engine::runtime::Executor;
use mcp_engine::standalone::{self, StoreRuntime};
use mcp_shard_store::StoreError;
use mcp_shard_store::error::Retry;
use mcp_shard_store::redis::{Client, Command, Events, Settings, Topology};
use mcp_shard_store::runtime::{Address, Runtime};
use mcp_system_tests::eventually;
use mcp_system_tests::redis::{Node, RedisCluster, RedisOptions, RedisSentinel, Reply, Store};

/// Keys that are written to, spread over the slots.
const KEYS: usize = 60;
/// Commands for one key that are in flight at once.
const PIPELINED: u64 = 8;
/// How long anything that the servers do may take.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn commands_for_a_key_keep_their_order_while_its_slot_moves() {
    let cluster = RedisCluster::start(&RedisOptions::new());
    let load = Load::start(cluster_of(&cluster), append);
    load.goes_on();
    let masters = cluster.masters();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        // redis-cli begins only where all nodes say the same.
        eventually("all nodes agree", LIMIT, || {
            let told: Vec<_> = cluster.nodes().iter().map(table).collect();
            told.iter().all(|table| *table == told[0]).then_some(())
        });
        cluster.reshard_done(cluster.reshard(3_000, masters[from], masters[to]), LIMIT);
    }
    load.goes_on();
    let seen = load.finish();
    assert_eq!(seen.failed, [], "nothing but slots moved");
    let redirects =
        |kind| seen.redirects.iter().filter(|(known, _)| *known == kind).map(|(_, count)| count).sum::<u64>();
    eprintln!("{} commands, {} moved, {} asked elsewhere", seen.done, redirects("moved"), redirects("ask"));
    assert!(redirects("moved") > 0);
}

#[test]
fn a_cluster_loses_no_write_that_a_replica_has() {
    let mut cluster = RedisCluster::start(&RedisOptions::new());
    let load = Load::start(cluster_of(&cluster), write);
    load.goes_on();
    let tag = key(0);
    let master = cluster.master_of(&tag).expect("a master");
    cluster.nodes_mut()[master].kill();
    load.recovers("the cluster's master was killed", || cluster.failover_done(&tag, master, LIMIT));
    cluster.nodes_mut()[master].restart();
    cluster.await_complete(LIMIT);
    cluster.nodes().iter().for_each(Node::kill_clients);
    load.recovers("all connections were cut", || 0);
    let master = cluster.master_of(&tag).expect("a master");
    cluster.nodes_mut()[master].pause();
    load.recovers("the cluster's master was stopped", || cluster.failover_done(&tag, master, LIMIT));
    cluster.nodes_mut()[master].resume();
    cluster.await_complete(LIMIT);
    load.goes_on();
    load.finish().has_typed_errors_only();
}

#[test]
fn a_sentinel_set_loses_no_write_that_a_replica_has() {
    let mut set = RedisSentinel::start(&RedisOptions::new());
    // The third one is learned.
    let sentinels: Vec<_> = set.sentinels[..2].iter().map(Node::client_addr).collect();
    let settings = move || {
        let sentinels = sentinels.into_iter().map(address).collect();
        Settings::new(Topology::Sentinel { master: "mymaster".to_owned(), sentinels, auth: None })
    };
    let load = Load::start(settings, write);
    load.goes_on();
    set.sentinels[0].pause();
    let master = set.master_of("").expect("a master");
    set.nodes_mut()[master].kill();
    load.recovers("master and sentinel died", || set.failover_done("", master, LIMIT));
    set.sentinels[0].resume();
    set.nodes_mut()[master].restart();
    set.await_complete(LIMIT);
    let master = set.master_of("").expect("a master");
    set.nodes_mut()[master].pause();
    load.recovers("the master was stopped", || set.failover_done("", master, LIMIT));
    set.nodes_mut()[master].resume();
    set.await_complete(LIMIT);
    load.goes_on();
    load.finish().has_typed_errors_only();
}

/// First slot, last slot and master's port of each range, as `node` sees it.
fn table(node: &Node) -> Vec<[Option<i64>; 3]> {
    let slots = node.ask(&["CLUSTER", "SLOTS"]);
    let range = |range: &Reply| {
        let [first, last, master, ..] = range.items() else { panic!("{range:?}") };
        [first.integer(), last.integer(), master.items()[1].integer()]
    };
    let mut table: Vec<_> = slots.items().iter().map(range).collect();
    table.sort_unstable();
    table
}

fn cluster_of(cluster: &RedisCluster) -> impl FnOnce() -> Settings + Send + use<> {
    let seeds: Vec<_> = cluster.nodes()[..2].iter().map(Node::client_addr).collect();
    move || Settings::new(Topology::Cluster(seeds.into_iter().map(address).collect()))
}

fn address(addr: SocketAddr) -> Address {
    Address { host: addr.ip().to_string().into(), port: addr.port() }
}

fn key(number: usize) -> String {
    format!("key-{number}")
}

/// A client that is kept busy by a thread of its own.
struct Load {
    shared: Arc<Shared>,
    thread: JoinHandle<Seen>,
}

struct Shared {
    /// Rounds that were answered by a node, by key.
    rounds: Vec<AtomicU64>,
    ends: AtomicBool,
}

/// What the client saw.
#[derive(Default)]
struct Seen {
    done: u64,
    failed: Vec<StoreError>,
    redirects: Vec<(&'static str, u64)>,
}

/// One key's life: told its number, what it may ask and where to note what it saw.
type Life = fn(usize, Rc<Client<StoreRuntime>>, StoreRuntime, Rc<Noted>) -> Pin<Box<dyn Future<Output = ()>>>;

struct Noted {
    shared: Arc<Shared>,
    seen: RefCell<Seen>,
    alive: Cell<usize>,
}

struct Deaf;

impl Events for Deaf {
    fn invalidated(&self, _keys: Option<&[&[u8]]>) {}
}

impl Load {
    fn start(settings: impl FnOnce() -> Settings + Send + 'static, life: Life) -> Self {
        let rounds = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared { rounds, ends: AtomicBool::new(false) });
        let told = shared.clone();
        let thread = std::thread::spawn(move || {
            standalone::run(Executor::Epoll, None, |runtime| live(runtime, settings(), life, told))
                .expect("a shard")
        });
        Load { shared, thread }
    }

    /// Waits until every key had an answer since.
    fn goes_on(&self) {
        let before: Vec<u64> = self.rounds();
        eventually("every key is served", LIMIT, || {
            self.rounds().iter().zip(&before).all(|(now, before)| *now > before + 1).then_some(())
        });
    }

    /// Waits for a failover, then until every key is served, and says how long that took.
    fn recovers(&self, what: &str, failover: impl FnOnce() -> usize) {
        failover();
        let since = Instant::now();
        self.goes_on();
        eprintln!("{what}: every key was served {} ms after the failover", since.elapsed().as_millis());
    }

    fn finish(self) -> Seen {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.thread.join().expect("what the client was told agrees with what Redis holds")
    }

    fn rounds(&self) -> Vec<u64> {
        self.shared.rounds.iter().map(|rounds| rounds.load(Ordering::Relaxed)).collect()
    }
}

impl Seen {
    fn has_typed_errors_only(&self) {
        eprintln!("{} commands, {} failed", self.done, self.failed.len());
        for error in &self.failed {
            assert!(error.is_outage() && error.retry() != Retry::Useless, "{error:?}");
        }
    }
}

async fn live(runtime: StoreRuntime, settings: Settings, life: Life, shared: Arc<Shared>) -> Seen {
    let client = Client::new(runtime.clone(), settings, Rc::new(Deaf));
    runtime.on_flush(&client, |client| client.flush());
    let noted = Rc::new(Noted { shared, seen: RefCell::default(), alive: Cell::new(KEYS) });
    for number in 0..KEYS {
        let (life, ended) = (life(number, client.clone(), runtime.clone(), noted.clone()), noted.clone());
        runtime.spawn(Box::pin(async move {
            life.await;
            ended.alive.set(ended.alive.get() - 1);
        }));
    }
    while noted.alive.get() > 0 {
        pass(&runtime, 20).await;
    }
    let mut seen = noted.seen.take();
    seen.redirects = client.stats().nodes.into_iter().flat_map(|node| node.redirects).collect();
    client.close();
    seen
}

impl Noted {
    fn ends(&self) -> bool {
        self.shared.ends.load(Ordering::Relaxed)
    }

    fn note<T>(&self, number: usize, outcome: Result<T, StoreError>) -> bool {
        let mut seen = self.seen.borrow_mut();
        match outcome {
            Ok(_) => {
                seen.done += 1;
                self.shared.rounds[number].fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(error) => {
                // A master whose replica has taken its place and died has none left.
                if matches!(error, StoreError::NotReplicated { .. }) {
                    self.shared.rounds[number].fetch_add(1, Ordering::Relaxed);
                }
                seen.failed.push(error);
                false
            }
        }
    }
}

/// Appends numbers to a list, several at once, and looks at the end whether they stand there in order.
fn append(
    number: usize,
    client: Rc<Client<StoreRuntime>>,
    runtime: StoreRuntime,
    noted: Rc<Noted>,
) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        let key = key(number);
        connected(&client, &runtime, &key).await;
        let next = Rc::new(Cell::new(0));
        let writers = Rc::new(Cell::new(PIPELINED));
        for _ in 0..PIPELINED {
            let (key, client, noted) = (key.clone(), client.clone(), noted.clone());
            let (next, writers, shard) = (next.clone(), writers.clone(), runtime.clone());
            runtime.spawn(Box::pin(async move {
                while !noted.ends() {
                    let value: u64 = next.replace(next.get() + 1);
                    let text = value.to_string();
                    let args: [&[u8]; 3] = [b"RPUSH", key.as_bytes(), text.as_bytes()];
                    noted.note(number, client.call(&Command::write("rpush", key.as_bytes(), &args)).await);
                    // Then all of them at once again: what is in flight is what may lose its order.
                    pass(&shard, 20).await;
                }
                writers.set(writers.get() - 1);
            }));
        }
        while writers.get() > 0 {
            pass(&runtime, 10).await;
        }
        let args: [&[u8]; 4] = [b"LRANGE", key.as_bytes(), b"0", b"-1"];
        let list = client.call(&Command::read("lrange", key.as_bytes(), &args)).await.expect("the list");
        let list: Vec<i64> = list
            .as_array()
            .expect("a list")
            .iter()
            .map(|value| value.as_integer().expect("a number"))
            .collect();
        assert!(list.iter().copied().eq(0..next.get() as i64), "{key}: {list:?}");
    })
}

/// Sets a key to ever greater numbers, each of which a replica must have, and looks at the end whether the last one that
/// was confirmed is there, or one that may be.
fn write(
    number: usize,
    client: Rc<Client<StoreRuntime>>,
    runtime: StoreRuntime,
    noted: Rc<Noted>,
) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        let key = key(number);
        let (mut confirmed, mut last) = (0, 0);
        while !noted.ends() {
            last += 1;
            let value = last.to_string();
            let args: [&[u8]; 3] = [b"SET", key.as_bytes(), value.as_bytes()];
            let command = Command::write("set", key.as_bytes(), &args);
            if noted.note(number, client.call_replicated(&command, 1, 100).await) {
                confirmed = last;
            }
            pass(&runtime, 10).await;
        }
        let kept = connected(&client, &runtime, &key).await;
        assert!((confirmed..=last).contains(&kept), "{key}: {kept} is not in {confirmed}..={last}");
    })
}

/// What a key holds, once its node answers; 0 for nothing.
async fn connected(client: &Client<StoreRuntime>, runtime: &StoreRuntime, key: &str) -> i64 {
    loop {
        let args: [&[u8]; 2] = [b"GET", key.as_bytes()];
        match client.call(&Command::read("get", key.as_bytes(), &args)).await {
            Ok(value) => return value.as_integer().unwrap_or(0),
            Err(_) => pass(runtime, 50).await,
        }
    }
}

async fn pass(runtime: &StoreRuntime, ms: u64) {
    // A deadline on what never ends is a pause.
    let ended = runtime.deadline(runtime.now() + ms, std::future::pending::<()>()).await;
    assert!(ended.is_err());
}
