//! The metrics of servers on whose channel messages go both ways: owns their names and help lines. Never a number of its own.

use std::collections::BTreeMap;

use super::super::{ChannelEvent, Snapshot};
use super::Page;

impl Page<'_> {
    pub(super) fn channels(&mut self, shards: &[Snapshot]) {
        self.head(
            "upstream_channels",
            "gauge",
            "Open channels to servers on which messages go both ways without a request of HTTP.",
        );
        let mut open: BTreeMap<u16, u64> = BTreeMap::new();
        for (server, count) in shards.iter().flat_map(|shard| &shard.gauges.channels) {
            *open.entry(*server).or_default() += count;
        }
        for (server, count) in open {
            let name = self.server(Some(server)).to_owned();
            self.line("upstream_channels", &[("server", &name)], count);
        }
        self.head(
            "upstream_processes",
            "gauge",
            "Processes of a stdio server, those included that are to end.",
        );
        for (server, count) in self.facts.processes.clone() {
            let name = self.server(Some(server)).to_owned();
            self.line("upstream_processes", &[("server", &name)], count);
        }
        self.head(
            "upstream_channel_events_total",
            "counter",
            "What became of such channels (opened, lost, refused) and of messages on them (no message, unclaimed).",
        );
        let mut events: BTreeMap<u16, [u64; ChannelEvent::LABELS.len()]> = BTreeMap::new();
        for (server, counts) in shards.iter().flat_map(|shard| &shard.channel_events) {
            let sums = events.entry(*server).or_default();
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        for (server, counts) in events {
            let name = self.server(Some(server)).to_owned();
            for (label, count) in ChannelEvent::LABELS.iter().zip(counts) {
                self.line("upstream_channel_events_total", &[("server", &name), ("event", label)], count);
            }
        }
    }
}
