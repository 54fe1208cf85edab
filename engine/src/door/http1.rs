//! HTTP/1.1: owns a connection's way from bytes to requests, one at a time, and the limits of that way. It decides what
//! can be decided from the head; the message itself goes to [`crate::exchange`].
//!
//! Invariants: at most one exchange is in flight per connection; what a client pipelines behind it is bounded by
//! `max_header_bytes` and then not read, and neither is it while the client does not take the answers; a request that is
//! refused before its body was read closes the connection; a connection gets one request per turn of the shard, however
//! many it pipelines, and one that was refused for lack of capacity is not read before it may ask again.

use std::rc::Rc;

use mcp_protocol::http1::{Body, ChunkedDecoder, HeadLimits, parse_request_into};

use super::reply::Http1Reply;
use super::{Door, Place, Reply, http_any, ws};
use crate::exchange::HttpHead;
use crate::metrics::{Protocol, Rejection};
use crate::policy::admission::{self, Route};
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::clock::NEVER;
use crate::shard::conn::Conn;
use crate::shard::tasks::TaskId;

/// Header lines per request.
pub(super) const MAX_HEADERS: usize = 100;

#[derive(Default)]
pub(crate) struct Http1 {
    phase: Phase,
    /// Bytes that do not make a whole head yet, or that follow the request in flight.
    input: Vec<u8>,
    /// The deadline of the head that has begun is set.
    head_timed: bool,
    exchange: Option<TaskId>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Head,
    Body(Box<Pending>),
    Busy,
}

/// A request whose body is on its way.
struct Pending {
    request: Request,
    route: Route,
    decoder: Option<ChunkedDecoder>,
    /// Bytes of a body with a length that are still to come.
    left: usize,
}

/// A request: its head, and the body as far as it is here.
struct Request {
    http: HttpHead,
    body: Vec<u8>,
}

enum Step {
    /// Nothing more can be done with what is here.
    Wait,
    /// A request is complete; so many bytes of the input belonged to it.
    Request(Request, Route, usize),
    /// The head is complete, the body is not: so many bytes were taken.
    Body(Box<Pending>, usize),
    Refused(Refusal, Option<Http1Reply>),
}

pub(crate) fn on_open(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    conn.set_deadline(shard, shard.core.clock.after(shard.setup().config.server.idle_timeout));
}

pub(crate) fn on_data(shard: &Rc<Shard>, conn: &Rc<Conn>, data: &[u8]) {
    let input = {
        let Door::Http1(http) = &mut *conn.door.borrow_mut() else { return };
        if http.input.is_empty() && !matches!(http.phase, Phase::Busy) {
            None
        } else {
            http.input.extend_from_slice(data);
            if matches!(http.phase, Phase::Busy) {
                if http.input.len() > shard.setup().config.server.max_header_bytes {
                    conn.pause();
                }
                let held = http.input.capacity();
                return conn.count_door_bytes(shard, held);
            }
            Some(std::mem::take(&mut http.input))
        }
    };
    match input {
        None => advance(shard, conn, data),
        Some(input) => advance(shard, conn, &input),
    }
}

/// The exchange has sent its answer in full.
pub(crate) fn on_answered(shard: &Rc<Shard>, conn: &Rc<Conn>, keep_alive: bool) {
    let more = {
        let Door::Http1(http) = &mut *conn.door.borrow_mut() else { return };
        http.exchange = None;
        !http.input.is_empty()
    };
    if more && keep_alive && !shard.is_draining() {
        // What is pipelined waits for the next turn, so that one connection cannot have this one to itself.
        shard.rest(conn.token);
    } else {
        next(shard, conn, keep_alive);
    }
}

/// Goes on with what was pipelined.
pub(crate) fn go_on(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    next(shard, conn, true);
}

/// Takes the next request, or ends the connection.
fn next(shard: &Rc<Shard>, conn: &Rc<Conn>, keep_alive: bool) {
    let input = {
        let Door::Http1(http) = &mut *conn.door.borrow_mut() else { return };
        http.phase = Phase::Head;
        std::mem::take(&mut http.input)
    };
    if !keep_alive || shard.is_draining() {
        return conn.finish(shard, false);
    }
    conn.set_deadline(shard, shard.core.clock.after(shard.setup().config.server.idle_timeout));
    if input.is_empty() {
        conn.count_door_bytes(shard, 0);
    } else {
        advance(shard, conn, &input);
    }
    // Whoever pipelines faster than it reads would otherwise have more taken in with each answer.
    let full = {
        let Door::Http1(http) = &*conn.door.borrow() else { return };
        matches!(http.phase, Phase::Busy) && http.input.len() > shard.setup().config.server.max_header_bytes
    };
    if !full {
        conn.resume(shard);
    }
}

