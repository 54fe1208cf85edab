//! MCPB version 1, the binary protocol: owns a connection's way from bytes to frames, its order (negotiation, login,
//! messages, shutdown), its patience and what is in flight on it. What a frame means is told in [`frames`]; a message's
//! way goes through [`crate::exchange`] as over HTTP.
//!
//! Without authentication configured, `initialize` is no proof of anything: it opens an MCP session of the same kind as
//! over HTTP, and a token in it is passed on to the server as `Authorization`. A legacy message needs such a session, a
//! modern one (2026-07-28) carries everything itself and is served without. All messages go to the first server, as
//! those to `/mcp` do.
//!
//! Invariants: no borrow of the door is held while bytes are sent or a task is cancelled, because both may close the
//! connection; input that cannot be served yet is bounded by one read and then left to TCP.

mod frames;
mod login;
pub(crate) mod reply;
mod request;
mod state;

use std::rc::Rc;

use mcp_protocol::mcpb::{Control, FrameKind, HEADER_LEN, write_frame};

use super::Door;
use crate::metrics::{Direction, Rejection};
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::clock::NEVER;
use crate::shard::conn::{Conn, Gone};
pub(crate) use state::Mcpb;
use state::{Ended, Flight, IDLE_FLIGHTS, Leaving, Listener, MAX_IN_FLIGHT, Session, Stage};

/// The server that this door's messages go to.
const SERVER: usize = 0;
/// Frames gathered for one write; beyond it they leave before the turn's end.
const OUTBOX_BYTES: usize = 16 << 10;
/// Frames served per connection and turn of the shard, after which the others have their turn; with 16 the turn's own
/// cost, a few microseconds, is spread thin enough.
const FRAMES_PER_TURN: usize = 16;

/// Runs `work` on the door of a connection of this protocol. It must neither send nor cancel.
fn with_door<T: Default>(conn: &Conn, work: impl FnOnce(&mut Mcpb) -> T) -> T {
    match &mut *conn.door.borrow_mut() {
        Door::Mcpb(door) => work(door),
        Door::Http1(_) | Door::H2(_) | Door::Ws(_) => T::default(),
    }
}

pub(crate) fn on_open(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    if shard.is_draining() {
        return conn.finish(shard, false);
    }
    conn.set_deadline(shard, shard.core.clock.after(shard.process.config.server.read_timeout));
}

