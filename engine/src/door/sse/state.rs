//! What is known of a stream: owns its state and the limits of what it may have in flight. It never sends and never starts
//! anything.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::Waker;

use super::stream::Arrived;
use crate::door::answers::{Held, Listener, Position};
use crate::shard::tasks::TaskId;

/// Messages of a stream in flight; a request above it is refused, a response or notification above twice as many: servers
/// that wait for responses must get them.
pub(super) const MAX_IN_FLIGHT: usize = 64;
/// Bytes of these messages. A message of the largest size always fits while nothing else is in flight.
pub(super) const MAX_IN_FLIGHT_BYTES: usize = 16 << 20;

#[derive(Default)]
pub(super) struct State {
    pub(super) flights: Vec<Flight>,
    pub(super) next_flight: u32,
    /// Messages that came while the barrier is up, in their order.
    pub(super) waiting: VecDeque<(Arrived, Held)>,
    /// Nothing is started until this exchange is done: what follows `initialize` or `notifications/initialized` must not
    /// overtake it on its way to the server.
    pub(super) barrier: Option<u32>,
    pub(super) listener: Listener,
    /// How far the server's own stream has come.
    pub(super) heard: Position,
    /// `initialize` has been answered.
    pub(super) initialized: bool,
    /// The agreed revision, where its messages must name it.
    pub(super) revision: Option<Rc<str>>,
    /// What the last message brought with it; goes with what the gateway sends by itself.
    pub(super) with: With,
    pub(super) ended: bool,
    /// The task that waits for the end.
    pub(super) waker: Option<Waker>,
}

/// What comes beside a message.
#[derive(Clone, Default)]
pub(crate) struct With {
    /// The `Authorization` field's value.
    pub(crate) authorization: Option<Rc<str>>,
    /// Other header lines for the server.
    pub(crate) fields: Option<Rc<[u8]>>,
    /// Who sent it.
    pub(crate) peer: Option<IpAddr>,
}

/// A message in flight.
pub(super) struct Flight {
    pub(super) number: u32,
    pub(super) task: TaskId,
    /// The raw id of a request.
    pub(super) id: Option<Rc<[u8]>>,
    pub(super) held: Held,
    /// Of the modern era: cancelled by ending its exchange.
    pub(super) modern: bool,
    /// A stream without an end of its own.
    pub(super) endless: bool,
    /// The message after which a legacy server may speak by itself.
    pub(super) opens_stream: bool,
    /// The raw id of the legacy request that this message cancels.
    pub(super) cancels: Option<Rc<[u8]>>,
}

impl Flight {
    /// The stream on which a legacy server speaks by itself; no request asked for it.
    pub(super) fn is_listener(&self) -> bool {
        self.endless && self.id.is_none()
    }
}

impl State {
    /// Messages that have been taken and are not done.
    pub(super) fn taken(&self) -> usize {
        self.flights.len() + self.waiting.len()
    }

    pub(super) fn bytes(&self) -> usize {
        let waiting = self.waiting.iter().map(|(_, held)| held.bytes);
        self.flights.iter().map(|flight| flight.held.bytes).chain(waiting).sum()
    }

    /// Whether somebody waits for something that has an end.
    pub(super) fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || self.flights.iter().any(|flight| !flight.endless)
    }

    pub(super) fn take_flight(&mut self, id: &[u8], modern: bool) -> Option<Flight> {
        let is_it = |flight: &Flight| flight.modern == modern && flight.id.as_deref() == Some(id);
        let place = self.flights.iter().position(is_it)?;
        Some(self.flights.swap_remove(place))
    }
}
