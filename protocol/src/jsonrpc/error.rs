//! Owns the reasons for which a JSON-RPC message is refused, and the JSON-RPC code of each.
//!
//! Offsets are bytes from the start of what was given to [`scan`](super::scan). No variant carries message contents.

use thiserror::Error;

use crate::Span;

/// JSON-RPC 2.0, section 5.1: the text is not JSON.
pub const PARSE_ERROR: i64 = -32700;
/// JSON-RPC 2.0, section 5.1: the text is JSON but no valid message.
pub const INVALID_REQUEST: i64 = -32600;

/// Why a message is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The message is 4 GiB or longer.
    #[error("message of {len} bytes is too long to be scanned")]
    TooLong {
        /// Bytes given.
        len: usize,
    },
    /// The message is not UTF-8 (RFC 8259, section 8.1).
    #[error("byte {offset} is not UTF-8")]
    NotUtf8 {
        /// The first byte that is wrong.
        offset: usize,
    },
    /// The text breaks the grammar of RFC 8259.
    #[error("byte {offset}: expected {expected}")]
    Syntax {
        /// The byte that does not fit.
        offset: usize,
        /// What would fit.
        expected: &'static str,
    },
    /// The text ends inside a value.
    #[error("message ends at byte {offset}, inside a value")]
    UnexpectedEnd {
        /// The length of the text.
        offset: usize,
    },
    /// Objects and arrays are nested deeper than [`ScanLimits::max_depth`](super::ScanLimits).
    #[error("byte {offset}: nested deeper than {limit}")]
    TooDeep {
        /// The bracket that goes too deep.
        offset: usize,
        /// The limit.
        limit: u16,
    },
    /// Something follows the message.
    #[error("byte {offset}: unexpected text after the message")]
    TrailingData {
        /// The first byte after the message that is not white space.
        offset: usize,
    },
    /// A key that decides something stands twice, so that two readers could disagree.
    #[error("byte {offset}: duplicate key `{key}`")]
    DuplicateKey {
        /// The decoded key.
        key: &'static str,
        /// The contents of the second one.
        offset: usize,
    },
    /// A batch without a message (JSON-RPC 2.0, section 6).
    #[error("empty batch")]
    EmptyBatch,
    /// A batch has more messages than [`ScanLimits::max_batch`](super::ScanLimits).
    #[error("batch of more than {limit} messages")]
    BatchTooLarge {
        /// The limit.
        limit: usize,
    },
    /// A message is JSON, but no object.
    #[error("byte {offset}: message is not an object")]
    NotAnObject {
        /// The start of the value.
        offset: usize,
    },
    /// `jsonrpc` is not `"2.0"`, or absent.
    #[error("byte {offset}: `jsonrpc` is not \"2.0\"")]
    WrongVersion {
        /// The start of the value, or of the message when the key is absent.
        offset: usize,
    },
    /// `id` is neither a string nor an integer, or too long, or null where it must not be.
    #[error("byte {offset}: `id` is neither a string nor an integer of allowed length")]
    InvalidId {
        /// The start of the value, or of the message when the key is absent.
        offset: usize,
    },
    /// `method` is not a string, empty, too long, or has spaces or control characters.
    #[error("byte {offset}: `method` is not a valid name")]
    InvalidMethod {
        /// The start of the value.
        offset: usize,
    },
    /// `params` is not an object (MCP knows no positional parameters).
    #[error("byte {offset}: `params` is not an object")]
    InvalidParams {
        /// The start of the value.
        offset: usize,
    },
    /// `error` is not an object.
    #[error("byte {offset}: `error` is not an object")]
    InvalidError {
        /// The start of the value.
        offset: usize,
    },
    /// The object is neither a request nor a response.
    #[error("byte {offset}: neither `method` nor `result` nor `error`")]
    NoMethodNorResult {
        /// The start of the message.
        offset: usize,
    },
    /// The object is a response twice.
    #[error("byte {offset}: both `result` and `error`")]
    BothResultAndError {
        /// The start of the message.
        offset: usize,
    },
    /// The object is a request and a response.
    #[error("byte {offset}: both `method` and `result` or `error`")]
    BothMethodAndResult {
        /// The start of the message.
        offset: usize,
    },
}

impl ScanError {
    /// The JSON-RPC error code: -32700 where the text is not JSON that this scanner takes, else -32600.
    pub fn json_rpc_code(&self) -> i64 {
        match self {
            Self::TooLong { .. }
            | Self::NotUtf8 { .. }
            | Self::Syntax { .. }
            | Self::UnexpectedEnd { .. }
            | Self::TooDeep { .. }
            | Self::TrailingData { .. } => PARSE_ERROR,
            Self::DuplicateKey { .. }
            | Self::EmptyBatch
            | Self::BatchTooLarge { .. }
            | Self::NotAnObject { .. }
            | Self::WrongVersion { .. }
            | Self::InvalidId { .. }
            | Self::InvalidMethod { .. }
            | Self::InvalidParams { .. }
            | Self::InvalidError { .. }
            | Self::NoMethodNorResult { .. }
            | Self::BothResultAndError { .. }
            | Self::BothMethodAndResult { .. } => INVALID_REQUEST,
        }
    }
}

/// A refused message: why, and the `id` that the error answer can carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{error}")]
pub struct ScanFailure {
    /// The reason.
    pub error: ScanError,
    /// The raw `id` (quotes included) of a single message, when it was seen and is unambiguous. Never of a batch.
    pub id: Option<Span>,
}
