//! What is known of a socket: owns its state and the limits of what it may have in flight. It never sends and never starts
//! anything.

use std::rc::Rc;
use std::time::Duration;

use mcp_protocol::ws::Reader;
use mcp_shard_store::id::ID_CHARS;

use super::patience::Patience;
use crate::shard::clock::Millis;
use crate::shard::tasks::TaskId;

/// Requests and notifications in flight per socket; above it nothing is read until one is done. While a server waits for
/// the client's own response that would be a deadlock: then reading goes on, up to twice as many, and requests above the
/// limit are refused.
pub(super) const MAX_IN_FLIGHT: usize = 64;
/// Bytes of these messages, above which nothing is read either. A message of the largest size always fits, so one socket
/// holds less than 16 MiB and `max_body`.
const MAX_IN_FLIGHT_BYTES: usize = 16 << 20;
/// Places for messages in flight that an idle socket keeps: one call at a time needs no new ones.
pub(super) const IDLE_FLIGHTS: usize = 4;
/// The pause before a server's own stream that ended is opened again doubles from the first to the second; a stream that
/// lived longer than the second begins anew.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);

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
pub(super) enum Listener {
    /// The session is not ready for one, or the server has none.
    #[default]
    Off,
    /// Since this moment.
    Up { since: Millis, pause: Duration },
    /// It ended, and is opened again after this pause.
    Pausing { pause: Duration },
}

impl Listener {
    pub(super) fn up(self, now: Millis) -> Self {
        let pause = match self {
            Listener::Pausing { pause } => (pause * 2).min(LAST_PAUSE),
            Listener::Off | Listener::Up { .. } => FIRST_PAUSE,
        };
        Listener::Up { since: now, pause }
    }

    /// After the stream's end; `status` is that of its head.
    pub(super) fn down(self, now: Millis, status: u16) -> Self {
        let is_worth_it = (200..300).contains(&status) || status == 429 || (500..600).contains(&status);
        match self {
            Listener::Up { since, .. } if is_worth_it && now - since > LAST_PAUSE.as_millis() as Millis => {
                Listener::Pausing { pause: FIRST_PAUSE }
            }
            Listener::Up { pause, .. } if is_worth_it && status != 501 => Listener::Pausing { pause },
            // 405: the server has no such stream.
            Listener::Up { .. } | Listener::Off => Listener::Off,
            Listener::Pausing { .. } => self,
        }
    }
}

/// How an exchange ended.
pub(super) struct Ended {
    pub(super) flight: u32,
    pub(super) status: u16,
    /// The session that the message belonged to is no more.
    pub(super) session_ended: bool,
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

    /// No exchange is left whose server could wait for the client.
    pub(super) fn forget_questions(&mut self) {
        if self.flights.is_empty() {
            self.asked = 0;
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
        let mut listener = Listener::Off;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            listener = listener.up(1000).down(2000, 200);
            pauses.push(pause(listener));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause(listener.up(1000).down(62_000, 200)), 1);
        assert_eq!(pause(Listener::Off.up(0).down(1, 503)), 1);
        for status in [400, 401, 404, 405, 501] {
            assert_eq!(Listener::Off.up(0).down(1, status), Listener::Off);
        }
    }
}
