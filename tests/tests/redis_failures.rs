//! Setup: three gateways on one Redis that fails in one of the ways of the table in `docs/`. Two keep new sessions while it is
//! away (`gateway.session.when_store_down = "keep"`), one refuses them.
//! Claim, for each way: sessions that a shard knows go on; new ones are opened and work at their gateway, or are refused with a
//! typed retryable error; nobody waits longer than the deadline; the gateway stays ready, says that it is degraded and counts
//! it; and when Redis is back all is as before, with the kept sessions at every gateway.

use std::time::{Duration, Instant};

use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::redis::pods::{Answer, end, open, ping};
use mcp_system_tests::redis::{Redis, RedisCluster, RedisOptions, RedisSentinel, Store};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, TempDir, TestCert, eventually};

const LIMIT: Duration = Duration::from_secs(30);
/// The deadline of a command (500 ms), times what a request may ask, with much of a margin.
const LONGEST_REQUEST: Duration = Duration::from_secs(5);
/// An id that nobody has minted.
const UNKNOWN: &str = "AAAAAAAAAAAAAAAAAAAAAAAA";
/// Connections over which a session is used, so that every shard has some.
const CONNECTIONS: usize = 12;
/// Slots of the hole: those of the first master.
const HOLE: (u16, u16) = (0, 5_460);

/// What is left of a failing Redis.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Nothing: no question is answered.
    Nothing,
    /// It answers what it is asked, but takes no write.
    Reads,
    /// All but some slots.
    MostSlots,
}

#[test]
fn redis_is_slow() {
    let mut store = Redis::start(&RedisOptions::new());
    let mut rig = Rig::start(&store).with_sessions();
    // Slower than usual is no failure.
    store.node().ask(&["CLIENT", "PAUSE", "100", "ALL"]);
    assert_eq!(rig.refuse.open().0, Answer::Done);
    // Slower than the deadline is.
    store.node_mut().pause();
    rig.is_degraded(Left::Nothing);
    store.node_mut().resume();
    rig.is_well_again();
}

#[test]
fn redis_is_gone_at_the_start() {
    let mut store = Redis::start(&RedisOptions::new());
    store.node_mut().kill();
    let mut rig = Rig::start(&store);
    rig.is_degraded(Left::Nothing);
    store.node_mut().restart();
    rig.is_well_again();
}

#[test]
fn redis_is_gone_later() {
    let mut store = Redis::start(&RedisOptions::new());
    let mut rig = Rig::start(&store).with_sessions();
    store.node_mut().kill();
    rig.is_degraded(Left::Nothing);
    store.node_mut().restart();
    rig.is_well_again();
}

#[test]
fn redis_fails_over() {
    let mut store = RedisSentinel::start(&RedisOptions::new());
    let mut rig = Rig::start(&store).with_sessions();
    // The sentinels take their time, so that what holds meanwhile can be seen.
    let down_after = |store: &RedisSentinel, ms: &str| {
        for sentinel in &store.sentinels {
            sentinel.ask(&["SENTINEL", "SET", "mymaster", "down-after-milliseconds", ms]);
        }
    };
    down_after(&store, "600000");
    store.replicated("", LIMIT);
    store.nodes_mut()[0].kill();
    rig.is_degraded(Left::Nothing);
    down_after(&store, "1000");
    store.failover_done("", 0, LIMIT);
    rig.is_well_again();
}

#[test]
fn redis_is_read_only() {
    let store = Redis::start(&RedisOptions::new());
    let mut rig = Rig::start(&store).with_sessions();
    // A replica of nobody.
    store.node().ask(&["REPLICAOF", "127.0.0.1", "1"]);
    rig.is_degraded(Left::Reads);
    store.node().ask(&["REPLICAOF", "NO", "ONE"]);
    rig.is_well_again();
}

#[test]
fn redis_is_out_of_memory() {
    let store = Redis::start(&RedisOptions::new());
    let mut rig = Rig::start(&store).with_sessions();
    store.node().set_config("maxmemory", "1");
    rig.is_degraded(Left::Reads);
    store.node().set_config("maxmemory", "0");
    rig.is_well_again();
}

