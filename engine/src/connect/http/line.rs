//! HTTP/1.1 exchanges with the gateway: owns the connections that are kept, sending a request, and its answer piece by piece.
//! It never sends anything twice, and never looks into a message.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use futures_rustls::TlsConnector;
use mcp_protocol::http1::{
    ChunkedDecoder, HeadLimits, Method, ResponseBody, ResponseHead, is_event_stream, is_json, parse_response,
};
use mcp_shard_store::runtime::Address;
use rustls_pki_types::ServerName;

use crate::connect::host::Host;
use crate::net::stream::Stream;
use crate::shard::clock::Millis;
use crate::shard::core::Elapsed;

/// Bytes of an answer's head.
const HEAD_LIMITS: HeadLimits = HeadLimits { max_bytes: 32 << 10, max_headers: 100 };
const READ_BYTES: usize = 64 << 10;
/// Interim answers (1xx) before the real one.
const MAX_INTERIM: usize = 8;
/// How long the gateway may take to take a request.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections that are kept for the next request, and for how long: less than any server keeps them by default.
const MAX_KEPT: usize = 4;
const KEEP_MS: Millis = 4_000;

/// Why there is no answer, or no whole one.
#[derive(Debug)]
pub(super) enum LineError {
    /// No byte of the request was sent.
    NotSent(io::Error),
    /// The connection broke: nobody knows what became of the request.
    Lost(io::Error),
    /// The answer breaks HTTP.
    Malformed(&'static str),
}

/// The gateway's address, and connections that are kept.
pub(super) struct Lines {
    host: Rc<Host>,
    address: Address,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    kept: RefCell<Vec<(Stream, Millis)>>,
}

/// What an answer's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Json,
    Events,
    Other,
}

/// An answer whose head is here.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content: Content,
    pub(super) session_id: Option<String>,
    pub(super) retry_after: Option<Duration>,
    lines: Rc<Lines>,
    stream: Option<Stream>,
    buffer: Vec<u8>,
    unread: Range<usize>,
    body: Body,
    keep_alive: bool,
}

enum Body {
    Done,
    Length(u64),
    Chunked(ChunkedDecoder),
    UntilClose,
}

impl Lines {
    pub(super) fn new(
        host: Rc<Host>,
        address: Address,
        tls: Option<(TlsConnector, ServerName<'static>)>,
    ) -> Rc<Self> {
        Rc::new(Lines { host, address, tls, kept: RefCell::default() })
    }

    /// Sends a request and waits for the head of its answer, `limit` long where there is one.
    ///
    /// # Errors
    /// [`LineError`].
    pub(super) async fn ask(
        self: &Rc<Self>,
        method: Method,
        head: &[u8],
        body: &[u8],
        limit: Option<Duration>,
    ) -> Result<Answer, LineError> {
        let mut stream = match self.take_kept() {
            Some(stream) => stream,
            None => self.host.connect(&self.address, self.tls.as_ref()).await.map_err(LineError::NotSent)?,
        };
        let late = |Elapsed| LineError::Lost(io::ErrorKind::TimedOut.into());
        let sent = self.host.within(SEND_TIMEOUT, stream.send(head, body)).await;
        sent.map_err(late)?.map_err(LineError::Lost)?;
        let mut buffer = Vec::new();
        let reading = read_head(&mut stream, &mut buffer, method);
        let head = match limit {
            Some(limit) => self.host.within(limit, reading).await.map_err(late)??,
            None => reading.await?,
        };
        Ok(self.answer(stream, buffer, &head))
    }

    fn answer(self: &Rc<Self>, stream: Stream, buffer: Vec<u8>, head: &ResponseHead) -> Answer {
        let text = |span: mcp_protocol::Span| String::from_utf8_lossy(span.of(&buffer)).into_owned();
        let content = match head.content_type.map(|kind| kind.of(&buffer)) {
            Some(kind) if is_json(kind) => Content::Json,
            Some(kind) if is_event_stream(kind) => Content::Events,
            Some(_) | None => Content::Other,
        };
        let body = match head.body {
            ResponseBody::None | ResponseBody::Length(0) => Body::Done,
            ResponseBody::Length(length) => Body::Length(length),
            ResponseBody::Chunked => Body::Chunked(ChunkedDecoder::new()),
            ResponseBody::UntilClose => Body::UntilClose,
        };
        let mut answer = Answer {
            status: head.status,
            content,
            session_id: head.session_id.map(text),
            // The other form, a date, would need two clocks that agree.
            retry_after: head.retry_after.and_then(|after| text(after).parse().ok()).map(Duration::from_secs),
            lines: self.clone(),
            unread: head.head_len..buffer.len(),
            keep_alive: head.keep_alive,
            stream: Some(stream),
            buffer,
            body,
        };
        if matches!(answer.body, Body::Done) {
            answer.complete();
        }
        answer
    }

    fn take_kept(&self) -> Option<Stream> {
        let mut kept = self.kept.borrow_mut();
        let oldest = self.host.now().saturating_sub(KEEP_MS);
        kept.retain_mut(|(stream, since)| *since >= oldest && stream.is_quiet());
        kept.pop().map(|(stream, _)| stream)
    }

    fn keep(&self, stream: Stream) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() == MAX_KEPT {
            kept.remove(0);
        }
        kept.push((stream, self.host.now()));
    }
}

