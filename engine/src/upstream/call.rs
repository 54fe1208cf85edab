//! One HTTP/1.1 exchange with an endpoint: owns sending a request, reading its answer's head, and its body piece by
//! piece. It never retries what may have been received, and never looks into a message.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use mcp_protocol::http1::{
    ChunkedDecoder, HeadLimits, Method, ResponseBody, ResponseHead, is_named_by, parse_response_into,
};

use super::h2::{self, Asked};
use super::pool::Permit;
use super::{Endpoint, answer};
use crate::metrics::UpstreamLabels;
use crate::net::stream::Stream;
use crate::peer::Unasked;
use crate::shard::clock::Millis;
use crate::shard::tasks::is_left;
use crate::shard::{Elapsed, Shard};

/// Bytes of an upstream's head.
const HEAD_LIMITS: HeadLimits = HeadLimits { max_bytes: 32 << 10, max_headers: 100 };
/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// Interim answers (1xx) before the real one.
const MAX_INTERIM: usize = 8;
/// A server that says how long it keeps an idle connection means its own clock: we leave this much earlier.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);

/// Why there is no answer, or no whole one.
#[derive(Debug)]
pub(crate) enum CallError {
    /// Nothing was sent.
    Connect(io::Error),
    /// As many exchanges wait for a connection as may, or this one waited as long as it may; nothing was sent.
    Exhausted,
    /// As many processes of the server run as may; nothing was sent.
    Processes,
    /// The server closed or reset the connection.
    Closed,
    Timeout,
    /// The answer breaks HTTP.
    Malformed(&'static str),
    /// Only another shard or pod reaches the server, and that one was not asked.
    Owner(Unasked),
}

/// What is asked: a method, the complete head, and the body.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) head: &'a [u8],
    pub(crate) body: &'a [u8],
    /// Whether asking twice does no harm: then a kept connection that turns out dead is replaced.
    pub(crate) repeatable: bool,
    /// Until when a place in a pool may be waited for, at all the endpoints that are tried.
    pub(crate) place_by: Millis,
}

/// A connection with what was read from it.
struct Line {
    shard: Rc<Shard>,
    endpoint: Rc<Endpoint>,
    stream: Option<Stream>,
    /// How often the endpoint had moved when this connection was of use last.
    moves: u32,
    permit: Option<Permit>,
    buffer: Vec<u8>,
    unread: Range<usize>,
    /// The answer's head, once it is here. Shared with the [`Answer`], and used again by the next exchange.
    head: Rc<ResponseHead>,
}

/// An answer whose head is here; the body comes piece by piece.
pub(crate) struct Answer {
    /// Some 700 bytes of offsets that would otherwise be copied from phase to phase.
    pub(crate) head: Rc<ResponseHead>,
    line: Line,
    body: BodyState,
    keep_for: Option<Duration>,
}

enum BodyState {
    Done,
    Length(u64),
    Chunked(ChunkedDecoder),
    UntilClose,
}

/// Asks an endpoint and waits, until `deadline`, for the head of its answer.
///
/// # Errors
/// [`CallError`]; after [`CallError::Connect`] and [`CallError::Exhausted`] another endpoint may be asked.
pub(crate) async fn ask(
    shard: &Rc<Shard>,
    endpoint: &Rc<Endpoint>,
    ask: &Ask<'_>,
    deadline: Millis,
) -> Result<answer::Answer, CallError> {
    let asked_at_us = shard.core.clock.precise_us();
    let outcome = ask_once_or_twice(shard, endpoint, ask, deadline).await;
    let status = outcome.as_ref().map_or(0, answer::Answer::status);
    let labels = UpstreamLabels { server: endpoint.server, endpoint: endpoint.index, status };
    shard.metrics.upstream(labels, shard.core.clock.precise_us().saturating_sub(asked_at_us));
    outcome
}

