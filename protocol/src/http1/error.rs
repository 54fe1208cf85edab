//! Owns the reasons for which a message head is refused, and the HTTP status that answers each.

use thiserror::Error;

/// Why a head is refused. After any of them the connection's framing is unknown: answer, then close.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum HeadError {
    /// The request line alone does not fit the limit.
    #[error("request line is longer than {limit} bytes")]
    TargetTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The head does not fit the limit.
    #[error("head is longer than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// More header lines than allowed.
    #[error("more than {limit} header lines")]
    TooManyHeaders {
        /// The limit.
        limit: usize,
    },
    /// The head breaks the grammar of RFC 9112.
    #[error("malformed head: {what}")]
    Malformed {
        /// The part that is wrong.
        what: &'static str,
    },
    /// A line ends with a bare LF (RFC 9112, section 2.2 lets a recipient refuse it).
    #[error("byte {offset}: line feed without carriage return")]
    BareLineFeed {
        /// The line feed.
        offset: usize,
    },
    /// A header line is continued on the next (RFC 9112, section 5.2).
    #[error("byte {offset}: folded header line")]
    ObsoleteFolding {
        /// The start of the continuation.
        offset: usize,
    },
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("HTTP version is not supported")]
    UnsupportedVersion,
    /// HTTP/1.1 without `Host` (RFC 9112, section 3.2).
    #[error("no Host header")]
    MissingHost,
    /// `Host` stands twice.
    #[error("more than one Host header")]
    DuplicateHost,
    /// `Host` is no host.
    #[error("invalid Host header")]
    InvalidHost,
    /// A header that may stand once stands twice.
    #[error("more than one {name} header")]
    DuplicateHeader {
        /// The canonical name.
        name: &'static str,
    },
    /// Both `Content-Length` and `Transfer-Encoding` (RFC 9112, section 6.1: smuggling).
    #[error("both Content-Length and Transfer-Encoding")]
    ConflictingLength,
    /// `Content-Length` is not a decimal number that fits 64 bits.
    #[error("invalid Content-Length")]
    InvalidLength,
    /// `Transfer-Encoding` is anything but `chunked`.
    #[error("transfer coding is not supported")]
    UnsupportedTransferCoding,
    /// `Transfer-Encoding` in an HTTP/1.0 message.
    #[error("Transfer-Encoding in an HTTP/1.0 message")]
    TransferCodingInHttp10,
    /// The request target has a form or characters that are not accepted, or another authority than `Host`.
    #[error("bad request target: {what}")]
    BadTarget {
        /// The part that is wrong.
        what: &'static str,
    },
    /// `Expect` is anything but `100-continue`.
    #[error("expectation is not supported")]
    UnsupportedExpectation,
}

impl HeadError {
    /// The status that answers a request with this head. (For a response head it is always the upstream's fault: 502.)
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed { .. }
            | Self::BareLineFeed { .. }
            | Self::ObsoleteFolding { .. }
            | Self::MissingHost
            | Self::DuplicateHost
            | Self::InvalidHost
            | Self::DuplicateHeader { .. }
            | Self::ConflictingLength
            | Self::InvalidLength
            | Self::TransferCodingInHttp10
            | Self::BadTarget { .. } => 400,
            Self::TargetTooLong { .. } => 414,
            Self::UnsupportedExpectation => 417,
            Self::TooLarge { .. } | Self::TooManyHeaders { .. } => 431,
            Self::UnsupportedTransferCoding => 501,
            Self::UnsupportedVersion => 505,
        }
    }
}
