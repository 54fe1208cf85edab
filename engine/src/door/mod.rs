//! Doors: own the step from a connection's plaintext to messages and back, one module per protocol. A door never knows an
//! upstream; what it makes goes to [`crate::exchange`].

pub(crate) mod answers;
pub(crate) mod framed;
pub(crate) mod h2;
pub(crate) mod http1;
mod http_any;
pub(crate) mod mcpb;
mod nobody;
pub(crate) mod reply;
pub(crate) mod sse;
pub(crate) mod ws;

use std::rc::Rc;

use crate::exchange::{self, FederatedReply, Inbound};
use crate::metrics::Protocol;
use crate::net::listener::DoorKind;
use crate::policy::admission::Verb;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::conn::{Conn, Gone};
use crate::shard::tasks::{TaskId, is_left};
use framed::FramedReply;
use h2::H2;
use h2::reply::H2Reply;
use http1::Http1;
use mcpb::Mcpb;
use nobody::Nobody;
use reply::{Framing, Http1Reply};
use sse::recipient::SseReply;
use ws::Ws;

/// What plain HTTP on a TLS port is told.
pub(crate) const PLAIN_HTTP_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 66\r\nConnection: close\r\n\r\n\
    This port speaks HTTPS; the request was plain HTTP. Use https://.\n";

/// A connection's protocol state.
pub(crate) enum Door {
    Http1(Http1),
    H2(Box<H2>),
    Mcpb(Box<Mcpb>),
    /// What an HTTP/1.1 connection becomes by its upgrade.
    Ws(Box<Ws>),
}

impl Door {
    pub(crate) fn new(kind: DoorKind) -> Self {
        match kind {
            DoorKind::Https => Door::Http1(Http1::default()),
            DoorKind::Mcpb => Door::Mcpb(Box::default()),
        }
    }
}

/// Which way of HTTP a request takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Streamable HTTP.
    Mcp,
    /// HTTP with SSE.
    Sse,
}

/// Where an exchange's answer goes. The answer is told in the terms of Streamable HTTP (status, header lines, a body or
/// an event stream); each door makes of it what its protocol has.
pub(crate) enum Reply {
    Http1(Http1Reply),
    H2(H2Reply),
    Mcpb(FramedReply<Mcpb>),
    Ws(FramedReply<Ws>),
    Sse(SseReply),
    /// For a message to all servers: what one of them says has a way to go before it is the client's.
    Federated(FederatedReply),
    /// The client is gone and the exchange goes on without it.
    Nobody(Nobody),
}

