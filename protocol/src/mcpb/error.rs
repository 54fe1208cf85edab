//! Owns the reasons for which a frame is refused, and the metric label of each.

use thiserror::Error;

/// Why a frame is refused. The connection gets an Error frame with this text and closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The first bytes are not "MCPB".
    #[error("byte {offset} of the frame is not part of the magic number")]
    BadMagic {
        /// The first byte that differs.
        offset: usize,
    },
    /// The frame's version is not the connection's.
    #[error("frame version {version} is not supported")]
    UnsupportedVersion {
        /// The version found.
        version: u16,
    },
    /// The message type is not defined.
    #[error("message type {kind:#06x} is not known")]
    UnknownType {
        /// The type found.
        kind: u16,
    },
    /// The payload is longer than allowed.
    #[error("payload of {len} bytes is longer than {limit}")]
    PayloadTooLarge {
        /// The length announced, in bytes.
        len: u64,
        /// The limit, in bytes.
        limit: u32,
    },
    /// The payload is not UTF-8.
    #[error("byte {offset} of the payload is not UTF-8")]
    NotUtf8 {
        /// The first byte that is wrong.
        offset: usize,
    },
    /// The payload is not the JSON that its type asks for.
    #[error("invalid payload: expected {expected}")]
    InvalidPayload {
        /// What would fit.
        expected: &'static str,
    },
    /// A frame of this kind has no place here: out of order, or of the other side's kinds.
    #[error("unexpected {found} frame: expected {expected}")]
    Unexpected {
        /// The kind's label.
        found: &'static str,
        /// What would fit.
        expected: &'static str,
    },
    /// A token is longer than allowed.
    #[error("token is longer than {limit} characters")]
    TokenTooLong {
        /// The limit.
        limit: usize,
    },
    /// The two sides share no version.
    #[error("no common version: this side speaks {ours}, the other {min} to {max}")]
    NoCommonVersion {
        /// Our version.
        ours: u16,
        /// The other side's lowest.
        min: u16,
        /// The other side's highest.
        max: u16,
    },
}

impl FrameError {
    /// The `error_type` label of `mcp_gateway_tcp_protocol_errors_total`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::BadMagic { .. } => "bad_magic",
            Self::UnsupportedVersion { .. } => "unsupported_version",
            Self::UnknownType { .. } => "unknown_type",
            Self::PayloadTooLarge { .. } => "payload_too_large",
            Self::NotUtf8 { .. } => "not_utf8",
            Self::InvalidPayload { .. } => "invalid_payload",
            Self::Unexpected { .. } => "unexpected_frame",
            Self::TokenTooLong { .. } => "token_too_long",
            Self::NoCommonVersion { .. } => "no_common_version",
        }
    }
}
