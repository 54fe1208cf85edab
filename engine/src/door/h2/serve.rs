//! From a stream to an answer: owns the admission of a request by its head, as HTTP/1.1 would have it, and the start of its
//! exchange. Never frames, never a connection's end.

use std::rc::Rc;

use h2::RecvStream;
use h2::server::SendResponse;
use http::Request;
use mcp_protocol::http1::{HeadError, HeadLimits, parse_request_into};
use mcp_protocol::ws::UpgradeError;

use super::answer::{Answer, Piece};
use super::flight::{Pending, Phase};
use super::reply::H2Reply;
use super::{on_answered, request, with_door};
use crate::door::http1::MAX_HEADERS;
use crate::door::{Place, Reply, http_any};
use crate::exchange::HttpHead;
use crate::metrics::Protocol;
use crate::policy::admission::{self, Route};
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::conn::Conn;

/// A stream has begun: admits it by its head, as HTTP/1.1 would.
pub(super) fn accept(
    shard: &Rc<Shard>,
    conn: &Rc<Conn>,
    request: Request<RecvStream>,
    respond: SendResponse<Piece>,
) {
    let stream = respond.stream_id().as_u32();
    let (parts, input) = request.into_parts();
    let ends = input.is_end_stream();
    let Some(answer) = with_door(conn, |door| {
        let answer = Answer::new(shard, &door.wire, respond);
        door.add(stream, &answer);
        Some(answer)
    }) else {
        return;
    };
    let reply = H2Reply::bare(shard, conn, stream, &answer);
    let mut bytes = shard.take_buffer();
    request::write_head(&mut bytes, &parts, ends);
    let mut head = shard.request_heads.take().unwrap_or_default();
    let limits =
        HeadLimits { max_bytes: shard.setup().config.server.max_header_bytes, max_headers: MAX_HEADERS };
    let (reply, admitted) = match parse_request_into(&mut head, &bytes, &limits) {
        Ok(true) => (reply.for_head(&head, &bytes), admission::admit(shard, &head, &bytes)),
        // The text is one whole head by the way it was written.
        Ok(false) => (reply, Err(Refusal::Head(HeadError::Malformed { what: "header list" }))),
        Err(error) => (reply, Err(Refusal::Head(error))),
    };
    let http = HttpHead { bytes, head, protocol: Protocol::H2 };
    let mut pending = Pending::new(shard, http, Route::Health, reply, input);
    match admitted {
        Ok(route) => pending.route = route,
        Err(refusal) => {
            refuse(shard, &mut pending.reply, &refusal);
            return give_back(shard, *pending);
        }
    }
    if ends {
        return serve(shard, conn, stream, *pending);
    }
    if pending.http.head.expect_continue {
        answer.send_continue();
    }
    let held = pending.bytes();
    with_door(conn, |door| door.set_phase(stream, Phase::Body(pending), held));
}

/// Serves a complete request.
pub(super) fn serve(shard: &Rc<Shard>, conn: &Rc<Conn>, stream: u32, mut pending: Pending) {
    let (place, verb, scope) = match pending.route {
        Route::Health | Route::Ready => {
            pending.reply.whole(&http_any::health(shard, pending.route == Route::Ready));
            return give_back(shard, pending);
        }
        Route::Preflight => {
            let http = &pending.http;
            let asked = http.head.headers.all(&http.bytes, "access-control-request-headers").next();
            let answer = http_any::preflight(pending.reply.has_allowed_origin(), asked);
            pending.reply.whole(&answer);
            return give_back(shard, pending);
        }
        // The fields that ask for an upgrade have no place in HTTP/2.
        Route::Socket { .. } => {
            refuse(shard, &mut pending.reply, &Refusal::Upgrade(UpgradeError::NoUpgrade));
            return give_back(shard, pending);
        }
        Route::Mcp { verb, scope } => (Place::Mcp, verb, scope),
        Route::Sse { verb, scope } => (Place::Sse, verb, scope),
    };
    if let Some((refusal, id)) = http_any::overloaded(shard, verb, &pending.body) {
        pending.reply.refuse(&refusal, id.map(|id| id.of(&pending.body)));
        let shed = pending.reply.is_shed();
        give_back(shard, pending);
        return on_answered(shard, conn, stream, shed);
    }
    let Pending { http, body, reply, .. } = pending;
    let held = http.bytes.len() + body.len();
    let inbound = http_any::inbound(shard, conn.peer, (verb, scope), http, body);
    let task = crate::door::serve(shard, place, inbound, Reply::H2(reply));
    with_door(conn, |door| door.set_phase(stream, Phase::Exchange(task), held));
}

/// Answers with the gateway's own error.
pub(super) fn refuse(shard: &Rc<Shard>, reply: &mut H2Reply, refusal: &Refusal) {
    shard.metrics.refused(refusal.row().reason);
    reply.refuse(refusal, None);
}

/// Hands the request's memory to the next one.
pub(super) fn give_back(shard: &Rc<Shard>, pending: Pending) {
    pending.http.give_back(shard);
    shard.give_buffer(pending.body);
}