impl Reply {
    /// The status told; 0 before the head.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Reply::Http1(reply) => reply.status(),
            Reply::H2(reply) => reply.status(),
            Reply::Mcpb(reply) => reply.status(),
            Reply::Ws(reply) => reply.status(),
            Reply::Sse(reply) => reply.status(),
            Reply::Federated(reply) => reply.status(),
            Reply::Nobody(reply) => reply.status(),
        }
    }

    /// Starts an answer; `fields` are header lines, each with its CR LF. Nothing leaves before the first data.
    pub(crate) fn begin(&mut self, status: u16, fields: &[u8], framing: Framing) {
        self.let_go();
        match self {
            Reply::Http1(reply) => reply.begin(status, fields, framing),
            Reply::H2(reply) => reply.begin(status, fields, framing),
            Reply::Mcpb(reply) => reply.begin(status, fields),
            Reply::Ws(reply) => reply.begin(status, fields),
            Reply::Sse(reply) => reply.begin(status, fields),
            Reply::Federated(reply) => reply.begin(status, fields, framing),
            Reply::Nobody(reply) => reply.begin(status),
        }
    }

    /// Says now that a stream has begun whose first event may be long in coming.
    ///
    /// # Errors
    /// [`Gone`] when the client is.
    pub(crate) fn flush_head(&mut self) -> Result<(), Gone> {
        let sent = match self {
            Reply::Http1(reply) => reply.flush_head(),
            Reply::H2(reply) => reply.flush_head(),
            // Frames have no head: the first message is the first that a client sees.
            Reply::Mcpb(_) | Reply::Ws(_) | Reply::Sse(_) | Reply::Nobody(_) => Ok(()),
            Reply::Federated(reply) => reply.flush_head(),
        };
        self.or_nobody(sent)
    }

    /// Takes a piece of the body, of an event stream one that ends where an event does, and waits while the client is
    /// slow. Once polled, dropping the future ends the waiting only.
    ///
    /// # Errors
    /// [`Gone`] when the client is.
    pub(crate) async fn data(&mut self, data: &[u8]) -> Result<(), Gone> {
        self.let_go();
        let sent = match self {
            Reply::Http1(reply) => reply.data(data).await,
            Reply::H2(reply) => reply.data(data).await,
            Reply::Mcpb(reply) => reply.data(data).await,
            Reply::Ws(reply) => reply.data(data).await,
            Reply::Sse(reply) => reply.data(data).await,
            Reply::Federated(reply) => reply.data(data).await,
            Reply::Nobody(reply) => return reply.data(data),
        };
        self.or_nobody(sent)
    }

    /// Takes the last piece of the body, after which nothing but [`Reply::done`] is due; what it ends with leaves with it.
    ///
    /// # Errors
    /// [`Gone`] when the client is.
    pub(crate) async fn last(&mut self, data: &[u8]) -> Result<(), Gone> {
        self.let_go();
        let sent = match self {
            Reply::Http1(reply) => reply.last(data),
            Reply::H2(reply) => reply.last(data),
            Reply::Mcpb(_) | Reply::Ws(_) | Reply::Sse(_) | Reply::Federated(_) | Reply::Nobody(_) => {
                self.data(data).await?;
                self.end();
                return Ok(());
            }
        };
        self.or_nobody(sent)
    }

    /// Takes an event of a stream that several exchanges share; who must not get ahead of the client waits for
    /// [`Reply::drained`] afterwards.
    ///
    /// # Errors
    /// [`Gone`] when the client is; also for a door whose answers are no streams.
    pub(crate) fn push(&mut self, event: &[u8]) -> Result<(), Gone> {
        match self {
            Reply::Http1(reply) => reply.push(event),
            Reply::H2(reply) => reply.push(event),
            Reply::Mcpb(_) | Reply::Ws(_) | Reply::Sse(_) | Reply::Nobody(_) => Err(Gone),
            Reply::Federated(reply) => reply.push(event),
        }
    }

    /// Whether an event stream that is silent needs comments: so that nobody on the way to the client takes it for dead.
    pub(crate) fn wants_comments(&self) -> bool {
        match self {
            Reply::Http1(_) | Reply::H2(_) => true,
            Reply::Mcpb(_) | Reply::Ws(_) | Reply::Sse(_) | Reply::Nobody(_) => false,
            Reply::Federated(reply) => reply.wants_comments(),
        }
    }

    /// Sends a comment between two events.
    ///
    /// # Errors
    /// [`Gone`] when the client is.
    pub(crate) fn comment(&mut self) -> Result<(), Gone> {
        let sent = match self {
            Reply::Http1(reply) => reply.comment(),
            Reply::H2(reply) => reply.comment(),
            Reply::Mcpb(_) | Reply::Ws(_) | Reply::Sse(_) | Reply::Nobody(_) => Ok(()),
            Reply::Federated(reply) => reply.comment(),
        };
        self.or_nobody(sent)
    }

    /// Waits while the client is slow.
    ///
    /// # Errors
    /// [`Gone`] when the client is.
    pub(crate) async fn drained(&self) -> Result<(), Gone> {
        match self {
            Reply::Http1(reply) => reply.drained().await,
            Reply::H2(reply) => reply.drained().await,
            Reply::Mcpb(reply) => reply.drained().await,
            Reply::Ws(reply) => reply.drained().await,
            Reply::Sse(reply) => reply.drained().await,
            Reply::Federated(reply) => reply.drained().await,
            Reply::Nobody(_) => Ok(()),
        }
    }

    /// As [`Reply::drained`], for the exchange whose answer it is.
    ///
    /// # Errors
    /// [`Gone`] when the client is.
    pub(crate) async fn caught_up(&mut self) -> Result<(), Gone> {
        let drained = self.drained().await;
        self.or_nobody(drained)
    }

    /// A whole answer.
    pub(crate) fn full(&mut self, status: u16, fields: &[u8], body: &[u8]) {
        self.let_go();
        match self {
            Reply::Http1(reply) => reply.full(status, fields, body),
            Reply::H2(reply) => reply.full(status, fields, body),
            Reply::Mcpb(reply) => reply.full(status, fields, body),
            Reply::Ws(reply) => reply.full(status, fields, body),
            Reply::Sse(reply) => reply.full(status, fields, body),
            Reply::Federated(reply) => reply.full(status, fields, body),
            Reply::Nobody(reply) => reply.begin(status),
        }
    }

    /// The body is complete.
    pub(crate) fn end(&mut self) {
        self.let_go();
        match self {
            Reply::Http1(reply) => reply.end(),
            Reply::H2(reply) => reply.end(),
            Reply::Mcpb(reply) => reply.end(),
            Reply::Ws(reply) => reply.end(),
            Reply::Sse(reply) => reply.end(),
            Reply::Federated(reply) => reply.end(),
            Reply::Nobody(_) => {}
        }
    }

    /// The gateway's own error; `id` is the request's raw id.
    pub(crate) fn refuse(&mut self, refusal: &Refusal, id: Option<&[u8]>) {
        self.let_go();
        match self {
            Reply::Http1(reply) => reply.refuse(refusal, id),
            Reply::H2(reply) => reply.refuse(refusal, id),
            Reply::Mcpb(reply) => reply.refuse(refusal),
            Reply::Ws(reply) => reply.refuse(refusal),
            Reply::Sse(reply) => reply.refuse(refusal),
            Reply::Federated(reply) => reply.refuse(refusal, id),
            Reply::Nobody(reply) => reply.begin(refusal.row().status),
        }
    }

    /// The body broke off for this reason. Who has a part of it sees that by its end; who has nothing yet is told.
    pub(crate) fn break_off(&mut self, refusal: &Refusal) {
        match self {
            Reply::Http1(_) | Reply::H2(_) | Reply::Nobody(_) => {}
            Reply::Mcpb(reply) => reply.refuse(refusal),
            Reply::Ws(reply) => reply.refuse(refusal),
            Reply::Sse(reply) => reply.refuse(refusal),
            Reply::Federated(reply) => reply.break_off(refusal),
        }
    }

    /// The exchange is over.
    pub(crate) async fn done(mut self) {
        self.let_go();
        match self {
            Reply::Http1(reply) => reply.done().await,
            Reply::H2(reply) => reply.done(),
            Reply::Mcpb(reply) => reply.done(),
            Reply::Ws(reply) => reply.done(),
            Reply::Sse(reply) => reply.done(),
            Reply::Federated(reply) => reply.done().await,
            Reply::Nobody(_) => {}
        }
    }

    /// Lets go of a client that is gone, where the exchange goes on without it.
    fn let_go(&mut self) {
        if is_left() && !matches!(self, Reply::Nobody(_)) {
            *self = Reply::Nobody(Nobody::new(self.status()));
        }
    }

    /// A client that is gone is no reason to end an exchange that goes on without it.
    fn or_nobody(&mut self, sent: Result<(), Gone>) -> Result<(), Gone> {
        if sent.is_err() && is_left() {
            self.let_go();
            return Ok(());
        }
        sent
    }
}

