//! Owns the chunked transfer coding's decoder (RFC 9112, section 7.1).

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

/// Finds the data of a chunked body, incrementally and in place.
#[derive(Clone, Debug, Default)]
pub struct ChunkedDecoder {}

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
        let _ = input;
        unimplemented!()
    }
}