async fn ask_once_or_twice(
    shard: &Rc<Shard>,
    endpoint: &Rc<Endpoint>,
    ask: &Ask<'_>,
    deadline: Millis,
) -> Result<answer::Answer, CallError> {
    let mut permit = match shard.deadline(deadline.min(ask.place_by), pin!(endpoint.pool.permit())).await {
        Ok(permit) => Some(permit.map_err(|_| CallError::Exhausted)?),
        Err(Elapsed) => return Err(CallError::Exhausted),
    };
    if endpoint.speaks_http2()
        && let Some(place) = permit.take()
    {
        // On the heap, so that what HTTP/1.1 needs stays small.
        match Box::pin(h2::ask(shard, endpoint, ask, deadline, place)).await? {
            Asked::Answered(answer) => return Ok(answer),
            Asked::Http1(stream, place) => {
                let mut line = Line::new(shard, endpoint, stream, endpoint.pool.moves(), Some(place));
                line.exchange(ask, deadline).await?;
                return Ok(answer::Answer::Http1(Answer::new(line)));
            }
        }
    }
    let moves = endpoint.pool.moves();
    if let Some(kept) = endpoint.pool.take_idle(shard.core.clock.now()) {
        let mut line = Line::new(shard, endpoint, kept, moves, permit.take());
        match line.exchange(ask, deadline).await {
            Ok(()) => return Ok(answer::Answer::Http1(Answer::new(line))),
            Err(CallError::Closed) if ask.repeatable && line.unread.is_empty() => permit = line.permit.take(),
            // It was dead before a byte of the request was sent.
            Err(CallError::Connect(_)) => permit = line.permit.take(),
            Err(error) => return Err(error),
        }
    }
    let moves = endpoint.pool.moves();
    let stream = endpoint.connect(shard, deadline).await?;
    if endpoint.is_http2(&stream)
        && let Some(place) = permit.take()
    {
        return Box::pin(over_http2(shard, endpoint, stream, moves, ask, deadline, place)).await;
    }
    let mut line = Line::new(shard, endpoint, stream, moves, permit);
    line.exchange(ask, deadline).await?;
    Ok(answer::Answer::Http1(Answer::new(line)))
}