#[test]
fn the_password_is_wrong() {
    let store = Redis::start(&RedisOptions::new().password("right"));
    let mut rig = Rig::start(&store).with_sessions();
    // Made while the password was right, this connection may go on.
    let mut operator = store.node().log_in().expect("a connection");
    for command in [&["CONFIG", "SET", "requirepass", "another"][..], &["CLIENT", "KILL", "TYPE", "normal"]] {
        assert!(!operator.ask(command).expect("an answer").is_error());
    }
    rig.is_degraded(Left::Nothing);
    rig.keep.has_logged("WRONGPASS");
    operator.ask(&["CONFIG", "SET", "requirepass", "right"]).expect("an answer");
    rig.is_well_again();
}

#[test]
fn the_certificate_is_wrong() {
    let store = Redis::start(&RedisOptions::new().tls());
    let mut rig = Rig::start(&store).with_sessions();
    let dir = TempDir::new();
    let strange = TestCert::generate(&dir);
    let present = |cert: &TestCert| {
        let (file, key) = (cert.cert_file.display().to_string(), cert.key_file.display().to_string());
        store.node().ask(&["CONFIG", "SET", "tls-cert-file", &file, "tls-key-file", &key]);
        store.node().kill_clients();
    };
    present(&strange);
    rig.is_degraded(Left::Nothing);
    rig.keep.has_logged("certificate");
    present(&store.cert);
    rig.is_well_again();
}

