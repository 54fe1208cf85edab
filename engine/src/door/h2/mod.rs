//! HTTP/2 (RFC 9113): owns a connection's way from bytes to streams and back, with the `h2` crate for frames, header
//! compression and flow control. A stream becomes the same request as one of HTTP/1.1 and takes the same way from there.
//!
//! h2 needs the IO traits of tokio and nothing of its runtime. It has no task here: the door polls it when plaintext came,
//! and at the end of a turn in which an answer went on, so that what all streams have to say leaves in one record. Bounds
//! are h2's own for what needs the state of streams (concurrency, header lists, CONTINUATION, tiny DATA frames, streams
//! reset before they were taken), and [`meter`]'s for what is only many (PING, SETTINGS, resets of any kind). While nothing
//! is in flight there is no h2 either: [`ledger`] says how it comes back.
//!
//! Invariants: no borrow of the door is held while bytes are sent or a task is cancelled, because both may close the
//! connection; whoever touches a stream of h2 has the connection flushed ([`flush_later`]), since nothing wakes it.

mod answer;
mod flight;
mod ledger;
mod meter;
pub(crate) mod reply;
mod request;
mod serve;
mod state;
mod wire;

use std::rc::Rc;

use h2::Reason;

use super::Door;
use crate::metrics::{Protocol, Rejection};
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::conn::Conn;
use flight::{Phase, Read};
use meter::Cut;
use serve::{accept, give_back, refuse, serve};
pub(crate) use state::H2;
use state::{Late, Stage};

/// The protocol's name in the handshake (RFC 9113, section 3.2).
pub(crate) const ALPN: &[u8] = b"h2";
/// Sends per connection and turn, of one outbox each; what is left then waits for the next turn.
const SENDS_PER_TURN: usize = 4;

/// Runs `work` on the door of a connection of this protocol. It must neither send nor cancel.
fn with_door<T: Default>(conn: &Conn, work: impl FnOnce(&mut H2) -> T) -> T {
    match &mut *conn.door.borrow_mut() {
        Door::H2(door) => work(door),
        Door::Http1(_) | Door::Mcpb(_) | Door::Ws(_) => T::default(),
    }
}

pub(crate) fn on_open(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    conn.turn_to(shard, Protocol::H2, Door::H2(Box::new(H2::new(shard))));
    if shard.is_draining() {
        return conn.finish(shard, false);
    }
    flush_later(shard, conn);
}

pub(crate) fn on_data(shard: &Rc<Shard>, conn: &Rc<Conn>, data: &[u8]) {
    let awake = with_door(conn, |door| {
        if !matches!(door.stage, Stage::Closing) {
            door.wire.feed(data);
        }
        door.wake(shard)
    });
    if awake {
        advance(shard, conn);
    } else {
        finish(shard, conn);
    }
}

/// The shard's next turn is here.
pub(crate) fn on_rested(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    with_door(conn, |door| {
        door.resting = false;
        door.wire.begin_turn();
    });
    advance(shard, conn);
}

pub(crate) fn on_drain(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let stays = with_door(conn, |door| {
        door.leaving = true;
        match &mut door.stage {
            Stage::Open(connection) => {
                connection.graceful_shutdown();
                true
            }
            Stage::Asleep => {
                door.wire.say_goodbye();
                false
            }
            Stage::Preface { .. } | Stage::Closing => false,
        }
    });
    if stays {
        flush_later(shard, conn);
    } else {
        finish(shard, conn);
    }
}

pub(crate) fn on_closed(shard: &Rc<Shard>, conn: &Conn) {
    stop(shard, conn);
}

