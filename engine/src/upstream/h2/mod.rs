//! HTTP/2 towards a server (RFC 9113): owns an endpoint's connections, each of which carries many exchanges, and the way of one
//! exchange over them, with the `h2` crate for frames, header compression and flow control. What a server says that it has not
//! processed is asked again here, once; everything else is as over HTTP/1.1. Never looks into a message.
//!
//! Invariants: one connection is opened at a time, so that exchanges that come together share it; no borrow is held while h2
//! is polled.

mod body;
mod line;
mod request;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, SendStream};

use super::answer::{Answer, Told};
use super::call::{Ask, CallError};
use super::endpoint::Endpoint;
use super::pool::Permit;
use crate::net::stream::Stream;
use crate::shard::clock::Millis;
use crate::shard::{Elapsed, Shard};
use body::Body;
use line::{InStream, Line};

/// The protocol's name in the handshake (RFC 9113, section 3.2).
pub(crate) const ALPN: &[u8] = b"h2";
/// Exchanges on one connection, where the server allows as many: as many as RFC 9113 (6.5.2) wants a server to allow at least.
const MAX_STREAMS: usize = 100;
/// How often an exchange is begun: what was not processed goes again once.
const ATTEMPTS: usize = 2;
/// Bytes of a message's body that are handed to h2 at a time.
const PIECE_BYTES: usize = 64 << 10;

/// The connections of one shard to one endpoint.
#[derive(Default)]
pub(crate) struct Lines {
    lines: RefCell<Vec<Rc<Line>>>,
    /// Somebody is opening one.
    opening: Cell<bool>,
    /// How often that failed, and how it did last: who waited for it fails with it, instead of waiting as long again.
    failures: Cell<u32>,
    failure: Cell<Option<io::ErrorKind>>,
    waiting: RefCell<Vec<Waker>>,
    /// The server chose HTTP/2 when it was last connected to.
    spoken: Cell<bool>,
}

/// What became of a message that was to go over HTTP/2.
pub(crate) enum Asked {
    Answered(Answer),
    /// The server chose HTTP/1.1 on this connection.
    Http1(Stream, Permit),
}

/// Why an attempt brought no answer.
enum Failed {
    /// The server says, or it is certain, that nothing was processed.
    Unprocessed,
    Call(CallError),
}

impl Lines {
    /// Whether the server chose HTTP/2 when it was last connected to.
    pub(crate) fn are_spoken(&self) -> bool {
        self.spoken.get()
    }

    /// Takes a connection on which the server chose HTTP/2, unless the endpoint has moved since the pool said `moves`.
    ///
    /// # Errors
    /// [`CallError::Connect`] when the connection breaks at once.
    pub(crate) async fn adopt(
        &self,
        shard: &Rc<Shard>,
        endpoint: &Endpoint,
        stream: Stream,
        moves: u32,
        deadline: Millis,
    ) -> Result<(), CallError> {
        let opening = pin!(line::open(shard, stream));
        let line = match shard.deadline(deadline, opening).await {
            Ok(line) => line.map_err(|error| CallError::Connect(io::Error::other(error)))?,
            Err(Elapsed) => return Err(CallError::Connect(io::ErrorKind::TimedOut.into())),
        };
        self.spoken.set(true);
        if moves == endpoint.pool.moves() {
            self.lines.borrow_mut().push(line);
        }
        Ok(())
    }

    /// Connections without an exchange.
    pub(crate) fn idle(&self) -> usize {
        self.lines.borrow().iter().filter(|line| line.is_open() && line.streams() == 0).count()
    }

    /// Ends what has been idle for `max_idle_time`; says whether any connection is left.
    pub(crate) fn drop_idle(&self, now: Millis, max_idle_time: Duration) -> bool {
        let is_fresh =
            |line: &Line| now.saturating_sub(line.idle_since()) < max_idle_time.as_millis() as Millis;
        self.lines.borrow_mut().retain(|line| {
            let keep = line.is_open() && (line.streams() > 0 || is_fresh(line));
            if !keep {
                line.retire();
            }
            keep
        });
        !self.lines.borrow().is_empty()
    }

