//! What is known of a connection on which several messages are in flight: owns that state and its limits. It never sends and
//! never starts anything.

use std::rc::Rc;

use mcp_shard_store::id::ID_CHARS;

use super::patience::Patience;
use crate::door::answers::{Listener, Position};
use crate::exchange::Scope;
use crate::shard::tasks::TaskId;

/// Requests and notifications in flight per connection; above it nothing is read until one is done. While a server waits
/// for the client's own response that would be a deadlock: then reading goes on, up to twice as many, and requests above
/// the limit are refused.
pub(crate) const MAX_IN_FLIGHT: usize = 64;
/// Bytes of these messages, above which nothing is read either. A message of the largest size always fits, so one
/// connection holds less than 16 MiB and that.
const MAX_IN_FLIGHT_BYTES: usize = 16 << 20;
/// Places for messages in flight that an idle connection keeps: one call at a time needs no new ones.
const IDLE_FLIGHTS: usize = 4;

#[derive(Default)]
pub(crate) struct Framed {
    /// The server that messages go to.
    pub(crate) scope: Scope,
    /// What goes with every message that brings no credential of its own, where its session has none either.
    pub(crate) authorization: Option<Rc<str>>,
    pub(crate) session: Option<Session>,
    /// The client has said that it is done: the session ends with the connection.
    pub(crate) session_is_over: bool,
    /// How many sessions there were before it.
    pub(crate) session_number: u32,
    /// Bytes that do not make a frame's head yet, or that wait until the connection is read on.
    pub(crate) input: Vec<u8>,
    /// Frames that leave at the end of the turn.
    pub(crate) outbox: Vec<u8>,
    pub(crate) flights: Vec<Flight>,
    pub(crate) next_flight: u32,
    /// Nothing is read until this exchange is done: what follows `initialize` or `notifications/initialized` must not
    /// overtake it on its way to the server.
    pub(crate) barrier: Option<u32>,
    /// Waits until the client has read what is unsent, or until it may ask again; nothing is read until then.
    pub(crate) waiting: Option<TaskId>,
    /// The connection has had its share of the shard's turn; nothing is read until the next.
    pub(crate) resting: bool,
    /// Requests of servers that the client has not answered, as far as the gateway can tell.
    pub(crate) asked: usize,
    pub(crate) listener: Listener,
    /// How far the server's own stream has come.
    pub(crate) heard: Position,
    pub(crate) patience: Patience,
    /// No new request is served: the process drains, or the client takes its leave.
    pub(crate) leaving: bool,
    /// The connection ends: input means nothing any more.
    pub(crate) closing: bool,
}

/// A message in flight.
pub(crate) struct Flight {
    pub(crate) number: u32,
    /// The session that it belongs to, as the connection numbers them.
    pub(crate) session_number: u32,
    pub(crate) task: TaskId,
    /// The raw id of a request.
    pub(crate) id: Option<Rc<[u8]>>,
    pub(crate) bytes: usize,
    /// Of the modern era: cancelled by ending its exchange.
    pub(crate) modern: bool,
    /// A stream without an end of its own: it keeps the connection neither busy nor from closing.
    pub(crate) endless: bool,
    /// The message after which a legacy server may speak by itself.
    pub(crate) opens_stream: bool,
    /// The raw id of the legacy request that this message cancels.
    pub(crate) cancels: Option<Rc<[u8]>>,
}

impl Flight {
    /// The stream on which a legacy server speaks by itself; no request asked for it.
    pub(crate) fn is_listener(&self) -> bool {
        self.endless && self.id.is_none()
    }
}

/// The legacy session that the connection's messages belong to.
pub(crate) struct Session {
    pub(crate) id: [u8; ID_CHARS],
    pub(crate) revision: Option<Rc<str>>,
    /// What its `initialize` was sent with, where that is not the connection's own.
    pub(crate) authorization: Option<Rc<str>>,
}

impl Framed {
    /// Whether input must wait.
    pub(crate) fn is_blocked(&self) -> bool {
        self.barrier.is_some()
            || self.waiting.is_some()
            || self.resting
            || self.flights.len() >= if self.asked == 0 { MAX_IN_FLIGHT } else { 2 * MAX_IN_FLIGHT }
            || self.bytes_in_flight() >= MAX_IN_FLIGHT_BYTES
    }

    pub(crate) fn bytes_in_flight(&self) -> usize {
        self.flights.iter().map(|flight| flight.bytes).sum()
    }

    /// Whether somebody waits for something that has an end.
    pub(crate) fn is_busy(&self) -> bool {
        self.flights.iter().any(|flight| !flight.endless)
    }

    /// When nothing is in flight, no server waits for the client, and few places are kept for the next messages.
    pub(crate) fn on_flight_ended(&mut self) {
        if self.flights.is_empty() {
            self.asked = 0;
            if self.flights.capacity() > IDLE_FLIGHTS {
                self.flights = Vec::new();
            }
        }
    }
}
