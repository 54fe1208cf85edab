//! What each event of a socket means: owns the start of a message's exchange. Never bytes on a wire, never a socket's
//! patience.

use std::rc::Rc;

use mcp_protocol::jsonrpc::{Kind, Payload, Scan, ScanLimits, scan};
use mcp_protocol::ws::{Event, write_pong};

use super::close::Close;
use super::position::Position;
use super::reply::{About, WsReply};
use super::state::{Flight, Listener, MAX_IN_FLIGHT, Resume};
use super::{fail, hold, queue, send_refusal, with_door};
use crate::door::Reply;
use crate::exchange::{self, FrameOrigin, Inbound, Origin};
use crate::metrics::{Direction, Protocol};
use crate::policy::admission::Verb;
use crate::policy::overload::is_refusable;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::conn::Conn;

/// Serves what came.
pub(super) fn serve(shard: &Rc<Shard>, conn: &Rc<Conn>, event: Event) {
    match event {
        // A client that is gone needs no answer; the connection has noticed. So it is with all that is sent here.
        Event::Ping(payload) => drop(queue(shard, conn, |out| write_pong(out, &payload))),
        Event::Pong => {}
        Event::Close(code) => fail(shard, conn, Close::Client(code)),
        Event::Text(text) => {
            shard.metrics.ws_message(Direction::In);
            text_message(shard, conn, text);
        }
    }
}

/// A message and what is known of it.
struct Message {
    body: Vec<u8>,
    scan: Scan,
}

impl Message {
    fn is(&self, method: &str) -> bool {
        self.scan.method.is_some_and(|found| found.eq_str(&self.body, method))
    }
}

fn text_message(shard: &Rc<Shard>, conn: &Rc<Conn>, body: Vec<u8>) {
    let refused = match scan(&body, &ScanLimits::default()) {
        Ok(Payload::Single(scan)) => return message(shard, conn, Message { body, scan }),
        // One message is one text message here, in every revision.
        Ok(Payload::Batch(_)) => (Refusal::Batch, None),
        Err(failure) => (Refusal::Scan(failure.error), failure.id),
    };
    let (refusal, id) = refused;
    shard.metrics.refused(refusal.row().reason);
    let _ = send_refusal(shard, conn, &refusal, id.map(|id| id.of(&body)));
}

fn message(shard: &Rc<Shard>, conn: &Rc<Conn>, message: Message) {
    match message.scan.kind {
        Kind::Response => with_door(conn, |door| door.asked = door.asked.saturating_sub(1)),
        Kind::Request => {
            if let Some(refusal) = refused(shard, conn, &message) {
                shard.metrics.refused(refusal.row().reason);
                let id = message.scan.id.map(|id| id.of(&message.body));
                if send_refusal(shard, conn, &refusal, id).is_ok() && refusal.shed().is_some() {
                    hold(shard, conn);
                }
                return;
            }
        }
        Kind::Notification => {}
    }
    let cancels = cancelled(&message);
    if let Some(id) = &cancels
        && cancel_modern(shard, conn, id)
    {
        return;
    }
    let is = |method| message.is(method);
    let is_request = message.scan.kind == Kind::Request;
    let (initialized, opens_session) = (is("notifications/initialized"), is_request && is("initialize"));
    let subscribes = is("subscriptions/listen");
    let start = Start {
        verb: Verb::Message,
        endless: subscribes && is_request,
        modern: subscribes || is("server/discover") || message.scan.meta_protocol_version.is_some(),
        opens_stream: initialized,
        opens_session,
        barrier: initialized || opens_session,
        cancels,
        message: Some(message),
        ..Start::default()
    };
    launch(shard, conn, start);
}

/// Why a request is not served now, if so.
fn refused(shard: &Rc<Shard>, conn: &Rc<Conn>, message: &Message) -> Option<Refusal> {
    let (leaving, full) = with_door(conn, |door| (door.leaving, door.flights.len() >= MAX_IN_FLIGHT));
    if leaving || shard.is_draining() {
        return Some(Refusal::Draining);
    }
    if full {
        return Some(Refusal::InFlight { limit: MAX_IN_FLIGHT });
    }
    let why = shard.overload.refuses().filter(|_| is_refusable(&message.scan, &message.body));
    why.map(|why| Refusal::Overloaded { why })
}

/// The raw id of the request that the message cancels.
fn cancelled(message: &Message) -> Option<Rc<[u8]>> {
    let is_it = message.scan.kind == Kind::Notification && message.is("notifications/cancelled");
    message.scan.request_id.filter(|_| is_it).map(|id| id.of(&message.body).into())
}

/// Ends the exchange of a modern request, which tells the server (streamable-http.mdx, "Cancellation"); `false` when the
/// request is of another kind: then the server wants to read it.
fn cancel_modern(shard: &Shard, conn: &Conn, id: &[u8]) -> bool {
    take_flight(conn, id, true).is_some_and(|flight| {
        shard.core.tasks.cancel(flight.task);
        true
    })
}

/// Ends the exchange of a legacy request whose server has been told that nobody waits any more: it owes no answer, and its
/// stream may have no end.
pub(super) fn cancel_legacy(shard: &Shard, conn: &Conn, id: &[u8]) {
    if let Some(flight) = take_flight(conn, id, false) {
        shard.core.tasks.cancel(flight.task);
    }
}