pub(crate) fn on_deadline(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let (reason, refusal) = {
        let Door::Http1(http) = &*conn.door.borrow() else { return };
        match &http.phase {
            Phase::Head if http.input.is_empty() => (Rejection::IdleTimeout, None),
            Phase::Head => (Rejection::HeaderTimeout, Some(Refusal::HeaderTimeout)),
            Phase::Body(_) => (Rejection::ReadTimeout, Some(Refusal::BodyTimeout)),
            Phase::Busy => return,
        }
    };
    shard.metrics.rejected(reason);
    match refusal {
        Some(refusal) => refuse(shard, conn, &refusal, None),
        None => conn.finish(shard, false),
    }
}

pub(crate) fn on_closed(shard: &Rc<Shard>, conn: &Conn) {
    let exchange = {
        let Door::Http1(http) = &mut *conn.door.borrow_mut() else { return };
        http.input = Vec::new();
        http.phase = Phase::Head;
        http.exchange.take()
    };
    // Unless it stays, its destructors close the upstream's side: for a modern request that is its cancellation.
    if let Some(exchange) = exchange {
        shard.leave(exchange);
    }
}

pub(crate) fn on_drain(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let idle = {
        let Door::Http1(http) = &*conn.door.borrow() else { return };
        matches!(http.phase, Phase::Head) && http.input.is_empty()
    };
    if idle {
        conn.finish(shard, false);
    }
}

/// Takes requests out of the input until it is used up or a request is in flight.
fn advance(shard: &Rc<Shard>, conn: &Rc<Conn>, mut input: &[u8]) {
    loop {
        let step = {
            let Door::Http1(http) = &mut *conn.door.borrow_mut() else { return };
            match &mut http.phase {
                Phase::Busy => Step::Wait,
                Phase::Head if input.is_empty() => Step::Wait,
                Phase::Head => read_head(shard, conn, input),
                Phase::Body(pending) => match read_body(shard, pending, input) {
                    Ok((taken, false)) => {
                        input = &input[taken..];
                        Step::Wait
                    }
                    Ok((taken, true)) => match std::mem::take(&mut http.phase) {
                        Phase::Body(pending) => Step::Request(pending.request, pending.route, taken),
                        other => {
                            http.phase = other;
                            Step::Wait
                        }
                    },
                    Err(refusal) => Step::Refused(refusal, None),
                },
            }
        };
        match step {
            Step::Wait => return keep(shard, conn, input),
            Step::Request(request, route, taken) => {
                input = &input[taken..];
                if !serve(shard, conn, request, route) {
                    return;
                }
                if !input.is_empty() {
                    rest(shard, conn);
                }
            }
            Step::Body(pending, taken) => {
                input = &input[taken..];
                if pending.request.http.head.expect_continue
                    && conn.send(shard, &[b"HTTP/1.1 100 Continue\r\n\r\n"]).is_err()
                {
                    return;
                }
                conn.set_deadline(shard, shard.core.clock.after(shard.setup().config.server.read_timeout));
                let Door::Http1(http) = &mut *conn.door.borrow_mut() else { return };
                http.head_timed = false;
                http.phase = Phase::Body(pending);
            }
            Step::Refused(refusal, reply) => return refuse(shard, conn, &refusal, reply),
        }
    }
}

/// Keeps what is left for later, and sees to the deadline of a head that is not complete.
fn keep(shard: &Rc<Shard>, conn: &Rc<Conn>, left: &[u8]) {
    let (held, head_begins) = {
        let Door::Http1(http) = &mut *conn.door.borrow_mut() else { return };
        let in_head = matches!(http.phase, Phase::Head) && !left.is_empty();
        let begins = in_head && !std::mem::replace(&mut http.head_timed, in_head);
        http.input.extend_from_slice(left);
        let body = match &http.phase {
            Phase::Body(pending) => pending.request.body.capacity() + pending.request.http.bytes.capacity(),
            Phase::Head | Phase::Busy => 0,
        };
        (http.input.capacity() + body, begins)
    };
    conn.count_door_bytes(shard, held);
    if held > 0 && !shard.has_memory() {
        return refuse(shard, conn, &Refusal::Memory, None);
    }
    if head_begins {
        conn.set_deadline(shard, shard.core.clock.after(shard.setup().config.server.header_timeout));
    }
}

