//! A server's answer, whatever it came by: owns the questions that an exchange asks of it. Those that are not an HTTP/1.1
//! exchange of ours are told in HTTP's terms: a status, header lines, and a body that a [`Source`] brings piece by piece.
//! Never looks into a message.

use std::future::poll_fn;
use std::ops::Range;
use std::task::{Context, Poll};

use super::call::{self, CallError};

pub(crate) enum Answer {
    /// Read from a connection of a pool, without a copy.
    Http1(call::Answer),
    Told(Box<Told>),
}

/// What brings the body of an answer that is told in HTTP's terms. Dropped before its end, it gives up the request.
pub(crate) trait Source {
    /// Appends the next piece, which is never empty, to `piece`, which is. What waits is woken by `cx`.
    ///
    /// # Errors
    /// [`CallError`] when the body ends early.
    fn poll_piece(&mut self, cx: &mut Context<'_>, piece: &mut Vec<u8>) -> Poll<Result<Step, CallError>>;

    /// Whether a piece can be had without waiting.
    fn is_ready(&self) -> bool;

    /// This answer is a long stream: a place that it has among calls goes to others.
    fn detach(&mut self);
}

/// What [`Source::poll_piece`] has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A piece, and there may be more.
    Piece,
    /// A piece, and the body is complete with it.
    Last,
    /// Nothing: the body is complete.
    End,
}

/// An answer that is told in HTTP's terms.
pub(crate) struct Told {
    status: u16,
    /// Header lines, each with its CR LF.
    fields: Vec<u8>,
    length: Option<u64>,
    source: Option<Box<dyn Source>>,
    piece: Vec<u8>,
}

impl Told {
    /// An answer whose body is to come; `fields` are header lines, each with its CR LF.
    pub(crate) fn new(status: u16, fields: Vec<u8>, length: Option<u64>, source: Box<dyn Source>) -> Self {
        Told { status, fields, length, source: Some(source), piece: Vec::new() }
    }

    /// A whole answer.
    pub(crate) fn whole(status: u16, fields: Vec<u8>, body: Vec<u8>) -> Self {
        let length = Some(body.len() as u64);
        let source: Option<Box<dyn Source>> =
            if body.is_empty() { None } else { Some(Box::new(Whole(body))) };
        Told { status, fields, length, source, piece: Vec::new() }
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// A header line's value.
    fn field(&self, name: &str) -> Option<&[u8]> {
        let mut found = self.lines().filter(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()));
        found.next().map(|(_, value)| value)
    }

    fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.split(|&byte| byte == b'\n').filter_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
    }

    async fn next(&mut self) -> Result<Option<Range<usize>>, CallError> {
        self.piece.clear();
        let Told { source, piece, .. } = self;
        let Some(bringer) = source.as_mut() else { return Ok(None) };
        let step = poll_fn(|cx| bringer.poll_piece(cx, piece)).await;
        if !matches!(step, Ok(Step::Piece)) {
            *source = None;
        }
        match step? {
            Step::Piece | Step::Last => Ok(Some(0..self.piece.len())),
            Step::End => Ok(None),
        }
    }
}

/// A body that is here.
struct Whole(Vec<u8>);

impl Source for Whole {
    fn poll_piece(&mut self, _: &mut Context<'_>, piece: &mut Vec<u8>) -> Poll<Result<Step, CallError>> {
        std::mem::swap(&mut self.0, piece);
        Poll::Ready(Ok(Step::Last))
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn detach(&mut self) {}
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        match self {
            Answer::Http1(answer) => answer.head.status,
            Answer::Told(told) => told.status,
        }
    }

    /// The content type; only until the first [`Answer::next`].
    pub(crate) fn content_type(&self) -> &[u8] {
        match self {
            Answer::Http1(answer) => {
                answer.head.content_type.map(|kind| kind.of(answer.head_bytes())).unwrap_or_default()
            }
            Answer::Told(told) => told.field("content-type").unwrap_or_default(),
        }
    }

    /// Whether the body is in a coding, such as gzip, for which the gateway never asks; only until the first [`Answer::next`].
    pub(crate) fn is_coded(&self) -> bool {
        let coding = match self {
            Answer::Http1(answer) => {
                answer.head.content_encoding.map(|coding| coding.of(answer.head_bytes()))
            }
            Answer::Told(told) => told.field("content-encoding"),
        };
        coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity"))
    }

    /// The server's own session id; only until the first [`Answer::next`].
    pub(crate) fn session_id(&self) -> Option<&[u8]> {
        match self {
            Answer::Http1(answer) => answer.head.session_id.map(|id| id.of(answer.head_bytes())),
            Answer::Told(told) => told.field("mcp-session-id"),
        }
    }

    /// Gives out the end-to-end header fields; only until the first [`Answer::next`].
    pub(crate) fn each_field(&self, mut give: impl FnMut(&[u8], &[u8])) {
        match self {
            Answer::Http1(answer) => answer.each_field(give),
            Answer::Told(told) => told.lines().for_each(|(name, value)| give(name, value)),
        }
    }

    /// The body's length, when the server told it.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Answer::Http1(answer) => answer.length(),
            Answer::Told(told) => told.length,
        }
    }

    /// Whether body bytes are here already.
    pub(crate) fn has_more(&self) -> bool {
        match self {
            Answer::Http1(answer) => answer.has_more(),
            Answer::Told(told) => told.source.as_ref().is_some_and(|source| source.is_ready()),
        }
    }

    /// Whether the body is complete with the piece that [`Answer::next`] named last.
    pub(crate) fn is_complete(&self) -> bool {
        match self {
            Answer::Http1(answer) => answer.is_complete(),
            Answer::Told(told) => told.source.is_none(),
        }
    }

    /// This answer is a long stream: its place in the pool goes to others.
    pub(crate) fn detach(&mut self) {
        match self {
            Answer::Http1(answer) => answer.detach(),
            Answer::Told(told) => {
                if let Some(source) = &mut told.source {
                    source.detach();
                }
            }
        }
    }

    /// The next piece of the body, as a range for [`Answer::bytes`]; `None` when it is complete. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// [`CallError`] when the body ends early or its framing is broken.
    pub(crate) async fn next(&mut self) -> Result<Option<Range<usize>>, CallError> {
        match self {
            Answer::Http1(answer) => answer.next().await,
            Answer::Told(told) => told.next().await,
        }
    }

    /// A piece of the body that [`Answer::next`] named last.
    pub(crate) fn bytes(&self, piece: Range<usize>) -> &[u8] {
        match self {
            Answer::Http1(answer) => answer.bytes(piece),
            Answer::Told(told) => &told.piece[piece],
        }
    }
}
