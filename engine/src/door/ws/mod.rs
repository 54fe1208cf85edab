//! WebSocket (RFC 6455) at `/ws` and `/ws/<server>`, subprotocol `mcp`: one JSON-RPC message per text message. Owns a
//! socket's way from bytes to messages, its patience and its end. What is in flight on it is [`framed`]'s; a message's way
//! goes through [`crate::exchange`] as over HTTP.
//!
//! A socket belongs to one legacy session at a time: the one that its upgrade names, or the one that its last `initialize`
//! opened. The session outlives the socket by its time to live, and a socket keeps its session alive. Modern messages
//! (2026-07-28) need none.
//!
//! Invariants: no borrow of the door is held while bytes are sent or a task is cancelled, because both may close the
//! connection; input that cannot be served yet is bounded by one read and then left to TCP; an idle socket owns no buffer.

mod close;
mod messages;
mod state;
mod upgrade;

use std::rc::Rc;

use mcp_protocol::jsonrpc::Kind;
use mcp_protocol::mcp::with_result_meta;
use mcp_protocol::ws::{Event, Reader, write_close, write_ping, write_text};

use super::framed::{self, Answered, Due, Framed, FramedDoor, FramedReply, Opened, Session};
use super::{Door, Reply};
use crate::exchange;
use crate::metrics::{Direction, Protocol, Rejection};
use crate::shard::Shard;
use crate::shard::clock::NEVER;
use crate::shard::conn::{Conn, Gone};
use crate::shard::tasks::TaskId;
use close::Close;
pub(crate) use close::SESSION_OVER;
pub(crate) use state::Ws;
pub(crate) use upgrade::{Target, upgrade};

/// The member of `initialize`'s result `_meta` that tells the session's id.
pub(crate) const SESSION_META: &str = "mcp-gateway/sessionId";
/// Events served per socket and turn of the shard, after which the others have their turn; with 16 the turn's own cost, a
/// few microseconds, is spread thin enough.
const EVENTS_PER_TURN: usize = 16;

impl FramedDoor for Ws {
    const PROTOCOL: Protocol = Protocol::Ws;

    type Login = ();

    fn of(door: &mut Door) -> Option<&mut Self> {
        match door {
            Door::Ws(door) => Some(door),
            Door::Http1(_) | Door::H2(_) | Door::Mcpb(_) => None,
        }
    }

    fn framed(&mut self) -> &mut Framed {
        &mut self.framed
    }

    fn reply(reply: FramedReply<Self>) -> Reply {
        Reply::Ws(reply)
    }

    fn begun(&self) -> Option<usize> {
        self.reader.has_begun().then(|| self.reader.held())
    }

    fn forget(&mut self) -> Option<TaskId> {
        self.reader = Reader::default();
        self.touching.take()
    }

    fn longest(shard: &Shard) -> usize {
        shard.setup().config.server.max_body_bytes
    }

    fn advance(shard: &Rc<Shard>, conn: &Rc<Conn>, input: &[u8]) {
        advance(shard, conn, input);
    }

    fn send(shard: &Rc<Shard>, conn: &Rc<Conn>, _: Kind, message: &[u8]) -> Result<(), Gone> {
        shard.metrics.ws_message(Direction::Out);
        framed::queue::<Ws>(shard, conn, |out| write_text(out, message))
    }

    fn log_in(shard: &Rc<Shard>, conn: &Rc<Conn>, (): (), opened: Opened<'_>) -> Vec<u8> {
        let Opened { response, result, session, revision, .. } = opened;
        let opened = Session { id: session, revision: Some(revision), authorization: None };
        framed::open_session::<Ws>(shard, conn, opened);
        touch_later(shard, conn);
        // An id's characters need no escaping; they are ASCII.
        with_result_meta(response, result, SESSION_META, &String::from_utf8_lossy(&session))
    }

    fn on_answered(shard: &Rc<Shard>, conn: &Rc<Conn>, answered: &Answered) -> bool {
        if answered.session_ended {
            fail(shard, conn, Close::SessionEnded);
            return false;
        }
        expect_messages(shard, conn);
        true
    }

    fn close_if_done(shard: &Rc<Shard>, conn: &Rc<Conn>) -> bool {
        close_if_done(shard, conn)
    }

    fn out_of_memory(shard: &Rc<Shard>, conn: &Rc<Conn>) {
        fail(shard, conn, Close::Memory);
    }
}

/// Runs `work` on the door of a connection of this protocol. It must neither send nor cancel.
fn with_door<T: Default>(conn: &Conn, work: impl FnOnce(&mut Ws) -> T) -> T {
    framed::with_door(conn, work)
}

/// The upgrade is answered; `input` came behind it.
fn open(shard: &Rc<Shard>, conn: &Rc<Conn>, input: &[u8]) {
    conn.resume(shard);
    if shard.is_draining() {
        return fail(shard, conn, Close::Draining);
    }
    expect_messages(shard, conn);
    // The client has ended its handshake with the server on an earlier socket.
    if with_door(conn, |door| door.framed.session.is_some()) {
        touch_later(shard, conn);
        framed::listen::<Ws>(shard, conn);
    }
    advance(shard, conn, input);
}

