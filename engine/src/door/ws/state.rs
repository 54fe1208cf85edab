//! What is known of a socket: owns its state and the limits of what it may have in flight. It never sends and never starts
//! anything.

use std::rc::Rc;
use std::time::Duration;

use mcp_protocol::ws::Reader;
use mcp_shard_store::id::ID_CHARS;

use super::patience::Patience;
use super::position::Position;
use crate::shard::tasks::TaskId;

/// Requests and notifications in flight per socket; above it nothing is read until one is done. While a server waits for
/// the client's own response that would be a deadlock: then reading goes on, up to twice as many, and requests above the
/// limit are refused.
pub(super) const MAX_IN_FLIGHT: usize = 64;
/// Bytes of these messages, above which nothing is read either. A message of the largest size always fits, so one socket
/// holds less than 16 MiB and `max_body`.
const MAX_IN_FLIGHT_BYTES: usize = 16 << 20;
/// Places for messages in flight that an idle socket keeps: one call at a time needs no new ones.
const IDLE_FLIGHTS: usize = 4;
/// The longest pause before a server's own stream that ended is opened again: pauses double while nothing comes on it.
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// How often in a row an answer's stream may end without a message before its request is given up.
pub(in crate::door) const MAX_RESUMES: u32 = 16;

pub(crate) struct Ws {
    /// The server that the path named.
    pub(super) server: usize,
    /// The upgrade's `Authorization`, which goes with every message.
    pub(super) authorization: Option<Rc<str>>,
    pub(super) session: Option<Session>,
    /// How many sessions there were before it.
    pub(super) session_number: u32,
    pub(super) reader: Reader,
    /// Bytes that do not make a frame's head yet, or that wait until the socket is read on.
    pub(super) input: Vec<u8>,
    /// Frames that leave at the end of the turn.
    pub(super) outbox: Vec<u8>,
    pub(super) flights: Vec<Flight>,
    pub(super) next_flight: u32,
    /// Nothing is read until this exchange is done: what follows `initialize` or `notifications/initialized` must not
    /// overtake it on its way to the server.
    pub(super) barrier: Option<u32>,
    /// Waits until the client has read what is unsent, or until it may ask again; nothing is read until then.
    pub(super) waiting: Option<TaskId>,
    /// Uses the session once in a while.
    pub(super) touching: Option<TaskId>,
    /// The socket has had its share of the shard's turn; nothing is read until the next.
    pub(super) resting: bool,
    /// Requests of servers that the client has not answered, as far as the gateway can tell.
    pub(super) asked: usize,
    pub(super) listener: Listener,
    /// How far the server's own stream has come.
    pub(super) heard: Position,
    pub(super) patience: Patience,
    /// The process drains: the socket closes when nothing is in flight.
    pub(super) leaving: bool,
    /// The socket ends: input means nothing any more.
    pub(super) closing: bool,
}

/// A message in flight.
pub(super) struct Flight {
    pub(super) number: u32,
    /// The session that it belongs to, as the socket numbers them.
    pub(super) session_number: u32,
    pub(super) task: TaskId,
    /// The raw id of a request.
    pub(super) id: Option<Rc<[u8]>>,
    pub(super) bytes: usize,
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

/// The legacy session that the socket's messages belong to.
pub(super) struct Session {
    pub(super) id: [u8; ID_CHARS],
    pub(super) revision: Option<Rc<str>>,
}

/// The stream on which a legacy server speaks by itself (GET over HTTP).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::door) enum Listener {
    /// The session is not ready for one, or the server has none.
    #[default]
    Off,
    Up {
        /// The pause that preceded it.
        pause: Duration,
    },
    /// It ended, and is opened again after this pause.
    Pausing { pause: Duration },
}

impl Listener {
    pub(in crate::door) fn up(self) -> Self {
        match self {
            Listener::Pausing { pause } => Listener::Up { pause },
            Listener::Off | Listener::Up { .. } => Listener::Up { pause: Duration::ZERO },
        }
    }

    /// After the stream's end; `status` is that of its head, `heard` how far it came.
    pub(in crate::door) fn down(self, status: u16, heard: &Position) -> Self {
        let Listener::Up { pause } = self else { return self };
        match status {
            _ if (200..300).contains(&status) && heard.moved => Listener::Pausing { pause: heard.pause() },
            200..300 | 429 | 500 | 502..600 => {
                Listener::Pausing { pause: (pause * 2).max(heard.pause()).min(LAST_PAUSE) }
            }
            // 405: the server has no such stream.
            _ => Listener::Off,
        }
    }
}

/// How an exchange ended.
pub(super) struct Ended {
    pub(super) flight: u32,
    pub(super) status: u16,
    /// The session that the message belonged to is no more.
    pub(super) session_ended: bool,
    /// How far its stream came.
    pub(super) position: Position,
    /// The stream ended before the response to this request: it goes on elsewhere.
    pub(super) resume: Option<Resume>,
}

/// A request whose answer's stream is to be resumed.
pub(super) struct Resume {
    pub(super) id: Rc<[u8]>,
    /// Streams in a row on which no message came.
    pub(super) tries: u32,
}

impl Ws {
    /// Whether input must wait.
    pub(super) fn is_blocked(&self) -> bool {
        self.barrier.is_some()
            || self.waiting.is_some()
            || self.resting
            || self.flights.len() >= if self.asked == 0 { MAX_IN_FLIGHT } else { 2 * MAX_IN_FLIGHT }
            || self.bytes_in_flight() >= MAX_IN_FLIGHT_BYTES
    }

    pub(super) fn bytes_in_flight(&self) -> usize {
        self.flights.iter().map(|flight| flight.bytes).sum()
    }

    /// Whether somebody waits for something that has an end.
    pub(super) fn is_busy(&self) -> bool {
        self.flights.iter().any(|flight| !flight.endless)
    }

    /// When nothing is in flight, no server waits for the client, and few places are kept for the next messages.
    pub(super) fn on_flight_ended(&mut self) {
        if self.flights.is_empty() {
            self.asked = 0;
            if self.flights.capacity() > IDLE_FLIGHTS {
                self.flights = Vec::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_opened_again_after_longer_and_longer_pauses() {
        let pause = |listener| match listener {
            Listener::Pausing { pause } => pause.as_secs(),
            other => panic!("{other:?}"),
        };
        let nothing = Position::default();
        let mut listener = Listener::Off;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            listener = listener.up().down(200, &nothing);
            pauses.push(pause(listener));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause(listener.up().down(200, &Position { moved: true, ..nothing.clone() })), 1);
        assert_eq!(pause(Listener::Off.up().down(503, &nothing)), 1);
        for status in [400, 401, 404, 405, 501] {
            assert_eq!(Listener::Off.up().down(status, &nothing), Listener::Off);
        }
    }
}
