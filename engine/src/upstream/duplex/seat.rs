//! The seat of a legacy session at a hub: owns its requests in flight, who listens for what belongs to none of them, and what
//! waits for a listener to come. Never another session's messages.

use std::collections::VecDeque;
use std::rc::Rc;

use super::SeatId;
use super::flight::{Flight, Purpose};
use super::hub::{Hub, listener};
use super::queue::Queue;
use crate::shard::clock::Millis;

/// Messages, and their bytes, that wait for a session's stream: what a server says between two streams of a client that
/// resumes. Together 256 KiB and one message per session.
const MAX_WAITING: usize = 256;
const MAX_WAITING_BYTES: usize = 256 << 10;

#[derive(Default)]
pub(super) struct Seat {
    pub(super) flights: Vec<Rc<Flight>>,
    pub(super) listeners: Vec<Rc<Queue>>,
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    pub(super) used_at: Millis,
    /// The server holds something of the session's that a new process would not know.
    pub(super) has_state: bool,
}

/// Which way a message that belongs to no request takes, where there are several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefer {
    /// What is asked or said while a request is served most likely belongs to it.
    Request,
    /// News of the server.
    Listener,
}

impl Seat {
    pub(super) fn new(now: Millis) -> Self {
        Seat { used_at: now, ..Seat::default() }
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.flights.is_empty() || !self.listeners.is_empty()
    }

    /// Brings a message to the client: with the latest request's answer, on the latest stream, or on the one to come. Gives it
    /// back when as many wait as may.
    pub(super) fn deliver(&mut self, message: Vec<u8>, prefer: Prefer) -> Result<(), Vec<u8>> {
        let open = |flight: &&Rc<Flight>| flight.is_due() && flight.purpose != Purpose::Opens;
        let flight = self.flights.iter().rev().find(open);
        match (flight, self.listeners.last(), prefer) {
            (Some(flight), None, _) | (Some(flight), Some(_), Prefer::Request) => flight.push(message),
            (_, Some(listener), _) => listener.push(message),
            (None, None, _) => return self.keep(message),
        }
        Ok(())
    }

    /// Whether a message would reach somebody now.
    pub(super) fn is_heard(&self) -> bool {
        !self.listeners.is_empty() || self.flights.iter().any(|flight| flight.is_due())
    }

    fn keep(&mut self, message: Vec<u8>) -> Result<(), Vec<u8>> {
        if self.waiting.len() >= MAX_WAITING || self.waiting_bytes >= MAX_WAITING_BYTES {
            return Err(message);
        }
        self.waiting_bytes += message.len();
        self.waiting.push_back(message);
        Ok(())
    }

    /// What the stream that ended had not passed on waits for the next one, before what came later.
    fn keep_unheard(&mut self, unheard: VecDeque<Vec<u8>>) {
        for message in unheard.into_iter().rev() {
            self.waiting_bytes += message.len();
            self.waiting.push_front(message);
        }
    }

    /// Those who wait on it look again.
    pub(super) fn wake(&self) {
        self.listeners.iter().for_each(|listener| listener.wake());
    }
}

impl Hub {
    pub(super) fn add_seat(&self, seat: SeatId, now: Millis) {
        self.state.borrow_mut().seats.insert(seat, Seat::new(now));
    }

    pub(super) fn has_seat(&self, seat: SeatId) -> bool {
        self.state.borrow().seats.contains_key(&seat)
    }

    /// A message of the seat's came, which extends its life.
    pub(super) fn use_seat(&self, seat: Option<SeatId>, now: Millis) {
        let mut state = self.state.borrow_mut();
        state.touch(now);
        if let Some(seat) = seat.and_then(|seat| state.seats.get_mut(&seat)) {
            seat.used_at = now;
        }
    }

    /// The server holds something of the session's from here on.
    pub(super) fn note_state(&self, seat: SeatId) {
        if let Some(seat) = self.state.borrow_mut().seats.get_mut(&seat) {
            seat.has_state = true;
        }
    }

    /// Opens a stream for what belongs to no request; `None` when the session has ended.
    pub(super) fn listen(&self, seat: SeatId, now: Millis) -> Option<Rc<Queue>> {
        let mut state = self.state.borrow_mut();
        state.touch(now);
        let seat = state.seats.get_mut(&seat)?;
        seat.used_at = now;
        let queue = listener(&self.backlog);
        seat.waiting_bytes = 0;
        seat.waiting.drain(..).for_each(|message| queue.push(message));
        seat.listeners.push(queue.clone());
        Some(queue)
    }

    /// A client listens no more.
    pub(super) fn on_deaf(&self, seat: SeatId, queue: &Rc<Queue>) {
        let unheard = queue.take_all();
        if let Some(seat) = self.state.borrow_mut().seats.get_mut(&seat) {
            seat.listeners.retain(|other| !Rc::ptr_eq(other, queue));
            seat.keep_unheard(unheard);
        }
    }

    /// A session has ended; a channel that was its own ends with it.
    pub(super) fn end_seat(&self, seat: SeatId) {
        let ended = self.state.borrow_mut().seats.remove(&seat);
        if let Some(ended) = ended {
            ended.wake();
            if !self.is_shared {
                self.end();
            }
        }
    }

    /// Ends the seats that nobody used since `before`; says whether any are left.
    pub(super) fn end_unused(&self, before: Millis) -> bool {
        let state = self.state.borrow();
        let unused = state.seats.iter().filter(|(_, seat)| !seat.is_busy() && seat.used_at < before);
        let unused: Vec<SeatId> = unused.map(|(id, _)| *id).collect();
        drop(state);
        unused.into_iter().for_each(|seat| self.end_seat(seat));
        !self.state.borrow().seats.is_empty()
    }
}
