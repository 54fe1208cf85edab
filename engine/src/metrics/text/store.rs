//! The part of the page about Redis and about limits: owns names and help lines of what the store's client, the sessions in
//! Redis and the limiter have counted. Never a number of its own.

use std::collections::BTreeMap;

use mcp_shard_store::redis::Health;
use mcp_shard_store::stats::{BreakerState, LATENCY_BOUNDS_US, Latency, NodeStats, SessionStats};

use super::super::{RateScope, Snapshot, StoreGauges};
use super::Page;

/// A node as one shard sees it, with that shard's number.
type Seen<'a> = (&'a NodeStats, String);

impl Page<'_> {
    pub(super) fn store(&mut self, shards: &[Snapshot]) {
        let seen: Vec<(&StoreGauges, &Snapshot)> =
            shards.iter().filter_map(|shard| Some((shard.gauges.store.as_ref()?, shard))).collect();
        if seen.is_empty() {
            return;
        }
        self.head("redis_up", "gauge", "1 while Redis serves every shard.");
        let up = seen.iter().all(|(store, _)| store.health != Health::Down);
        self.line("redis_up", &[], u8::from(up));
        let nodes: Vec<Seen<'_>> = seen
            .iter()
            .flat_map(|(store, shard)| store.client.nodes.iter().map(|node| (node, shard.shard.to_string())))
            .collect();
        self.nodes(&nodes);
        self.commands(&nodes);
        for (store, shard) in &seen {
            self.commands_of("none", &shard.shard.to_string(), &store.client.nowhere);
        }
        self.latencies(&nodes);
        let sessions: Vec<(&SessionStats, String)> = seen
            .iter()
            .filter_map(|(store, shard)| Some((store.sessions.as_ref()?, shard.shard.to_string())))
            .collect();
        if !sessions.is_empty() {
            self.sessions(&sessions);
        }
    }

    /// The store's breaker, where there is a store: the worst of all shards.
    pub(super) fn store_breaker(&mut self, shards: &[Snapshot]) {
        let stores = shards.iter().filter_map(|shard| shard.gauges.store.as_ref());
        if let Some(state) = worst(stores.map(|store| store.client.breaker)) {
            self.line("circuit_breaker_state", &[("server", "store"), ("endpoint", "redis")], state as u8);
        }
    }

    fn nodes(&mut self, nodes: &[Seen<'_>]) {
        self.each_node(
            nodes,
            "redis_node_up",
            "gauge",
            "1 while the shard is connected to the node.",
            |node| u64::from(node.up),
        );
        self.each_node(nodes, "redis_in_flight", "gauge", "Commands that wait for their reply.", |node| {
            node.in_flight
        });
        self.each_node(
            nodes,
            "redis_pipeline_depth",
            "gauge",
            "Most commands that left in one write since the last scrape.",
            |node| node.pipeline_depth,
        );
        self.each_node(
            nodes,
            "redis_reconnects_total",
            "counter",
            "Connections made to the node beyond the first.",
            |node| node.reconnects,
        );
        self.each_node(
            nodes,
            "redis_invalidations_total",
            "counter",
            "Keys that the node said have changed.",
            |node| node.invalidations,
        );
    }

    fn each_node(
        &mut self,
        nodes: &[Seen<'_>],
        name: &str,
        kind: &str,
        help: &str,
        value: impl Fn(&NodeStats) -> u64,
    ) {
        self.head(name, kind, help);
        for (node, shard) in nodes {
            self.line(name, &[("node", &node.address), ("shard", shard)], value(node));
        }
    }

    fn commands(&mut self, nodes: &[Seen<'_>]) {
        self.head("redis_redirects_total", "counter", "Redirects that the node answered with, by kind.");
        for (node, shard) in nodes {
            for (kind, count) in &node.redirects {
                let labels = [("node", node.address.as_str()), ("shard", shard), ("kind", kind)];
                self.line("redis_redirects_total", &labels, count);
            }
        }
        self.head(
            "redis_commands_total",
            "counter",
            "Commands by name and result; those of node none reached no node.",
        );
        for (node, shard) in nodes {
            self.commands_of(&node.address, shard, &node.commands);
        }
    }

    fn commands_of(&mut self, node: &str, shard: &str, commands: &[(&'static str, &'static str, u64)]) {
        for (command, result, count) in commands {
            let labels = [("node", node), ("shard", shard), ("command", command), ("result", result)];
            self.line("redis_commands_total", &labels, count);
        }
    }

    fn latencies(&mut self, nodes: &[Seen<'_>]) {
        self.head("redis_command_duration_seconds", "histogram", "From a command's call to its reply.");
        for (node, shard) in nodes {
            let labels = [("node", node.address.as_str()), ("shard", shard.as_str())];
            let Latency { counts, sum_us } = &node.latency;
            let name = "redis_command_duration_seconds";
            self.histogram(name, &labels, &LATENCY_BOUNDS_US, counts, *sum_us, &[]);
        }
    }

    fn sessions(&mut self, sessions: &[(&SessionStats, String)]) {
        self.head("session_cache_lookups_total", "counter", "Sessions looked up, by what served them.");
        for (stats, shard) in sessions {
            for (result, count) in &stats.lookups {
                self.line("session_cache_lookups_total", &[("result", result), ("shard", shard)], count);
            }
        }
        self.head("session_cache_entries", "gauge", "Copies of sessions in Redis.");
        for (stats, shard) in sessions {
            self.line("session_cache_entries", &[("shard", shard)], stats.cached);
        }
        self.head("sessions_unwritten", "gauge", "Sessions that wait to be written to Redis.");
        for (stats, shard) in sessions {
            self.line("sessions_unwritten", &[("shard", shard)], stats.unwritten);
        }
    }

    pub(super) fn limits(&mut self, shards: &[Snapshot]) {
        let limiters: Vec<_> = shards.iter().filter_map(|shard| shard.gauges.limiter.as_ref()).collect();
        if limiters.is_empty() {
            return;
        }
        let scopes = RateScope::LABELS.iter().enumerate();
        self.summed(
            "rate_limited_total",
            "Requests that were one too many, by what they are counted by.",
            "scope",
            scopes.map(|(index, label)| (*label, shards.iter().map(|shard| shard.rate_limited[index]).sum())),
        );
        let fallbacks = sum(limiters.iter().flat_map(|limiter| &limiter.fallbacks));
        self.summed(
            "rate_limit_fallback_total",
            "Requests that were limited without Redis, by reason.",
            "reason",
            fallbacks.into_iter(),
        );
    }
}

/// Rejecting is worse than probing, and probing than passing.
fn worst(states: impl Iterator<Item = BreakerState>) -> Option<BreakerState> {
    states.max_by_key(|state| match state {
        BreakerState::Closed => 0,
        BreakerState::HalfOpen => 1,
        BreakerState::Open => 2,
    })
}

fn sum<'a>(counts: impl Iterator<Item = &'a (&'static str, u64)>) -> BTreeMap<&'static str, u64> {
    let mut sum = BTreeMap::new();
    for (label, count) in counts {
        *sum.entry(*label).or_default() += count;
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mcp_shard_store::stats::{ClientStats, LimiterStats};

    use super::super::super::{Gauges, Metrics};
    use super::super::{Facts, Format, render};
    use super::*;

    fn gauges(health: Health, breaker: BreakerState) -> Gauges {
        let mut latency = Latency::default();
        latency.record(300);
        latency.record(900_000);
        let node = NodeStats {
            address: "h:1".to_owned(),
            up: health == Health::Up,
            commands: vec![("get", "ok", 2)],
            latency,
            in_flight: 3,
            pipeline_depth: 4,
            reconnects: 5,
            redirects: vec![("moved", 6)],
            invalidations: 7,
        };
        let sessions = SessionStats { lookups: vec![("hit", 8), ("miss", 9)], cached: 10, unwritten: 11 };
        Gauges {
            store: Some(StoreGauges {
                client: ClientStats { nodes: vec![node], nowhere: vec![("get", "unreachable", 2)], breaker },
                health,
                sessions: Some(sessions),
            }),
            limiter: Some(LimiterStats { fallbacks: vec![("unreachable", 12)] }),
            ..Gauges::default()
        }
    }

    fn page(gauges: impl IntoIterator<Item = Gauges>) -> String {
        let facts = Facts {
            servers: &[],
            processes: Vec::new(),
            certificates: &[],
            reloads: &crate::reload::Reloads::new(),
            endpoints: &[],
            uptime: Duration::ZERO,
            version: "1.2.3",
            executor: "epoll",
        };
        let shards: Vec<_> = gauges
            .into_iter()
            .enumerate()
            .map(|(shard, gauges)| {
                let metrics = Metrics::default();
                metrics.rate_limited(RateScope::Address);
                metrics.snapshot(shard, gauges)
            })
            .collect();
        render(Format::Text, &facts, &shards)
    }

    #[test]
    fn redis_is_told_of_by_node_and_shard_and_is_up_for_all_or_not() {
        let page =
            page([gauges(Health::Up, BreakerState::HalfOpen), gauges(Health::Down, BreakerState::Open)]);
        for line in [
            "mcp_gateway_redis_up 0",
            "mcp_gateway_circuit_breaker_state{server=\"store\",endpoint=\"redis\"} 1",
            "mcp_gateway_redis_node_up{node=\"h:1\",shard=\"0\"} 1",
            "mcp_gateway_redis_node_up{node=\"h:1\",shard=\"1\"} 0",
            "mcp_gateway_redis_in_flight{node=\"h:1\",shard=\"1\"} 3",
            "mcp_gateway_redis_pipeline_depth{node=\"h:1\",shard=\"1\"} 4",
            "mcp_gateway_redis_reconnects_total{node=\"h:1\",shard=\"1\"} 5",
            "mcp_gateway_redis_redirects_total{node=\"h:1\",shard=\"0\",kind=\"moved\"} 6",
            "mcp_gateway_redis_invalidations_total{node=\"h:1\",shard=\"1\"} 7",
            "mcp_gateway_redis_commands_total{node=\"h:1\",shard=\"1\",command=\"get\",result=\"ok\"} 2",
            "mcp_gateway_redis_commands_total{node=\"none\",shard=\"1\",command=\"get\",result=\"unreachable\"} 2",
            "mcp_gateway_redis_command_duration_seconds_bucket{node=\"h:1\",shard=\"0\",le=\"0.00025\"} 0",
            "mcp_gateway_redis_command_duration_seconds_bucket{node=\"h:1\",shard=\"0\",le=\"0.5\"} 1",
            "mcp_gateway_redis_command_duration_seconds_bucket{node=\"h:1\",shard=\"0\",le=\"+Inf\"} 2",
            "mcp_gateway_redis_command_duration_seconds_sum{node=\"h:1\",shard=\"0\"} 0.9003",
            "mcp_gateway_session_cache_lookups_total{result=\"hit\",shard=\"1\"} 8",
            "mcp_gateway_session_cache_entries{shard=\"0\"} 10",
            "mcp_gateway_sessions_unwritten{shard=\"1\"} 11",
            "mcp_gateway_rate_limited_total{scope=\"address\"} 2",
            "mcp_gateway_rate_limited_total{scope=\"principal\"} 0",
            "mcp_gateway_rate_limit_fallback_total{reason=\"unreachable\"} 24",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn impaired_is_up_and_without_redis_nothing_is_said_of_it() {
        let impaired = page([gauges(Health::Impaired, BreakerState::Closed)]);
        assert!(impaired.contains("\nmcp_gateway_redis_up 1\n"));
        let none = page([Gauges::default()]);
        assert!(!none.contains("redis") && !none.contains("rate_limit"), "{none}");
    }
}