    /// The endpoint has moved: nothing that is connected is used again.
    pub(crate) fn renew(&self) {
        for line in self.lines.take() {
            line.retire();
        }
    }

    /// A connection with room for one more exchange; where there are `max_lines`, the one with the fewest.
    fn pick(&self, max_lines: usize) -> Option<Rc<Line>> {
        let mut lines = self.lines.borrow_mut();
        lines.retain(|line| line.is_open());
        let fewest = lines.iter().min_by_key(|line| line.streams())?;
        let has_room = fewest.streams() < fewest.allowed().min(MAX_STREAMS);
        (has_room || lines.len() >= max_lines).then(|| fewest.clone())
    }

    /// Waits until a connection that is being opened is open, or whoever opens it has left.
    ///
    /// # Errors
    /// [`CallError::Connect`] when it could not be opened.
    async fn opened(&self) -> Result<(), CallError> {
        let before = self.failures.get();
        poll_fn(|cx| {
            if !self.opening.get() {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
        match self.failure.get() {
            Some(kind) if self.failures.get() != before => Err(CallError::Connect(kind.into())),
            _ => Ok(()),
        }
    }

    /// A connection could not be opened.
    fn note_failure(&self, error: &CallError) {
        if let CallError::Connect(error) = error {
            self.failures.set(self.failures.get().wrapping_add(1));
            self.failure.set(Some(error.kind()));
        }
    }
}

/// Holds the right to open a connection.
struct Opening<'a>(&'a Lines);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.opening.set(false);
        for waker in self.0.waiting.take() {
            waker.wake();
        }
    }
}

/// Asks an endpoint and waits, until `deadline`, for the head of its answer.
///
/// # Errors
/// [`CallError`], with the meaning that it has over HTTP/1.1; [`CallError::Connect`] also for what the server refused to
/// process each time.
pub(crate) async fn ask(
    shard: &Rc<Shard>,
    endpoint: &Endpoint,
    ask: &Ask<'_>,
    deadline: Millis,
    permit: Permit,
) -> Result<Asked, CallError> {
    let mut permit = Some(permit);
    for _ in 0..ATTEMPTS {
        let line = match acquire(shard, endpoint, deadline).await? {
            Acquired::Line(line) => line,
            Acquired::Http1(stream) => {
                if let Some(permit) = permit.take() {
                    return Ok(Asked::Http1(stream, permit));
                }
                break;
            }
        };
        let was_used = line.was_used();
        let attempt = pin!(attempt(shard, endpoint, &line, ask));
        let failed = match shard.deadline(deadline, attempt).await {
            Ok(Ok((told, body))) => {
                let (status, fields, length) = told;
                let body = Box::new(body.with(permit.take()));
                return Ok(Asked::Answered(Answer::Told(Box::new(Told::new(status, fields, length, body)))));
            }
            Ok(Err(failed)) => failed,
            Err(Elapsed) => return Err(CallError::Timeout),
        };
        match failed {
            Failed::Unprocessed => {}
            // A connection that was kept and turns out dead is replaced, as over HTTP/1.1.
            Failed::Call(CallError::Closed) if was_used && ask.repeatable => line.retire(),
            Failed::Call(error) => return Err(error),
        }
    }
    Err(CallError::Connect(io::Error::other("the server refuses to process anything on new connections")))
}

enum Acquired {
    Line(Rc<Line>),
    Http1(Stream),
}

async fn acquire(shard: &Rc<Shard>, endpoint: &Endpoint, deadline: Millis) -> Result<Acquired, CallError> {
    let lines = &endpoint.lines;
    loop {
        if let Some(line) = lines.pick(endpoint.pool.max_size()) {
            return Ok(Acquired::Line(line));
        }
        if lines.opening.get() {
            let opened = pin!(lines.opened());
            match shard.deadline(deadline, opened).await {
                Ok(opened) => opened?,
                Err(Elapsed) => return Err(CallError::Connect(io::ErrorKind::TimedOut.into())),
            }
            continue;
        }
        lines.opening.set(true);
        let _opening = Opening(lines);
        let opened = open(shard, endpoint, deadline).await.inspect_err(|error| lines.note_failure(error))?;
        if let Some(stream) = opened {
            return Ok(Acquired::Http1(stream));
        }
    }
}

