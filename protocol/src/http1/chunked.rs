//! Owns the chunked transfer coding's decoder (RFC 9112, section 7.1).
//!
//! It is stricter than the RFC lets it be: no bare LF, no white space around the size, no control character in
//! extensions or trailers. Extensions and trailers are read and dropped.

use std::ops::Range;

use thiserror::Error;

/// What one call of [`ChunkedDecoder::decode`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// Body bytes, a range of the input; may be empty.
    pub data: Range<usize>,
    /// Whether the body has ended; what follows `consumed` is the next message.
    pub done: bool,
}

/// Why a chunked body is refused. The connection's framing is unknown afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// A chunk size is absent, not hexadecimal or above 16 digits.
    #[error("invalid chunk size")]
    InvalidSize,
    /// A line with a chunk size is too long.
    #[error("chunk size line is longer than {limit} bytes")]
    SizeLineTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The trailer section is too long.
    #[error("trailers are longer than {limit} bytes")]
    TrailersTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// A line or a chunk does not end with CR LF, or a control character stands in one.
    #[error("expected {expected} in the chunked body")]
    Malformed {
        /// What would fit.
        expected: &'static str,
    },
}

/// The most bytes of a line with a chunk size, extensions included, CR LF not.
pub const MAX_SIZE_LINE: usize = 256;
/// The most bytes of the trailer section, line ends included.
pub const MAX_TRAILERS: usize = 8 * 1024;
/// The most hexadecimal digits of a chunk size: 64 bits.
const MAX_SIZE_DIGITS: usize = 16;

/// Finds the data of a chunked body, incrementally and in place.
#[derive(Clone, Debug, Default)]
pub struct ChunkedDecoder {
    state: State,
    /// The size of the chunk while its line is read, then what is left of it.
    remaining: u64,
    /// Bytes of the size line, or of the trailer section.
    section_len: usize,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
    Failed(ChunkError),
}

impl ChunkedDecoder {
    /// A decoder at the start of a body.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes. Call it again with what follows `consumed`, until the input is used up or `done`.
    ///
    /// # Errors
    /// [`ChunkError`]; every later call fails as well.
    pub fn decode(&mut self, input: &[u8]) -> Result<Chunk, ChunkError> {
        let mut pos = 0;
        while let Some(&byte) = input.get(pos) {
            self.state = match self.state {
                State::Done => break,
                State::Failed(error) => return Err(error),
                State::Data => {
                    let rest = input.len() - pos;
                    let taken = usize::try_from(self.remaining).map_or(rest, |left| left.min(rest));
                    self.remaining -= taken as u64;
                    if self.remaining == 0 {
                        self.state = State::DataCr;
                    }
                    let end = pos + taken;
                    return Ok(Chunk { consumed: end, data: pos..end, done: false });
                }
                _ => self.step(byte).unwrap_or_else(State::Failed),
            };
            pos += 1;
        }
        match self.state {
            State::Failed(error) => Err(error),
            state => Ok(Chunk { consumed: pos, data: pos..pos, done: state == State::Done }),
        }
    }

    /// The state after a byte that is not chunk data.
    fn step(&mut self, byte: u8) -> Result<State, ChunkError> {
        let malformed = |expected| Err(ChunkError::Malformed { expected });
        match self.state {
            State::Size => self.size_byte(byte),
            State::Extension if byte == b'\r' => Ok(State::SizeLf),
            State::Extension if is_text(byte) => {
                self.count_size_line()?;
                Ok(State::Extension)
            }
            State::Extension => malformed("a chunk extension"),
            State::SizeLf if byte != b'\n' => malformed("LF after the chunk size"),
            State::SizeLf => {
                self.section_len = 0;
                Ok(if self.remaining == 0 { State::TrailerStart } else { State::Data })
            }
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataLf if byte == b'\n' => Ok(State::Size),
            State::DataCr | State::DataLf => malformed("CR LF after the chunk"),
            State::TrailerStart if byte == b'\r' => Ok(State::EndLf),
            State::EndLf if byte == b'\n' => Ok(State::Done),
            State::EndLf => malformed("LF at the end of the body"),
            State::TrailerStart | State::Trailer | State::TrailerLf => self.trailer_byte(byte),
            State::Data | State::Done | State::Failed(_) => Ok(self.state),
        }
    }

    fn size_byte(&mut self, byte: u8) -> Result<State, ChunkError> {
        match byte {
            b';' | b'\r' if self.section_len == 0 => Err(ChunkError::InvalidSize),
            b';' => {
                self.count_size_line()?;
                Ok(State::Extension)
            }
            b'\r' => Ok(State::SizeLf),
            _ if self.section_len == MAX_SIZE_DIGITS => Err(ChunkError::InvalidSize),
            _ => {
                let digit = char::from(byte).to_digit(16).ok_or(ChunkError::InvalidSize)?;
                self.remaining = self.remaining << 4 | u64::from(digit);
                self.count_size_line()?;
                Ok(State::Size)
            }
        }
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<State, ChunkError> {
        self.section_len += 1;
        if self.section_len > MAX_TRAILERS {
            return Err(ChunkError::TrailersTooLong { limit: MAX_TRAILERS });
        }
        match (self.state, byte) {
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::TrailerLf, _) => Err(ChunkError::Malformed { expected: "LF after a trailer" }),
            (_, b'\r') => Ok(State::TrailerLf),
            (_, byte) if is_text(byte) => Ok(State::Trailer),
            (..) => Err(ChunkError::Malformed { expected: "a trailer" }),
        }
    }

