//! Owns what can be wrong with a stream of replies. Never what Redis refuses: that is a reply.

/// The stream of replies cannot be read any further; the connection is of no more use. All are the server's fault, or that of
/// whatever answers in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A reply is, or says that it will be, larger than allowed.
    #[error("a reply of {at_least} bytes or more, the limit is {max}")]
    TooLarge {
        /// The least size, in bytes, that the reply can have by what is known of it.
        at_least: u64,
        /// `max_reply_bytes` of the reader.
        max: usize,
    },
    /// A reply has, or announces, more elements than [`MAX_ELEMENTS`](super::MAX_ELEMENTS).
    #[error("a reply of {count} elements or more, the limit is {max}")]
    TooManyElements {
        /// The elements announced so far, on all levels.
        count: u64,
        /// The limit.
        max: usize,
    },
    /// Aggregates stand in each other deeper than [`MAX_DEPTH`](super::MAX_DEPTH).
    #[error("a reply nested deeper than {max}")]
    TooDeep {
        /// The limit.
        max: usize,
    },
    /// No reply begins with this byte here: not RESP, a type that Redis does not send (streamed strings and arrays), or a
    /// push within a reply.
    #[error("a reply has 0x{byte:02x} at byte {at} where a type is due")]
    UnexpectedType {
        /// The byte found.
        byte: u8,
        /// Where, counted from the reply's first byte.
        at: usize,
    },
    /// A length, a value or a line's end is not what the type demands.
    #[error("a reply's element at byte {at} is malformed")]
    Malformed {
        /// Where the element begins, counted from the reply's first byte.
        at: usize,
    },
}
