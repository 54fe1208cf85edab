//! What is known of an HTTP/2 connection: owns its state, the limits of what it may have in flight, its sleep and its
//! deadlines. It never sends and never starts anything.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use h2::server::{Builder, Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response};

use super::answer::{Answer, Piece};
use super::flight::{Flight, Pending, Phase, Read, Stalled};
use super::meter::Begun;
use super::wire::{Io, Wire};
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::clock::{Millis, NEVER};
use crate::shard::tasks::TaskId;

/// Streams that a client may have open at a time; further ones are refused (REFUSED_STREAM).
const MAX_STREAMS: u32 = 128;
/// Bytes of a request's body that may be under way, per stream and per connection.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;
/// What each header field counts beside its bytes in the limit that a client is told (RFC 9113, section 6.5.2).
const FIELD_OVERHEAD_BYTES: usize = 32;
/// Bytes of requests in flight per connection, above which bodies are refused; one of the largest size always fits.
const MAX_IN_FLIGHT_BYTES: usize = 16 << 20;
/// Places for streams in flight that an idle connection keeps.
const IDLE_FLIGHTS: usize = 4;
/// How long after the goodbye a client that has nothing in flight may take to acknowledge it.
const GOODBYE_MS: Millis = 1000;
/// How long nothing is in flight before h2 is let go: longer than most pauses between two messages, of which each would cost
/// a new h2, some tens of microseconds.
const SLEEP_AFTER_MS: Millis = 2000;

pub(crate) struct H2 {
    pub(super) stage: Stage,
    pub(super) wire: Rc<Wire>,
    pub(super) flights: Vec<Flight>,
    /// The connection is among those that the shard flushes at the end of this turn.
    pub(super) flushing: bool,
    /// It is among those that go on in the next turn.
    pub(super) resting: bool,
    /// Waits until the client has read what is unsent.
    pub(super) reader: Option<TaskId>,
    /// Waits until a client that was refused may ask again.
    pub(super) hold: Option<TaskId>,
    frame: u64,
    frame_by: Millis,
    idle_by: Millis,
    sleep_by: Millis,
    pub(super) leaving: bool,
    leave_by: Millis,
    /// The name of the error code of a GOAWAY that is the door's own.
    told: Option<&'static str>,
}

pub(super) enum Stage {
    /// The client's preface is due.
    Preface {
        handshake: Pin<Box<Handshake<Io, Piece>>>,
        by: Millis,
    },
    Open(Box<Connection<Io, Piece>>),
    /// Nothing is in flight, and h2 is let go until the client speaks again.
    Asleep,
    /// The connection ends: input means nothing any more.
    Closing,
}

/// What polling h2 brought.
#[derive(Default)]
pub(super) struct Polled {
    pub(super) requests: Vec<(Request<RecvStream>, SendResponse<Piece>)>,
    /// The connection is over; the name of the error code that the client was told, where there was an error of its own.
    pub(super) ended: Option<Option<&'static str>>,
}

/// Whose time is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Late {
    Nobody,
    Preface,
    /// A header block, or a frame of none of the streams in flight.
    Head,
    Body,
    Idle,
    /// Nobody's, but h2 is not needed for now.
    Sleepy,
    /// The goodbye was not answered.
    Leaving,
    /// Streams, some of which were late with their body, others with reading.
    Streams,
}

impl H2 {
    pub(super) fn new(shard: &Shard) -> Self {
        let now = shard.core.clock.now();
        let setup = shard.setup();
        let server = &setup.config.server;
        let wire = Wire::new(now);
        let by = shard.core.clock.after(server.handshake_timeout);
        H2 {
            stage: Stage::Preface { handshake: handshake(shard, &wire), by },
            wire,
            flights: Vec::new(),
            flushing: false,
            resting: false,
            reader: None,
            hold: None,
            frame: 0,
            frame_by: NEVER,
            idle_by: NEVER,
            sleep_by: NEVER,
            leaving: false,
            leave_by: NEVER,
            told: None,
        }
    }

    /// Lets h2 go, where nothing is lost by it; says whether it was let go.
    pub(super) fn fall_asleep(&mut self) -> bool {
        self.sleep_by = NEVER;
        let Stage::Open(connection) = &self.stage else { return false };
        let in_use = connection.has_streams() || !self.flights.is_empty() || self.reader.is_some();
        if in_use || self.leaving || !self.wire.may_sleep() {
            return false;
        }
        self.stage = Stage::Asleep;
        self.flights = Vec::new();
        true
    }