/// The server chose HTTP/2 on a connection that was opened for either.
async fn over_http2(
    shard: &Rc<Shard>,
    endpoint: &Rc<Endpoint>,
    stream: Stream,
    moves: u32,
    ask: &Ask<'_>,
    deadline: Millis,
    place: Permit,
) -> Result<answer::Answer, CallError> {
    endpoint.lines.adopt(shard, endpoint, stream, moves, deadline).await?;
    match h2::ask(shard, endpoint, ask, deadline, place).await? {
        Asked::Answered(answer) => Ok(answer),
        // The server changed its mind from one connection to the next.
        Asked::Http1(..) => {
            Err(CallError::Connect(io::Error::other("the server chooses another HTTP each time")))
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shard.give_buffer(std::mem::take(&mut self.buffer));
        self.shard.response_heads.give(self.head.clone());
    }
}

impl Line {
    fn new(
        shard: &Rc<Shard>,
        endpoint: &Rc<Endpoint>,
        stream: Stream,
        moves: u32,
        permit: Option<Permit>,
    ) -> Self {
        Line {
            shard: shard.clone(),
            endpoint: endpoint.clone(),
            stream: Some(stream),
            moves,
            permit,
            buffer: shard.take_buffer(),
            unread: 0..0,
            head: shard.response_heads.take().unwrap_or_default(),
        }
    }

    async fn exchange(&mut self, ask: &Ask<'_>, deadline: Millis) -> Result<(), CallError> {
        let shard = self.shard.clone();
        match shard.deadline(deadline, pin!(self.send_and_read_head(ask))).await {
            Ok(outcome) => outcome,
            Err(Elapsed) => Err(CallError::Timeout),
        }
    }

    async fn send_and_read_head(&mut self, ask: &Ask<'_>) -> Result<(), CallError> {
        let stream = self.stream.as_mut().ok_or(CallError::Closed)?;
        let mut is_begun = false;
        stream.send_noting(ask.head, ask.body, &mut is_begun).await.map_err(|error| match is_begun {
            true => CallError::Closed,
            false => CallError::Connect(error),
        })?;
        self.shard.core.tasks.sent();
        for _ in 0..=MAX_INTERIM {
            // Made anew only where the last user of this head has not let go of it.
            let head = loop {
                let head = Rc::make_mut(&mut self.head);
                if parse_response_into(head, &self.buffer, ask.method, &HEAD_LIMITS)
                    .map_err(|_| CallError::Malformed("a head that is not HTTP/1.1"))?
                {
                    break &self.head;
                }
                if self.read().await? == 0 {
                    return Err(CallError::Closed);
                }
            };
            if head.status == 101 {
                return Err(CallError::Malformed("a switch of protocols"));
            }
            if head.status >= 200 {
                self.unread.start = head.head_len;
                return Ok(());
            }
            // The next head's spans count from the buffer's start.
            self.buffer.drain(..head.head_len);
            self.unread = 0..self.buffer.len();
        }
        Err(CallError::Malformed("interim answers without end"))
    }

    /// Reads through the shard's scratch: the buffer grows by what came, and is never zeroed.
    async fn read(&mut self) -> Result<usize, CallError> {
        let Line { shard, endpoint, stream, permit, buffer, .. } = self;
        let stream = stream.as_mut().ok_or(CallError::Closed)?;
        let read = poll_fn(|cx| {
            // What nobody waits for keeps no call from the server.
            if is_left() {
                *permit = None;
            }
            let mut scratch = shard.receive_scratch.borrow_mut();
            let read = std::task::ready!(stream.poll_read(cx, &mut scratch[..READ_BYTES]));
            Poll::Ready(read.inspect(|&read| buffer.extend_from_slice(&scratch[..read])))
        })
        .await
        .map_err(|error| {
            // In TLS 1.3 a server refuses the gateway's certificate, or the lack of one, only after the handshake.
            if error.kind() == io::ErrorKind::InvalidData {
                endpoint.tell(shard, &error);
            }
            CallError::Closed
        })?;
        self.unread.end += read;
        Ok(read)
    }
}

impl Answer {
    fn new(line: Line) -> Self {
        let head = line.head.clone();
        let body = match head.body {
            ResponseBody::None | ResponseBody::Length(0) => BodyState::Done,
            ResponseBody::Length(length) => BodyState::Length(length),
            ResponseBody::Chunked => BodyState::Chunked(ChunkedDecoder::new()),
            ResponseBody::UntilClose => BodyState::UntilClose,
        };
        let mut answer = Answer { head, line, body, keep_for: None };
        answer.keep_for = answer.offered_keep_alive();
        if matches!(answer.body, BodyState::Done) {
            answer.complete();
        }
        answer
    }

    /// The bytes that the head's spans point into; only until the first [`Answer::next`].
    pub(crate) fn head_bytes(&self) -> &[u8] {
        &self.line.buffer[..self.head.head_len]
    }

    /// Gives out the header fields that are not for this connection alone; only until the first [`Answer::next`].
    pub(crate) fn each_field(&self, mut give: impl FnMut(&[u8], &[u8])) {
        let bytes = self.head_bytes();
        let connection = self.head.headers.all(bytes, "connection").next();
        for (name, value) in self.head.headers.iter(bytes) {
            if !is_named_by(connection, name) {
                give(name, value);
            }
        }
    }

    /// A piece of the body that [`Answer::next`] named last.
    pub(crate) fn bytes(&self, piece: Range<usize>) -> &[u8] {
        &self.line.buffer[piece]
    }

    /// The body's length, when the server told it.
    pub(crate) fn length(&self) -> Option<u64> {
        match self.head.body {
            ResponseBody::Length(length) => Some(length),
            ResponseBody::None => Some(0),
            ResponseBody::Chunked | ResponseBody::UntilClose => None,
        }
    }

    /// Whether body bytes are here already.
    pub(crate) fn has_more(&self) -> bool {
        !self.line.unread.is_empty()
    }

    /// Whether the body is complete with the piece that [`Answer::next`] named last.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.body, BodyState::Done)
    }

    /// This answer is a long stream: its place in the pool goes to others.
    pub(crate) fn detach(&mut self) {
        self.line.permit = None;
    }

    /// `Keep-Alive: timeout=N`, less a margin.
    fn offered_keep_alive(&self) -> Option<Duration> {
        let value = self.head.headers.all(self.head_bytes(), "keep-alive").next()?;
        let value = std::str::from_utf8(value).ok()?;
        let seconds = value.split(',').find_map(|part| part.trim().strip_prefix("timeout=")?.parse().ok())?;
        Some(Duration::from_secs(seconds).saturating_sub(KEEP_ALIVE_MARGIN))
    }

    /// The next piece of the body, as a range for [`Answer::bytes`]; `None` when it is complete. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// [`CallError::Closed`] when the body ends early, [`CallError::Malformed`] for a broken framing.
    pub(crate) async fn next(&mut self) -> Result<Option<Range<usize>>, CallError> {
        loop {
            if let Some(piece) = self.take_piece()? {
                return Ok(Some(piece));
            }
            if matches!(self.body, BodyState::Done) {
                return Ok(None);
            }
            self.line.unread = 0..0;
            self.line.buffer.clear();
            if self.line.read().await? == 0 {
                if matches!(self.body, BodyState::UntilClose) {
                    self.body = BodyState::Done;
                    return Ok(None);
                }
                return Err(CallError::Closed);
            }
        }
    }

    fn take_piece(&mut self) -> Result<Option<Range<usize>>, CallError> {
        while !self.line.unread.is_empty() {
            let start = self.line.unread.start;
            match &mut self.body {
                BodyState::Done => return Ok(None),
                BodyState::UntilClose => {
                    self.line.unread.start = self.line.unread.end;
                    return Ok(Some(start..self.line.unread.end));
                }
                BodyState::Length(left) => {
                    let taken = (self.line.unread.len() as u64).min(*left) as usize;
                    *left -= taken as u64;
                    self.line.unread.start += taken;
                    if *left == 0 {
                        self.body = BodyState::Done;
                        self.complete();
                    }
                    return Ok(Some(start..start + taken));
                }
                BodyState::Chunked(decoder) => {
                    let chunk = decoder
                        .decode(&self.line.buffer[self.line.unread.clone()])
                        .map_err(|_| CallError::Malformed("a broken chunk"))?;
                    self.line.unread.start += chunk.consumed;
                    let done = chunk.done || self.ends_here();
                    if done {
                        self.body = BodyState::Done;
                        self.complete();
                    }
                    if !chunk.data.is_empty() {
                        return Ok(Some(start + chunk.data.start..start + chunk.data.end));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Whether nothing but the end of a chunked body follows, and is here: then it leaves with the last piece. What breaks
    /// the framing is told when it is read.
    fn ends_here(&mut self) -> bool {
        let BodyState::Chunked(decoder) = &self.body else { return false };
        let rest = &self.line.buffer[self.line.unread.clone()];
        match decoder.clone().decode(rest) {
            Ok(end) if end.done && end.data.is_empty() => {
                self.line.unread.start += end.consumed;
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// The body is complete: the connection goes back to the pool when it can be used again.
    fn complete(&mut self) {
        let clean = self.head.keep_alive && self.line.unread.is_empty();
        if let Some(stream) = self.line.stream.take()
            && clean
            && !self.line.shard.is_draining()
        {
            self.line.endpoint.pool.keep(
                stream,
                self.line.moves,
                self.line.shard.core.clock.now(),
                self.keep_for,
            );
            self.line.shard.want_housekeeping();
        }
        self.line.permit = None;
    }
}