    fn count_size_line(&mut self) -> Result<(), ChunkError> {
        self.section_len += 1;
        if self.section_len > MAX_SIZE_LINE {
            return Err(ChunkError::SizeLineTooLong { limit: MAX_SIZE_LINE });
        }
        Ok(())
    }
}

/// Whether a byte may stand in an extension or a trailer line.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7F)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `input` in pieces; returns the body and what follows it.
    fn decode_all(input: &[u8], piece: usize) -> Result<Option<(Vec<u8>, usize)>, ChunkError> {
        let mut decoder = ChunkedDecoder::new();
        let mut body = Vec::new();
        let mut pos = 0;
        for part in input.chunks(piece) {
            let mut used = 0;
            while used < part.len() {
                let chunk = decoder.decode(&part[used..])?;
                body.extend_from_slice(&part[used..][chunk.data]);
                used += chunk.consumed;
                if chunk.done {
                    return Ok(Some((body, pos + used)));
                }
            }
            pos += part.len();
        }
        Ok(None)
    }

    #[test]
    fn bodies_decode_alike_however_they_are_split() {
        let long_extension = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(254));
        for (input, body, after) in [
            ("5\r\nhello\r\n0\r\n\r\n", "hello", ""),
            ("5\r\nhello\r\n9\r\n 0123\r\n56\r\n0\r\n\r\nGET /", "hello 0123\r\n56", "GET /"),
            ("0\r\n\r\n", "", ""),
            ("0000\r\n\r\n\r\n", "", "\r\n"),
            ("3;a=b;c=\"d\"\r\nabc\r\n0;last\r\n\r\n", "abc", ""),
            ("0000000000000003\r\nabc\r\n0\r\nX: y\r\nZ: \t w\r\n\r\nrest", "abc", "rest"),
            (&long_extension, "abc", ""),
        ] {
            for piece in 1..=input.len() {
                let (found, end) = decode_all(input.as_bytes(), piece).unwrap().expect("an end");
                assert_eq!(found, body.as_bytes(), "{input:?} by {piece}");
                assert_eq!(&input[end..], after, "{input:?} by {piece}");
            }
            for len in 0..input.len() - after.len() {
                assert_eq!(
                    decode_all(&input.as_bytes()[..len], len.max(1)),
                    Ok(None),
                    "{input:?} cut at {len}"
                );
            }
        }
    }

    #[test]
    fn whatever_could_be_read_differently_is_refused() {
        let long_trailer = format!("0\r\nX: {}\r\n\r\n", "y".repeat(MAX_TRAILERS));
        let long_extension = format!("3;{}\r\nabc", "x".repeat(255));
        let malformed = |expected| ChunkError::Malformed { expected };
        for (input, error) in [
            ("\r\n", ChunkError::InvalidSize),
            (";x\r\n", ChunkError::InvalidSize),
            ("g\r\n", ChunkError::InvalidSize),
            ("-1\r\n", ChunkError::InvalidSize),
            ("+1\r\n", ChunkError::InvalidSize),
            ("0x1\r\n", ChunkError::InvalidSize),
            (" 1\r\n", ChunkError::InvalidSize),
            ("1 \r\n", ChunkError::InvalidSize),
            ("1_0\r\n", ChunkError::InvalidSize),
            ("00000000000000001\r\n", ChunkError::InvalidSize),
            ("3\nabc", ChunkError::InvalidSize),
            ("3\rabc", malformed("LF after the chunk size")),
            ("3;x\nabc", malformed("a chunk extension")),
            ("3;\0\r\n", malformed("a chunk extension")),
            ("3\r\nabcd", malformed("CR LF after the chunk")),
            ("3\r\nabc\n", malformed("CR LF after the chunk")),
            ("3\r\nabc\rx", malformed("CR LF after the chunk")),
            ("0\r\n\n", malformed("a trailer")),
            ("0\r\n\rx", malformed("LF at the end of the body")),
            ("0\r\nX: y\n", malformed("a trailer")),
            ("0\r\nX: y\rZ", malformed("LF after a trailer")),
            (&long_trailer, ChunkError::TrailersTooLong { limit: MAX_TRAILERS }),
            (&long_extension, ChunkError::SizeLineTooLong { limit: MAX_SIZE_LINE }),
        ] {
            for piece in [1, 2, 7, input.len()] {
                assert_eq!(decode_all(input.as_bytes(), piece), Err(error), "{input:?} by {piece}");
            }
        }
    }

    #[test]
    fn a_decoder_that_failed_or_finished_stays_so() {
        let mut failed = ChunkedDecoder::new();
        assert_eq!(failed.decode(b"x"), Err(ChunkError::InvalidSize));
        assert_eq!(failed.decode(b"0\r\n\r\n"), Err(ChunkError::InvalidSize));
        assert_eq!(failed.decode(b""), Err(ChunkError::InvalidSize));
        let mut done = ChunkedDecoder::new();
        assert!(done.decode(b"0\r\n\r\n").unwrap().done);
        assert_eq!(done.decode(b"more"), Ok(Chunk { consumed: 0, data: 0..0, done: true }));
    }

    #[test]
    fn the_largest_size_does_not_overflow() {
        let mut decoder = ChunkedDecoder::new();
        let chunk = decoder.decode(b"FFFFFFFFFFFFFFFF\r\nabc").unwrap();
        assert_eq!((chunk.consumed, chunk.data), (21, 18..21));
        assert_eq!(decoder.remaining, u64::MAX - 3);
    }
}
