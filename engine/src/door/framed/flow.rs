//! What waits, and what leaves: owns the input that must wait, the frames gathered in a turn, and the end of what is in
//! flight. Never what a frame means.

use std::rc::Rc;

use mcp_protocol::jsonrpc::Kind;

use super::messages::{bare, origin};
use super::state::{Framed, Session};
use super::{FramedDoor, with_door, with_framed};
use crate::door::answers::{Listener, Position};
use crate::exchange::{self, Inbound};
use crate::metrics::Rejection;
use crate::policy::admission::Verb;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::clock::NEVER;
use crate::shard::conn::{Conn, Gone};

/// Frames gathered for one write; beyond it they leave before the turn's end.
const OUTBOX_BYTES: usize = 16 << 10;

pub(crate) fn on_data<D: FramedDoor>(shard: &Rc<Shard>, conn: &Rc<Conn>, data: &[u8]) {
    let ping_at = shard.core.clock.after(shard.setup().config.server.read_timeout);
    let input = with_framed::<D, _>(conn, |framed| {
        if framed.closing {
            return Some(Vec::new());
        }
        framed.patience.on_heard(ping_at);
        if framed.input.is_empty() && !framed.is_blocked() {
            return None;
        }
        framed.input.extend_from_slice(data);
        Some(if framed.is_blocked() { Vec::new() } else { std::mem::take(&mut framed.input) })
    });
    match input {
        None => D::advance(shard, conn, data),
        Some(input) => D::advance(shard, conn, &input),
    }
}

/// Serves what had to wait, unless it must wait still; closes when all is said.
pub(crate) fn go_on<D: FramedDoor>(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    if D::close_if_done(shard, conn) {
        return;
    }
    let input =
        with_framed::<D, _>(conn, |framed| (!framed.is_blocked()).then(|| std::mem::take(&mut framed.input)));
    match input {
        Some(input) => {
            conn.resume(shard);
            D::advance(shard, conn, &input);
        }
        None => keep::<D>(shard, conn, &[]),
    }
}

/// The shard's next turn is here.
pub(crate) fn on_rested<D: FramedDoor>(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    with_framed::<D, _>(conn, |framed| framed.resting = false);
    go_on::<D>(shard, conn);
}

/// A server asks the client something: its response must get through, however much is in flight.
pub(super) fn on_asked<D: FramedDoor>(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let goes_on = with_framed::<D, _>(conn, |framed| {
        let was_blocked = framed.is_blocked();
        framed.asked += 1;
        was_blocked && !framed.is_blocked()
    });
    if goes_on {
        go_on::<D>(shard, conn);
    }
}

/// Keeps what is left for later, and sees to the deadlines.
pub(crate) fn keep<D: FramedDoor>(shard: &Rc<Shard>, conn: &Rc<Conn>, left: &[u8]) {
    let message_by = shard.core.clock.after(shard.setup().config.server.read_timeout);
    let kept = with_door(conn, |door: &mut D| {
        let begun = door.begun();
        let framed = door.framed();
        if framed.closing {
            return None;
        }
        framed.input.extend_from_slice(left);
        let blocked = framed.is_blocked();
        // A message has one deadline as a whole: bytes that trickle in do not move it.
        if blocked || (framed.input.is_empty() && begun.is_none()) {
            framed.patience.message_by = NEVER;
        } else if framed.patience.message_by == NEVER {
            framed.patience.message_by = message_by;
        }
        Some((framed.input.capacity() + begun.unwrap_or(0), framed.bytes_in_flight(), blocked))
    });
    let Some((unfinished, in_flight, blocked)) = kept else { return };
    conn.count_door_bytes(shard, unfinished + in_flight);
    if unfinished > 0 && !shard.has_memory() {
        shard.metrics.rejected(Rejection::Memory);
        return D::out_of_memory(shard, conn);
    }
    if blocked {
        conn.pause();
    }
    set_deadline::<D>(shard, conn);
}

pub(crate) fn set_deadline<D: FramedDoor>(shard: &Shard, conn: &Conn) {
    let next = with_framed::<D, _>(conn, |framed| Some(framed.patience.next())).unwrap_or(NEVER);
    conn.set_deadline(shard, next);
}

/// Nothing more is read from the client in this turn.
pub(crate) fn rest<D: FramedDoor>(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let rests = |framed: &mut Framed| !framed.is_blocked() && !std::mem::replace(&mut framed.resting, true);
    if with_framed::<D, _>(conn, rests) {
        shard.rest(conn.token);
    }
}

/// The client was refused for lack of capacity: nothing more is read from it until it may ask again. Not while it has
/// something else in flight, which it may have to answer or want to cancel.
pub(super) fn hold<D: FramedDoor>(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    if with_framed::<D, _>(conn, |framed| !framed.is_busy()) {
        let own_shard = shard.clone();
        wait::<D>(shard, conn, async move { own_shard.held().await });
    }
}

