//! The part of the page about requests: owns names and help lines of what is counted of them, over all shards and by shard.
//! Never a number of its own.

use std::collections::BTreeMap;

use super::super::exemplars::Exemplar;
use super::super::labels::status_text;
use super::super::latency::{BUCKETS, Latency};
use super::super::{AuthFailure, OrphanResult, Protocol, RequestLabels, Shed, Snapshot};
use super::{Page, merge, method_label};

const DURATION_HELP: &str =
    "From a message's last byte in to its answer's last byte out, listening streams left out.";

impl Page<'_> {
    pub(super) fn requests(&mut self, shards: &[Snapshot]) {
        self.head("requests_in_flight", "gauge", "Exchanges that have not been answered in full.");
        self.line("requests_in_flight", &[], shards.iter().map(|shard| shard.in_flight).sum::<u64>());
        self.head("orphans_active", "gauge", "Legacy exchanges that go on without their client.");
        self.line("orphans_active", &[], shards.iter().map(|shard| shard.gauges.orphans).sum::<u64>());
        self.summed(
            "orphans_total",
            "Legacy exchanges that their client left before their answer was complete, by what became of them.",
            "result",
            OrphanResult::LABELS
                .iter()
                .enumerate()
                .map(|(index, label)| (*label, shards.iter().map(|shard| shard.orphans[index]).sum())),
        );
        self.summed(
            "routing_errors_total",
            "Requests that the gateway itself answered with an error.",
            "reason",
            merge(shards.iter().map(|shard| &shard.refusals)).into_iter(),
        );
        self.summed(
            "auth_failures_total",
            "Messages and connections of somebody else than who may send them, by who was to be there.",
            "reason",
            AuthFailure::LABELS
                .iter()
                .enumerate()
                .map(|(index, label)| (*label, shards.iter().map(|shard| shard.auth_failures[index]).sum())),
        );
        self.summed(
            "requests_shed_total",
            "Requests refused for lack of capacity, with Retry-After.",
            "reason",
            Shed::LABELS
                .iter()
                .enumerate()
                .map(|(index, label)| (*label, shards.iter().map(|shard| shard.shed[index]).sum())),
        );
        self.lists(shards);
        self.answered(shards);
        self.durations(shards);
        self.shard_durations(shards);
    }

    fn lists(&mut self, shards: &[Snapshot]) {
        self.head(
            "federation_missing_total",
            "counter",
            "Parts of answers of all servers that a server did not give.",
        );
        let mut missing: BTreeMap<(String, &str), u64> = BTreeMap::new();
        for ((server, method), times) in shards.iter().flat_map(|shard| &shard.missing) {
            let key = (self.server(Some(*server)).to_owned(), method_label(*method));
            *missing.entry(key).or_default() += times;
        }
        for ((server, method), times) in &missing {
            self.line("federation_missing_total", &[("server", server), ("method", method)], *times);
        }

        self.head(
            "list_cache_hits_total",
            "counter",
            "Lists that were answered without asking their server.",
        );
        let mut hits: BTreeMap<String, u64> = BTreeMap::new();
        for (server, times) in shards.iter().flat_map(|shard| &shard.lists_from_memory) {
            *hits.entry(self.server(Some(*server)).to_owned()).or_default() += times;
        }
        for (server, times) in &hits {
            self.line("list_cache_hits_total", &[("server", server)], *times);
        }
    }

    fn answered(&mut self, shards: &[Snapshot]) {
        self.head("requests_total", "counter", "Messages answered.");
        let mut totals: BTreeMap<(Option<u16>, u8, u16, Protocol), u64> = BTreeMap::new();
        for (labels, counted) in shards.iter().flat_map(|shard| &shard.requests) {
            let key = (labels.server, labels.method, labels.status, labels.protocol);
            *totals.entry(key).or_default() += counted.answered;
        }
        for ((server, method, status, protocol), count) in totals {
            let labels = [
                ("server", self.server(server)),
                ("method", method_label(method)),
                ("status", &status_text(status)),
                ("protocol", protocol.label()),
            ];
            self.line("requests_total", &labels, count);
        }
    }

    /// Over all shards, for how long what takes.
    fn durations(&mut self, shards: &[Snapshot]) {
        let mut sums: BTreeMap<(Option<u16>, u8), Latency> = BTreeMap::new();
        for (labels, counted) in
            shards.iter().flat_map(|shard| &shard.requests).filter(|(_, counted)| counted.latency.count() > 0)
        {
            sums.entry((labels.server, labels.method)).or_default().add(&counted.latency);
        }
        self.head("request_duration_seconds", "histogram", DURATION_HELP);
        for ((server, method), latency) in &sums {
            let exemplars = latest(shards, |labels| (labels.server, labels.method) == (*server, *method));
            let labels = [("server", self.server(*server)), ("method", method_label(*method))];
            self.latency("request_duration_seconds", &labels, latency, &exemplars);
        }
    }

    /// The same by shard, for whether they do equally well.
    fn shard_durations(&mut self, shards: &[Snapshot]) {
        self.head("shard_request_duration_seconds", "histogram", DURATION_HELP);
        for shard in shards {
            let mut sums = [Latency::default(); Protocol::ALL.len()];
            for (labels, counted) in &shard.requests {
                sums[labels.protocol as usize].add(&counted.latency);
            }
            let number = shard.shard.to_string();
            for protocol in Protocol::ALL.into_iter().filter(|&each| sums[each as usize].count() > 0) {
                let exemplars = latest(std::slice::from_ref(shard), |labels| labels.protocol == protocol);
                let labels = [("protocol", protocol.label()), ("shard", number.as_str())];
                let latency = &sums[protocol as usize];
                self.latency("shard_request_duration_seconds", &labels, latency, &exemplars);
            }
        }
    }
}

/// By bucket, the newest of the shards' exemplars that belong to a series.
fn latest(shards: &[Snapshot], belongs: impl Fn(&RequestLabels) -> bool) -> [Option<&Exemplar>; BUCKETS] {
    std::array::from_fn(|bucket| {
        let of_bucket = shards.iter().filter_map(|shard| shard.exemplars[bucket].as_ref());
        of_bucket.filter(|exemplar| belongs(&exemplar.labels)).max_by_key(|exemplar| exemplar.traced.unix_ms)
    })
}