/// Reads up to the end of the answer's head; what follows it stays in the buffer.
async fn read_head(
    stream: &mut Stream,
    buffer: &mut Vec<u8>,
    method: Method,
) -> Result<ResponseHead, LineError> {
    for _ in 0..=MAX_INTERIM {
        let head = loop {
            let parsed = parse_response(buffer, method, &HEAD_LIMITS);
            match parsed.map_err(|_| LineError::Malformed("a head that is not HTTP/1.1"))? {
                Some(head) => break head,
                None => read_more(stream, buffer).await?,
            }
        };
        match head.status {
            101 => return Err(LineError::Malformed("a switch of protocols")),
            100..200 => drop(buffer.drain(..head.head_len)),
            _ => return Ok(head),
        }
    }
    Err(LineError::Malformed("interim answers without end"))
}

/// Appends what comes next; an end is an error here.
async fn read_more(stream: &mut Stream, buffer: &mut Vec<u8>) -> Result<(), LineError> {
    match read_some(stream, buffer).await? {
        0 => Err(LineError::Lost(io::ErrorKind::UnexpectedEof.into())),
        _ => Ok(()),
    }
}

async fn read_some(stream: &mut Stream, buffer: &mut Vec<u8>) -> Result<usize, LineError> {
    let held = buffer.len();
    buffer.resize(held + READ_BYTES, 0);
    let read = poll_fn(|cx| stream.poll_read(cx, &mut buffer[held..])).await;
    buffer.truncate(held + *read.as_ref().unwrap_or(&0));
    read.map_err(LineError::Lost)
}

impl Answer {
    /// The next piece of the body; `None` when it is complete.
    ///
    /// # Errors
    /// [`LineError::Lost`] when the body ends early, [`LineError::Malformed`] for a broken framing.
    pub(super) async fn next(&mut self) -> Result<Option<&[u8]>, LineError> {
        loop {
            if let Some(piece) = self.take_piece()? {
                return Ok(Some(&self.buffer[piece]));
            }
            let Some(stream) = self.stream.as_mut().filter(|_| !matches!(self.body, Body::Done)) else {
                return Ok(None);
            };
            self.buffer.clear();
            let read = read_some(stream, &mut self.buffer).await?;
            self.unread = 0..read;
            if read == 0 {
                return match std::mem::replace(&mut self.body, Body::Done) {
                    Body::UntilClose => Ok(None),
                    _ => Err(LineError::Lost(io::ErrorKind::UnexpectedEof.into())),
                };
            }
        }
    }

    /// The whole body; `None` when it is longer than `limit`.
    ///
    /// # Errors
    /// As for [`Answer::next`].
    pub(super) async fn whole(mut self, limit: usize) -> Result<Option<Vec<u8>>, LineError> {
        let mut whole = Vec::new();
        while let Some(piece) = self.next().await? {
            if whole.len() + piece.len() > limit {
                return Ok(None);
            }
            whole.extend_from_slice(piece);
        }
        Ok(Some(whole))
    }

    fn take_piece(&mut self) -> Result<Option<Range<usize>>, LineError> {
        while !self.unread.is_empty() {
            let start = self.unread.start;
            let (used, data, done) = match &mut self.body {
                Body::Done => return Ok(None),
                Body::UntilClose => (self.unread.len(), 0..self.unread.len(), false),
                Body::Length(left) => {
                    let taken = (self.unread.len() as u64).min(*left);
                    *left -= taken;
                    (taken as usize, 0..taken as usize, *left == 0)
                }
                Body::Chunked(decoder) => {
                    let chunk = decoder
                        .decode(&self.buffer[self.unread.clone()])
                        .map_err(|_| LineError::Malformed("a broken chunk"))?;
                    (chunk.consumed, chunk.data, chunk.done)
                }
            };
            self.unread.start += used;
            if done {
                self.complete();
            }
            if !data.is_empty() {
                return Ok(Some(start + data.start..start + data.end));
            }
        }
        Ok(None)
    }

    /// The body is complete: the connection is kept when it can be used again.
    fn complete(&mut self) {
        self.body = Body::Done;
        if let Some(stream) = self.stream.take()
            && self.keep_alive
            && self.unread.is_empty()
        {
            self.lines.keep(stream);
        }
    }
}
