//! Those who wait for a reply: owns each command's bytes for as long as it may have to be sent again, its deadline and its
//! outcome. Never a connection.
//!
//! Invariant: a waiter's place is given back by its own [`Waiting`](super::client) alone; a reply for a waiter that has gone
//! concerns nobody.

use std::rc::Rc;
use std::task::Waker;

use mcp_protocol::resp::{Reply, write_command};
use slab::Slab;

use super::command::{Command, Effect, Lane};
use super::replicated::WaitGroup;
use crate::{Millis, StoreError};

/// Buffers of finished commands that are kept for the next ones, and how large each may be: 1,024 × 4 KiB per shard at the
/// very most.
const SPARE_BUFFERS: usize = 1_024;
const SPARE_BUFFER_BYTES: usize = 4 << 10;

/// Names a waiter: its place, and a number by which an earlier one of the same place is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaiterId {
    place: u32,
    number: u32,
}

#[cfg(test)]
impl WaiterId {
    /// An id of no waiter.
    pub(crate) fn for_test(number: u32) -> Self {
        WaiterId { place: u32::MAX, number }
    }
}

pub(crate) struct Waiter {
    number: u32,
    pub(crate) name: &'static str,
    /// As it is sent.
    pub(crate) bytes: Vec<u8>,
    pub(crate) effect: Effect,
    pub(crate) lane: Lane,
    /// The key's slot, where the topology has slots.
    pub(crate) slot: Option<u16>,
    pub(crate) deadline: Millis,
    pub(crate) started_us: u64,
    /// How often it was sent again because its connection broke.
    pub(crate) resent: u8,
    /// How often it followed a redirect.
    pub(crate) redirects: u8,
    /// Replicas that must have it, and how long they may take in milliseconds; 0: none.
    pub(crate) replicas: (u32, u64),
    /// The `WAIT` that follows it.
    pub(crate) group: Option<Rc<WaitGroup>>,
    pub(crate) outcome: Option<Result<Reply, StoreError>>,
    /// It had its outcome, taken or not.
    pub(crate) finished: bool,
    pub(crate) waker: Option<Waker>,
}

#[derive(Default)]
pub(crate) struct Waiters {
    slab: Slab<Waiter>,
    numbered: u32,
    spare: Vec<Vec<u8>>,
}

/// What is known of a command besides its description.
pub(crate) struct Start {
    pub(crate) lane: Lane,
    pub(crate) slot: Option<u16>,
    pub(crate) deadline: Millis,
    pub(crate) started_us: u64,
    pub(crate) replicas: (u32, u64),
}

impl Waiters {
    pub(crate) fn insert(&mut self, command: &Command<'_>, start: Start) -> WaiterId {
        let mut bytes = self.spare.pop().unwrap_or_default();
        write_command(&mut bytes, command.args);
        self.numbered = self.numbered.wrapping_add(1);
        let number = self.numbered;
        let place = self.slab.insert(Waiter {
            number,
            name: command.name,
            bytes,
            effect: command.effect,
            lane: start.lane,
            slot: start.slot,
            deadline: start.deadline,
            started_us: start.started_us,
            resent: 0,
            redirects: 0,
            replicas: start.replicas,
            group: None,
            outcome: None,
            finished: false,
            waker: None,
        });
        WaiterId { place: place as u32, number }
    }

    /// A waiter that is still there and had no outcome yet.
    pub(crate) fn waiting(&mut self, id: WaiterId) -> Option<&mut Waiter> {
        self.get(id).filter(|waiter| !waiter.finished)
    }

    pub(crate) fn get(&mut self, id: WaiterId) -> Option<&mut Waiter> {
        self.slab.get_mut(id.place as usize).filter(|waiter| waiter.number == id.number)
    }

    /// The slots of the commands that wait for their outcome.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u16> {
        self.slab.iter().filter(|(_, waiter)| waiter.outcome.is_none()).filter_map(|(_, waiter)| waiter.slot)
    }

    pub(crate) fn remove(&mut self, id: WaiterId) -> Option<Waiter> {
        self.get(id)?;
        let mut waiter = self.slab.remove(id.place as usize);
        let mut bytes = std::mem::take(&mut waiter.bytes);
        if self.spare.len() < SPARE_BUFFERS && bytes.capacity() <= SPARE_BUFFER_BYTES {
            bytes.clear();
            self.spare.push(bytes);
        }
        Some(waiter)
    }
}