pub(crate) fn on_deadline(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let now = shard.core.clock.now();
    let late = with_door(conn, |door| Some(door.late(now))).unwrap_or(Late::Nobody);
    let (reason, code) = match late {
        Late::Nobody => return settle(shard, conn),
        Late::Preface => {
            shard.metrics.rejected(Rejection::HandshakeTimeout);
            return finish(shard, conn);
        }
        Late::Sleepy => {
            if with_door(conn, H2::fall_asleep) {
                shard.on_slept();
            }
            return settle(shard, conn);
        }
        Late::Streams => return on_late_streams(shard, conn),
        Late::Head => (Some(Rejection::HeaderTimeout), Reason::ENHANCE_YOUR_CALM),
        Late::Body => (Some(Rejection::ReadTimeout), Reason::ENHANCE_YOUR_CALM),
        Late::Idle => (Some(Rejection::IdleTimeout), Reason::NO_ERROR),
        Late::Leaving => (None, Reason::NO_ERROR),
    };
    if let Some(reason) = reason {
        shard.metrics.rejected(reason);
    }
    let asleep = with_door(conn, |door| {
        door.go_away(code);
        let asleep = matches!(door.stage, Stage::Asleep);
        if asleep {
            door.wire.say_goodbye();
        }
        asleep
    });
    if asleep {
        finish(shard, conn);
    } else {
        flush(shard, conn);
    }
}

/// A body that did not arrive is answered, an answer that is not read is given up.
fn on_late_streams(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let now = shard.core.clock.now();
    let (bodies, stalled) = with_door(conn, |door| door.take_late(now));
    for mut pending in bodies {
        shard.metrics.rejected(Rejection::ReadTimeout);
        refuse(shard, &mut pending.reply, &Refusal::BodyTimeout);
        give_back(shard, pending);
    }
    for (answer, task) in stalled {
        shard.metrics.rejected(Rejection::WriteTimeout);
        answer.reset(Reason::CANCEL);
        if let Some(task) = task {
            shard.leave(task);
        }
    }
    flush(shard, conn);
}

/// An exchange is over; its answer is with h2.
fn on_answered(shard: &Rc<Shard>, conn: &Rc<Conn>, stream: u32, shed: bool) {
    with_door(conn, |door| door.set_phase(stream, Phase::Ending, 0));
    if shed {
        hold(shard, conn);
    }
    flush_later(shard, conn);
}

/// Has the connection polled and what h2 writes sent, at the end of this turn.
fn flush_later(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    if with_door(conn, |door| !std::mem::replace(&mut door.flushing, true)) {
        shard.flush_later(conn.token);
    }
}

/// The turn ends: sends what all streams have to say.
pub(crate) fn flush(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    with_door(conn, |door| door.flushing = false);
    for send in 1.. {
        drive(shard, conn);
        if !send_output(shard, conn) {
            return;
        }
        let blocked = with_door(conn, |door| door.wire.is_blocked());
        if !blocked {
            break;
        }
        if conn.is_congested() {
            wait_for_reader(shard, conn);
            break;
        }
        if send == SENDS_PER_TURN {
            flush_later(shard, conn);
            break;
        }
    }
    rest_if_due(shard, conn);
    with_door(conn, |door| {
        if !door.resting {
            door.wire.begin_turn();
        }
        for buffer in door.wire.take_empty() {
            shard.give_buffer(buffer);
        }
    });
    settle(shard, conn);
}

/// Reads on; what comes of it leaves at the end of the turn.
fn advance(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    drive(shard, conn);
    rest_if_due(shard, conn);
    pause_or_resume(shard, conn);
    flush_later(shard, conn);
}

/// Leaves what is unread for the next turn when the connection has had its share of this one.
fn rest_if_due(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    if with_door(conn, |door| door.wire.has_rest() && !std::mem::replace(&mut door.resting, true)) {
        shard.rest(conn.token);
    }
}

/// Polls h2 and serves what that brings.
fn drive(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let mut polled = with_door(conn, |door| door.poll(shard));
    let cut = |door: &mut H2| if matches!(door.stage, Stage::Open(_)) { door.wire.cut() } else { None };
    if polled.ended.is_none()
        && let Some(cut) = with_door(conn, cut)
    {
        let code = match cut {
            Cut::Flood => {
                shard.metrics.rejected(Rejection::Flood);
                Reason::ENHANCE_YOUR_CALM
            }
            Cut::FrameSize => Reason::FRAME_SIZE_ERROR,
        };
        with_door(conn, |door| door.go_away(code));
        polled = with_door(conn, |door| door.poll(shard));
    }
    if let Some(error) = polled.ended {
        if let Some(reason) = error {
            shard.metrics.h2_error(reason);
        }
        return finish(shard, conn);
    }
    for (request, respond) in polled.requests {
        accept(shard, conn, request, respond);
    }
    for (stream, pending, read) in with_door(conn, |door| door.read_bodies(shard)) {
        match read {
            Read::Whole => serve(shard, conn, stream, *pending),
            Read::Refused(refusal) => {
                let mut pending = *pending;
                refuse(shard, &mut pending.reply, &refusal);
                give_back(shard, pending);
            }
            Read::Gone => give_back(shard, *pending),
        }
    }
    // Unless they stay, their destructors close the upstream's side: for a modern request that is its cancellation.
    for task in with_door(conn, H2::take_reset) {
        shard.leave(task);
    }
}

