//! The metrics of endpoints that fail: owns names and help lines of breakers, health checks and retries. Never a number of
//! its own.

use std::collections::BTreeMap;

use super::super::{Retried, Snapshot};
use super::Page;
use crate::shard::table::endpoints::Health;

impl Page<'_> {
    pub(super) fn breakers(&mut self, shards: &[Snapshot]) {
        self.head(
            "circuit_breaker_state",
            "gauge",
            "0 closed, 1 open, 2 half-open; the store's is the worst of all shards.",
        );
        self.each_endpoint("circuit_breaker_state", |facts| Some(facts.breaker as u8));
        self.store_breaker(shards);
        self.head(
            "endpoint_healthy",
            "gauge",
            "1 while an endpoint's health checks succeed, 0 while they fail.",
        );
        self.each_endpoint("endpoint_healthy", |facts| match facts.health {
            Health::Unknown => None,
            known => Some(known as u8),
        });
        self.head(
            "retries_total",
            "counter",
            "Requests sent to a server again, and those that were not, by why.",
        );
        let mut totals: BTreeMap<(u16, usize), u64> = BTreeMap::new();
        for (labels, count) in shards.iter().flat_map(|shard| &shard.retries) {
            *totals.entry(*labels).or_default() += count;
        }
        for ((server, result), count) in totals {
            let (server, result) = (self.server(Some(server)).to_owned(), Retried::LABELS[result]);
            self.line("retries_total", &[("server", &server), ("result", result)], count);
        }
    }

    fn each_endpoint(&mut self, name: &str, value: impl Fn(&super::EndpointFacts) -> Option<u8>) {
        let facts = self.facts;
        for ((server, texts), endpoints) in facts.servers.iter().zip(facts.endpoints) {
            for (text, endpoint) in texts.iter().zip(endpoints) {
                // A place that nobody has at the moment has no text.
                if let Some(value) = value(endpoint).filter(|_| !text.is_empty()) {
                    self.line(name, &[("server", server), ("endpoint", text)], value);
                }
            }
        }
    }
}
