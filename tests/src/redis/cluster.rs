//! Owns a cluster of three masters and three replicas.

use std::process::Command;
use std::time::Duration;

use super::{JOIN_LIMIT, Node, Place, RedisOptions, Reply, Store, addresses};
use crate::{GatewayConfig, Process, TempDir, TestCert, eventually};

const NODES: usize = 6;
/// How long a node may be silent until the others hold it for dead, in milliseconds.
pub(crate) const NODE_TIMEOUT_MS: u64 = 1_000;

/// A cluster of six nodes. A master that does not answer for a second is replaced by its replica.
#[derive(Debug)]
pub struct RedisCluster {
    /// The certificate and its authority, used where it was started with TLS.
    pub cert: TestCert,
    options: RedisOptions,
    nodes: Vec<Node>,
    _dir: TempDir,
}

impl RedisCluster {
    /// Starts six nodes, joins them, and waits until all agree and every replica follows.
    ///
    /// # Panics
    /// When they do not; the message has what they logged.
    #[must_use]
    pub fn start(options: &RedisOptions) -> Self {
        Self::start_at(options, [const { None }; NODES])
    }

    /// As [`Self::start`], each node at its place. The last three become replicas of the first three.
    ///
    /// # Panics
    /// When they do not; the message has what they logged.
    #[must_use]
    pub fn start_at(options: &RedisOptions, places: [Option<Place>; NODES]) -> Self {
        let dir = TempDir::new();
        let cert = TestCert::generate(&dir);
        let node = |(number, place)| {
            let mut spec = options.spec(format!("redis-{number}"), &cert);
            spec.cluster = true;
            spec.place = place;
            let fixed = ["cluster-enabled yes", "cluster-replica-validity-factor 0"].map(String::from);
            spec.lines.splice(0..0, fixed);
            spec.lines.push(format!("cluster-node-timeout {NODE_TIMEOUT_MS}"));
            if options.tls {
                // Only then do nodes tell clients their TLS ports.
                spec.lines.extend(["tls-cluster yes", "tls-replication yes"].map(String::from));
            }
            Node::start(spec)
        };
        let nodes = places.into_iter().enumerate().map(node).collect();
        let cluster = Self { cert, options: options.clone(), nodes, _dir: dir };
        let mut command = cluster.redis_cli("create");
        command.args(cluster.nodes.iter().map(|node| node.client_addr().to_string()));
        command.args(["--cluster-replicas", "1"]);
        finish(Process::start("redis-cli --cluster create", &mut command), JOIN_LIMIT);
        cluster.await_complete(JOIN_LIMIT);
        cluster
    }

    /// Waits until every node sees all slots served and every replica follows its master.
    ///
    /// # Panics
    /// When that is not so within `limit`.
    pub fn await_complete(&self, limit: Duration) {
        eventually("all nodes agree", limit, || {
            let links = |node: &Node| match node.info("replication", "role")?.as_str() {
                "master" => Some(node.info("replication", "connected_slaves")? != "0"),
                _ => Some(node.info("replication", "master_link_status")? == "up"),
            };
            let in_order = self.nodes.iter().all(|node| is_ok(node) && links(node) == Some(true));
            let masters = self.nodes.iter().map(|node| self.owners(node).map(|owners| owners.len()));
            (in_order && masters.into_iter().all(|count| count == Some(NODES / 2))).then_some(())
        });
    }

    /// Waits until all slots are served without these nodes, as each of the others sees it.
    ///
    /// # Panics
    /// When that is not so within `limit`.
    pub fn await_without(&self, gone: &[usize], limit: Duration) {
        eventually("the others serve all slots", limit, || {
            let mut others =
                self.nodes.iter().enumerate().filter(|(node, _)| !gone.contains(node)).map(|(_, node)| node);
            others.all(|node| is_ok(node) && self.is_served_without(node, gone)).then_some(())
        });
    }

    fn is_served_without(&self, node: &Node, gone: &[usize]) -> bool {
        let owners = self.owners(node).unwrap_or_default();
        owners.len() == NODES / 2 && !owners.iter().any(|owner| gone.contains(owner))
    }

    /// The masters that have slots, as the first node sees it that answers.
    #[must_use]
    pub fn masters(&self) -> Vec<usize> {
        self.nodes.iter().find_map(|node| self.owners(node)).unwrap_or_default()
    }

    /// Makes a node the master of its master's slots, and that one its replica, without the loss of a write: what an
    /// operator does when a node is back. Does nothing to a master.
    ///
    /// # Panics
    /// When that is not so within `limit`.
    pub fn give_mastership(&self, node: usize, limit: Duration) {
        let role = |node: &Node| node.info("replication", "role");
        eventually("the node is master", limit, || {
            let node = &self.nodes[node];
            if role(node).as_deref() == Some("master") {
                return Some(());
            }
            // Refused while its link is not up, and given up when the master has not paused in time: asked again.
            let _ = node.try_ask(&["CLUSTER", "FAILOVER"]);
            None
        });
    }

    /// The slot of keys with the hash tag `tag`.
    ///
    /// # Panics
    /// When no node answers.
    #[must_use]
    pub fn slot_of(&self, tag: &str) -> u16 {
        let asked = ["CLUSTER", "KEYSLOT", tag];
        let slot = self.nodes.iter().find_map(|node| node.try_ask(&asked).ok()?.integer());
        slot.and_then(|slot| u16::try_from(slot).ok()).expect("a node that answers")
    }

