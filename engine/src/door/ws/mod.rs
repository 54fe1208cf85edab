//! WebSocket (RFC 6455) at `/ws` and `/ws/<server>`, subprotocol `mcp`: one JSON-RPC message per text message. Owns a
//! socket's way from bytes to messages, its patience, its end and what is in flight on it. What a message means is told in
//! [`messages`]; its way goes through [`crate::exchange`] as over HTTP.
//!
//! A socket belongs to one legacy session at a time: the one that its upgrade names, or the one that its last `initialize`
//! opened. The session outlives the socket by its time to live, and a socket keeps its session alive. Modern messages
//! (2026-07-28) need none.
//!
//! Invariants: no borrow of the door is held while bytes are sent or a task is cancelled, because both may close the
//! connection; input that cannot be served yet is bounded by one read and then left to TCP; an idle socket owns no buffer.

mod close;
mod messages;
mod patience;
pub(in crate::door) mod position;
pub(crate) mod reply;
pub(in crate::door) mod state;
mod upgrade;

use std::rc::Rc;
use std::time::Duration;

use mcp_protocol::ws::{Event, Reader, write_close, write_ping, write_text};

use super::Door;
use crate::exchange;
use crate::metrics::{Direction, Rejection};
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::clock::NEVER;
use crate::shard::conn::{Conn, Gone};
use close::Close;
use patience::{Due, Patience};
use position::Position;
pub(crate) use state::Ws;
use state::{Ended, Listener, Session};
pub(crate) use upgrade::{Target, upgrade};

/// Frames gathered for one write; beyond it they leave before the turn's end.
const OUTBOX_BYTES: usize = 16 << 10;
/// Events served per socket and turn of the shard, after which the others have their turn; with 16 the turn's own cost, a
/// few microseconds, is spread thin enough.
const EVENTS_PER_TURN: usize = 16;

/// Runs `work` on the door of a connection of this protocol. It must neither send nor cancel.
fn with_door<T: Default>(conn: &Conn, work: impl FnOnce(&mut Ws) -> T) -> T {
    match &mut *conn.door.borrow_mut() {
        Door::Ws(door) => work(door),
        Door::Http1(_) | Door::H2(_) | Door::Mcpb(_) => T::default(),
    }
}

impl Ws {
    fn new(shard: &Shard, server: usize, authorization: Option<Rc<str>>, session: Option<Session>) -> Self {
        Ws {
            server,
            authorization,
            session,
            session_number: 0,
            reader: Reader::default(),
            input: Vec::new(),
            outbox: Vec::new(),
            flights: Vec::new(),
            next_flight: 0,
            barrier: None,
            waiting: None,
            touching: None,
            resting: false,
            asked: 0,
            listener: Listener::Off,
            heard: Position::default(),
            patience: Patience::new(shard.core.clock.after(shard.process.config.server.read_timeout)),
            leaving: false,
            closing: false,
        }
    }
}

/// The upgrade is answered; `input` came behind it.
fn open(shard: &Rc<Shard>, conn: &Rc<Conn>, input: &[u8]) {
    conn.resume(shard);
    if shard.is_draining() {
        return fail(shard, conn, Close::Draining);
    }
    expect_messages(shard, conn);
    // The client has ended its handshake with the server on an earlier socket.
    if with_door(conn, |door| door.session.is_some()) {
        messages::listen(shard, conn);
    }
    advance(shard, conn, input);
}

pub(crate) fn on_data(shard: &Rc<Shard>, conn: &Rc<Conn>, data: &[u8]) {
    let ping_at = shard.core.clock.after(shard.process.config.server.read_timeout);
    let input = with_door(conn, |door| {
        if door.closing {
            return Some(Vec::new());
        }
        door.patience.on_heard(ping_at);
        if door.input.is_empty() && !door.is_blocked() {
            return None;
        }
        door.input.extend_from_slice(data);
        Some(if door.is_blocked() { Vec::new() } else { std::mem::take(&mut door.input) })
    });
    match input {
        None => advance(shard, conn, data),
        Some(input) => advance(shard, conn, &input),
    }
}

