//! What each kind of frame means: owns negotiation, health, control, and the start of a message's exchange. Never bytes
//! on a wire, never a connection's patience.

use std::rc::Rc;
use std::time::Duration;

use mcp_protocol::jsonrpc::Kind;
use mcp_protocol::mcpb::{
    Control, FrameError, FrameKind, HealthCheck, VersionNegotiation, write_version_ack,
};
use serde_json::{Value, json};

use super::login::INITIALIZED;
use super::reply::{Login, McpbReply};
use super::request::{Message, Read, read_request, read_response};
use super::{
    Flight, Leaving, Listener, MAX_IN_FLIGHT, SERVER, Stage, finish, hold, send, send_refusal, with_door,
};
use crate::door::Reply;
use crate::exchange::{self, FrameOrigin, Inbound, Origin};
use crate::metrics::Protocol;
use crate::policy::admission::Verb;
use crate::policy::overload::is_refusable;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::conn::Conn;

/// How soon a server's own stream that ended is opened again, at the earliest.
pub(super) const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Serves a whole frame.
///
/// # Errors
/// [`FrameError`]: the connection gets its text as an Error frame and closes.
pub(super) fn serve(
    shard: &Rc<Shard>,
    conn: &Rc<Conn>,
    kind: FrameKind,
    payload: Vec<u8>,
) -> Result<(), FrameError> {
    let stage = with_door(conn, |door| door.stage);
    match (stage, kind) {
        (Stage::Closing, _) => Ok(()),
        (_, FrameKind::HealthCheck) => health(shard, conn, &payload),
        (Stage::Fresh, FrameKind::VersionNegotiation) => negotiate(shard, conn, &payload),
        (_, FrameKind::Error) => {
            tracing::debug!(text = %String::from_utf8_lossy(&payload), "a client ended with an error");
            finish(shard, conn, false);
            Ok(())
        }
        (Stage::Open, FrameKind::Request) => request(shard, conn, payload),
        (Stage::Open, FrameKind::Response) => {
            let message = read_response(payload)?;
            with_door(conn, |door| door.asked = door.asked.saturating_sub(1));
            launch(shard, conn, message);
            Ok(())
        }
        (Stage::Open, FrameKind::Control) => control(shard, conn, &payload),
        (Stage::Fresh, _) => {
            Err(FrameError::Unexpected { found: kind.label(), expected: "version_negotiation first" })
        }
        (Stage::Open, FrameKind::VersionNegotiation | FrameKind::VersionAck) => {
            Err(FrameError::Unexpected { found: kind.label(), expected: "request, response or control" })
        }
    }
}

fn negotiate(shard: &Rc<Shard>, conn: &Rc<Conn>, payload: &[u8]) -> Result<(), FrameError> {
    let agreed = VersionNegotiation::parse(payload)?.agree()?;
    let mut ack = Vec::new();
    write_version_ack(&mut ack, agreed);
    with_door(conn, |door| door.stage = Stage::Open);
    // A client that is gone needs no answer; the connection has noticed. So it is with all that is sent here.
    let _ = send(shard, conn, FrameKind::VersionAck, &ack);
    Ok(())
}

/// A probe, answered in kind; or the answer to ours, which needs none.
fn health(shard: &Rc<Shard>, conn: &Rc<Conn>, payload: &[u8]) -> Result<(), FrameError> {
    let is_answer = with_door(conn, |door| std::mem::take(&mut door.probe_unanswered)) && payload.is_empty();
    if is_answer || has_status(payload) {
        return Ok(());
    }
    let state = if shard.is_draining() { "draining" } else { "ok" };
    let answer = match HealthCheck::parse(payload)? {
        HealthCheck::Empty => Vec::new(),
        HealthCheck::Simple => json!({ "check": "simple", "status": state }).to_string().into_bytes(),
        HealthCheck::Detailed => json!({
            "check": "detailed",
            "status": state,
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": shard.core.clock.now() / 1000,
            "connections": shard.process.table.connections(),
            "shard": shard.index,
            "in_flight": shard.exchanges(),
            "store": match &shard.kept.link {
                None => "memory",
                Some(link) if link.is_healthy() => "ok",
                Some(_) => "degraded",
            },
        })
        .to_string()
        .into_bytes(),
    };
    let _ = send(shard, conn, FrameKind::HealthCheck, &answer);
    Ok(())
}

/// Whether a HealthCheck payload says how somebody is, rather than asking.
fn has_status(payload: &[u8]) -> bool {
    /// Longer payloads are no answers to a probe.
    const MAX_ANSWER_BYTES: usize = 4096;
    payload.len() <= MAX_ANSWER_BYTES
        && serde_json::from_slice::<Value>(payload).is_ok_and(|value| value.get("status").is_some())
}

fn control(shard: &Rc<Shard>, conn: &Rc<Conn>, payload: &[u8]) -> Result<(), FrameError> {
    let by = shard.core.clock.after(shard.process.config.server.drain_timeout);
    match Control::parse(payload)? {
        Control::Shutdown => {
            with_door(conn, |door| door.leaving = Leaving::Agreed { by });
            let _ = send(shard, conn, FrameKind::Control, Control::ShutdownAck.payload());
        }
        Control::ShutdownAck => with_door(conn, |door| {
            // One that answers nothing changes nothing.
            if let Leaving::Said { by } = door.leaving {
                door.leaving = Leaving::Agreed { by };
            }
        }),
    }
    Ok(())
}