fn read_head(shard: &Rc<Shard>, conn: &Rc<Conn>, input: &[u8]) -> Step {
    let setup = shard.setup();
    let server = &setup.config.server;
    let limits = HeadLimits { max_bytes: server.max_header_bytes, max_headers: MAX_HEADERS };
    let mut head = shard.request_heads.take().unwrap_or_default();
    match parse_request_into(&mut head, input, &limits) {
        Ok(true) => {}
        Ok(false) => {
            shard.request_heads.give(head);
            return Step::Wait;
        }
        Err(error) => return Step::Refused(Refusal::Head(error), None),
    }
    let bytes = &input[..head.head_len];
    let route = match admission::admit(shard, &head, bytes) {
        Ok(route) => route,
        Err(refusal) => {
            let reply = Http1Reply::new(shard, conn, &head, bytes);
            return Step::Refused(refusal, Some(reply));
        }
    };
    let rest = &input[head.head_len..];
    let (left, decoder) = match head.body {
        Body::None => (0, None),
        Body::Length(length) => (length as usize, None),
        Body::Chunked => (0, Some(ChunkedDecoder::new())),
    };
    let mut kept = shard.take_buffer();
    kept.extend_from_slice(bytes);
    let head_len = head.head_len;
    let http = HttpHead { bytes: kept, head, protocol: Protocol::Http1 };
    let mut request = Request { http, body: shard.take_buffer() };
    if decoder.is_none() && rest.len() >= left {
        request.body.extend_from_slice(&rest[..left]);
        return Step::Request(request, route, head_len + left);
    }
    Step::Body(Box::new(Pending { request, route, decoder, left }), head_len)
}

/// Takes body bytes; says how many, and whether the body is complete.
fn read_body(shard: &Shard, pending: &mut Pending, input: &[u8]) -> Result<(usize, bool), Refusal> {
    let body = &mut pending.request.body;
    let Some(decoder) = &mut pending.decoder else {
        let taken = pending.left.min(input.len());
        body.extend_from_slice(&input[..taken]);
        pending.left -= taken;
        return Ok((taken, pending.left == 0));
    };
    let limit = shard.setup().config.server.max_body_bytes;
    let mut taken = 0;
    while taken < input.len() {
        let chunk = decoder.decode(&input[taken..]).map_err(Refusal::Chunk)?;
        let data = &input[taken..][chunk.data];
        if body.len() + data.len() > limit {
            return Err(Refusal::BodyTooLarge { limit });
        }
        body.extend_from_slice(data);
        taken += chunk.consumed;
        if chunk.done {
            return Ok((taken, true));
        }
    }
    Ok((taken, false))
}

/// Serves a complete request; `false` when the connection is not to be read on for now.
fn serve(shard: &Rc<Shard>, conn: &Rc<Conn>, request: Request, route: Route) -> bool {
    let mut reply = Http1Reply::new(shard, conn, &request.http.head, &request.http.bytes);
    {
        let Door::Http1(http) = &mut *conn.door.borrow_mut() else { return true };
        http.head_timed = false;
    }
    let (place, verb, scope) = match route {
        Route::Health | Route::Ready => {
            let keep_alive = reply.whole(&http_any::health(shard, route == Route::Ready));
            return after_immediate(shard, conn, request, keep_alive);
        }
        Route::Preflight => {
            let asked =
                request.http.head.headers.all(&request.http.bytes, "access-control-request-headers").next();
            let keep_alive = reply.whole(&http_any::preflight(reply.has_allowed_origin(), asked));
            return after_immediate(shard, conn, request, keep_alive);
        }
        Route::Socket { scope, upgrade } => {
            let target = ws::Target { scope, upgrade };
            return change_protocol(shard, conn, request, target, reply);
        }
        Route::Mcp { verb, scope } => (Place::Mcp, verb, scope),
        Route::Sse { verb, scope } => (Place::Sse, verb, scope),
    };
    if let Some((refusal, id)) = http_any::overloaded(shard, verb, &request.body) {
        reply.refuse(&refusal, id.map(|id| id.of(&request.body)));
        return after_shed(shard, conn, request, reply.keeps_alive());
    }
    conn.set_deadline(shard, NEVER);
    let inbound = http_any::inbound(shard, conn.peer, (verb, scope), request.http, request.body);
    {
        let Door::Http1(http) = &mut *conn.door.borrow_mut() else { return true };
        http.phase = Phase::Busy;
    }
    let task = super::serve(shard, place, inbound, Reply::Http1(reply));
    let Door::Http1(http) = &mut *conn.door.borrow_mut() else { return true };
    http.exchange = Some(task);
    true
}

