//! The part of the page about requests to servers: owns names and help lines of what is counted of them and of the
//! connections that they take. Never a number of its own.

use std::collections::BTreeMap;

use super::super::Snapshot;
use super::super::labels::status_text;
use super::super::latency::{BUCKETS, Latency};
use super::Page;

impl Page<'_> {
    pub(super) fn upstream(&mut self, shards: &[Snapshot]) {
        let mut totals: BTreeMap<(String, String, u16), Latency> = BTreeMap::new();
        for (labels, latency) in shards.iter().flat_map(|shard| &shard.upstream) {
            let key = (
                self.server(Some(labels.server)).to_owned(),
                self.endpoint(labels.server, labels.endpoint).to_owned(),
                labels.status,
            );
            totals.entry(key).or_default().add(latency);
        }
        self.head(
            "upstream_requests_total",
            "counter",
            "Requests sent to an upstream, by its answer's status.",
        );
        for ((server, endpoint, status), latency) in &totals {
            let labels =
                [("server", server.as_str()), ("endpoint", endpoint), ("status", &status_text(*status))];
            self.line("upstream_requests_total", &labels, latency.count());
        }
        self.head(
            "upstream_duration_seconds",
            "histogram",
            "From a request's first byte out to its answer's head.",
        );
        for ((server, endpoint, status), latency) in &totals {
            let labels =
                [("server", server.as_str()), ("endpoint", endpoint), ("status", &status_text(*status))];
            self.latency("upstream_duration_seconds", &labels, latency, &[None; BUCKETS]);
        }
        self.head("upstream_pool_connections", "gauge", "Connections to upstreams, by state.");
        let mut pools: BTreeMap<(u16, u16), (u64, u64)> = BTreeMap::new();
        for &(server, endpoint, in_use, idle) in shards.iter().flat_map(|shard| &shard.gauges.pools) {
            let sum = pools.entry((server, endpoint)).or_default();
            sum.0 += in_use;
            sum.1 += idle;
        }
        for ((server, endpoint), (in_use, idle)) in pools {
            let (name, text) =
                (self.server(Some(server)).to_owned(), self.endpoint(server, endpoint).to_owned());
            for (state, count) in [("in_use", in_use), ("idle", idle)] {
                self.line(
                    "upstream_pool_connections",
                    &[("server", &name), ("endpoint", &text), ("state", state)],
                    count,
                );
            }
        }
    }
}
