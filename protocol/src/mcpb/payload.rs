//! Owns the JSON payloads that MCPB itself defines: version negotiation, control, health checks, the per-message
//! authentication wrapper.

use super::FrameError;
use crate::jsonrpc::Scan;
use crate::{Span, StrSpan};

/// The most characters of a token.
pub const MAX_TOKEN_LEN: usize = 4096;

/// The client's VersionNegotiation payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VersionNegotiation {
    /// The lowest version that the client speaks.
    pub min_version: u16,
    /// The highest version that the client speaks.
    pub max_version: u16,
    /// The version that the client would like.
    pub preferred_version: u16,
    /// The versions that the client speaks, at most 16 of them; empty when it named none.
    pub supported_versions: Vec<u16>,
}

impl VersionNegotiation {
    /// Parses a VersionNegotiation payload.
    ///
    /// # Errors
    /// [`FrameError::InvalidPayload`] or [`FrameError::NotUtf8`].
    pub fn parse(payload: &[u8]) -> Result<Self, FrameError> {
        let _ = payload;
        unimplemented!()
    }

    /// Appends the payload.
    pub fn write(&self, out: &mut Vec<u8>) {
        let _ = out;
        unimplemented!()
    }

    /// The version to agree on.
    ///
    /// # Errors
    /// [`FrameError::NoCommonVersion`].
    pub fn agree(&self) -> Result<u16, FrameError> {
        unimplemented!()
    }
}

/// Control payloads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// `{"command": "shutdown"}`: no new requests.
    Shutdown,
    /// `{"command": "shutdown_ack", "status": "ok"}`.
    ShutdownAck,
}

impl Control {
    /// Parses a Control payload.
    ///
    /// # Errors
    /// [`FrameError::InvalidPayload`] or [`FrameError::NotUtf8`].
    pub fn parse(payload: &[u8]) -> Result<Self, FrameError> {
        let _ = payload;
        unimplemented!()
    }

    /// The payload.
    pub fn payload(self) -> &'static [u8] {
        match self {
            Self::Shutdown => br#"{"command":"shutdown"}"#,
            Self::ShutdownAck => br#"{"command":"shutdown_ack","status":"ok"}"#,
        }
    }
}

/// What a HealthCheck asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HealthCheck {
    /// Empty payload.
    Empty,
    /// `{"check": "simple"}`.
    Simple,
    /// `{"check": "detailed"}`.
    Detailed,
}

impl HealthCheck {
    /// Parses a HealthCheck payload.
    ///
    /// # Errors
    /// [`FrameError::InvalidPayload`] or [`FrameError::NotUtf8`].
    pub fn parse(payload: &[u8]) -> Result<Self, FrameError> {
        let _ = payload;
        unimplemented!()
    }
}

/// A Request payload of per-message authentication: `{"auth_token": "…", "request": { … }}`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuthWrapper {
    /// `auth_token`.
    pub auth_token: StrSpan,
    /// The raw `request`.
    pub request: Span,
}

impl AuthWrapper {
    /// Parses the wrapper; `None` when the payload is something else (a bare JSON-RPC message).
    ///
    /// # Errors
    /// [`FrameError`], when it is a wrapper, but a wrong one.
    pub fn parse(payload: &[u8]) -> Result<Option<Self>, FrameError> {
        let _ = payload;
        unimplemented!()
    }
}

/// `params.token` of an `initialize` request.
///
/// # Errors
/// [`FrameError::InvalidPayload`] when it stands twice or is no string, [`FrameError::TokenTooLong`].
pub fn login_token(payload: &[u8], scan: &Scan) -> Result<Option<StrSpan>, FrameError> {
    let _ = (payload, scan);
    unimplemented!()
}

/// Whether a method has only the characters that MCPB allows: `[A-Za-z0-9._/-]`.
pub fn is_valid_method(method: &[u8]) -> bool {
    method.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b'-'))
}