/// Opens a connection. One on which the server chose HTTP/1.1 is given back, where it may.
async fn open(shard: &Rc<Shard>, endpoint: &Endpoint, deadline: Millis) -> Result<Option<Stream>, CallError> {
    let moves = endpoint.pool.moves();
    let stream = endpoint.connect(shard, deadline).await?;
    if endpoint.is_http2(&stream) {
        endpoint.lines.adopt(shard, endpoint, stream, moves, deadline).await?;
        return Ok(None);
    }
    if endpoint.may_choose_http1() {
        endpoint.lines.spoken.set(false);
        return Ok(Some(stream));
    }
    let what = "the server does not choose HTTP/2 in the handshake; see servers[].http";
    Err(CallError::Connect(io::Error::other(what)))
}

type Head = (u16, Vec<u8>, Option<u64>);

async fn attempt(
    shard: &Rc<Shard>,
    endpoint: &Endpoint,
    line: &Rc<Line>,
    ask: &Ask<'_>,
) -> Result<(Head, Body), Failed> {
    let request = request::of(endpoint, ask).map_err(Failed::Call)?;
    let Some(mut handle) = line.handle() else { return Err(Failed::Unprocessed) };
    let in_stream = InStream::enter(shard, line);
    // What is not begun is not sent.
    poll_fn(|cx| handle.poll_ready(cx)).await.map_err(|_| gone(line))?;
    let (response, sending) = handle.send_request(request, ask.body.is_empty()).map_err(|_| gone(line))?;
    let response = respond(shard, response, sending, ask.body).await.map_err(|error| failed(line, &error))?;
    let (parts, mut receiving) = response.into_parts();
    let head = (parts.status.as_u16(), request::fields(&parts.headers), request::length(&parts.headers));
    // What came with the head is told with it.
    let first = poll_fn(|cx| Poll::Ready(receiving.poll_data(cx))).await;
    Ok((head, Body::new(receiving, first, in_stream)))
}

/// Sends the body as fast as the server takes it, and waits for the answer's head, which may come before all is sent.
async fn respond(
    shard: &Shard,
    mut response: ResponseFuture,
    mut sending: SendStream<Bytes>,
    body: &[u8],
) -> Result<http::Response<h2::RecvStream>, h2::Error> {
    let mut rest = body;
    sending.reserve_capacity(rest.len().min(PIECE_BYTES));
    poll_fn(|cx| {
        while !rest.is_empty() {
            match sending.poll_capacity(cx) {
                Poll::Ready(Some(Ok(room))) if room > 0 => {
                    let (piece, left) = rest.split_at(room.min(rest.len()));
                    rest = left;
                    sending.send_data(Bytes::copy_from_slice(piece), rest.is_empty())?;
                    sending.reserve_capacity(rest.len().min(PIECE_BYTES));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                // The server wants no more of it; its answer says why.
                Poll::Ready(None) => break,
                Poll::Ready(Some(Ok(_))) | Poll::Pending => break,
            }
        }
        if rest.is_empty() {
            shard.core.tasks.sent();
        }
        std::pin::Pin::new(&mut response).poll(cx)
    })
    .await
}

/// The connection takes no more exchanges.
fn gone(line: &Line) -> Failed {
    line.retire();
    Failed::Unprocessed
}

/// What an error says of the exchange. Refused, or begun after the last that a GOAWAY lets through: not processed (RFC 9113,
/// sections 6.8 and 8.7).
fn failed(line: &Line, error: &h2::Error) -> Failed {
    let is_remote = error.is_remote();
    if error.is_go_away() && is_remote {
        return gone(line);
    }
    if error.is_reset() && is_remote && error.reason() == Some(Reason::REFUSED_STREAM) {
        return Failed::Unprocessed;
    }
    if error.is_go_away() || error.is_library() {
        line.retire();
        return Failed::Call(CallError::Malformed("broken HTTP/2"));
    }
    if !error.is_reset() {
        line.retire();
    }
    Failed::Call(CallError::Closed)
}