/// Has the connection become a WebSocket; always `true`, as what the client sends on is for the door to come.
fn change_protocol(
    shard: &Rc<Shard>,
    conn: &Rc<Conn>,
    request: Request,
    target: ws::Target,
    reply: Http1Reply,
) -> bool {
    conn.set_deadline(shard, NEVER);
    shard.give_buffer(request.body);
    {
        let Door::Http1(http) = &mut *conn.door.borrow_mut() else { return true };
        http.phase = Phase::Busy;
    }
    let task =
        shard.core.tasks.spawn(|| ws::upgrade(shard.clone(), conn.clone(), request.http, target, reply));
    let Door::Http1(http) = &mut *conn.door.borrow_mut() else { return true };
    http.exchange = Some(task);
    true
}

/// What came behind the request in flight, for the door that takes the connection over.
pub(super) fn take_input(conn: &Conn) -> Vec<u8> {
    let Door::Http1(http) = &mut *conn.door.borrow_mut() else { return Vec::new() };
    std::mem::take(&mut http.input)
}

fn after_immediate(shard: &Rc<Shard>, conn: &Rc<Conn>, request: Request, keep_alive: bool) -> bool {
    request.http.give_back(shard);
    shard.give_buffer(request.body);
    if !keep_alive || shard.is_draining() {
        conn.finish(shard, false);
        return false;
    }
    if conn.is_congested() {
        conn.set_deadline(shard, NEVER);
        let task = shard.core.tasks.spawn(|| await_reader(shard.clone(), conn.clone()));
        let Door::Http1(http) = &mut *conn.door.borrow_mut() else { return true };
        http.phase = Phase::Busy;
        http.exchange = Some(task);
    } else {
        conn.set_deadline(shard, shard.core.clock.after(shard.setup().config.server.idle_timeout));
    }
    true
}

/// After an answer that asks the client to come back later.
fn after_shed(shard: &Rc<Shard>, conn: &Rc<Conn>, request: Request, keep_alive: bool) -> bool {
    shard.give_buffer(request.http.bytes);
    shard.give_buffer(request.body);
    if !keep_alive || shard.is_draining() {
        conn.finish(shard, false);
        return false;
    }
    hold(shard, conn);
    true
}

/// Reads nothing from the client until it may ask again; what it sends meanwhile waits in the kernel.
pub(crate) fn hold(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    conn.pause();
    conn.set_deadline(shard, NEVER);
    let task = shard.core.tasks.spawn(|| await_release(shard.clone(), conn.clone()));
    let Door::Http1(http) = &mut *conn.door.borrow_mut() else { return };
    http.phase = Phase::Busy;
    http.exchange = Some(task);
}

async fn await_release(shard: Rc<Shard>, conn: Rc<Conn>) {
    shard.held().await;
    await_reader(shard, conn).await;
}

/// Leaves what is pipelined for the next turn, unless an exchange is in flight anyway.
fn rest(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let Door::Http1(http) = &mut *conn.door.borrow_mut() else { return };
    if matches!(http.phase, Phase::Head) {
        http.phase = Phase::Busy;
        shard.rest(conn.token);
    }
}

/// Takes the next request when the client has taken enough of its answers.
async fn await_reader(shard: Rc<Shard>, conn: Rc<Conn>) {
    if conn.drained().await.is_ok() {
        on_answered(&shard, &conn, true);
    }
}

/// Answers a request that cannot be read to its end, and closes.
fn refuse(shard: &Rc<Shard>, conn: &Rc<Conn>, refusal: &Refusal, reply: Option<Http1Reply>) {
    let mut reply = reply.unwrap_or_else(|| Http1Reply::bare(shard, conn));
    shard.metrics.refused(refusal.row().reason);
    reply.close_after();
    reply.refuse(refusal, None);
    conn.finish(shard, true);
}