fn take_flight(conn: &Conn, id: &[u8], modern: bool) -> Option<Flight> {
    with_door(conn, |door| {
        let is_it = |flight: &Flight| flight.modern == modern && flight.id.as_deref() == Some(id);
        let place = door.flights.iter().position(is_it)?;
        Some(door.flights.swap_remove(place))
    })
}

/// Opens the stream on which a legacy server speaks by itself, where it left off.
pub(super) fn listen(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let from = with_door(conn, |door| {
        let is_wanted = door.session.is_some() && !door.leaving && !door.closing;
        door.listener = if is_wanted { door.listener.up() } else { Listener::Off };
        is_wanted.then(|| door.heard.again())
    });
    if let Some(from) = from {
        launch(shard, conn, Start { verb: Verb::Listen, endless: true, from, ..Start::default() });
    }
}

/// What an exchange begins with.
struct Start {
    verb: Verb,
    message: Option<Message>,
    endless: bool,
    modern: bool,
    opens_stream: bool,
    opens_session: bool,
    barrier: bool,
    cancels: Option<Rc<[u8]>>,
    /// Where a stream goes on.
    from: Position,
}

impl Default for Start {
    fn default() -> Self {
        Start {
            verb: Verb::Message,
            message: None,
            endless: false,
            modern: false,
            opens_stream: false,
            opens_session: false,
            barrier: false,
            cancels: None,
            from: Position::default(),
        }
    }
}

fn launch(shard: &Rc<Shard>, conn: &Rc<Conn>, start: Start) {
    let Start { verb, message, endless, modern, opens_stream, opens_session, barrier, cancels, from } = start;
    let begun = with_door(conn, |door| {
        door.next_flight = door.next_flight.wrapping_add(1);
        if barrier {
            door.barrier = Some(door.next_flight);
        }
        Some((door.next_flight, door.session_number))
    });
    let Some((number, session_number)) = begun else { return };
    let Some(mut origin) = origin(shard, conn, opens_session) else { return };
    origin.last_event_id = from.id.clone();
    let resumable = origin.session.is_some() && !modern;
    let (mut id, mut body) = (None, Vec::new());
    if let Some(message) = message {
        if message.scan.kind == Kind::Request {
            id = message.scan.id.map(|id| Rc::<[u8]>::from(id.of(&message.body)));
        }
        origin.scan = Some(message.scan);
        body = message.body;
    }
    let bytes = body.capacity();
    let about =
        About { flight: number, id: id.clone(), opens_session, resumable, tries: None, position: from };
    let (mut inbound, reply) = inbound(shard, conn, verb, origin, about);
    inbound.message.body = body;
    inbound.place = (!endless).then(|| shard.overload.enter());
    let task = shard.core.tasks.spawn(|| exchange::run(shard.clone(), inbound, Reply::Ws(reply)));
    let flight = Flight { number, session_number, task, id, bytes, modern, endless, opens_stream, cancels };
    with_door(conn, |door| door.flights.push(flight));
}

/// Goes on with a request whose answer's stream ended before the response, after the pause that the server asked for; the
/// flight is the same.
pub(super) fn resume(shard: &Rc<Shard>, conn: &Rc<Conn>, flight: u32, position: &Position, resume: Resume) {
    let Some(mut origin) = origin(shard, conn, false) else { return };
    origin.last_event_id = position.id.clone();
    let about = About {
        flight,
        id: Some(resume.id),
        opens_session: false,
        resumable: true,
        tries: Some(resume.tries),
        position: position.again(),
    };
    let (inbound, reply) = inbound(shard, conn, Verb::Listen, origin, about);
    let at = shard.core.clock.after(position.pause());
    let own_shard = shard.clone();
    let task = shard.core.tasks.spawn(|| async move {
        // Only the time ends this step.
        let _ = own_shard.deadline(at, std::future::pending::<()>()).await;
        exchange::run(own_shard, inbound, Reply::Ws(reply)).await;
    });
    with_door(conn, |door| {
        if let Some(flight) = door.flights.iter_mut().find(|found| found.number == flight) {
            flight.task = task;
        }
    });
}

/// What the socket says beside a message; a message that opens a session belongs to none.
fn origin(shard: &Shard, conn: &Conn, opens_session: bool) -> Option<FrameOrigin> {
    let touch_at = shard.core.clock.after(super::touch_after(shard));
    with_door(conn, |door| {
        let session = door.session.as_ref().filter(|_| !opens_session);
        if session.is_some() {
            door.patience.touch_at = touch_at;
        }
        Some(FrameOrigin {
            protocol: Protocol::Ws,
            session: session.map(|session| session.id),
            revision: session.and_then(|session| session.revision.clone()),
            authorization: door.authorization.clone(),
            ..FrameOrigin::default()
        })
    })
}

/// An exchange without a body, and where its answer goes.
fn inbound(
    shard: &Rc<Shard>,
    conn: &Rc<Conn>,
    verb: Verb,
    origin: FrameOrigin,
    about: About,
) -> (Inbound, WsReply) {
    let server = with_door(conn, |door| door.server);
    let message = exchange::Message { origin: Origin::Frame(Box::new(origin)), body: Vec::new() };
    let inbound = Inbound { verb, server, peer: conn.peer, message, place: None };
    (inbound, WsReply::new(shard, conn, server, about))
}
