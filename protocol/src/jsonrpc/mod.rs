//! Owns the JSON-RPC 2.0 message as bytes: one forward pass finds the offsets of what the gateway decides by, and proves
//! that the text is well-formed.
//!
//! It never builds a tree, never recurses and allocates only for a batch. What it accepts is exactly RFC 8259 in UTF-8,
//! within [`ScanLimits`]; of each key that decides anything there is at most one, however it is escaped.

mod cursor;
mod error;
mod fields;
mod members;
mod scan;
pub(crate) mod string;
mod walk;

pub use error::{INVALID_REQUEST, PARSE_ERROR, ScanError, ScanFailure};
pub(crate) use members::{as_string, for_each_element, for_each_member};
pub use scan::scan;
pub use string::write_json_string;
pub(crate) use walk::{Shape, walk};

use crate::{Span, StrSpan};

/// The greatest depth that [`ScanLimits::max_depth`] can allow: the scanner's bit stack is this long.
pub const MAX_DEPTH_CEILING: u16 = 1024;

/// What a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Has `method` and `id`.
    Request,
    /// Has `method` and no `id`.
    Notification,
    /// Has `result` or `error`.
    Response,
}

/// What one message holds; every span is an offset into the whole input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scan {
    /// What the message is.
    pub kind: Kind,
    /// The raw `id`, quotes included. `None` for notifications, and for error responses whose `id` is null or absent.
    pub id: Option<Span>,
    /// `method`.
    pub method: Option<StrSpan>,
    /// The raw `params` object.
    pub params: Option<Span>,
    /// `params.name`, when a string.
    pub name: Option<StrSpan>,
    /// `params.uri`, when a string.
    pub uri: Option<StrSpan>,
    /// `params.cursor`, when a string.
    pub cursor: Option<StrSpan>,
    /// `params.arguments`, raw.
    pub arguments: Option<Span>,
    /// `params._meta`, raw, when an object.
    pub meta: Option<Span>,
    /// `params._meta["io.modelcontextprotocol/protocolVersion"]`, when a string.
    pub meta_protocol_version: Option<StrSpan>,
    /// `params._meta["io.modelcontextprotocol/clientCapabilities"]`, raw, when an object.
    pub meta_client_capabilities: Option<Span>,
    /// `params._meta["io.modelcontextprotocol/clientInfo"]`, raw.
    pub meta_client_info: Option<Span>,
    /// `params._meta.progressToken`, raw.
    pub progress_token: Option<Span>,
    /// `params.protocolVersion`, when a string (`initialize`).
    pub init_protocol_version: Option<StrSpan>,
    /// `params.capabilities`, raw (`initialize`).
    pub init_capabilities: Option<Span>,
    /// `params.clientInfo`, raw (`initialize`).
    pub init_client_info: Option<Span>,
    /// `params.requestId`, raw (`notifications/cancelled`).
    pub request_id: Option<Span>,
    /// For responses: whether it is an error response.
    pub is_error: bool,
    /// `error.code`, when an integer.
    pub error_code: Option<i64>,
    /// `result`, raw.
    pub result: Option<Span>,
    /// `result.protocolVersion`, when a string (`InitializeResult`).
    pub result_protocol_version: Option<StrSpan>,
}

impl Scan {
    /// A scan before anything has been found; the kind is set last.
    fn empty() -> Self {
        Self {
            kind: Kind::Notification,
            id: None,
            method: None,
            params: None,
            name: None,
            uri: None,
            cursor: None,
            arguments: None,
            meta: None,
            meta_protocol_version: None,
            meta_client_capabilities: None,
            meta_client_info: None,
            progress_token: None,
            init_protocol_version: None,
            init_capabilities: None,
            init_client_info: None,
            request_id: None,
            is_error: false,
            error_code: None,
            result: None,
            result_protocol_version: None,
        }
    }
}

/// What a scan accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScanLimits {
    /// The most objects and arrays open at once, the message itself counted; above [`MAX_DEPTH_CEILING`] it means that.
    pub max_depth: u16,
    /// The most characters of `id` (between the quotes, when a string).
    pub max_id_len: usize,
    /// The most characters of `method`.
    pub max_method_len: usize,
    /// The most messages of a batch. Worst-case memory: `max_batch * size_of::<Scan>()`.
    pub max_batch: usize,
}

impl Default for ScanLimits {
    fn default() -> Self {
        Self { max_depth: 128, max_id_len: 255, max_method_len: 255, max_batch: 100 }
    }
}

/// What came: one message or a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "the single message is the common case and must not be allocated"
)]
pub enum Payload {
    /// One message.
    Single(Scan),
    /// A batch (only revision 2025-03-26 has them); it holds at least one message.
    Batch(Vec<Scan>),
}

#[cfg(test)]
mod tests;
