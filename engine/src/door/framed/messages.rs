//! The start of a message's exchange: owns what is refused at once, what a cancellation ends, the server's own stream and
//! the streams that are resumed. Never bytes on a wire, never a connection's patience.

use std::rc::Rc;

use mcp_protocol::jsonrpc::{Kind, Scan};

use super::flow::{hold, send_refusal};
use super::recipient::{FramedReply, OnConn};
use super::state::{Flight, MAX_IN_FLIGHT};
use super::{FramedDoor, with_framed};
use crate::door::answers::{About, Listener, MessageReply, Position, Resume};
use crate::exchange::{self, FrameOrigin, Inbound, Origin};
use crate::policy::admission::Verb;
use crate::policy::overload::is_refusable;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::conn::Conn;

/// A client's message and what is known of it.
#[derive(Debug)]
pub(crate) struct Message<L> {
    pub(crate) body: Vec<u8>,
    pub(crate) scan: Scan,
    /// The `Authorization` that it brings itself.
    pub(crate) authorization: Option<Rc<str>>,
    /// It is the request `initialize`.
    pub(crate) login: Option<L>,
}

impl<L> Message<L> {
    pub(crate) fn is(&self, method: &str) -> bool {
        self.scan.method.is_some_and(|found| found.eq_str(&self.body, method))
    }
}

/// Serves a message: its exchange begins, unless it is refused or is itself the end of another.
pub(crate) fn serve<D: FramedDoor>(shard: &Rc<Shard>, conn: &Rc<Conn>, message: Message<D::Login>) {
    match message.scan.kind {
        Kind::Response => with_framed::<D, _>(conn, |framed| framed.asked = framed.asked.saturating_sub(1)),
        Kind::Request => {
            if let Some(refusal) = refused::<D>(shard, conn, &message) {
                shard.metrics.refused(refusal.row().reason);
                let id = message.scan.id.map(|id| id.of(&message.body));
                if send_refusal::<D>(shard, conn, &refusal, id).is_ok() && refusal.shed().is_some() {
                    hold::<D>(shard, conn);
                }
                return;
            }
        }
        Kind::Notification => {}
    }
    let cancels = cancelled(&message);
    if let Some(id) = &cancels
        && cancel_modern::<D>(shard, conn, id)
    {
        return;
    }
    let is = |method| message.is(method);
    let initialized = is("notifications/initialized");
    let subscribes = is("subscriptions/listen");
    let start = Start {
        verb: Verb::Message,
        endless: subscribes && message.scan.kind == Kind::Request,
        modern: subscribes || is("server/discover") || message.scan.meta_protocol_version.is_some(),
        opens_stream: initialized,
        barrier: initialized || message.login.is_some(),
        cancels,
        message: Some(message),
        from: Position::default(),
    };
    launch::<D>(shard, conn, start);
}

