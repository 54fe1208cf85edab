//! The part of the page about downstream connections: owns names and help lines of what is counted of them and of frames on
//! them. Never a number of its own.

use mcp_protocol::mcpb::FrameKind;

use super::super::{Direction, Handshake, Protocol, Rejection, Snapshot};
use super::{Page, merge};

impl Page<'_> {
    pub(super) fn connections(&mut self, shards: &[Snapshot]) {
        self.head("connections_active", "gauge", "Open downstream connections.");
        for shard in shards {
            for protocol in Protocol::ALL {
                let active = shard.connections_active[protocol as usize];
                self.line(
                    "connections_active",
                    &[("protocol", protocol.label()), ("shard", &shard.shard.to_string())],
                    active,
                );
            }
        }
        self.head(
            "connections_total",
            "counter",
            "Downstream connections accepted; one that turns to another protocol counts under both.",
        );
        for shard in shards {
            for protocol in Protocol::ALL {
                let total = shard.connections_total[protocol as usize];
                self.line(
                    "connections_total",
                    &[("protocol", protocol.label()), ("shard", &shard.shard.to_string())],
                    total,
                );
            }
        }
        self.summed("connections_rejected_total", "Connections turned away or cut, by reason.", "reason", {
            Rejection::LABELS
                .iter()
                .enumerate()
                .map(|(index, label)| (*label, shards.iter().map(|shard| shard.rejections[index]).sum()))
        });
        self.summed("handshakes_total", "TLS handshakes, by result.", "result", {
            Handshake::LABELS
                .iter()
                .enumerate()
                .map(|(index, label)| (*label, shards.iter().map(|shard| shard.handshakes[index]).sum()))
        });
        self.summed(
            "tcp_protocol_errors_total",
            "Frames that broke the binary protocol.",
            "error_type",
            merge(shards.iter().map(|shard| &shard.frame_errors)).into_iter(),
        );
        self.summed(
            "h2_errors_total",
            "HTTP/2 connections ended for what the client did, by error code.",
            "reason",
            merge(shards.iter().map(|shard| &shard.h2_errors)).into_iter(),
        );
    }

    pub(super) fn frames(&mut self, shards: &[Snapshot]) {
        let connections: u64 =
            shards.iter().map(|shard| shard.connections_active[Protocol::Mcpb as usize]).sum();
        self.head("tcp_connections_active", "gauge", "Open connections of the binary protocol.");
        self.line("tcp_connections_active", &[], connections);
        self.head("tcp_messages_total", "counter", "Frames of the binary protocol.");
        for (direction, label) in Direction::LABELS.iter().enumerate() {
            for kind in FrameKind::ALL {
                let count: u64 = shards.iter().map(|shard| shard.frames[direction][*kind as usize - 1]).sum();
                self.line("tcp_messages_total", &[("direction", label), ("type", kind.label())], count);
            }
        }
        self.summed(
            "tcp_bytes_total",
            "Bytes of the binary protocol's frames, headers included.",
            "direction",
            Direction::LABELS.iter().enumerate().map(|(direction, label)| {
                (*label, shards.iter().map(|shard| shard.frame_bytes[direction]).sum())
            }),
        );
    }

    pub(super) fn sockets(&mut self, shards: &[Snapshot]) {
        self.summed(
            "ws_messages_total",
            "Text messages of WebSockets.",
            "direction",
            Direction::LABELS.iter().enumerate().map(|(direction, label)| {
                (*label, shards.iter().map(|shard| shard.ws_messages[direction]).sum())
            }),
        );
        self.summed(
            "ws_closes_total",
            "Close frames sent to WebSockets.",
            "reason",
            merge(shards.iter().map(|shard| &shard.ws_closes)).into_iter(),
        );
    }
}