fn request(shard: &Rc<Shard>, conn: &Rc<Conn>, payload: Vec<u8>) -> Result<(), FrameError> {
    let message = match read_request(payload)? {
        Read::Message(message) => message,
        Read::Refused(refusal, id) => {
            shard.metrics.refused(refusal.row().reason);
            let _ = send_refusal(shard, conn, &refusal, id.as_deref());
            return Ok(());
        }
    };
    if message.scan.kind == Kind::Request {
        let (leaving, full) = with_door(conn, |door| {
            (!matches!(door.leaving, Leaving::No), door.flights.len() >= MAX_IN_FLIGHT)
        });
        let refusal = if leaving || shard.is_draining() {
            Some(Refusal::Draining)
        } else if full {
            Some(Refusal::InFlight { limit: MAX_IN_FLIGHT })
        } else {
            let why = shard.overload.refuses().filter(|_| is_refusable(&message.scan, &message.body));
            why.map(|why| Refusal::Overloaded { why })
        };
        if let Some(refusal) = refusal {
            shard.metrics.refused(refusal.row().reason);
            let id = message.scan.id.map(|id| id.of(&message.body));
            if send_refusal(shard, conn, &refusal, id).is_ok() && refusal.shed().is_some() {
                hold(shard, conn);
            }
            return Ok(());
        }
    } else if message.is("notifications/cancelled") && cancel(shard, conn, &message) {
        return Ok(());
    }
    launch(shard, conn, message);
    let now = shard.core.clock.now();
    if with_door(conn, |door| matches!(door.listener, Listener::Ended(again) if now >= again)) {
        listen(shard, conn);
    }
    Ok(())
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

/// Ends a bare login's handshake with the server.
pub(super) fn announce(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    if let Ok(Read::Message(message)) = read_request(INITIALIZED.to_vec()) {
        launch(shard, conn, message);
    }
}

/// Opens the stream on which a legacy server speaks by itself.
pub(super) fn listen(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    with_door(conn, |door| door.listener = Listener::Up);
    start(shard, conn, Start { verb: Verb::Listen, endless: true, ..Start::default() });
}

/// Starts a message's exchange.
fn launch(shard: &Rc<Shard>, conn: &Rc<Conn>, message: Message) {
    let is = |method| message.is(method);
    let is_request = message.scan.kind == Kind::Request;
    let initialized = is("notifications/initialized");
    let endless = is("subscriptions/listen");
    start(
        shard,
        conn,
        Start {
            verb: Verb::Message,
            endless: endless && is_request,
            modern: endless || is("server/discover") || message.scan.meta_protocol_version.is_some(),
            opens_stream: initialized,
            barrier: initialized || message.login.is_some(),
            message: Some(message),
        },
    );
}

/// What an exchange begins with.
struct Start {
    verb: Verb,
    message: Option<Message>,
    endless: bool,
    modern: bool,
    opens_stream: bool,
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
            barrier: false,
        }
    }
}

fn start(shard: &Rc<Shard>, conn: &Rc<Conn>, start: Start) {
    let (mut origin, number) = with_door(conn, |door| {
        door.next_flight = door.next_flight.wrapping_add(1);
        if start.barrier {
            door.barrier = Some(door.next_flight);
        }
        let session = door.session.as_ref();
        let origin = FrameOrigin {
            protocol: Protocol::Mcpb,
            session: session.map(|session| session.id),
            revision: session.map(|session| session.revision.clone()),
            authorization: session.and_then(|session| session.authorization.clone()),
            ..FrameOrigin::default()
        };
        (origin, door.next_flight)
    });
    let (mut id, mut login, mut body) = (None, None, Vec::new());
    if let Some(message) = start.message {
        if message.scan.kind == Kind::Request {
            id = message.scan.id.map(|id| Rc::<[u8]>::from(id.of(&message.body)));
        }
        origin.scan = Some(message.scan);
        if let Some(kind) = message.login {
            // A second login opens a session of its own.
            origin = FrameOrigin { protocol: Protocol::Mcpb, scan: origin.scan, ..FrameOrigin::default() };
            login = Some(Login { kind, authorization: message.authorization.clone() });
        }
        origin.authorization = message.authorization.or(origin.authorization);
        body = message.body;
    }
    let reply = McpbReply::new(shard, conn, number, id.clone(), login);
    let bytes = body.capacity();
    let message = exchange::Message { origin: Origin::Frame(Box::new(origin)), body };
    let place = (!start.endless).then(|| shard.overload.enter());
    let inbound = Inbound { verb: start.verb, server: SERVER, peer: conn.peer, message, place };
    let task = shard.core.tasks.spawn(|| exchange::run(shard.clone(), inbound, Reply::Mcpb(reply)));
    let Start { endless, modern, opens_stream, .. } = start;
    with_door(conn, |door| {
        door.flights.push(Flight { number, task, id, bytes, modern, endless, opens_stream });
    });
}
