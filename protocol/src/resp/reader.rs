//! Reads replies from a stream that arrives in pieces: owns the place reached in the reply under way, and the limits. Never
//! the bytes.
//!
//! Aggregates are put together here and not by the `redis-protocol` crate: its decoder recurses as deep as the peer likes,
//! begins anew with each piece that arrives, refuses RESP2's nulls and keeps maps in no order.

use super::frame::{Aggregate, Frame, Need, Shape, read_frame, scalar};
use super::{ReadError, Reply};

/// The most aggregates around an element, attributes included. `CLUSTER SHARDS`, the deepest reply of Redis that is asked
/// for, has four.
pub const MAX_DEPTH: usize = 8;

/// The most elements of a reply on all levels: 2^20, 32 MiB of [`Reply`] besides the bytes of its strings, and up to twice
/// as much while it arrives.
pub const MAX_ELEMENTS: usize = 1 << 20;

/// The shortest element: `_`, CR, LF.
const MIN_ELEMENT_BYTES: u64 = 3;

/// Reads one reply after the other.
///
/// It remembers how far it got in a reply that is not whole yet, so that each byte is looked at once however small the
/// pieces are. What it holds of such a reply is at most as large as the part that arrived, and 64 bytes per element.
#[derive(Debug)]
pub struct Reader {
    max_reply_bytes: usize,
    progress: Progress,
}

/// How far the reply under way has been read.
#[derive(Debug, Default)]
struct Progress {
    /// Bytes of it that are behind.
    at: usize,
    /// Reading on is of no use before so many bytes of it are there.
    needed: usize,
    /// In the first so many bytes of the line at `at` there is no line end.
    searched: usize,
    /// The aggregates around `at`, outermost first.
    open: Vec<Open>,
    /// Elements announced so far, on all levels.
    announced: u64,
    /// Those of them that have not begun.
    outstanding: u64,
}

/// An aggregate that is not complete yet.
#[derive(Debug)]
struct Open {
    shape: Shape,
    missing: u64,
    elements: Vec<Reply>,
}

impl Reader {
    /// A reader at the beginning of a stream that refuses replies above `max_reply_bytes`, whole length on the wire.
    pub fn new(max_reply_bytes: usize) -> Self {
        Reader { max_reply_bytes, progress: Progress::default() }
    }

    /// The reply at the beginning of `bytes` and its length, or `None` as long as it is not all there. After `None`, the
    /// next call must bring the same bytes and those that came since; after a reply, the bytes behind it.
    ///
    /// # Errors
    /// [`ReadError`], as soon as it is known, by an announced length before the bytes that it announces. Nothing that
    /// follows in the stream has a meaning.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<(Reply, usize)>, ReadError> {
        if bytes.len() < self.progress.needed {
            return Ok(None);
        }
        let read = self.progress.read(bytes, self.max_reply_bytes);
        if !matches!(read, Ok(None)) {
            self.progress.restart();
        }
        read
    }
}

impl Progress {
    fn read(&mut self, bytes: &[u8], max: usize) -> Result<Option<(Reply, usize)>, ReadError> {
        loop {
            let at = self.at;
            let complete = match read_frame(bytes, at, self.searched, max)? {
                Frame::Scalar { content, len } => {
                    let frame = bytes.get(at..at + len).unwrap_or_default();
                    let reply = scalar(frame, content).ok_or(ReadError::Malformed { at })?;
                    self.advance(len);
                    if self.open.is_empty() {
                        return Ok(Some((reply, self.at)));
                    }
                    self.place(reply)
                }
                Frame::Null(len) => {
                    self.advance(len);
                    if self.at > max {
                        return Err(ReadError::TooLarge { at_least: self.at as u64, max });
                    }
                    self.place(Reply::Null)
                }
                Frame::Aggregate(aggregate, len) => {
                    self.open(aggregate, len, bytes.len(), max)?;
                    self.close_complete()
                }
                Frame::Partial(need) => {
                    self.wait(need);
                    return Ok(None);
                }
            };
            if let Some(reply) = complete {
                return Ok(Some((reply, self.at)));
            }
        }
    }

    /// For the next reply. The room for open aggregates stays.
    fn restart(&mut self) {
        self.open.clear();
        (self.at, self.needed, self.searched, self.announced, self.outstanding) = (0, 0, 0, 0, 0);
    }

    fn wait(&mut self, need: Need) {
        self.needed = match need {
            Need::Header => 0,
            Need::LineEnd(searched) => {
                self.searched = searched;
                0
            }
            Need::Bytes(len) => self.at + len,
        };
    }

    fn advance(&mut self, len: usize) {
        self.at += len;
        self.searched = 0;
    }

    fn open(&mut self, aggregate: Aggregate, len: usize, have: usize, max: usize) -> Result<(), ReadError> {
        let Aggregate { shape, elements } = aggregate;
        if shape == Shape::Push && !self.open.is_empty() {
            return Err(ReadError::UnexpectedType { byte: b'>', at: self.at });
        }
        if self.open.len() == MAX_DEPTH {
            return Err(ReadError::TooDeep { max: MAX_DEPTH });
        }
        // An attribute stands in front of an element and is none.
        if shape != Shape::Attribute {
            self.outstanding = self.outstanding.saturating_sub(1);
        }
        self.announced = self.announced.saturating_add(elements);
        self.outstanding = self.outstanding.saturating_add(elements);
        self.advance(len);
        let at_least = self.outstanding.saturating_mul(MIN_ELEMENT_BYTES).saturating_add(self.at as u64);
        if at_least > max as u64 {
            return Err(ReadError::TooLarge { at_least, max });
        }
        if self.announced > MAX_ELEMENTS as u64 {
            return Err(ReadError::TooManyElements { count: self.announced, max: MAX_ELEMENTS });
        }
        // Room is made for what can be there, not for what is promised.
        let arrived = have.saturating_sub(self.at) as u64 / MIN_ELEMENT_BYTES;
        let room = elements.min(arrived) as usize;
        self.open.push(Open { shape, missing: elements, elements: Vec::with_capacity(room) });
        Ok(())
    }

    /// Puts an element where it belongs. Gives the reply back when that makes it whole.
    fn place(&mut self, reply: Reply) -> Option<Reply> {
        let Some(around) = self.open.last_mut() else { return Some(reply) };
        around.elements.push(reply);
        around.missing = around.missing.saturating_sub(1);
        self.outstanding = self.outstanding.saturating_sub(1);
        self.close_complete()
    }

    /// Closes the aggregates that miss nothing any more, from the inside out.
    fn close_complete(&mut self) -> Option<Reply> {
        while let Some(complete) = self.open.pop_if(|open| open.missing == 0) {
            let reply = match complete.shape {
                Shape::Array => Reply::Array(complete.elements),
                Shape::Push => Reply::Push(complete.elements),
                Shape::Map => Reply::Map(pairs(complete.elements)),
                Shape::Attribute => continue,
            };
            let Some(around) = self.open.last_mut() else { return Some(reply) };
            around.elements.push(reply);
            around.missing = around.missing.saturating_sub(1);
        }
        None
    }
}

fn pairs(elements: Vec<Reply>) -> Vec<(Reply, Reply)> {
    let mut pairs = Vec::with_capacity(elements.len() / 2);
    let mut elements = elements.into_iter();
    while let (Some(key), Some(value)) = (elements.next(), elements.next()) {
        pairs.push((key, value));
    }
    pairs
}
