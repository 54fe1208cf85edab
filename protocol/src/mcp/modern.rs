//! Owns the header/body rules of 2026-07-28 (streamable-http.mdx, "Request Metadata" and "Server Validation";
//! basic/index.mdx, "`_meta`").

use std::borrow::Cow;

use thiserror::Error;

use super::Revision;
use super::value::InvalidValue;
use crate::jsonrpc::Scan;

/// Headers and body disagree, or a required header is absent or malformed.
pub const HEADER_MISMATCH: i64 = -32020;
/// The revision is not one that the server supports.
pub const UNSUPPORTED_VERSION: i64 = -32022;
/// JSON-RPC 2.0: invalid parameters; for MCP also a missing required `_meta` field.
pub const INVALID_PARAMS: i64 = -32602;

/// The request headers that mirror the body, as sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MirroredHeaders<'a> {
    /// `MCP-Protocol-Version`.
    pub protocol_version: Option<&'a [u8]>,
    /// `Mcp-Method`.
    pub method: Option<&'a [u8]>,
    /// `Mcp-Name`.
    pub name: Option<&'a [u8]>,
}

/// How a header differs from the body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mismatch {
    /// The header is required and absent.
    Missing,
    /// The header is there, the body has no value for it.
    Unexpected,
    /// The header stands twice.
    Repeated,
    /// The body has the value's key twice.
    Ambiguous,
    /// The header's value stands for nothing.
    Invalid(InvalidValue),
    /// The two values, each shortened to 64 characters.
    Different {
        /// The header's, decoded.
        header: String,
        /// The body's.
        body: String,
    },
}

/// A broken rule of the modern era. All of them answer status 400.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ModernError {
    /// A header does not mirror the body.
    #[error("Header mismatch: {header}")]
    HeaderMismatch {
        /// The header's canonical name.
        header: Cow<'static, str>,
        /// What is wrong with it.
        mismatch: Mismatch,
    },
    /// Header and body agree on a revision that is not supported.
    #[error("Unsupported protocol version")]
    UnsupportedVersion {
        /// The revision asked for, shortened to 64 characters.
        requested: String,
        /// The revisions that would do.
        supported: Vec<Revision>,
    },
    /// A required `_meta` field is absent or of the wrong type.
    #[error("Invalid params: _meta field {key} is missing or of the wrong type")]
    MissingMeta {
        /// The field's key.
        key: &'static str,
    },
    /// A client sent a response; the modern era has none from clients.
    #[error("Invalid request: a client must not send a response")]
    ResponseFromClient,
}

impl ModernError {
    /// The JSON-RPC error code.
    pub fn code(&self) -> i64 {
        unimplemented!()
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        400
    }

    /// The JSON-RPC error message; plain text, not escaped.
    pub fn message(&self) -> String {
        unimplemented!()
    }

    /// The JSON text of the error's `data`, for the errors that have some.
    pub fn data(&self) -> Option<String> {
        unimplemented!()
    }
}

/// Checks a client's message against its headers and the revisions that are supported. The order of the checks: version
/// header present, version field present, both equal, supported, then method, name, and the other required fields.
/// Notifications are held to the version only (the revision defines no more for them).
///
/// # Errors
/// The first rule that is broken.
pub fn check_modern(
    headers: &MirroredHeaders<'_>,
    body: &[u8],
    scan: &Scan,
    supported: &[Revision],
) -> Result<(), ModernError> {
    let _ = (headers, body, scan, supported);
    unimplemented!()
}
