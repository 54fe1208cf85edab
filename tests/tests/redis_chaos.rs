//! Setup: two gateways on a Redis cluster, or on a master with sentinels. While 200 sessions a second are opened, used and ended
//! through both, a master is killed, slots are moved, a node is stopped for 10 seconds, all connections are dropped.
//! Claim: every session that a client was told exists is there in the end (`gateway.session.replicas = 1`), and none that it was
//! told has ended; no client saw anything but success or a typed retryable error; none waited for long; and all is well again
//! as soon as Redis is.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mcp_system_tests::redis::churn::{Account, Churn};
use mcp_system_tests::redis::pods::{Answer, Pods, ping_until_answered};
use mcp_system_tests::redis::{RedisCluster, RedisOptions, RedisSentinel, Store};
use mcp_system_tests::upstream::{After, ScriptedUpstream, answer, answer_json};
use mcp_system_tests::{GatewayConfig, eventually, resources};
use serde_json::json;

/// Sessions opened in a second.
const RATE: u32 = 200;
/// Sessions opened before the first fault and between two.
const CALM: usize = 200;
/// By when servers have sorted themselves out.
const LIMIT: Duration = Duration::from_secs(60);
/// The longest that a request may take: the deadline of its commands (500 ms each) with all that a request may ask of the
/// store one after the other, and much of a margin for a machine that does ten things at once.
const LONGEST_REQUEST: Duration = Duration::from_secs(5);
/// The bound of recovery after Redis has recovered. The goal is one second; what it was is printed.
const RECOVERY: Duration = Duration::from_secs(5);
/// Successes in a row that make a recovery.
const IN_A_ROW: usize = 50;
/// How long a node is stopped.
const PAUSE: Duration = Duration::from_secs(10);
/// Slots that are moved: the third part of a master's.
const SLOTS: u16 = 1_800;

/// The machine has few cores: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn nothing_is_lost_on_a_cluster() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut store = RedisCluster::start(&RedisOptions::new());
    let mut chaos = Chaos::start(&store);

    chaos.master_is_killed(&mut store, "a");
    store.await_complete(LIMIT);
    let (from, to) = (store.master_of("a").expect("a master"), store.master_of("b").expect("a master"));
    assert_ne!(from, to, "these tags have slots of different masters");
    let reshard = store.reshard(SLOTS, from, to);
    store.reshard_done(reshard, LIMIT);
    chaos.recovered("slots were moved", Instant::now());
    chaos.master_is_paused(&mut store, "b");
    store.await_complete(LIMIT);
    chaos.connections_are_dropped(&store);
    chaos.nothing_is_lost();
}

#[test]
fn nothing_is_lost_on_a_sentinel_set() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut store = RedisSentinel::start(&RedisOptions::new());
    let mut chaos = Chaos::start(&store);
    chaos.master_is_killed(&mut store, "");
    store.await_complete(LIMIT);
    // With one of three gone, the others are still enough.
    store.sentinels[0].kill();
    chaos.connections_are_dropped(&store);
    store.sentinels[0].restart();
    store.await_complete(LIMIT);
    chaos.master_is_paused(&mut store, "");
    store.await_complete(LIMIT);
    chaos.connections_are_dropped(&store);
    chaos.nothing_is_lost();
}

struct Chaos {
    pods: Pods,
    churn: Churn,
    _upstream: ScriptedUpstream,
}

impl Chaos {
    fn start(store: &dyn Store) -> Self {
        resources::raise_open_files();
        let upstream = upstream();
        let pods = Pods::start(store, &upstream.url(), durable);
        let churn = Churn::start(&pods, RATE);
        churn.opened_more(CALM, LIMIT);
        Self { pods, churn, _upstream: upstream }
    }

    /// SIGKILL, and what follows: a failover, and the return of the killed node as a replica. As the gateways ask for a
    /// replica's word, sessions of its slots can be opened again only when there is one.
    fn master_is_killed(&mut self, store: &mut dyn Store, tag: &str) {
        let old = store.master_of(tag).expect("a master");
        let begun = Instant::now();
        store.nodes_mut()[old].kill();
        let new = store.failover_done(tag, old, LIMIT);
        let failed_over = begun.elapsed();
        store.nodes_mut()[old].restart();
        store.replicated(tag, LIMIT);
        let whole = Instant::now();
        eprintln!(
            "node {old} was killed: node {new} took over after {failed_over:?}, had a replica after {:?}",
            whole - begun
        );
        self.recovered("a master was killed", whole);
    }

