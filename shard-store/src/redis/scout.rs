//! Asking a cluster's nodes who serves what: owns the task that asks, one node at a time and apart from all traffic. Never
//! what follows from the answer.
//!
//! It asks at the start, whenever somebody rings (a slot has moved, a node does not answer), and four times a second while
//! a node of the table is not connected or a slot has none, so that a failover is seen soon after it is done. Then a
//! different node is asked each time, for one of them may be cut off from the rest. Each question has a connection of its
//! own, so it never waits behind traffic, and a node that is silent holds up nothing else.

use std::rc::{Rc, Weak};

use mcp_protocol::resp::Reply;

use super::client::Client;
use super::cluster::Map;
use super::layout::{Layout, read_shards, read_slots};
use super::link::Link;
use super::login::{LoginError, login};
use super::pause::{jittered, pause};
use super::sources::Sources;
use crate::runtime::{Address, Runtime};
use crate::{Millis, StoreError};

/// The least pause between two questions, in milliseconds.
const GAP_MS: Millis = 50;
/// How often the table is asked for while something is wrong with it, in milliseconds; jittered.
const URGENT_MS: Millis = 250;

/// Asks until the topology is closed, or the client is gone.
pub(super) async fn scout<R: Runtime>(runtime: R, map: Rc<Map<R>>, client: Weak<Client<R>>) {
    let mut sources = Sources::new(map.seeds.clone());
    let mut in_vain = 0;
    let mut said = String::new();
    while !map.is_closed() {
        // Those that are known not to answer are asked last; if that is all of them, they are asked all the same.
        for _ in 1..sources.len() {
            match sources.first().filter(|first| map.is_down(first)) {
                Some(first) => sources.postpone(&first),
                None => break,
            }
        }
        let Some(source) = sources.first() else { return };
        let asked = runtime.deadline(runtime.now() + map.ask_ms, ask(&runtime, &map, &source)).await;
        let Some(client) = client.upgrade() else { return };
        match asked.unwrap_or(Err(LoginError::Timeout)) {
            Ok(layout) => {
                let masters = layout.masters.iter().map(|master| &master.address);
                sources.learned(masters.chain(&layout.replicas));
                map.on_layout(&client, &layout);
                (in_vain, said) = (0, String::new());
            }
            Err(error) => {
                in_vain += 1;
                let text = error.to_string();
                if text != said {
                    tracing::warn!(node = %source, error = text, "the node does not tell the cluster's table");
                    said = text;
                }
                sources.postpone(&source);
                if in_vain < sources.len() {
                    continue;
                }
                in_vain = 0;
                map.on_silence(&client);
            }
        }
        drop(client);
        if map.is_well() {
            map.bell.rung().await;
            pause(&runtime, GAP_MS).await;
        } else {
            sources.postpone(&source);
            pause(&runtime, jittered(URGENT_MS)).await;
        }
    }
}

/// One question to one node.
async fn ask<R: Runtime>(runtime: &R, map: &Map<R>, source: &Address) -> Result<Layout, LoginError> {
    let mut link = Link::new(runtime.connect(source).await?, map.max_reply_bytes);
    login(&mut link, &map.login).await?;
    let shards = link.ask(&[b"CLUSTER", b"SHARDS"]).await?;
    if let Some(layout) = read_shards(&shards, source, map.tls) {
        return Ok(layout);
    }
    // Redis before 7, or a master whose host stands only in the older answer.
    let slots = link.ask(&[b"CLUSTER", b"SLOTS"]).await?;
    if let Reply::Error(text) = &slots {
        return Err(LoginError::Refused(StoreError::refused(text)));
    }
    read_slots(&slots, source).ok_or(LoginError::Refused(StoreError::Malformed("no table of slots")))
}
