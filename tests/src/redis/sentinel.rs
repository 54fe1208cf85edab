//! Owns a master, two replicas and three sentinels.

use std::time::Duration;

use super::node::Spec;
use super::{JOIN_LIMIT, Node, RedisOptions, Store, addresses};
use crate::{GatewayConfig, TempDir, TestCert, eventually};

/// What the sentinels call the master.
const MASTER: &str = "mymaster";
/// Sentinels that must agree.
const QUORUM: usize = 2;
const REPLICAS: usize = 2;
const SENTINELS: usize = 3;

/// A Sentinel set. A master that does not answer for a second is replaced.
#[derive(Debug)]
pub struct RedisSentinel {
    /// The sentinels.
    pub sentinels: Vec<Node>,
    options: RedisOptions,
    cert: TestCert,
    nodes: Vec<Node>,
    _dir: TempDir,
}

impl RedisSentinel {
    /// Starts all six and waits until they know each other; node 0 is the master.
    ///
    /// # Panics
    /// When they do not; the message has what they logged.
    #[must_use]
    pub fn start(options: &RedisOptions) -> Self {
        assert!(!options.tls, "the sentinels and replicas here speak plain TCP");
        let dir = TempDir::new();
        let cert = TestCert::generate(&dir);
        let master = Node::start(options.spec("redis-0".to_owned(), &cert));
        let port = master.addr().port();
        let mut nodes = vec![master];
        nodes.extend((1..=REPLICAS).map(|number| {
            let mut spec = options.spec(format!("redis-{number}"), &cert);
            spec.lines.push(format!("replicaof 127.0.0.1 {port}"));
            Node::start(spec)
        }));
        eventually("the replicas follow", JOIN_LIMIT, || {
            let linked =
                |node: &Node| node.info("replication", "master_link_status").as_deref() == Some("up");
            nodes[1..].iter().all(linked).then_some(())
        });
        let sentinels = (0..SENTINELS).map(|number| Node::start(sentinel(number, port, options))).collect();
        let set = Self { sentinels, options: options.clone(), cert, nodes, _dir: dir };
        set.await_complete(JOIN_LIMIT);
        set
    }

    /// Waits until every sentinel sees a master, both replicas and the other sentinels, all in order.
    ///
    /// # Panics
    /// When that is not so within `limit`.
    pub fn await_complete(&self, limit: Duration) {
        eventually("the sentinels see all", limit, || {
            self.sentinels.iter().all(|sentinel| sees_all(sentinel).unwrap_or(false)).then_some(())
        });
    }
}

impl Store for RedisSentinel {
    fn configure(&self, config: GatewayConfig) -> GatewayConfig {
        let config = config
            .set("gateway.redis.sentinel", &format!("master = {MASTER:?}"))
            .set("gateway.redis.sentinel", &format!("addresses = {}", addresses(&self.sentinels)));
        self.options.configure(config, &self.cert)
    }

    fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// As most sentinels see it: one that was away may lag behind.
    fn master_of(&self, _tag: &str) -> Option<usize> {
        let ask = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
        let named = |sentinel: &Node| {
            let port = sentinel.try_ask(&ask).ok()?.items().get(1)?.integer()?;
            self.nodes.iter().position(|node| i64::from(node.addr().port()) == port)
        };
        let votes: Vec<usize> = self.sentinels.iter().filter_map(named).collect();
        votes.iter().copied().find(|master| votes.iter().filter(|vote| *vote == master).count() >= QUORUM)
    }
}

fn sentinel(number: usize, master_port: u16, options: &RedisOptions) -> Spec {
    let mut lines = vec![
        format!("sentinel monitor {MASTER} 127.0.0.1 {master_port} {QUORUM}"),
        format!("sentinel down-after-milliseconds {MASTER} 1000"),
        format!("sentinel failover-timeout {MASTER} 3000"),
        format!("sentinel parallel-syncs {MASTER} 2"),
    ];
    if let Some((_, password)) = &options.login {
        lines.push(format!("sentinel auth-pass {MASTER} {password}"));
    }
    Spec { name: format!("sentinel-{number}"), sentinel: true, lines, ..Spec::default() }
}

fn sees_all(sentinel: &Node) -> Option<bool> {
    let master = sentinel.try_ask(&["SENTINEL", "MASTER", MASTER]).ok()?;
    let replicas = sentinel.try_ask(&["SENTINEL", "REPLICAS", MASTER]).ok()?;
    let others = sentinel.try_ask(&["SENTINEL", "SENTINELS", MASTER]).ok()?;
    let flags = |items: &[super::Reply]| -> Option<String> {
        let at = items.iter().position(|item| item.text() == "flags")?;
        Some(items.get(at + 1)?.text())
    };
    let in_order = replicas.items().iter().all(|replica| {
        let linked = replica
            .items()
            .windows(2)
            .any(|pair| pair[0].text() == "master-link-status" && pair[1].text() == "ok");
        linked && flags(replica.items()).as_deref() == Some("slave")
    });
    let counted = (replicas.items().len(), others.items().len()) == (REPLICAS, SENTINELS - 1);
    let known = others.items().iter().all(|other| flags(other.items()).as_deref() == Some("sentinel"));
    Some(flags(master.items())? == "master" && in_order && counted && known)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn a_killed_master_is_replaced_and_follows_when_it_is_back() {
        let mut set = RedisSentinel::start(&RedisOptions::new().password("secret"));
        assert_eq!(set.master_of(""), Some(0));
        set.replicated("", LIMIT);
        set.nodes()[0].ask(&["SET", "k", "v"]);
        set.replicated("", LIMIT);
        set.nodes_mut()[0].kill();
        let new = set.failover_done("", 0, LIMIT);
        assert_eq!(set.nodes()[new].ask(&["GET", "k"]).text(), "v");
        set.nodes_mut()[0].restart();
        set.await_complete(LIMIT);
        assert_eq!(set.nodes()[0].info("replication", "role").as_deref(), Some("slave"));
        assert!(set.nodes().iter().all(|node| !node.log().is_empty()));
    }
}