pub(crate) fn on_data(shard: &Rc<Shard>, conn: &Rc<Conn>, data: &[u8]) {
    let input = with_door(conn, |door| {
        door.probed = false;
        if door.stage == Stage::Closing {
            return Some(Vec::new());
        }
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
    let again = shard.core.clock.after(frames::LISTEN_AGAIN);
    let flight = with_door(conn, |door| {
        if door.barrier == Some(ended.flight) {
            door.barrier = None;
        }
        let place = door.flights.iter().position(|flight| flight.number == ended.flight)?;
        let flight = door.flights.swap_remove(place);
        let accepted = (200..300).contains(&ended.status);
        if door.flights.is_empty() && door.flights.capacity() > IDLE_FLIGHTS {
            door.flights = Vec::new();
        }
        door.forget_questions();
        if flight.is_listener() {
            door.listener = if accepted { Listener::Ended(again) } else { Listener::Off };
        }
        Some(flight).filter(|flight| flight.opens_stream && accepted)
    });
    if ended.announce {
        frames::announce(shard, conn);
    }
    if flight.is_some() {
        frames::listen(shard, conn);
    }
    go_on(shard, conn);
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
    enum Next {
        Wait,
        Probe,
        Stalled,
        Close(Option<Rejection>),
    }
    let now = shard.core.clock.now();
    let next = with_door(conn, |door| {
        Some(if now >= door.leaving.deadline() {
            Next::Close(None)
        } else if door.is_blocked() {
            Next::Wait
        } else if door.frame_timed {
            Next::Stalled
        } else if door.is_busy() {
            Next::Wait
        } else if door.stage == Stage::Fresh || door.probed {
            Next::Close(Some(Rejection::IdleTimeout))
        } else {
            door.probed = true;
            door.probe_unanswered = true;
            Next::Probe
        })
    });
    match next {
        None | Some(Next::Wait) => set_deadline(shard, conn),
        Some(Next::Probe) => {
            if send(shard, conn, FrameKind::HealthCheck, b"").is_ok() {
                set_deadline(shard, conn);
            }
        }
        Some(Next::Stalled) => {
            shard.metrics.rejected(Rejection::ReadTimeout);
            fail(shard, conn, "the frame did not arrive in time");
        }
        Some(Next::Close(reason)) => {
            if let Some(reason) = reason {
                shard.metrics.rejected(reason);
            }
            finish(shard, conn, false);
        }
    }
}

pub(crate) fn on_closed(shard: &Rc<Shard>, conn: &Conn) {
    stop(shard, conn);
}

pub(crate) fn on_drain(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let by = shard.core.clock.after(shard.process.config.server.drain_timeout);
    let (fresh, says_goodbye) = with_door(conn, |door| {
        let says_goodbye = door.stage == Stage::Open && matches!(door.leaving, Leaving::No);
        if says_goodbye {
            door.leaving = Leaving::Said { by };
        }
        (door.stage == Stage::Fresh, says_goodbye)
    });
    if fresh {
        finish(shard, conn, false);
    } else if says_goodbye && send(shard, conn, FrameKind::Control, Control::Shutdown.payload()).is_ok() {
        set_deadline(shard, conn);
    }
}

/// Takes frames out of the input until it is used up or must wait.
fn advance(shard: &Rc<Shard>, conn: &Rc<Conn>, mut input: &[u8]) {
    let mut frames = 0;
    loop {
        if !input.is_empty() && conn.is_congested() {
            wait(shard, conn, std::future::ready(()));
        } else if !input.is_empty() && frames >= FRAMES_PER_TURN {
            rest(shard, conn);
        }
        let step = with_door(conn, |door| {
            if door.stage == Stage::Closing || door.is_blocked() || input.is_empty() && door.partial.is_none()
            {
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
                with_door(conn, |door| door.frame_timed = false);
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
    if !close_if_done(shard, conn) {
        keep(shard, conn, input);
    }
}

/// Keeps what is left for later, and sees to the deadline.
fn keep(shard: &Rc<Shard>, conn: &Rc<Conn>, left: &[u8]) {
    let kept = with_door(conn, |door| {
        if door.stage == Stage::Closing {
            return None;
        }
        door.input.extend_from_slice(left);
        let unfinished =
            door.input.capacity() + door.partial.as_ref().map_or(0, |partial| partial.payload.capacity());
        let begun = !door.is_blocked() && (!door.input.is_empty() || door.partial.is_some());
        let goes_on = begun && std::mem::replace(&mut door.frame_timed, begun);
        let in_flight: usize = door.flights.iter().map(|flight| flight.bytes).sum();
        Some((unfinished, in_flight, door.is_blocked(), goes_on))
    });
    let Some((unfinished, in_flight, blocked, goes_on)) = kept else { return };
    conn.count_door_bytes(shard, unfinished + in_flight);
    if unfinished > 0 && !shard.has_memory() {
        shard.metrics.rejected(Rejection::Memory);
        return fail(shard, conn, &Refusal::Memory.message());
    }
    if blocked {
        conn.pause();
    }
    // A frame has one deadline as a whole: bytes that trickle in do not move it.
    if !goes_on {
        set_deadline(shard, conn);
    }
}

/// The deadline of silence, and never later than the goodbye's.
fn set_deadline(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let leave_by = with_door(conn, |door| Some(door.leaving.deadline())).unwrap_or(NEVER);
    let silent_until = shard.core.clock.after(shard.process.config.server.read_timeout);
    conn.set_deadline(shard, silent_until.min(leave_by));
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

/// Closes when the goodbye is agreed on and nothing with an end is in flight.
fn close_if_done(shard: &Rc<Shard>, conn: &Rc<Conn>) -> bool {
    let done = with_door(conn, |door| {
        door.stage != Stage::Closing && matches!(door.leaving, Leaving::Agreed { .. }) && !door.is_busy()
    });
    if done {
        finish(shard, conn, false);
    }
    done
}

/// Says why in an Error frame and ends the connection; what is in flight is cancelled.
fn fail(shard: &Rc<Shard>, conn: &Rc<Conn>, why: &str) {
    if send(shard, conn, FrameKind::Error, why.as_bytes()).is_ok() {
        finish(shard, conn, true);
    }
}

/// Ends the connection when everything is sent. With `linger`, the client has time to read it.
fn finish(shard: &Rc<Shard>, conn: &Rc<Conn>, linger: bool) {
    if flush(shard, conn).is_err() {
        return;
    }
    stop(shard, conn);
    conn.count_door_bytes(shard, 0);
    conn.finish(shard, linger);
}

/// Forgets the input and cancels what is in flight.
fn stop(shard: &Rc<Shard>, conn: &Conn) {
    let (flights, waiting) = with_door(conn, |door| {
        door.stage = Stage::Closing;
        door.input = Vec::new();
        door.partial = None;
        door.outbox = Vec::new();
        (std::mem::take(&mut door.flights), door.waiting.take())
    });
    // The futures' destructors close the upstream's side: for a modern request that is its cancellation.
    for task in flights.into_iter().map(|flight| flight.task).chain(waiting) {
        shard.core.tasks.cancel(task);
    }
}

/// Sends a frame, together with all others of this turn of the loop: answers that come at once leave in one record and
/// one write.
///
/// # Errors
/// [`Gone`] when the connection is closed, or when the payload is longer than a frame can hold (callers see to that).
fn send(shard: &Rc<Shard>, conn: &Rc<Conn>, kind: FrameKind, payload: &[u8]) -> Result<(), Gone> {
    if !conn.is_open() {
        return Err(Gone);
    }
    let written = with_door(conn, |door| {
        let before = door.outbox.len();
        if before == 0 {
            door.outbox = shard.take_buffer();
        }
        write_frame(&mut door.outbox, kind, payload).ok().map(|()| (before, door.outbox.len()))
    });
    let (before, after) = written.ok_or(Gone)?;
    shard.metrics.frame(Direction::Out, kind, after - before);
    if after >= OUTBOX_BYTES {
        flush(shard, conn)
    } else {
        if before == 0 {
            shard.flush_later(conn.token);
        }
        Ok(())
    }
}

/// Sends what [`send`] has gathered.
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
    send(shard, conn, FrameKind::Response, &response)
}

/// Notes the session that the connection's messages belong to from now on.
fn open_session(shard: &Shard, conn: &Conn, session: Session) {
    // What the server says by itself in the session before is nobody's business any more.
    let listeners: Vec<_> = with_door(conn, |door| {
        door.session = Some(session);
        door.listener = Listener::Off;
        door.flights.extract_if(.., |flight| flight.is_listener()).collect()
    });
    for listener in listeners {
        shard.core.tasks.cancel(listener.task);
    }
}
