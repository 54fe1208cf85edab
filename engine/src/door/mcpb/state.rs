//! What is known of a connection of frames: owns its state, the limits of what it may have in flight, and the step from
//! bytes to a whole frame. It never sends and never starts anything.

use std::rc::Rc;

use mcp_protocol::mcpb::{FrameError, FrameKind, HEADER_LEN, MAX_PAYLOAD, parse_header};
use mcp_shard_store::id::ID_CHARS;

use crate::shard::Shard;
use crate::shard::clock::{Millis, NEVER};
use crate::shard::tasks::TaskId;

/// Requests and notifications in flight per connection; above it nothing is read until one is done. While a server waits
/// for the client's own response that would be a deadlock: then reading goes on, up to twice as many, and requests above
/// the limit are refused.
pub(super) const MAX_IN_FLIGHT: usize = 64;
/// Places for messages in flight that an idle connection keeps: one call at a time needs no new ones.
pub(super) const IDLE_FLIGHTS: usize = 4;
/// Bytes of these messages, above which nothing is read either. A message of the largest size always fits, so one
/// connection holds less than 16 MiB + 10 MiB.
const MAX_IN_FLIGHT_BYTES: usize = 16 << 20;

#[derive(Default)]
pub(crate) struct Mcpb {
    pub(super) stage: Stage,
    /// Bytes that do not make a whole header yet, or that wait until the connection is read on.
    pub(super) input: Vec<u8>,
    /// A frame whose payload is on its way.
    pub(super) partial: Option<Partial>,
    /// Frames that leave at the end of the turn.
    pub(super) outbox: Vec<u8>,
    /// The deadline of the frame that has begun is set.
    pub(super) frame_timed: bool,
    pub(super) flights: Vec<Flight>,
    pub(super) next_flight: u32,
    /// Nothing is read until this exchange is done: what follows `initialize` or `notifications/initialized` must not
    /// overtake it on its way to the server.
    pub(super) barrier: Option<u32>,
    /// Waits until the client has read what is unsent, or until it may ask again; nothing is read until then.
    pub(super) waiting: Option<TaskId>,
    /// The connection has had its share of the shard's turn; nothing is read until the next.
    pub(super) resting: bool,
    pub(super) session: Option<Session>,
    pub(super) listener: Listener,
    /// Requests of servers that the client has not answered, as far as the gateway can tell.
    pub(super) asked: usize,
    /// A HealthCheck of ours was sent, and nothing was received since.
    pub(super) probed: bool,
    /// Its answer is still to come.
    pub(super) probe_unanswered: bool,
    pub(super) leaving: Leaving,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// No version is agreed on.
    #[default]
    Fresh,
    Open,
    /// The connection ends: input means nothing any more.
    Closing,
}

/// A whole frame: its kind and its payload.
pub(super) type Frame = (FrameKind, Vec<u8>);

pub(super) struct Partial {
    pub(super) kind: FrameKind,
    /// Bytes of the payload that are still to come.
    pub(super) left: usize,
    pub(super) payload: Vec<u8>,
}

/// A message in flight.
pub(super) struct Flight {
    pub(super) number: u32,
    pub(super) task: TaskId,
    /// The raw id of a request.
    pub(super) id: Option<Rc<[u8]>>,
    pub(super) bytes: usize,
    /// Of the modern era: cancelled by ending its exchange.
    pub(super) modern: bool,
    /// A stream without an end of its own: it keeps the connection neither busy nor from closing.
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

/// What the connection's `initialize` opened.
pub(super) struct Session {
    pub(super) id: [u8; ID_CHARS],
    pub(super) revision: Rc<str>,
    pub(super) authorization: Option<Rc<str>>,
}

/// The stream on which a legacy server speaks by itself (GET over HTTP).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Listener {
    /// The session is not ready for one, or the server has none.
    #[default]
    Off,
    Up,
    /// It ended; the next message after this moment opens it again.
    Ended(Millis),
}

/// How far the goodbye is.
#[derive(Clone, Copy, Default)]
pub(super) enum Leaving {
    #[default]
    No,
    /// `shutdown` was said; the client has not acknowledged it.
    Said { by: Millis },
    /// Both sides know: the connection closes when nothing is in flight, or at the deadline.
    Agreed { by: Millis },
}

impl Leaving {
    pub(super) fn deadline(self) -> Millis {
        match self {
            Leaving::No => NEVER,
            Leaving::Said { by } | Leaving::Agreed { by } => by,
        }
    }
}

/// How an exchange ended.
pub(super) struct Ended {
    pub(super) flight: u32,
    pub(super) status: u16,
    /// A bare login succeeded: the server is told that the client is ready.
    pub(super) announce: bool,
}

impl Mcpb {
    /// Whether input must wait.
    pub(super) fn is_blocked(&self) -> bool {
        self.barrier.is_some()
            || self.waiting.is_some()
            || self.resting
            || self.flights.len() >= if self.asked == 0 { MAX_IN_FLIGHT } else { 2 * MAX_IN_FLIGHT }
            || self.flights.iter().map(|flight| flight.bytes).sum::<usize>() >= MAX_IN_FLIGHT_BYTES
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

    /// Takes bytes of a frame; says how many, and the frame when it is complete.
    pub(super) fn take_frame(
        &mut self,
        shard: &Shard,
        input: &[u8],
    ) -> Result<(usize, Option<Frame>), FrameError> {
        let (mut partial, mut taken) = match self.partial.take() {
            Some(partial) => (partial, 0),
            None => match parse_header(input)? {
                Some(header) => {
                    let (len, limit) = (header.len, shard.process.config.server.max_body_bytes);
                    // The protocol's own limit is checked with the header; an operator may have set a lower one.
                    if len as usize > limit {
                        let limit = u32::try_from(limit).unwrap_or(MAX_PAYLOAD);
                        return Err(FrameError::PayloadTooLarge { len: u64::from(len), limit });
                    }
                    let payload = shard.take_buffer();
                    (Partial { kind: header.kind, left: header.len as usize, payload }, HEADER_LEN)
                }
                None => return Ok((0, None)),
            },
        };
        let part = partial.left.min(input.len() - taken);
        partial.payload.extend_from_slice(&input[taken..taken + part]);
        partial.left -= part;
        taken += part;
        if partial.left == 0 {
            return Ok((taken, Some((partial.kind, partial.payload))));
        }
        self.partial = Some(partial);
        Ok((taken, None))
    }
}
