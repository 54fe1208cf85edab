//! The events of an answer as its bytes come: owns the framing of the body and the lines of the stream. It never knows what
//! an event means. Sans-IO.

use super::failure::{Failure, Kind};
use crate::http::{Framing, HttpError, MAX_BODY_BYTES};

/// Bytes of a chunk's size line or of a trailer.
const MAX_CHUNK_LINE_BYTES: usize = 4096;

/// A body of events, as far as it has come.
#[derive(Debug)]
pub(super) struct EventReader {
    body: Body,
    /// A line of the stream without its end, and the data of the event in hand.
    line: Vec<u8>,
    data: Vec<u8>,
}

/// Where the body's framing stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    UntilClose,
    Length(usize),
    SizeLine(Vec<u8>),
    Chunk(usize),
    ChunkEnd(usize),
    Trailer(Vec<u8>),
    Done,
}

impl EventReader {
    /// For a body that is framed so.
    pub(super) fn new(framing: Framing) -> Self {
        let body = match framing {
            Framing::Chunked => Body::SizeLine(Vec::new()),
            Framing::Length(0) => Body::Done,
            Framing::Length(n) => Body::Length(n),
            Framing::UntilClose => Body::UntilClose,
        };
        Self { body, line: Vec::new(), data: Vec::new() }
    }

    /// Takes bytes of the body, and gives the data of each event that has any to `take`. True when the body is complete.
    pub(super) fn handle_input(
        &mut self,
        mut input: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        let chunk = || Failure::new(Kind::Malformed, HttpError::Chunk);
        while !input.is_empty() {
            let mut body = std::mem::replace(&mut self.body, Body::Done);
            let taken = match &mut body {
                Body::UntilClose => input.len(),
                Body::Length(left) | Body::Chunk(left) => input.len().min(*left),
                Body::SizeLine(line) | Body::Trailer(line) => {
                    let end = memchr::memchr(b'\n', input).map_or(input.len(), |n| n + 1);
                    line.extend_from_slice(&input[..end]);
                    if line.len() > MAX_CHUNK_LINE_BYTES {
                        return Err(chunk());
                    }
                    end
                }
                Body::ChunkEnd(left) => {
                    let end = &b"\r\n"[2 - *left..];
                    let n = input.len().min(*left);
                    if input[..n] != end[..n] {
                        return Err(chunk());
                    }
                    n
                }
                Body::Done => return Err(Failure::new(Kind::Malformed, "bytes behind the answer")),
            };
            let (now, rest) = input.split_at(taken);
            input = rest;
            if matches!(body, Body::UntilClose | Body::Length(_) | Body::Chunk(_)) {
                self.handle_text(now, &mut take)?;
            }
            self.body = match body {
                Body::Length(left) if left == taken => Body::Done,
                Body::Length(left) => Body::Length(left - taken),
                Body::Chunk(left) if left == taken => Body::ChunkEnd(2),
                Body::Chunk(left) => Body::Chunk(left - taken),
                Body::ChunkEnd(left) if left == taken => Body::SizeLine(Vec::new()),
                Body::ChunkEnd(left) => Body::ChunkEnd(left - taken),
                Body::SizeLine(line) if line.ends_with(b"\n") => match httparse::parse_chunk_size(&line) {
                    Ok(httparse::Status::Complete((_, 0))) => Body::Trailer(Vec::new()),
                    Ok(httparse::Status::Complete((_, n))) => {
                        Body::Chunk(usize::try_from(n).map_err(|_| chunk())?)
                    }
                    _ => return Err(chunk()),
                },
                Body::Trailer(line) if matches!(&line[..], b"\n" | b"\r\n") => Body::Done,
                Body::Trailer(line) if line.ends_with(b"\n") => Body::Trailer(Vec::new()),
                other => other,
            };
        }
        Ok(self.body == Body::Done)
    }

    /// Whether the peer's end is also the body's.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.body == Body::UntilClose
    }

    fn handle_text(
        &mut self,
        mut text: &[u8],
        take: &mut impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        while let Some(end) = memchr::memchr(b'\n', text) {
            let (head, rest) = (&text[..end], &text[end + 1..]);
            text = rest;
            if self.line.is_empty() {
                self.handle_line(head, take)?;
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(head);
                self.handle_line(&line, take)?;
                line.clear();
                self.line = line;
            }
        }
        if self.line.len() + text.len() > MAX_BODY_BYTES {
            return Err(Failure::new(Kind::Malformed, HttpError::BodyTooLong));
        }
        self.line.extend_from_slice(text);
        Ok(())
    }

    fn handle_line(
        &mut self,
        line: &[u8],
        take: &mut impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(data) = line.strip_prefix(b"data:") {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
        } else if line.is_empty() && !self.data.is_empty() {
            let mut data = std::mem::take(&mut self.data);
            take(&data)?;
            data.clear();
            self.data = data;
        }
        Ok(())
    }
}
