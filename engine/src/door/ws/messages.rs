//! What each event of a socket means: owns the start of a message's exchange. Never bytes on a wire, never a socket's
//! patience.

use std::rc::Rc;

use mcp_protocol::jsonrpc::{Kind, Payload, Scan, ScanLimits, scan};
use mcp_protocol::ws::{Event, write_pong};

use super::close::Close;
use super::reply::WsReply;
use super::state::{Flight, Listener, MAX_IN_FLIGHT};
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
        Kind::Notification => {
            if message.is("notifications/cancelled") && cancel(shard, conn, &message) {
                return;
            }
        }
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
        message: Some(message),
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

/// Ends the exchange of a modern request, which tells the server (streamable-http.mdx, "Cancellation"); `false` when the
/// request is of another kind: then the server wants to read it.
fn cancel(shard: &Rc<Shard>, conn: &Rc<Conn>, message: &Message) -> bool {
    let Some(cancelled) = message.scan.request_id.map(|id| id.of(&message.body)) else { return false };
    let flight = with_door(conn, |door| {
        let is_it = |flight: &Flight| flight.modern && flight.id.as_deref() == Some(cancelled);
        let place = door.flights.iter().position(is_it)?;
        Some(door.flights.swap_remove(place))
    });
    match flight {
        Some(flight) => {
            shard.core.tasks.cancel(flight.task);
            true
        }
        None => false,
    }
}

/// Opens the stream on which a legacy server speaks by itself.
pub(super) fn listen(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let now = shard.core.clock.now();
    let is_wanted = with_door(conn, |door| {
        let is_wanted = door.session.is_some() && !door.leaving && !door.closing;
        door.listener = if is_wanted { door.listener.up(now) } else { Listener::Off };
        is_wanted
    });
    if is_wanted {
        launch(shard, conn, Start { verb: Verb::Listen, endless: true, ..Start::default() });
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
        }
    }
}

fn launch(shard: &Rc<Shard>, conn: &Rc<Conn>, start: Start) {
    let Start { verb, message, endless, modern, opens_stream, opens_session, barrier } = start;
    let touch_at = shard.core.clock.after(super::touch_after(shard));
    let begun = with_door(conn, |door| {
        door.next_flight = door.next_flight.wrapping_add(1);
        if barrier {
            door.barrier = Some(door.next_flight);
        }
        // A second `initialize` opens a session of its own.
        let session = door.session.as_ref().filter(|_| !opens_session);
        if session.is_some() {
            door.patience.touch_at = touch_at;
        }
        let origin = FrameOrigin {
            protocol: Protocol::Ws,
            session: session.map(|session| session.id),
            revision: session.and_then(|session| session.revision.clone()),
            authorization: door.authorization.clone(),
            ..FrameOrigin::default()
        };
        Some((origin, door.next_flight, door.server))
    });
    let Some((mut origin, number, server)) = begun else { return };
    let (mut id, mut body) = (None, Vec::new());
    if let Some(message) = message {
        if message.scan.kind == Kind::Request {
            id = message.scan.id.map(|id| Rc::<[u8]>::from(id.of(&message.body)));
        }
        origin.scan = Some(message.scan);
        body = message.body;
    }
    let reply = WsReply::new(shard, conn, server, number, id.clone(), opens_session);
    let bytes = body.capacity();
    let message = exchange::Message { origin: Origin::Frame(Box::new(origin)), body };
    let place = (!endless).then(|| shard.overload.enter());
    let inbound = Inbound { verb, server, peer: conn.peer, message, place };
    let task = shard.core.tasks.spawn(|| exchange::run(shard.clone(), inbound, Reply::Ws(reply)));
    with_door(conn, |door| {
        let session_number = door.session_number;
        door.flights.push(Flight { number, session_number, task, id, bytes, modern, endless, opens_stream });
    });
}