#[test]
fn a_cluster_has_a_hole_in_its_slots() {
    let store = RedisCluster::start(&RedisOptions::new().line("cluster-require-full-coverage no"));
    let owner = store.masters()[0];
    let (first, last) = (HOLE.0.to_string(), HOLE.1.to_string());
    let mut rig = Rig::start(&store).with_sessions_where(|id| (HOLE.0..=HOLE.1).contains(&store.slot_of(id)));
    for node in store.nodes() {
        node.ask(&["CLUSTER", "DELSLOTSRANGE", &first, &last]);
    }
    rig.is_degraded(Left::MostSlots);
    store.nodes()[owner].ask(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
    store.await_complete(LIMIT);
    rig.is_well_again();
}

struct Rig {
    keep: Pod,
    other: Pod,
    refuse: Pod,
    /// Sessions that were opened while Redis was failing.
    kept: Vec<String>,
    _upstream: Fixture,
}

/// A gateway, a connection to one of its shards, and a session that this shard knows.
struct Pod {
    gateway: Gateway,
    connection: Connection,
    session: Option<String>,
}

impl Rig {
    fn start(store: &dyn Store) -> Self {
        let upstream = Fixture::legacy(nothing);
        let pod = |when: &str| Pod::start(store, &upstream.url(), when);
        let (keep, other, refuse) = (pod("keep"), pod("keep"), pod("refuse"));
        Self { keep, other, refuse, kept: Vec::new(), _upstream: upstream }
    }

    fn with_sessions(self) -> Self {
        self.with_sessions_where(|_| true)
    }

    /// Opens a session at each gateway, whose id is as `wanted`, and has the shard know it.
    fn with_sessions_where(mut self, wanted: impl Fn(&str) -> bool) -> Self {
        for pod in [&mut self.keep, &mut self.other, &mut self.refuse] {
            pod.is_up();
            let session = eventually("such a session", LIMIT, || {
                let (answer, id) = pod.open();
                assert_eq!(answer, Answer::Done);
                id.filter(|id| wanted(id))
            });
            assert_eq!(pod.ping(&session), Answer::Done);
            pod.session = Some(session);
        }
        self
    }

    fn is_degraded(&mut self, left: Left) {
        let opened = self.refuse.fails(left);
        assert_eq!(opened.is_empty(), left != Left::MostSlots, "{} sessions were opened", opened.len());
        self.kept = self.keep.fails(left);
        assert!(!self.kept.is_empty());
        // They are sessions to every shard of their gateway.
        for _ in 0..CONNECTIONS {
            let mut connection = self.keep.gateway.connect().expect("a connection");
            for session in &self.kept {
                assert_eq!(ping(&mut connection, session).expect("an answer"), Answer::Done);
            }
        }
        for pod in [&mut self.keep, &mut self.refuse] {
            if let Some(session) = pod.session.clone() {
                assert_eq!(pod.ping(&session), Answer::Done, "a session that the shard knows");
            }
            let expected = if left == Left::Reads { Answer::Unknown } else { Answer::Retryable };
            if left != Left::MostSlots {
                assert_eq!(pod.ping(UNKNOWN), expected, "a session that the shard does not know");
            }
            let health = pod.gateway.get("/health").expect("an answer");
            assert_eq!(health.status, 200, "{}", health.text());
        }
    }

    fn is_well_again(&mut self) {
        for pod in [&mut self.keep, &mut self.other, &mut self.refuse] {
            pod.is_up();
            let session = eventually("sessions are opened", LIMIT, || pod.open().1);
            assert_eq!(pod.ping(&session), Answer::Done);
            if let Some(session) = pod.session.clone() {
                assert_eq!(pod.ping(&session), Answer::Done);
            }
        }
        for session in std::mem::take(&mut self.kept) {
            let pods = [&mut self.other, &mut self.refuse];
            for pod in pods {
                eventually("a kept session is found elsewhere", LIMIT, || {
                    (pod.ping(&session) == Answer::Done).then_some(())
                });
            }
            assert_eq!(end(&mut self.other.connection, &session).expect("an answer"), Answer::Done);
            eventually("its end is seen where it was opened", LIMIT, || {
                (self.keep.ping(&session) == Answer::Unknown).then_some(())
            });
        }
        let unwritten = self.keep.gateway.metrics().value("mcp_gateway_sessions_unwritten", &[]);
        assert_eq!(unwritten, Some(0.0));
    }
}

impl Pod {
    fn start(store: &dyn Store, upstream: &str, when_store_down: &str) -> Self {
        let config = GatewayConfig::new()
            .server("one", &[upstream])
            .store(store)
            .set("gateway.session", &format!("when_store_down = {when_store_down:?}"))
            .set("gateway.redis", "command_timeout = \"500ms\"");
        let gateway = Gateway::start(&config);
        let connection = gateway.connect().expect("a connection");
        Self { gateway, connection, session: None }
    }

    /// Opens sessions until the gateway says that it is degraded, in a cluster more than one for each shard and master.
    /// Returns those that were opened.
    fn fails(&mut self, left: Left) -> Vec<String> {
        let mut opened = Vec::new();
        let mut refused = 0_u32;
        let began = self.retryable();
        eventually("the gateway is degraded", LIMIT, || {
            match self.open() {
                (Answer::Done, Some(id)) => opened.push(id),
                (Answer::Retryable, None) => refused += 1,
                other => panic!("{other:?}"),
            }
            let ready = self.gateway.get("/ready").expect("an answer");
            assert_eq!(ready.status, 200, "{}", ready.text());
            let enough = left != Left::MostSlots || opened.len() + refused as usize > CONNECTIONS;
            (enough && ready.text().contains("degraded") && self.counts(left)).then_some(())
        });
        assert!(self.retryable() >= began + f64::from(refused), "a refusal was not counted");
        opened
    }

    fn retryable(&self) -> f64 {
        self.gateway.metrics().count("mcp_gateway_routing_errors_total", &[])
    }

    /// Whether the metrics show what the alerts are to see.
    fn counts(&self, left: Left) -> bool {
        let metrics = self.gateway.metrics();
        let up = metrics.value("mcp_gateway_redis_up", &[]);
        let breaker = metrics.value("mcp_gateway_circuit_breaker_state", &[("endpoint", "redis")]);
        assert!(up.is_some() && breaker.is_some(), "{metrics:?}");
        left != Left::Nothing || (up == Some(0.0) && breaker.is_some_and(|state| state > 0.0))
    }

    fn is_up(&self) {
        eventually("the store is up", LIMIT, || {
            let metrics = self.gateway.metrics();
            let up = metrics.value("mcp_gateway_redis_up", &[]) == Some(1.0);
            let closed =
                metrics.value("mcp_gateway_circuit_breaker_state", &[("endpoint", "redis")]) == Some(0.0);
            (up && closed).then_some(())
        });
    }

    /// Waits until the gateway's log has a warning or an error with this in it.
    fn has_logged(&self, text: &str) {
        eventually(&format!("{text:?} is logged"), LIMIT, || {
            let log = self.gateway.process.log();
            let loud = |line: &str| line.contains("WARN") || line.contains("ERROR");
            log.lines().any(|line| loud(line) && line.contains(text)).then_some(())
        });
    }

    fn open(&mut self) -> (Answer, Option<String>) {
        self.in_time(open)
    }

    fn ping(&mut self, session: &str) -> Answer {
        self.in_time(|connection| ping(connection, session))
    }

    fn in_time<T>(&mut self, ask: impl FnOnce(&mut Connection) -> std::io::Result<T>) -> T {
        let begun = Instant::now();
        let answer = ask(&mut self.connection).expect("an answer");
        assert!(begun.elapsed() < LONGEST_REQUEST, "it took {:?}", begun.elapsed());
        answer
    }
}
