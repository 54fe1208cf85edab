//! One frame of a reply: owns finding its end, and what it holds. Never knows in which aggregate it stands.

use redis_protocol::resp3::decode::complete::decode_range;
use redis_protocol::resp3::types::RangeFrame;

use super::{ReadError, Reply};

/// The longest header: the type, 20 digits and a sign, CR LF, and room for leading zeros.
const MAX_HEADER_BYTES: usize = 32;

/// What stands at a place of a reply.
pub(super) enum Frame {
    /// A whole value of so many bytes.
    Scalar(Reply, usize),
    /// The header of an aggregate, of so many bytes.
    Aggregate(Aggregate, usize),
    /// More bytes are needed.
    Partial(Need),
}

/// An aggregate's header.
pub(super) struct Aggregate {
    pub(super) shape: Shape,
    /// Elements to follow: two for each pair.
    pub(super) elements: u64,
}

/// What becomes of an aggregate's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Array,
    Map,
    Push,
    /// Says something about the value that follows it; skipped.
    Attribute,
}

/// What a partial frame waits for.
pub(super) enum Need {
    /// Its header's end.
    Header,
    /// The end of its line, which is not in the first so many bytes of it.
    LineEnd(usize),
    /// This many bytes, counted from its first.
    Bytes(usize),
}

/// Reads the frame that begins at `at`. `searched`: so many of its first bytes are known to hold no line end. `max`: the
/// longest reply, in bytes.
pub(super) fn read_frame(bytes: &[u8], at: usize, searched: usize, max: usize) -> Result<Frame, ReadError> {
    let frame = bytes.get(at..).unwrap_or_default();
    let Some(&kind) = frame.first() else { return Ok(Frame::Partial(Need::Header)) };
    match kind {
        b'+' | b'-' | b':' | b',' | b'#' | b'_' | b'(' => line(frame, at, searched, max),
        b'$' | b'!' | b'=' | b'*' | b'~' | b'>' | b'%' | b'|' => with_header(frame, kind, at, max),
        byte => Err(ReadError::UnexpectedType { byte, at }),
    }
}

fn line(frame: &[u8], at: usize, searched: usize, max: usize) -> Result<Frame, ReadError> {
    let room = max.saturating_sub(at);
    let seen = &frame[..frame.len().min(room)];
    let from = searched.clamp(1, seen.len().max(1));
    let found = memchr::memchr(b'\r', seen.get(from..).unwrap_or_default()).map(|index| from + index);
    let cr = found.unwrap_or(seen.len());
    match seen.get(cr + 1) {
        Some(b'\n') => scalar(&frame[..cr + 2], at),
        Some(_) => Err(ReadError::Malformed { at }),
        None if frame.len() >= room => Err(ReadError::TooLarge { at_least: max as u64 + 1, max }),
        None => Ok(Frame::Partial(Need::LineEnd(cr))),
    }
}

fn with_header(frame: &[u8], kind: u8, at: usize, max: usize) -> Result<Frame, ReadError> {
    let malformed = ReadError::Malformed { at };
    let seen = &frame[..frame.len().min(MAX_HEADER_BYTES)];
    let Some(cr) = memchr::memchr(b'\r', seen) else {
        return if seen.len() < MAX_HEADER_BYTES { Ok(Frame::Partial(Need::Header)) } else { Err(malformed) };
    };
    match frame.get(cr + 1) {
        Some(b'\n') => {}
        Some(_) => return Err(malformed),
        None => return Ok(Frame::Partial(Need::Header)),
    }
    let body = cr + 2;
    let number = &seen[1..cr];
    if number == b"-1" && matches!(kind, b'$' | b'*') {
        // The decoder takes RESP2's null for the beginning of a streamed value.
        return Ok(Frame::Scalar(Reply::Null, body));
    }
    if number == b"?" {
        return Err(ReadError::UnexpectedType { byte: b'?', at: at + 1 });
    }
    let count = digits(number).ok_or(malformed)?;
    let shape = match kind {
        b'*' | b'~' => Shape::Array,
        b'%' => Shape::Map,
        b'>' => Shape::Push,
        b'|' => Shape::Attribute,
        _ => return blob(frame, body, count, at, max),
    };
    let per_entry = if matches!(shape, Shape::Map | Shape::Attribute) { 2 } else { 1 };
    Ok(Frame::Aggregate(Aggregate { shape, elements: count.saturating_mul(per_entry) }, body))
}

fn blob(frame: &[u8], body: usize, count: u64, at: usize, max: usize) -> Result<Frame, ReadError> {
    let at_least = count.saturating_add((at + body + 2) as u64);
    if at_least > max as u64 {
        return Err(ReadError::TooLarge { at_least, max });
    }
    // Below `max`, and so a size of this machine.
    let end = body + count as usize + 2;
    let Some(frame) = frame.get(..end) else { return Ok(Frame::Partial(Need::Bytes(end))) };
    // The decoder skips these two bytes unseen; anything else here means that the stream is out of step.
    if !frame.ends_with(b"\r\n") {
        return Err(ReadError::Malformed { at });
    }
    scalar(frame, at)
}

/// What a whole scalar holds.
fn scalar(frame: &[u8], at: usize) -> Result<Frame, ReadError> {
    let malformed = ReadError::Malformed { at };
    let Ok(Some((value, _))) = decode_range(frame) else { return Err(malformed) };
    let part = |(start, end): (usize, usize)| frame.get(start..end).unwrap_or_default();
    let reply = match value {
        RangeFrame::SimpleString { data, .. } => match part(data) {
            b"OK" => Reply::Ok,
            text => Reply::Status(String::from_utf8_lossy(text).into()),
        },
        RangeFrame::SimpleError { data, .. } | RangeFrame::BlobError { data, .. } => {
            Reply::Error(String::from_utf8_lossy(part(data)).into())
        }
        RangeFrame::BlobString { data, .. }
        | RangeFrame::VerbatimString { data, .. }
        | RangeFrame::BigNumber { data, .. } => Reply::Bulk(part(data).into()),
        RangeFrame::Number { data, .. } => Reply::Integer(data),
        RangeFrame::Double { data, .. } => Reply::Double(data),
        RangeFrame::Boolean { data, .. } => Reply::Boolean(data),
        RangeFrame::Null => Reply::Null,
        RangeFrame::Array { .. }
        | RangeFrame::Map { .. }
        | RangeFrame::Set { .. }
        | RangeFrame::Push { .. }
        | RangeFrame::Hello { .. }
        | RangeFrame::ChunkedString(_) => return Err(malformed),
    };
    Ok(Frame::Scalar(reply, frame.len()))
}

/// A number without sign; at most [`MAX_HEADER_BYTES`] digits.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(digit.into())
    })
}