    /// Has a new h2 go on where the last one was let go; `false` where it does not.
    pub(super) fn wake(&mut self, shard: &Rc<Shard>) -> bool {
        if !matches!(self.stage, Stage::Asleep) {
            return true;
        }
        self.wire.begin_replay();
        self.stage = Stage::Preface { handshake: handshake(shard, &self.wire), by: NEVER };
        let mut polled = self.poll(shard);
        // The one request of the replay is nobody's. It is reset at once, or answered with as much as the window is short of.
        let short = self.wire.shortfall();
        if let Some((_, respond)) = polled.requests.pop()
            && short > 0
        {
            let filler = Answer::new(shard, &self.wire, respond);
            let sent = filler.send_head(Response::new(()), false);
            if sent.and_then(|()| filler.send_data(&vec![0; short], true)).is_err() {
                return false;
            }
            while filler.unsent() > 0 {
                let before = filler.unsent();
                polled.ended = polled.ended.or(self.poll(shard).ended);
                self.wire.throw_output_away();
                if filler.unsent() == before {
                    return false;
                }
            }
        }
        // What the request's end brings forth is part of what is thrown away.
        let ended = polled.ended.or(self.poll(shard).ended).is_some();
        self.wire.end_replay(CONNECTION_WINDOW_BYTES);
        !ended && matches!(self.stage, Stage::Open(_))
    }

    /// Has h2 read and write what it can.
    pub(super) fn poll(&mut self, shard: &Shard) -> Polled {
        self.wire.begin_poll(shard.core.clock.now());
        self.wire.lend(|| shard.take_buffer());
        // Nobody is woken: the door polls whenever something was read, was answered, or can be sent.
        let cx = &mut Context::from_waker(Waker::noop());
        let mut polled = Polled::default();
        loop {
            match &mut self.stage {
                Stage::Preface { handshake, .. } => match handshake.as_mut().poll(cx) {
                    Poll::Ready(Ok(connection)) => {
                        self.stage = Stage::Open(Box::new(connection));
                        continue;
                    }
                    Poll::Ready(Err(error)) => polled.ended = Some(own_error(&error)),
                    Poll::Pending => {}
                },
                Stage::Open(connection) => match connection.poll_accept(cx) {
                    Poll::Ready(Some(Ok(request))) => {
                        polled.requests.push(request);
                        continue;
                    }
                    Poll::Ready(Some(Err(error))) => polled.ended = Some(own_error(&error)),
                    Poll::Ready(None) => polled.ended = Some(self.told),
                    Poll::Pending => {}
                },
                Stage::Asleep | Stage::Closing => {}
            }
            return polled;
        }
    }

    /// Ends the connection with GOAWAY at the next poll.
    pub(super) fn go_away(&mut self, reason: Reason) {
        if let Stage::Open(connection) = &mut self.stage {
            connection.abrupt_shutdown(reason);
            self.told = name(reason);
        }
    }

    pub(super) fn add(&mut self, stream: u32, answer: &Rc<Answer>) {
        self.flights.push(Flight::new(stream, answer));
    }

    pub(super) fn set_phase(&mut self, stream: u32, phase: Phase, bytes: usize) {
        if let Some(flight) = self.flights.iter_mut().find(|flight| flight.stream == stream) {
            flight.phase = phase;
            flight.bytes = bytes;
        }
    }

    /// Reads what is there of bodies; gives those of which no more is to be read.
    pub(super) fn read_bodies(&mut self, shard: &Shard) -> Vec<(u32, Box<Pending>, Read)> {
        let mut held: usize = self.flights.iter().map(Flight::content_bytes).sum();
        let alone = self.flights.len() == 1;
        let mut done = Vec::new();
        for flight in &mut self.flights {
            let Phase::Body(pending) = &mut flight.phase else { continue };
            let before = pending.body.len();
            let read = pending.read(shard);
            held += pending.body.len() - before;
            flight.bytes = pending.bytes();
            let full = held > MAX_IN_FLIGHT_BYTES && !alone || !shard.has_memory();
            let read = match read {
                None if full => Read::Refused(Refusal::Memory),
                None => continue,
                Some(read) => read,
            };
            if let Phase::Body(pending) = std::mem::replace(&mut flight.phase, Phase::Ending) {
                done.push((flight.stream, pending, read));
            }
        }
        done
    }

    /// The tasks of streams that ended before their answer did.
    pub(super) fn take_reset(&mut self) -> Vec<TaskId> {
        let mut tasks = Vec::new();
        for flight in &mut self.flights {
            if let Phase::Exchange(task) = flight.phase
                && flight.answer.is_reset()
            {
                flight.phase = Phase::Ending;
                tasks.push(task);
            }
        }
        tasks
    }

