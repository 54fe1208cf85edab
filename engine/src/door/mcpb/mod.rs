//! MCPB version 1, the binary protocol: owns a connection's way from bytes to frames, its order (negotiation, login,
//! messages, shutdown) and its patience. What a frame means is told in [`frames`], what is in flight is [`framed`]'s; a
//! message's way goes through [`crate::exchange`] as over HTTP.
//!
//! Without authentication configured, `initialize` is no proof of anything: it opens an MCP session of the same kind as
//! over HTTP, and a token in it is passed on to the server as `Authorization`. A legacy message needs such a session, a
//! modern one (2026-07-28) carries everything itself and is served without. All messages go to all servers, as
//! those to `/mcp` do. A client's own shutdown ends its session with the connection, because none can go on with it; a
//! connection that breaks leaves it to its time to live.
//!
//! Invariants: no borrow of the door is held while bytes are sent or a task is cancelled, because both may close the
//! connection; input that cannot be served yet is bounded by one read and then left to TCP.

mod frames;
mod login;
mod request;
mod state;

use std::rc::Rc;
use std::time::SystemTime;

use mcp_protocol::jsonrpc::Kind;
use mcp_protocol::mcpb::{Control, FrameKind, HEADER_LEN, MAX_PAYLOAD, write_frame};

use super::framed::{self, Answered, Due, Framed, FramedDoor, FramedReply, Opened, Session};
use super::{Door, Reply};
use crate::exchange::Scope;
use crate::metrics::{Direction, Protocol, Rejection};
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::clock::NEVER;
use crate::shard::conn::{Conn, Gone};
use crate::shard::tasks::TaskId;
use login::{bare_response, expires_at, with_session};
use request::{Login, LoginKind};
pub(crate) use state::Mcpb;
use state::Stage;

/// Frames served per connection and turn of the shard, after which the others have their turn; with 16 the turn's own
/// cost, a few microseconds, is spread thin enough.
const FRAMES_PER_TURN: usize = 16;

impl FramedDoor for Mcpb {
    const PROTOCOL: Protocol = Protocol::Mcpb;

    type Login = Login;

    fn of(door: &mut Door) -> Option<&mut Self> {
        match door {
            Door::Mcpb(door) => Some(door),
            Door::Http1(_) | Door::H2(_) | Door::Ws(_) => None,
        }
    }

    fn framed(&mut self) -> &mut Framed {
        &mut self.framed
    }

    fn reply(reply: FramedReply<Self>) -> Reply {
        Reply::Mcpb(reply)
    }

    fn begun(&self) -> Option<usize> {
        self.partial.as_ref().map(|partial| partial.payload.capacity())
    }

    fn forget(&mut self) -> Option<TaskId> {
        self.partial = None;
        None
    }

    fn longest(_: &Shard) -> usize {
        MAX_PAYLOAD as usize
    }

    fn advance(shard: &Rc<Shard>, conn: &Rc<Conn>, input: &[u8]) {
        advance(shard, conn, input);
    }

    fn send(shard: &Rc<Shard>, conn: &Rc<Conn>, kind: Kind, message: &[u8]) -> Result<(), Gone> {
        let kind = match kind {
            Kind::Response => FrameKind::Response,
            Kind::Request | Kind::Notification => FrameKind::Request,
        };
        send(shard, conn, kind, message)
    }

    fn log_in(shard: &Rc<Shard>, conn: &Rc<Conn>, login: Login, opened: Opened<'_>) -> Vec<u8> {
        let Opened { request, response, result, session, revision } = opened;
        let Login { kind, authorization } = login;
        let opened = Session { id: session, revision: Some(revision), authorization };
        framed::open_session::<Mcpb>(shard, conn, opened);
        let expires_at = expires_at(SystemTime::now(), shard.setup().config.session.ttl);
        match kind {
            LoginKind::Mcp => with_session(response, result, &session, &expires_at),
            LoginKind::Bare => {
                with_door(conn, |door| door.announce = true);
                bare_response(request, &session, &expires_at)
            }
        }
    }

    fn on_answered(shard: &Rc<Shard>, conn: &Rc<Conn>, answered: &Answered) -> bool {
        let silent_at = shard.core.clock.after(shard.setup().config.server.read_timeout);
        let announces = with_door(conn, |door| {
            // A client that waited was not silent.
            if !answered.endless {
                door.framed.patience.on_deaf(silent_at);
            }
            std::mem::take(&mut door.announce)
        });
        if announces {
            frames::announce(shard, conn);
        }
        true
    }

    /// Closes when the goodbye is agreed on and nothing with an end is in flight.
    fn close_if_done(shard: &Rc<Shard>, conn: &Rc<Conn>) -> bool {
        let done = with_door(conn, |door| door.agreed && !door.framed.closing && !door.framed.is_busy());
        if done {
            finish(shard, conn, false);
        }
        done
    }

    fn out_of_memory(shard: &Rc<Shard>, conn: &Rc<Conn>) {
        fail(shard, conn, &Refusal::Memory.message());
    }
}

/// Runs `work` on the door of a connection of this protocol. It must neither send nor cancel.
fn with_door<T: Default>(conn: &Conn, work: impl FnOnce(&mut Mcpb) -> T) -> T {
    framed::with_door(conn, work)
}