/// Nothing more is read from a client that was refused for lack of capacity until it may ask again. Not while it has
/// something else in flight, which it may have to answer or want to cancel.
fn hold(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let idle = with_door(conn, |door| {
        let idle =
            door.hold.is_none() && door.flights.iter().all(|flight| matches!(flight.phase, Phase::Ending));
        if idle {
            door.wire.held.set(true);
        }
        idle
    });
    if !idle {
        return;
    }
    let (own_shard, own_conn) = (shard.clone(), conn.clone());
    let task = shard.core.tasks.spawn(|| async move {
        own_shard.held().await;
        with_door(&own_conn, |door| {
            door.hold = None;
            door.wire.held.set(false);
        });
        advance(&own_shard, &own_conn);
    });
    with_door(conn, |door| door.hold = Some(task));
}

/// Nothing is written until the client has read enough of what was sent to it; h2 then reads nothing either.
fn wait_for_reader(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    if with_door(conn, |door| door.reader.is_some() || door.wire.congested.replace(true)) {
        return;
    }
    let (own_shard, own_conn) = (shard.clone(), conn.clone());
    let task = shard.core.tasks.spawn(|| async move {
        if own_conn.drained().await.is_ok() {
            with_door(&own_conn, |door| {
                door.reader = None;
                door.wire.congested.set(false);
            });
            flush_later(&own_shard, &own_conn);
        }
    });
    with_door(conn, |door| door.reader = Some(task));
}

/// Sends what h2 has written; `false` when the connection is closed.
fn send_output(shard: &Rc<Shard>, conn: &Rc<Conn>) -> bool {
    let out = with_door(conn, |door| door.wire.take_output());
    let sent = out.is_empty() || conn.send(shard, &[&out]).is_ok();
    shard.give_buffer(out);
    sent && conn.is_open()
}

/// Sees to the deadline, to what is held, and to whether the client is read.
fn settle(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let Some((by, held)) = with_door(conn, |door| Some((door.settle(shard), door.held_bytes()))) else {
        return;
    };
    conn.count_door_bytes(shard, held);
    pause_or_resume(shard, conn);
    if conn.is_open() {
        conn.set_deadline(shard, by);
    }
}

/// What h2 does not read waits in the kernel, behind one read that waits here.
fn pause_or_resume(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let behind = |door: &mut H2| {
        !matches!(door.stage, Stage::Closing) && (door.wire.held.get() || door.wire.unread() > 0)
    };
    if with_door(conn, behind) {
        conn.pause();
    } else {
        conn.resume(shard);
    }
}

/// Ends the connection when everything is sent. What the client sends meanwhile is thrown away for a moment: it answers
/// what it reads with WINDOW_UPDATEs, and a reset in return would destroy what it has not read.
fn finish(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    if send_output(shard, conn) {
        stop(shard, conn);
        conn.count_door_bytes(shard, 0);
        conn.resume(shard);
        conn.finish(shard, true);
    }
}

/// Forgets h2's state and leaves what is in flight.
fn stop(shard: &Rc<Shard>, conn: &Conn) {
    let (stage, flights, tasks) = with_door(conn, |door| {
        let stage = std::mem::replace(&mut door.stage, Stage::Closing);
        (Some(stage), std::mem::take(&mut door.flights), [door.reader.take(), door.hold.take()])
    });
    let mut tasks: Vec<_> = tasks.into_iter().flatten().collect();
    for flight in flights {
        if let Phase::Exchange(task) = flight.phase {
            tasks.push(task);
        }
    }
    // Unless they stay, their destructors close the upstream's side: for a modern request that is its cancellation.
    tasks.into_iter().for_each(|task| shard.leave(task));
    drop(stage);
}