    /// Forgets the streams that are over, and says when the patience with the client ends.
    pub(super) fn settle(&mut self, shard: &Shard) -> Millis {
        let setup = shard.setup();
        let server = &setup.config.server;
        let after = |timeout| shard.core.clock.after(timeout);
        self.flights.retain(|flight| !matches!(flight.phase, Phase::Ending) || flight.answer.unsent() > 0);
        if self.flights.is_empty() {
            if self.flights.capacity() > IDLE_FLIGHTS {
                self.flights = Vec::new();
            }
            self.idle_by = self.idle_by.min(after(server.idle_timeout));
            self.sleep_by = self.sleep_by.min(shard.core.clock.now() + SLEEP_AFTER_MS);
            if self.leaving {
                self.leave_by = self.leave_by.min(shard.core.clock.now() + GOODBYE_MS);
            }
        } else {
            self.idle_by = NEVER;
            self.sleep_by = NEVER;
            self.leave_by = NEVER;
        }
        let (begun, frame) = self.wire.begun();
        if begun == Begun::Nothing || frame != self.frame {
            self.frame_by = NEVER;
        }
        self.frame = frame;
        self.frame_by = match begun {
            Begun::Nothing => NEVER,
            Begun::Head => self.frame_by.min(after(server.header_timeout)),
            Begun::Body => self.frame_by.min(after(server.read_timeout)),
        };
        // While the socket itself is stuck, its own deadline counts.
        let stuck = self.wire.is_blocked();
        let mut by = self.idle_by.min(self.sleep_by).min(self.leave_by).min(self.frame_by);
        for flight in &mut self.flights {
            if flight.answer.unsent() == 0 {
                flight.stalled_by = NEVER;
            } else if flight.answer.take_moved() || stuck || flight.stalled_by == NEVER {
                flight.stalled_by = after(server.write_timeout);
            }
            by = by.min(flight.by());
        }
        match &self.stage {
            Stage::Preface { by, .. } => *by,
            Stage::Open(_) => by,
            Stage::Asleep => self.idle_by,
            Stage::Closing => NEVER,
        }
    }

    /// What the deadline that has passed means.
    pub(super) fn late(&self, now: Millis) -> Late {
        match &self.stage {
            Stage::Preface { by, .. } if *by <= now => Late::Preface,
            Stage::Preface { .. } | Stage::Closing => Late::Nobody,
            Stage::Open(_) if self.leave_by <= now => Late::Leaving,
            Stage::Open(_) if self.flights.iter().any(|flight| flight.by() <= now) => Late::Streams,
            Stage::Open(_) if self.frame_by <= now => {
                if self.wire.begun().0 == Begun::Body {
                    Late::Body
                } else {
                    Late::Head
                }
            }
            Stage::Open(_) | Stage::Asleep if self.idle_by <= now => Late::Idle,
            Stage::Open(_) if self.sleep_by <= now => Late::Sleepy,
            Stage::Open(_) | Stage::Asleep => Late::Nobody,
        }
    }

    /// Takes the requests whose body is late, and the tasks of streams whose client reads nothing.
    pub(super) fn take_late(&mut self, now: Millis) -> (Vec<Pending>, Vec<Stalled>) {
        let (mut bodies, mut stalled) = (Vec::new(), Vec::new());
        for flight in &mut self.flights {
            if flight.by() > now {
                continue;
            }
            match std::mem::replace(&mut flight.phase, Phase::Ending) {
                Phase::Body(pending) => bodies.push(*pending),
                Phase::Exchange(task) => stalled.push((flight.answer.clone(), Some(task))),
                Phase::Ending => stalled.push((flight.answer.clone(), None)),
            }
            flight.stalled_by = NEVER;
        }
        (bodies, stalled)
    }

    /// Bytes held for this connection.
    pub(super) fn held_bytes(&self) -> usize {
        let requests: usize = self.flights.iter().map(|flight| flight.bytes).sum();
        self.wire.held_bytes() + requests
    }
}

/// What is told to clients. A table for header compression would be memory that an idle connection keeps, and state that
/// could not be replayed.
fn handshake(shard: &Shard, wire: &Rc<Wire>) -> Pin<Box<Handshake<Io, Piece>>> {
    let fields = super::super::http1::MAX_HEADERS * FIELD_OVERHEAD_BYTES;
    let header_list = shard.setup().config.server.max_header_bytes + fields;
    let handshake = Builder::new()
        .header_table_size(0)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(header_list).unwrap_or(u32::MAX))
        .handshake(Io(wire.clone()));
    Box::pin(handshake)
}

/// The name of the code that a client was told for an error of its own; none where the client ended the connection.
fn own_error(error: &h2::Error) -> Option<&'static str> {
    if error.is_library() { name(error.reason()?) } else { None }
}

/// The label of an error code that the gateway tells a client.
fn name(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::NO_ERROR => return None,
        Reason::PROTOCOL_ERROR => "protocol_error",
        Reason::FLOW_CONTROL_ERROR => "flow_control_error",
        Reason::STREAM_CLOSED => "stream_closed",
        Reason::FRAME_SIZE_ERROR => "frame_size_error",
        Reason::COMPRESSION_ERROR => "compression_error",
        Reason::ENHANCE_YOUR_CALM => "enhance_your_calm",
        _ => "other",
    })
}