/// An exchange has sent its answer, or has none to send.
fn on_answered(shard: &Rc<Shard>, conn: &Rc<Conn>, ended: Ended) {
    if let Some(resume) = ended.resume {
        return messages::resume(shard, conn, ended.flight, &ended.position, resume);
    }
    let answered = with_door(conn, |door| {
        if door.barrier == Some(ended.flight) {
            door.barrier = None;
        }
        let place = door.flights.iter().position(|flight| flight.number == ended.flight)?;
        let flight = door.flights.swap_remove(place);
        if flight.is_listener() {
            door.listener = door.listener.down(ended.status, &ended.position);
            door.heard = ended.position;
            door.patience.listen_at = match door.listener {
                Listener::Pausing { pause } if !door.leaving => shard.core.clock.after(pause),
                Listener::Pausing { .. } | Listener::Off | Listener::Up { .. } => NEVER,
            };
        }
        let accepted = (200..300).contains(&ended.status);
        Some(Answered {
            opens_stream: flight.opens_stream && accepted && door.listener == Listener::Off,
            session_ended: ended.session_ended && flight.session_number == door.session_number,
            cancelled: flight.cancels,
        })
    });
    let Answered { opens_stream, session_ended, cancelled } = answered.unwrap_or_default();
    if session_ended {
        return fail(shard, conn, Close::SessionEnded);
    }
    if let Some(id) = cancelled {
        messages::cancel_legacy(shard, conn, &id);
    }
    with_door(conn, Ws::on_flight_ended);
    expect_messages(shard, conn);
    if opens_stream {
        messages::listen(shard, conn);
    }
    go_on(shard, conn);
}

/// What follows from an exchange's end.
#[derive(Default)]
struct Answered {
    opens_stream: bool,
    session_ended: bool,
    /// The raw id of the legacy request that was cancelled.
    cancelled: Option<Rc<[u8]>>,
}

/// A server asks the client something: its response must get through, however much is in flight.
fn on_asked(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let goes_on = with_door(conn, |door| {
        let was_blocked = door.is_blocked();
        door.asked += 1;
        was_blocked && !door.is_blocked()
    });
    if goes_on {
        go_on(shard, conn);
    }
}

/// Serves what had to wait, unless it must wait still; closes when all is said.
fn go_on(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    if close_if_done(shard, conn) {
        return;
    }
    let input =
        with_door(conn, |door| if door.is_blocked() { None } else { Some(std::mem::take(&mut door.input)) });
    match input {
        Some(input) => {
            conn.resume(shard);
            advance(shard, conn, &input);
        }
        None => keep(shard, conn, &[]),
    }
}

/// The shard's next turn is here.
pub(crate) fn on_rested(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    with_door(conn, |door| door.resting = false);
    go_on(shard, conn);
}

pub(crate) fn on_deadline(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let now = shard.core.clock.now();
    let later = shard.core.clock.after(shard.process.config.server.read_timeout);
    let (due, is_idle) = with_door(conn, |door| {
        if door.is_blocked() {
            door.patience.on_deaf(later);
        }
        (door.patience.due(now), door.session.is_none() && door.flights.is_empty())
    });
    match due {
        Due::Nothing => {}
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
            with_door(conn, |door| door.patience.listen_at = NEVER);
            messages::listen(shard, conn);
        }
        Due::Touch => touch(shard, conn),
        Due::Ping => {
            with_door(conn, |door| door.patience.on_pinged(later));
            if queue(shard, conn, write_ping).is_err() {
                return;
            }
        }
    }
    set_deadline(shard, conn);
}

pub(crate) fn on_closed(shard: &Rc<Shard>, conn: &Conn) {
    stop(shard, conn);
}

pub(crate) fn on_drain(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    with_door(conn, |door| {
        door.leaving = true;
        door.patience.listen_at = NEVER;
    });
    close_if_done(shard, conn);
}