/// Starts what a request of HTTP asks for.
pub(crate) fn serve(shard: &Rc<Shard>, place: Place, inbound: Inbound, reply: Reply) -> TaskId {
    match (place, inbound.verb) {
        (Place::Mcp, _) => shard.core.tasks.spawn(|| exchange::run(shard.clone(), inbound, reply)),
        (Place::Sse, Verb::Message) => shard.core.tasks.spawn(|| sse::post(shard.clone(), inbound, reply)),
        (Place::Sse, Verb::Listen | Verb::End) => {
            shard.core.tasks.spawn(|| sse::open(shard.clone(), inbound, reply))
        }
    }
}

/// Whether the shard takes something that stays: a socket, a stream.
///
/// # Errors
/// What there is no room for.
fn check_room(shard: &Shard) -> Result<(), Refusal> {
    if shard.is_draining() {
        return Err(Refusal::Draining);
    }
    if let Some(why) = shard.overload.refuses() {
        return Err(Refusal::Overloaded { why });
    }
    if shard.has_memory() { Ok(()) } else { Err(Refusal::Memory) }
}

/// The TLS handshake is done, and with it the choice of the version of HTTP.
pub(crate) fn on_open(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    match conn.protocol() {
        Protocol::Http1 if conn.has_agreed_on(h2::ALPN) => h2::on_open(shard, conn),
        Protocol::Http1 | Protocol::Sse => http1::on_open(shard, conn),
        Protocol::H2 => h2::on_open(shard, conn),
        Protocol::Mcpb => mcpb::on_open(shard, conn),
        // It is opened by its upgrade.
        Protocol::Ws => {}
    }
}