pub(crate) fn on_deadline(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let now = shard.core.clock.now();
    let later = shard.core.clock.after(shard.setup().config.server.read_timeout);
    let (due, is_idle) = with_door(conn, |door| {
        if door.framed.is_blocked() {
            door.framed.patience.on_deaf(later);
        }
        (door.framed.patience.due(now), door.framed.session.is_none() && door.framed.flights.is_empty())
    });
    match due {
        // A goodbye here waits for the drain's own end.
        Due::Nothing | Due::Leave => {}
        Due::Stalled => {
            shard.metrics.rejected(Rejection::ReadTimeout);
            return fail(shard, conn, Close::Stalled);
        }
        Due::Silent => {
            shard.metrics.rejected(Rejection::IdleTimeout);
            return fail(shard, conn, Close::Silent);
        }
        Due::Idle if is_idle => {
            shard.metrics.rejected(Rejection::IdleTimeout);
            return fail(shard, conn, Close::Idle);
        }
        Due::Idle => expect_messages(shard, conn),
        Due::Listen => {
            with_door(conn, |door| door.framed.patience.listen_at = NEVER);
            framed::listen::<Ws>(shard, conn);
        }
        Due::Touch => touch(shard, conn),
        Due::Ping => {
            with_door(conn, |door| door.framed.patience.on_pinged(later));
            if framed::queue::<Ws>(shard, conn, write_ping).is_err() {
                return;
            }
        }
    }
    framed::set_deadline::<Ws>(shard, conn);
}

pub(crate) fn on_drain(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    with_door(conn, |door| {
        door.framed.leaving = true;
        door.framed.patience.listen_at = NEVER;
    });
    close_if_done(shard, conn);
}

/// Takes events out of the input until it is used up or must wait.
fn advance(shard: &Rc<Shard>, conn: &Rc<Conn>, mut input: &[u8]) {
    let limit = shard.setup().config.server.max_body_bytes;
    let mut events = 0;
    loop {
        if !input.is_empty() && conn.is_congested() {
            framed::wait::<Ws>(shard, conn, std::future::ready(()));
        } else if !input.is_empty() && events >= EVENTS_PER_TURN {
            framed::rest::<Ws>(shard, conn);
        }
        let step = with_door(conn, |door| {
            if door.framed.closing || door.framed.is_blocked() || input.is_empty() {
                return None;
            }
            Some(door.reader.read(input, limit, || shard.take_buffer()))
        });
        let event = match step {
            None => break,
            Some(Ok((taken, event))) => {
                input = &input[taken..];
                event
            }
            Some(Err(error)) => return fail(shard, conn, Close::Frame(error)),
        };
        let Some(event) = event else { break };
        events += 1;
        if matches!(event, Event::Text(_)) {
            with_door(conn, |door| door.framed.patience.message_by = NEVER);
            expect_messages(shard, conn);
        }
        messages::serve(shard, conn, event);
    }
    if !close_if_done(shard, conn) {
        framed::keep::<Ws>(shard, conn, input);
    }
}

/// A socket without a session may be idle for so long from now; one with a session, for ever.
fn expect_messages(shard: &Shard, conn: &Conn) {
    let idle_at = shard.core.clock.after(shard.setup().config.server.idle_timeout);
    with_door(conn, |door| {
        door.framed.patience.idle_at = if door.framed.session.is_none() { idle_at } else { NEVER };
    });
}

/// The session is used after half its time to live, so that it lives as long as its socket.
fn touch_later(shard: &Shard, conn: &Conn) {
    let touch_at = shard.core.clock.after(shard.setup().config.session.ttl / 2);
    with_door(conn, |door| door.framed.patience.touch_at = touch_at);
}

/// Uses the session, which must not end while the socket lives; where it has been ended, so is the socket.
fn touch(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    touch_later(shard, conn);
    let session = with_door(conn, |door| {
        door.framed.session.as_ref().filter(|_| door.touching.is_none()).map(|session| session.id)
    });
    let Some(id) = session else { return };
    let (own_shard, own_conn) = (shard.clone(), conn.clone());
    let task = shard.core.tasks.spawn(|| async move {
        let is_alive = exchange::is_session_alive(&own_shard, &id).await;
        let has_ended = with_door(&own_conn, |door| {
            door.touching = None;
            !is_alive && door.framed.session.as_ref().is_some_and(|session| session.id == id)
        });
        if has_ended {
            fail(&own_shard, &own_conn, Close::SessionEnded);
        }
    });
    with_door(conn, |door| door.touching = Some(task));
}

/// Closes when the process drains and nothing is in flight; streams without an end of their own end by the drain.
fn close_if_done(shard: &Rc<Shard>, conn: &Rc<Conn>) -> bool {
    let done =
        with_door(conn, |door| door.framed.leaving && !door.framed.closing && door.framed.flights.is_empty());
    if done {
        fail(shard, conn, Close::Draining);
    }
    done
}

/// Says why and ends the connection when everything is sent; what is in flight is cancelled. The client has time to read
/// it, unless the goodbye was its own.
fn fail(shard: &Rc<Shard>, conn: &Rc<Conn>, close: Close) {
    let is_first = with_door(conn, |door| {
        door.framed.session_is_over |= matches!(close, Close::Client(Some(SESSION_OVER)));
        !std::mem::replace(&mut door.framed.closing, true)
    });
    if !is_first {
        return;
    }
    tracing::debug!(?close, "a socket closes");
    shard.metrics.ws_closed(close.label());
    let said = framed::queue::<Ws>(shard, conn, |out| write_close(out, close.code(), &close.text()));
    if said.and_then(|()| framed::flush::<Ws>(shard, conn)).is_err() {
        return;
    }
    framed::stop::<Ws>(shard, conn);
    conn.count_door_bytes(shard, 0);
    conn.finish(shard, !matches!(close, Close::Client(_)));
}