/// Takes events out of the input until it is used up or must wait.
fn advance(shard: &Rc<Shard>, conn: &Rc<Conn>, mut input: &[u8]) {
    let limit = shard.process.config.server.max_body_bytes;
    let mut events = 0;
    loop {
        if !input.is_empty() && conn.is_congested() {
            wait(shard, conn, std::future::ready(()));
        } else if !input.is_empty() && events >= EVENTS_PER_TURN {
            rest(shard, conn);
        }
        let step = with_door(conn, |door| {
            if door.closing || door.is_blocked() || input.is_empty() {
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
            with_door(conn, |door| door.patience.message_by = NEVER);
            expect_messages(shard, conn);
        }
        messages::serve(shard, conn, event);
    }
    if !close_if_done(shard, conn) {
        keep(shard, conn, input);
    }
}

/// Keeps what is left for later, and sees to the deadlines.
fn keep(shard: &Rc<Shard>, conn: &Rc<Conn>, left: &[u8]) {
    let message_by = shard.core.clock.after(shard.process.config.server.read_timeout);
    let kept = with_door(conn, |door| {
        if door.closing {
            return None;
        }
        door.input.extend_from_slice(left);
        let blocked = door.is_blocked();
        // A message has one deadline as a whole: fragments that trickle in do not move it.
        if blocked || (door.input.is_empty() && !door.reader.has_begun()) {
            door.patience.message_by = NEVER;
        } else if door.patience.message_by == NEVER {
            door.patience.message_by = message_by;
        }
        Some((door.input.capacity() + door.reader.held(), door.bytes_in_flight(), blocked))
    });
    let Some((unfinished, in_flight, blocked)) = kept else { return };
    conn.count_door_bytes(shard, unfinished + in_flight);
    if unfinished > 0 && !shard.has_memory() {
        shard.metrics.rejected(Rejection::Memory);
        return fail(shard, conn, Close::Memory);
    }
    if blocked {
        conn.pause();
    }
    set_deadline(shard, conn);
}

fn set_deadline(shard: &Shard, conn: &Conn) {
    let next = with_door(conn, |door| Some(door.patience.next())).unwrap_or(NEVER);
    conn.set_deadline(shard, next);
}

/// A socket without a session may be idle for so long from now; one with a session, for ever.
fn expect_messages(shard: &Shard, conn: &Conn) {
    let idle_at = shard.core.clock.after(shard.process.config.server.idle_timeout);
    with_door(conn, |door| {
        door.patience.idle_at = if door.session.is_none() { idle_at } else { NEVER };
    });
}

/// How long a session is left alone before it is used, so that it lives as long as its socket.
fn touch_after(shard: &Shard) -> Duration {
    shard.process.config.session.ttl / 2
}

/// Uses the session, which must not end while the socket lives; where it has been ended, so is the socket.
fn touch(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let touch_at = shard.core.clock.after(touch_after(shard));
    let session = with_door(conn, |door| {
        door.patience.touch_at = touch_at;
        door.session.as_ref().filter(|_| door.touching.is_none()).map(|session| session.id)
    });
    let Some(id) = session else { return };
    let (own_shard, own_conn) = (shard.clone(), conn.clone());
    let task = shard.core.tasks.spawn(|| async move {
        let is_alive = exchange::is_session_alive(&own_shard, &id).await;
        let has_ended = with_door(&own_conn, |door| {
            door.touching = None;
            !is_alive && door.session.as_ref().is_some_and(|session| session.id == id)
        });
        if has_ended {
            fail(&own_shard, &own_conn, Close::SessionEnded);
        }
    });
    with_door(conn, |door| door.touching = Some(task));
}

/// Nothing more is read from the client in this turn.
fn rest(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    if with_door(conn, |door| !door.is_blocked() && !std::mem::replace(&mut door.resting, true)) {
        shard.rest(conn.token);
    }
}

/// The client was refused for lack of capacity: nothing more is read from it until it may ask again. Not while it has
/// something else in flight, which it may have to answer or want to cancel.
fn hold(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    if with_door(conn, |door| !door.is_busy()) {
        let own_shard = shard.clone();
        wait(shard, conn, async move { own_shard.held().await });
    }
}

/// Nothing more is read from the client until `first` is over and it has read enough of what was sent to it.
fn wait(shard: &Rc<Shard>, conn: &Rc<Conn>, first: impl Future<Output = ()> + 'static) {
    if with_door(conn, |door| door.waiting.is_some()) {
        return;
    }
    let (own_shard, own_conn) = (shard.clone(), conn.clone());
    let task = shard.core.tasks.spawn(|| async move {
        first.await;
        if own_conn.drained().await.is_ok() {
            with_door(&own_conn, |door| door.waiting = None);
            go_on(&own_shard, &own_conn);
        }
    });
    with_door(conn, |door| door.waiting = Some(task));
}

/// Closes when the process drains and nothing is in flight; streams without an end of their own end by the drain.
fn close_if_done(shard: &Rc<Shard>, conn: &Rc<Conn>) -> bool {
    let done = with_door(conn, |door| door.leaving && !door.closing && door.flights.is_empty());
    if done {
        fail(shard, conn, Close::Draining);
    }
    done
}

/// Says why and ends the connection when everything is sent; what is in flight is cancelled. The client has time to read
/// it, unless the goodbye was its own.
fn fail(shard: &Rc<Shard>, conn: &Rc<Conn>, close: Close) {
    if !with_door(conn, |door| !std::mem::replace(&mut door.closing, true)) {
        return;
    }
    tracing::debug!(?close, "a socket closes");
    shard.metrics.ws_closed(close.label());
    let said = queue(shard, conn, |out| write_close(out, close.code(), &close.text()));
    if said.and_then(|()| flush(shard, conn)).is_err() {
        return;
    }
    stop(shard, conn);
    conn.count_door_bytes(shard, 0);
    conn.finish(shard, !matches!(close, Close::Client(_)));
}

/// Forgets the input and cancels what is in flight.
fn stop(shard: &Rc<Shard>, conn: &Conn) {
    let (flights, others) = with_door(conn, |door| {
        door.closing = true;
        door.input = Vec::new();
        door.reader = Reader::default();
        door.outbox = Vec::new();
        (std::mem::take(&mut door.flights), [door.waiting.take(), door.touching.take()])
    });
    // The futures' destructors close the upstream's side: for a modern request that is its cancellation.
    for task in flights.into_iter().map(|flight| flight.task).chain(others.into_iter().flatten()) {
        shard.core.tasks.cancel(task);
    }
}

fn send_text(shard: &Rc<Shard>, conn: &Rc<Conn>, text: &[u8]) -> Result<(), Gone> {
    shard.metrics.ws_message(Direction::Out);
    queue(shard, conn, |out| write_text(out, text))
}

/// Sends a frame, together with all others of this turn of the loop: answers that come at once leave in one record and one
/// write.
///
/// # Errors
/// [`Gone`] when the connection is closed.
fn queue(shard: &Rc<Shard>, conn: &Rc<Conn>, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Gone> {
    if !conn.is_open() {
        return Err(Gone);
    }
    let (before, after) = with_door(conn, |door| {
        let before = door.outbox.len();
        if before == 0 {
            door.outbox = shard.take_buffer();
        }
        write(&mut door.outbox);
        (before, door.outbox.len())
    });
    if after >= OUTBOX_BYTES {
        flush(shard, conn)
    } else {
        if before == 0 {
            shard.flush_later(conn.token);
        }
        Ok(())
    }
}

/// Sends what [`queue`] has gathered.
pub(crate) fn flush(shard: &Rc<Shard>, conn: &Rc<Conn>) -> Result<(), Gone> {
    let outbox = with_door(conn, |door| std::mem::take(&mut door.outbox));
    if outbox.is_empty() {
        return Ok(());
    }
    let sent = conn.send(shard, &[&outbox]);
    shard.give_buffer(outbox);
    sent
}

fn send_refusal(
    shard: &Rc<Shard>,
    conn: &Rc<Conn>,
    refusal: &Refusal,
    id: Option<&[u8]>,
) -> Result<(), Gone> {
    if let Some(why) = refusal.shed() {
        shard.metrics.shed(why);
    }
    let mut response = Vec::new();
    refusal.write_json(id, &mut response);
    send_text(shard, conn, &response)
}

/// Notes the session that the socket's messages belong to from now on.
fn open_session(shard: &Shard, conn: &Conn, session: Session) {
    let touch_at = shard.core.clock.after(touch_after(shard));
    // What the server says by itself in the session before is nobody's business any more.
    let listeners: Vec<_> = with_door(conn, |door| {
        door.session = Some(session);
        door.session_number = door.session_number.wrapping_add(1);
        door.listener = Listener::Off;
        door.heard = Position::default();
        door.patience.listen_at = NEVER;
        door.patience.touch_at = touch_at;
        door.flights.extract_if(.., |flight| flight.is_listener()).collect()
    });
    for listener in listeners {
        shard.core.tasks.cancel(listener.task);
    }
}