/// Why a request is not served now, if so.
fn refused<D: FramedDoor>(
    shard: &Rc<Shard>,
    conn: &Rc<Conn>,
    message: &Message<D::Login>,
) -> Option<Refusal> {
    let (leaving, full) =
        with_framed::<D, _>(conn, |framed| (framed.leaving, framed.flights.len() >= MAX_IN_FLIGHT));
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
fn cancelled<L>(message: &Message<L>) -> Option<Rc<[u8]>> {
    let is_it = message.scan.kind == Kind::Notification && message.is("notifications/cancelled");
    message.scan.request_id.filter(|_| is_it).map(|id| id.of(&message.body).into())
}

/// Ends the exchange of a modern request, which tells the server (streamable-http.mdx, "Cancellation"); `false` when the
/// request is of another kind: then the server wants to read it.
fn cancel_modern<D: FramedDoor>(shard: &Shard, conn: &Conn, id: &[u8]) -> bool {
    take_flight::<D>(conn, id, true).is_some_and(|flight| {
        shard.core.tasks.cancel(flight.task);
        true
    })
}

/// Ends the exchange of a legacy request whose server has been told that nobody waits any more: it owes no answer, and its
/// stream may have no end.
pub(super) fn cancel_legacy<D: FramedDoor>(shard: &Shard, conn: &Conn, id: &[u8]) {
    if let Some(flight) = take_flight::<D>(conn, id, false) {
        shard.core.tasks.cancel(flight.task);
    }
}

fn take_flight<D: FramedDoor>(conn: &Conn, id: &[u8], modern: bool) -> Option<Flight> {
    with_framed::<D, _>(conn, |framed| {
        let is_it = |flight: &Flight| flight.modern == modern && flight.id.as_deref() == Some(id);
        let place = framed.flights.iter().position(is_it)?;
        Some(framed.flights.swap_remove(place))
    })
}

/// Opens the stream on which a legacy server speaks by itself, where it left off.
pub(crate) fn listen<D: FramedDoor>(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let from = with_framed::<D, _>(conn, |framed| {
        let is_wanted = framed.session.is_some() && !framed.leaving && !framed.closing;
        framed.listener = if is_wanted { framed.listener.up() } else { Listener::Off };
        is_wanted.then(|| framed.heard.again())
    });
    if let Some(from) = from {
        let start = Start {
            verb: Verb::Listen,
            message: None,
            endless: true,
            modern: false,
            opens_stream: false,
            barrier: false,
            cancels: None,
            from,
        };
        launch::<D>(shard, conn, start);
    }
}

/// What an exchange begins with.
struct Start<L> {
    verb: Verb,
    message: Option<Message<L>>,
    endless: bool,
    modern: bool,
    opens_stream: bool,
    barrier: bool,
    cancels: Option<Rc<[u8]>>,
    /// Where a stream goes on.
    from: Position,
}

fn launch<D: FramedDoor>(shard: &Rc<Shard>, conn: &Rc<Conn>, start: Start<D::Login>) {
    let Start { verb, message, endless, modern, opens_stream, barrier, cancels, from } = start;
    let (number, session_number) = with_framed::<D, _>(conn, |framed| {
        framed.next_flight = framed.next_flight.wrapping_add(1);
        if barrier {
            framed.barrier = Some(framed.next_flight);
        }
        (framed.next_flight, framed.session_number)
    });
    let opens_session = message.as_ref().is_some_and(|message| message.login.is_some());
    let Some(mut origin) = origin::<D>(conn, opens_session) else { return };
    origin.last_event_id = from.id.clone();
    let resumable = origin.session.is_some() && !modern;
    let mut about = About { flight: number, resumable, position: from, ..About::default() };
    let (mut login, mut body) = (None, Vec::new());
    if let Some(message) = message {
        if message.scan.kind == Kind::Request {
            about.id = message.scan.id.map(|id| id.of(&message.body).into());
        }
        origin.scan = Some(message.scan);
        origin.authorization = message.authorization.clone().or(origin.authorization);
        about.authorization = message.authorization;
        login = message.login;
        body = message.body;
    }
    let (id, bytes) = (about.id.clone(), body.capacity());
    let (mut inbound, reply) = inbound::<D>(shard, conn, verb, origin, (about, login));
    inbound.message.body = body;
    inbound.place = (!endless).then(|| shard.overload.enter());
    let task = shard.core.tasks.spawn(|| exchange::run(shard.clone(), inbound, D::reply(reply)));
    let flight = Flight { number, session_number, task, id, bytes, modern, endless, opens_stream, cancels };
    with_framed::<D, _>(conn, |framed| framed.flights.push(flight));
}

/// Goes on with a request whose answer's stream ended before the response, after the pause that the server asked for; the
/// flight is the same.
pub(super) fn resume<D: FramedDoor>(
    shard: &Rc<Shard>,
    conn: &Rc<Conn>,
    flight: u32,
    position: &Position,
    resume: Resume,
) {
    let Some(mut origin) = origin::<D>(conn, false) else { return };
    origin.last_event_id = position.id.clone();
    origin.authorization = resume.authorization.clone().or(origin.authorization);
    let about = About {
        flight,
        id: Some(resume.id),
        authorization: resume.authorization,
        resumable: true,
        tries: Some(resume.tries),
        position: position.again(),
    };
    let (inbound, reply) = inbound::<D>(shard, conn, Verb::Listen, origin, (about, None));
    let at = shard.core.clock.after(position.pause());
    let own_shard = shard.clone();
    let task = shard.core.tasks.spawn(|| async move {
        // Only the time ends this step.
        let _ = own_shard.deadline(at, std::future::pending::<()>()).await;
        exchange::run(own_shard, inbound, D::reply(reply)).await;
    });
    with_framed::<D, _>(conn, |framed| {
        if let Some(flight) = framed.flights.iter_mut().find(|found| found.number == flight) {
            flight.task = task;
        }
    });
}

/// What the connection says beside a message; a message that opens a session belongs to none.
pub(super) fn origin<D: FramedDoor>(conn: &Conn, opens_session: bool) -> Option<FrameOrigin> {
    with_framed::<D, _>(conn, |framed| {
        let session = framed.session.as_ref().filter(|_| !opens_session);
        let of_session = session.and_then(|session| session.authorization.clone());
        Some(FrameOrigin {
            protocol: D::PROTOCOL,
            session: session.map(|session| session.id),
            revision: session.and_then(|session| session.revision.clone()),
            authorization: of_session.or_else(|| framed.authorization.clone()),
            ..FrameOrigin::default()
        })
    })
}

/// An exchange without a body, and where its answer goes.
fn inbound<D: FramedDoor>(
    shard: &Rc<Shard>,
    conn: &Rc<Conn>,
    verb: Verb,
    origin: FrameOrigin,
    (about, login): (About, Option<D::Login>),
) -> (Inbound, FramedReply<D>) {
    let inbound = bare::<D>(conn, verb, origin);
    let recipient = OnConn::new(conn, inbound.scope, login);
    (inbound, MessageReply::new(shard, recipient, about))
}

/// An exchange without a body.
pub(super) fn bare<D: FramedDoor>(conn: &Conn, verb: Verb, origin: FrameOrigin) -> Inbound {
    let scope = with_framed::<D, _>(conn, |framed| framed.scope);
    let message = exchange::Message { origin: Origin::Frame(Box::new(origin)), body: Vec::new() };
    Inbound { verb, scope, peer: conn.peer, message, place: None }
}