    /// Begins to move `slots` slots from one master to another while both go on; the process ends with that.
    ///
    /// # Panics
    /// When a node does not answer, or redis-cli cannot be started.
    #[must_use]
    pub fn reshard(&self, slots: u16, from: usize, to: usize) -> Process {
        let id = |node: usize| self.nodes[node].ask(&["CLUSTER", "MYID"]).text();
        let mut command = self.redis_cli("reshard");
        command.arg(self.nodes[from].client_addr().to_string());
        command.args(["--cluster-from", &id(from), "--cluster-to", &id(to)]);
        command.args(["--cluster-slots", &slots.to_string(), "--cluster-pipeline", "10"]);
        Process::start("redis-cli --cluster reshard", &mut command)
    }

    /// Waits until a resharding has done its work.
    ///
    /// # Panics
    /// When it failed, or still works after `limit`.
    pub fn reshard_done(&self, reshard: Process, limit: Duration) {
        finish(reshard, limit);
    }

    fn redis_cli(&self, action: &str) -> Command {
        let mut command = Command::new("redis-cli");
        if let Some((_, password)) = &self.options.login {
            command.args(["--no-auth-warning", "-a", password]);
        }
        if self.options.tls {
            command.arg("--tls").arg("--cacert").arg(&self.cert.ca_file);
        }
        command.args(["--cluster-yes", "--cluster", action]);
        command
    }

    /// The masters of all slots, as `node` sees it.
    fn owners(&self, node: &Node) -> Option<Vec<usize>> {
        let slots = node.try_ask(&["CLUSTER", "SLOTS"]).ok()?;
        let mut owners: Vec<usize> = slots.items().iter().filter_map(|range| self.owner(range)).collect();
        owners.sort_unstable();
        owners.dedup();
        Some(owners)
    }

    /// The master of one range of `CLUSTER SLOTS`: first slot, last slot, then master and replicas.
    fn owner(&self, range: &Reply) -> Option<usize> {
        let port = range.items().get(2)?.items().get(1)?.integer()?;
        self.nodes.iter().position(|node| i64::from(node.addr().port()) == port)
    }
}

impl Store for RedisCluster {
    fn configure(&self, config: GatewayConfig) -> GatewayConfig {
        let config = config
            .set("gateway.redis.cluster", "enabled = true")
            .set("gateway.redis.cluster", &format!("addresses = {}", addresses(&self.nodes)));
        self.options.configure(config, &self.cert)
    }

    fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// As the first node sees it that answers and holds the cluster for whole.
    fn master_of(&self, tag: &str) -> Option<usize> {
        let node = self.nodes.iter().find(|node| is_ok(node))?;
        let slot = node.try_ask(&["CLUSTER", "KEYSLOT", tag]).ok()?.integer()?;
        let ranges = node.try_ask(&["CLUSTER", "SLOTS"]).ok()?;
        let bound = |range: &Reply, at: usize| range.items().get(at)?.integer();
        let range = ranges.items().iter().find(|range| {
            bound(range, 0).is_some_and(|first| first <= slot)
                && bound(range, 1).is_some_and(|last| slot <= last)
        })?;
        self.owner(range)
    }
}

fn is_ok(node: &Node) -> bool {
    let info = node.try_ask(&["CLUSTER", "INFO"]).map(|info| info.text()).unwrap_or_default();
    super::node::find_field(&info, "cluster_state").as_deref() == Some("ok")
}

fn finish(process: Process, limit: Duration) {
    let finished = process.finish(limit);
    assert!(
        finished.status.success(),
        "redis-cli: {:?}\n{}\n{}",
        finished.status,
        finished.stdout.join("\n"),
        finished.stderr.join("\n")
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn slots_move_and_a_killed_master_is_replaced() {
        let mut cluster = RedisCluster::start(&RedisOptions::new());
        assert_eq!(cluster.masters().len(), 3);
        let old = cluster.master_of("a").expect("a master");
        cluster.nodes()[old].ask(&["SET", "{a}", "v"]);
        cluster.replicated("a", LIMIT);
        cluster.nodes_mut()[old].kill();
        let new = cluster.failover_done("a", old, LIMIT);
        assert_eq!(cluster.nodes()[new].ask(&["GET", "{a}"]).text(), "v");
        cluster.nodes_mut()[old].restart();
        cluster.await_complete(LIMIT);

        // All of its slots go to another node, so this one, too.
        let to = cluster.masters().into_iter().find(|master| *master != new).expect("three masters");
        let reshard = cluster.reshard(5_462, new, to);
        cluster.reshard_done(reshard, LIMIT);
        eventually("the slot has moved", LIMIT, || (cluster.master_of("a") == Some(to)).then_some(()));
        assert_eq!(cluster.nodes()[to].ask(&["GET", "{a}"]).text(), "v");
        assert!(cluster.slot_of("a") < 16_384);
    }

    #[test]
    fn a_cluster_can_speak_tls_and_ask_for_a_password() {
        let cluster = RedisCluster::start(&RedisOptions::new().tls().password("secret"));
        let master = cluster.master_of("a").expect("a master");
        cluster.nodes()[master].ask(&["SET", "{a}", "v"]);
        cluster.replicated("a", LIMIT);
    }
}