/// Plaintext arrived.
pub(crate) fn on_data(shard: &Rc<Shard>, conn: &Rc<Conn>, data: &[u8]) {
    match conn.protocol() {
        Protocol::Http1 | Protocol::Sse => http1::on_data(shard, conn, data),
        Protocol::H2 => h2::on_data(shard, conn, data),
        Protocol::Mcpb => framed::on_data::<Mcpb>(shard, conn, data),
        Protocol::Ws => framed::on_data::<Ws>(shard, conn, data),
    }
}

/// A turn of the shard has passed since [`Shard::rest`].
pub(crate) fn go_on(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    match conn.protocol() {
        Protocol::Http1 | Protocol::Sse => http1::go_on(shard, conn),
        Protocol::H2 => h2::on_rested(shard, conn),
        Protocol::Mcpb => framed::on_rested::<Mcpb>(shard, conn),
        Protocol::Ws => framed::on_rested::<Ws>(shard, conn),
    }
}

/// The client will send nothing more.
pub(crate) fn on_end(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    flush(shard, conn);
    conn.close(shard);
}

/// The turn ends: what the door has gathered is sent. A connection that fails closes itself.
pub(crate) fn flush(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    match conn.protocol() {
        Protocol::Http1 | Protocol::Sse => {}
        Protocol::H2 => h2::flush(shard, conn),
        Protocol::Mcpb => {
            let _ = framed::flush::<Mcpb>(shard, conn);
        }
        Protocol::Ws => {
            let _ = framed::flush::<Ws>(shard, conn);
        }
    }
}

/// The deadline that the door set has passed.
pub(crate) fn on_deadline(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    match conn.protocol() {
        Protocol::Http1 | Protocol::Sse => http1::on_deadline(shard, conn),
        Protocol::H2 => h2::on_deadline(shard, conn),
        Protocol::Mcpb => mcpb::on_deadline(shard, conn),
        Protocol::Ws => ws::on_deadline(shard, conn),
    }
}

/// The connection is closed: whatever is in flight for it ends.
pub(crate) fn on_closed(shard: &Rc<Shard>, conn: &Conn) {
    match conn.protocol() {
        Protocol::Http1 | Protocol::Sse => http1::on_closed(shard, conn),
        Protocol::H2 => h2::on_closed(shard, conn),
        Protocol::Mcpb => framed::stop::<Mcpb>(shard, conn),
        Protocol::Ws => framed::stop::<Ws>(shard, conn),
    }
}

/// Servers were taken off: a connection that is bound to one is said goodbye to, as in a drain. Streams of HTTP see it by
/// themselves.
pub(crate) fn on_servers_gone(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let scope = match conn.protocol() {
        Protocol::Http1 | Protocol::Sse | Protocol::H2 => return,
        Protocol::Mcpb => framed::with_framed::<Mcpb, _>(conn, |framed| framed.scope),
        Protocol::Ws => framed::with_framed::<Ws, _>(conn, |framed| framed.scope),
    };
    if scope.is_gone(shard) {
        on_drain(shard, conn);
    }
}

/// The process drains.
pub(crate) fn on_drain(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    match conn.protocol() {
        Protocol::Http1 | Protocol::Sse => http1::on_drain(shard, conn),
        Protocol::H2 => h2::on_drain(shard, conn),
        Protocol::Mcpb => mcpb::on_drain(shard, conn),
        Protocol::Ws => ws::on_drain(shard, conn),
    }
}