/// Nothing more is read from the client until `first` is over and it has read enough of what was sent to it.
pub(crate) fn wait<D: FramedDoor>(
    shard: &Rc<Shard>,
    conn: &Rc<Conn>,
    first: impl Future<Output = ()> + 'static,
) {
    if with_framed::<D, _>(conn, |framed| framed.waiting.is_some()) {
        return;
    }
    let (own_shard, own_conn) = (shard.clone(), conn.clone());
    let task = shard.core.tasks.spawn(|| async move {
        first.await;
        if own_conn.drained().await.is_ok() {
            with_framed::<D, _>(&own_conn, |framed| framed.waiting = None);
            go_on::<D>(&own_shard, &own_conn);
        }
    });
    with_framed::<D, _>(conn, |framed| framed.waiting = Some(task));
}

/// Forgets the input and leaves what is in flight; ends the session, and all that is in flight in it, where the client said
/// that it is done with it.
pub(crate) fn stop<D: FramedDoor>(shard: &Rc<Shard>, conn: &Conn) {
    let last_words = last_words::<D>(conn);
    let (flights, others) = with_door(conn, |door: &mut D| {
        let forgotten = door.forget();
        let framed = door.framed();
        framed.closing = true;
        framed.input = Vec::new();
        framed.outbox = Vec::new();
        (std::mem::take(&mut framed.flights), [framed.waiting.take(), forgotten])
    });
    // Unless they stay, their destructors close the upstream's side: for a modern request that is its cancellation.
    for task in flights.into_iter().map(|flight| flight.task).chain(others.into_iter().flatten()) {
        if last_words.is_some() { shard.core.tasks.cancel(task) } else { shard.leave(task) }
    }
    if let Some(inbound) = last_words {
        let own_shard = shard.clone();
        shard.core.tasks.spawn(|| async move { exchange::end_unasked(&own_shard, &inbound).await });
    }
}

/// With what the gateway tells the store and the server of the session's end, once, where the client wants it to end.
fn last_words<D: FramedDoor>(conn: &Conn) -> Option<Inbound> {
    let is_over = with_framed::<D, _>(conn, |framed| std::mem::take(&mut framed.session_is_over));
    let has_session = with_framed::<D, _>(conn, |framed| framed.session.is_some());
    let origin = if is_over && has_session { origin::<D>(conn, false) } else { None };
    origin.map(|origin| bare::<D>(conn, Verb::End, origin))
}

/// Sends a frame, together with all others of this turn of the loop: answers that come at once leave in one record and one
/// write.
///
/// # Errors
/// [`Gone`] when the connection is closed.
pub(crate) fn queue<D: FramedDoor>(
    shard: &Rc<Shard>,
    conn: &Rc<Conn>,
    write: impl FnOnce(&mut Vec<u8>),
) -> Result<(), Gone> {
    if !conn.is_open() {
        return Err(Gone);
    }
    let (before, after) = with_framed::<D, _>(conn, |framed| {
        let before = framed.outbox.len();
        if before == 0 {
            framed.outbox = shard.take_buffer();
        }
        write(&mut framed.outbox);
        (before, framed.outbox.len())
    });
    if after >= OUTBOX_BYTES {
        flush::<D>(shard, conn)
    } else {
        if before == 0 {
            shard.flush_later(conn.token);
        }
        Ok(())
    }
}

/// Sends what [`queue`] has gathered.
pub(crate) fn flush<D: FramedDoor>(shard: &Rc<Shard>, conn: &Rc<Conn>) -> Result<(), Gone> {
    let outbox = with_framed::<D, _>(conn, |framed| std::mem::take(&mut framed.outbox));
    if outbox.is_empty() {
        return Ok(());
    }
    let sent = conn.send(shard, &[&outbox]);
    shard.give_buffer(outbox);
    sent
}

pub(crate) fn send_refusal<D: FramedDoor>(
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
    D::send(shard, conn, Kind::Response, &response)
}

/// Notes the session that the connection's messages belong to from now on.
pub(crate) fn open_session<D: FramedDoor>(shard: &Shard, conn: &Conn, session: Session) {
    // What the server says by itself in the session before is nobody's business any more.
    let listeners: Vec<_> = with_framed::<D, _>(conn, |framed| {
        framed.session = Some(session);
        framed.session_number = framed.session_number.wrapping_add(1);
        framed.listener = Listener::Off;
        framed.heard = Position::default();
        framed.patience.listen_at = NEVER;
        framed.flights.extract_if(.., |flight| flight.is_listener()).collect()
    });
    for listener in listeners {
        shard.core.tasks.cancel(listener.task);
    }
}
