//! The metrics of the way between shards and pods: owns their names and help lines. Never a number of its own.

use super::super::{Direction, PeerKind, PeerResult, Snapshot};
use super::Page;

impl Page<'_> {
    pub(super) fn peers(&mut self, shards: &[Snapshot]) {
        self.head(
            "peer_messages_total",
            "counter",
            "Messages on their way to the owner of their session, by what became of them.",
        );
        for (direction, direction_label) in Direction::LABELS.iter().enumerate() {
            for (result, label) in PeerResult::LABELS.iter().enumerate() {
                let count: u64 = shards.iter().map(|shard| shard.peer_messages[direction][result]).sum();
                let labels = [("direction", *direction_label), ("result", *label)];
                self.line("peer_messages_total", &labels, count);
            }
        }
        self.head(
            "peer_connections",
            "gauge",
            "Open connections between owners; one between two shards counts at both of its ends.",
        );
        for (kind, label) in PeerKind::LABELS.iter().enumerate() {
            let count: u64 = shards.iter().map(|shard| shard.peer_connections[kind]).sum();
            self.line("peer_connections", &[("peer_kind", label)], count);
        }
    }
}