    /// SIGSTOP for 10 seconds: a failover while the old master's connections stay as they are.
    fn master_is_paused(&mut self, store: &mut dyn Store, tag: &str) {
        let old = store.master_of(tag).expect("a master");
        let begun = Instant::now();
        store.nodes_mut()[old].pause();
        let new = store.failover_done(tag, old, LIMIT);
        eprintln!("node {old} was stopped: node {new} took over after {:?}", begun.elapsed());
        // The length of its silence is the fault; the clients are at work meanwhile.
        eventually("the pause is over", LIMIT, || (begun.elapsed() > PAUSE).then_some(()));
        store.nodes_mut()[old].resume();
        store.replicated(tag, LIMIT);
        self.recovered("a node was stopped", Instant::now());
    }

    fn connections_are_dropped(&mut self, store: &dyn Store) {
        for _ in 0..3 {
            for node in store.nodes() {
                node.kill_clients();
            }
            self.recovered("all connections were dropped", Instant::now());
        }
    }

    fn recovered(&mut self, what: &str, since: Instant) {
        let after = self.churn.recovered(since, IN_A_ROW, RECOVERY);
        eprintln!("{what}: {IN_A_ROW} successes in a row after {after:?}");
        self.churn.opened_more(CALM, LIMIT);
    }

    fn nothing_is_lost(self) {
        let account = self.churn.finish();
        eprintln!(
            "{} sessions opened, {} ended, {} alive; {} requests, {} retryable errors, the slowest: {:?}",
            account.opened,
            account.ended.len(),
            account.alive.len(),
            account.requests,
            account.retryable,
            account.slowest
        );
        assert!(account.wrong.is_empty(), "{:#?}", account.wrong);
        assert!(account.slowest.values().all(|took| *took < LONGEST_REQUEST), "{:?}", account.slowest);
        assert!(account.alive.len() > CALM / 4 && account.ended.len() > CALM / 4, "hardly anything was done");
        assert_told_the_truth(&self.pods, &account);
    }
}

fn assert_told_the_truth(pods: &Pods, account: &Account) {
    for (pod, connection) in pods.connect().iter_mut().enumerate() {
        let mut all = |sessions: &[String], expected: &Answer| -> Vec<String> {
            let wrong = |session: &&String| ping_until_answered(connection, session, LIMIT) != *expected;
            sessions.iter().filter(wrong).cloned().collect()
        };
        let lost = all(&account.alive, &Answer::Done);
        assert!(
            lost.is_empty(),
            "{} of {} are lost at gateway {pod}: {lost:?}",
            lost.len(),
            account.alive.len()
        );
        let undead = all(&account.ended, &Answer::Unknown);
        assert!(undead.is_empty(), "{} of {} live on at gateway {pod}", undead.len(), account.ended.len());
    }
}

/// Whoever is told that a session exists can rely on two nodes that have it, and on both gateways.
fn durable(config: GatewayConfig) -> GatewayConfig {
    config
        .set("gateway.session", "replicas = 1")
        .set("gateway.session", "when_store_down = \"refuse\"")
        .set("gateway.redis", "command_timeout = \"500ms\"")
}

/// A legacy server that forgets at once what it was asked: there will be very many requests.
fn upstream() -> ScriptedUpstream {
    ScriptedUpstream::start(|request, stream| {
        if request.is("DELETE") {
            return answer(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", After::KeepOpen);
        }
        let message = request.json();
        let mut response = json!({"jsonrpc": "2.0", "id": message["id"], "result": {}});
        if message["method"] != "initialize" {
            return answer_json(stream, "200 OK", &response);
        }
        response["result"] = json!({
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": {},
            "serverInfo": {"name": "churn", "version": "1.0.0"},
        });
        answer_json(stream, "200 OK\r\nmcp-session-id: upstream", &response)
    })
}
