//! Servers that are reached by a WebSocket: owns a socket from its upgrade to its end, and the question whether a server that is
//! silent is still there. Never what a message means.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_io::AsyncWrite;

use super::hub::Wire;
use super::{Closed, breathe, spawn};
use crate::net::stream::Stream;
use crate::shard::{Elapsed, Shard};
use crate::upstream::Endpoint;
use crate::websocket::{Said, Socket, Upgrade};

/// How long an upgrade may take, from the connection's first packet to the answer.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence after which the server is asked whether it is there; as long again, and it is not.
const PING_AFTER: Duration = Duration::from_secs(30);
/// How long the goodbye may take to leave.
const GOODBYE: Duration = Duration::from_secs(1);
/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// The close code of an end in order (RFC 6455, section 7.4.1).
const NORMAL: u16 = 1000;

/// Opens a socket to the endpoint and connects it with the wire; `fields` are header lines for its upgrade.
pub(super) fn open(shard: &Rc<Shard>, endpoint: &Rc<Endpoint>, fields: Vec<u8>, wire: &Wire) {
    let (endpoint, wire) = (endpoint.clone(), wire.clone());
    spawn(shard, |shard| serve(shard, endpoint, fields, wire));
}

async fn serve(shard: Rc<Shard>, endpoint: Rc<Endpoint>, fields: Vec<u8>, wire: Wire) {
    let why = match wire.opened(connect(&shard, &endpoint, &fields)).await {
        Ok(mut line) => line.carry(&shard, &wire).await,
        Err(why) => why,
    };
    wire.close(&shard, why);
}

async fn connect(shard: &Rc<Shard>, endpoint: &Rc<Endpoint>, fields: &[u8]) -> Result<Line, Closed> {
    let upstream = shard.upstream(usize::from(endpoint.server));
    let server = &*upstream.name;
    let by = shard.core.clock.after(OPEN_TIMEOUT);
    let stream = endpoint.connect(shard, by).await.map_err(|_| Closed::Connect)?;
    let mut line = Line::new(stream, shard.setup().config.server.max_body_bytes);
    let upgrade = Upgrade::ask(&endpoint.path, fields, &mut line.out);
    let answered = loop {
        match upgrade.read(&mut line.input) {
            Ok(Some(answered)) => break answered,
            Ok(None) => {}
            Err(why) => {
                tracing::warn!(server, why, "a server's answer is no upgrade to WebSocket");
                return Err(Closed::Malformed("an answer that is no upgrade to WebSocket"));
            }
        }
        let step = poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = line.poll_send(cx) {
                return Poll::Ready(Err(error));
            }
            line.poll_receive(shard, cx)
        });
        match shard.deadline(by, pin!(step)).await {
            Ok(Ok(read)) if read > 0 => {}
            Ok(Ok(_) | Err(_)) | Err(Elapsed) => {
                tracing::warn!(server, "a server did not answer the upgrade to WebSocket");
                return Err(Closed::Connect);
            }
        }
    };
    if answered.status == 101 {
        return Ok(line);
    }
    tracing::warn!(server, status = answered.status, "a server refused the upgrade to WebSocket");
    Err(Closed::Connect)
}

/// A connection with what waits on it in either direction.
struct Line {
    stream: Stream,
    socket: Socket,
    input: Vec<u8>,
    out: Vec<u8>,
    /// Bytes of `out` that have left.
    sent: usize,
}

impl Line {
    fn new(stream: Stream, max_message: usize) -> Self {
        Line { stream, socket: Socket::new(max_message), input: Vec::new(), out: Vec::new(), sent: 0 }
    }

    /// Carries messages both ways until the channel's end; says whose that is.
    async fn carry(&mut self, shard: &Rc<Shard>, wire: &Wire) -> Closed {
        let upstream = shard.upstream(usize::from(wire.server()));
        let server = &*upstream.name;
        let mut is_asked = false;
        loop {
            // What came with the upgrade's answer is taken first.
            if let Err(why) = self.take(shard, wire, server) {
                return why;
            }
            let by = shard.core.clock.after(PING_AFTER);
            match shard.deadline(by, pin!(poll_fn(|cx| self.poll_step(shard, wire, cx)))).await {
                Ok(Ok(())) => is_asked = false,
                Ok(Err(Closed::Ended)) => {
                    self.say_goodbye(shard).await;
                    return Closed::Ended;
                }
                Ok(Err(why)) => return why,
                Err(Elapsed) if is_asked => {
                    tracing::warn!(server, "a server is silent, and answers no ping");
                    return Closed::Gone;
                }
                Err(Elapsed) => {
                    is_asked = true;
                    if self.socket.write_ping(&mut self.out).is_err() {
                        return Closed::Gone;
                    }
                }
            }
            breathe().await;
        }
    }

    /// Hands on what has come.
    fn take(&mut self, shard: &Rc<Shard>, wire: &Wire, server: &str) -> Result<(), Closed> {
        loop {
            match self.socket.read(&mut self.input, &mut self.out) {
                Ok(Some(Said::Message(message))) => {
                    if wire.on_message(shard, &message).is_err() {
                        tracing::warn!(server, "a server sent a text that is no message");
                    }
                }
                Ok(Some(Said::Close { code, reason })) => {
                    tracing::debug!(server, code, reason, "a server closed its WebSocket");
                    return Err(Closed::Gone);
                }
                Ok(None) => return Ok(()),
                Err(why) => {
                    tracing::warn!(server, why, "a server broke the rules of WebSocket");
                    return Err(Closed::Malformed("what breaks the rules of WebSocket"));
                }
            }
        }
    }

    /// Sends what there is to send; ready when something has come, or with the channel's end.
    fn poll_step(&mut self, shard: &Shard, wire: &Wire, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        while let Poll::Ready(sent) = self.poll_send(cx) {
            if sent.is_err() {
                return Poll::Ready(Err(Closed::Gone));
            }
            let message = match wire.poll_outgoing(cx) {
                Poll::Ready(Some(message)) => message,
                Poll::Ready(None) => return Poll::Ready(Err(Closed::Ended)),
                Poll::Pending => break,
            };
            if let Err(why) = self.socket.write_text(message, &mut self.out) {
                tracing::debug!(why, "a message cannot be sent");
                return Poll::Ready(Err(Closed::Gone));
            }
        }
        if !ready!(wire.poll_may_read(cx)) {
            return Poll::Ready(Err(Closed::Ended));
        }
        Poll::Ready(match ready!(self.poll_receive(shard, cx)) {
            Ok(read) if read > 0 => Ok(()),
            Ok(_) | Err(_) => Err(Closed::Gone),
        })
    }

    /// Ready when everything has left.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out[self.sent..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        // An idle socket owns no buffer.
        self.out = Vec::new();
        self.sent = 0;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Reads through the shard's scratch; 0 is the end.
    fn poll_receive(&mut self, shard: &Shard, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = shard.receive_scratch.borrow_mut();
        let read = ready!(self.stream.poll_read(cx, &mut scratch[..READ_BYTES]));
        Poll::Ready(read.inspect(|&read| self.input.extend_from_slice(&scratch[..read])))
    }

    async fn say_goodbye(&mut self, shard: &Rc<Shard>) {
        if self.socket.write_close(NORMAL, "the session has ended", &mut self.out).is_ok() {
            let by = shard.core.clock.after(GOODBYE);
            // The connection is closed whatever becomes of it.
            let _ = shard.deadline(by, pin!(poll_fn(|cx| self.poll_send(cx)))).await;
        }
    }
}