pub(crate) fn on_open(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    if shard.is_draining() {
        return conn.finish(shard, false);
    }
    let silent_at = shard.core.clock.after(shard.setup().config.server.read_timeout);
    let scope = Scope::unnamed(&shard.setup());
    with_door(conn, |door| {
        door.framed.scope = scope;
        door.framed.patience.on_heard(silent_at);
    });
    framed::set_deadline::<Mcpb>(shard, conn);
}

pub(crate) fn on_deadline(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let now = shard.core.clock.now();
    let later = shard.core.clock.after(shard.setup().config.server.read_timeout);
    let due = with_door(conn, |door| {
        let framed = &mut door.framed;
        if framed.is_blocked() || framed.is_busy() {
            framed.patience.on_deaf(later);
        }
        framed.patience.due(now)
    });
    match due {
        // A session here lives by its use alone, and a connection by its health checks.
        Due::Nothing | Due::Touch | Due::Idle => {}
        Due::Leave => return finish(shard, conn, false),
        Due::Stalled => {
            shard.metrics.rejected(Rejection::ReadTimeout);
            return fail(shard, conn, "the frame did not arrive in time");
        }
        Due::Listen => {
            with_door(conn, |door| door.framed.patience.listen_at = NEVER);
            framed::listen::<Mcpb>(shard, conn);
        }
        Due::Ping => {
            with_door(conn, |door| {
                door.framed.patience.on_pinged(later);
                door.probe_unanswered = true;
            });
            if send(shard, conn, FrameKind::HealthCheck, b"").is_err() {
                return;
            }
        }
        Due::Silent => {
            shard.metrics.rejected(Rejection::IdleTimeout);
            return finish(shard, conn, false);
        }
    }
    framed::set_deadline::<Mcpb>(shard, conn);
}

pub(crate) fn on_drain(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let by = shard.core.clock.after(shard.setup().config.server.drain_timeout);
    let (fresh, says_goodbye) = with_door(conn, |door| {
        let says_goodbye = door.stage == Stage::Open && !door.framed.leaving;
        if says_goodbye {
            door.leave(by);
        }
        (door.stage == Stage::Fresh, says_goodbye)
    });
    if fresh {
        finish(shard, conn, false);
    } else if says_goodbye && send(shard, conn, FrameKind::Control, Control::Shutdown.payload()).is_ok() {
        framed::set_deadline::<Mcpb>(shard, conn);
    }
}

/// Takes frames out of the input until it is used up or must wait.
fn advance(shard: &Rc<Shard>, conn: &Rc<Conn>, mut input: &[u8]) {
    let mut frames = 0;
    loop {
        if !input.is_empty() && conn.is_congested() {
            framed::wait::<Mcpb>(shard, conn, std::future::ready(()));
        } else if !input.is_empty() && frames >= FRAMES_PER_TURN {
            framed::rest::<Mcpb>(shard, conn);
        }
        let step = with_door(conn, |door| {
            let framed = &door.framed;
            if framed.closing || framed.is_blocked() || input.is_empty() && door.partial.is_none() {
                return None;
            }
            Some(door.take_frame(shard, input))
        });
        let served = match step {
            None => break,
            Some(Ok((taken, frame))) => {
                input = &input[taken..];
                let Some((kind, payload)) = frame else { break };
                shard.metrics.frame(Direction::In, kind, HEADER_LEN + payload.len());
                with_door(conn, |door| door.framed.patience.message_by = NEVER);
                frames += 1;
                frames::serve(shard, conn, kind, payload)
            }
            Some(Err(error)) => Err(error),
        };
        if let Err(error) = served {
            shard.metrics.frame_error(error.label());
            return fail(shard, conn, &error.to_string());
        }
    }
    if !Mcpb::close_if_done(shard, conn) {
        framed::keep::<Mcpb>(shard, conn, input);
    }
}

/// Says why in an Error frame and ends the connection; what is in flight is cancelled.
fn fail(shard: &Rc<Shard>, conn: &Rc<Conn>, why: &str) {
    if send(shard, conn, FrameKind::Error, why.as_bytes()).is_ok() {
        finish(shard, conn, true);
    }
}

/// Ends the connection when everything is sent. With `linger`, the client has time to read it.
fn finish(shard: &Rc<Shard>, conn: &Rc<Conn>, linger: bool) {
    if framed::flush::<Mcpb>(shard, conn).is_err() {
        return;
    }
    framed::stop::<Mcpb>(shard, conn);
    conn.count_door_bytes(shard, 0);
    conn.finish(shard, linger);
}

/// Sends a frame, together with all others of this turn of the loop.
///
/// # Errors
/// [`Gone`] when the connection is closed, or when the payload is longer than a frame can hold (callers see to that).
fn send(shard: &Rc<Shard>, conn: &Rc<Conn>, kind: FrameKind, payload: &[u8]) -> Result<(), Gone> {
    let mut written = Ok(());
    let queued = framed::queue::<Mcpb>(shard, conn, |out| written = write_frame(out, kind, payload));
    written.map_err(|_| Gone)?;
    shard.metrics.frame(Direction::Out, kind, HEADER_LEN + payload.len());
    queued
}
