//! Owns the request head.

use super::{HeadError, HeadLimits, HeaderList};
use crate::Span;

/// The request's method; names are case-sensitive (RFC 9110, section 9.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[allow(missing_docs, reason = "each is the method of its name")]
pub enum Method {
    Get,
    Post,
    Delete,
    Options,
    Head,
    Put,
    Patch,
    /// Any other token.
    Other,
}

/// How a request's body is framed (RFC 9112, section 6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// Neither `Content-Length` nor `Transfer-Encoding`.
    None,
    /// `Content-Length`, in bytes; may be 0.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A request head; every span is an offset into the buffer that was parsed.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The target's path, as sent. Empty only for an absolute target without one; `*` for `OPTIONS *`.
    pub path: Span,
    /// What follows the `?`, when there is one.
    pub query: Option<Span>,
    /// Whether the version is HTTP/1.0.
    pub http10: bool,
    /// Bytes of the head, its empty line and any skipped leading lines included.
    pub head_len: usize,
    /// How the body is framed.
    pub body: Body,
    /// Whether the connection lives on after this exchange.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue`.
    pub expect_continue: bool,
    /// `Host`.
    pub host: Option<Span>,
    /// `Origin`.
    pub origin: Option<Span>,
    /// The first `Accept` line; [`accepts`](super::accepts) looks at all.
    pub accept: Option<Span>,
    /// `Content-Type`.
    pub content_type: Option<Span>,
    /// `Content-Encoding`.
    pub content_encoding: Option<Span>,
    /// `Authorization`.
    pub authorization: Option<Span>,
    /// `Mcp-Session-Id`.
    pub session_id: Option<Span>,
    /// `MCP-Protocol-Version`.
    pub protocol_version: Option<Span>,
    /// `Last-Event-ID`.
    pub last_event_id: Option<Span>,
    /// `Mcp-Method`.
    pub mcp_method: Option<Span>,
    /// `Mcp-Name`.
    pub mcp_name: Option<Span>,
    /// `Access-Control-Request-Method`.
    pub access_control_request_method: Option<Span>,
    /// All header lines in their order.
    pub headers: HeaderList,
}

/// Parses the head at the start of `buf`; `None` means that more bytes are needed.
///
/// # Errors
/// [`HeadError`]; its `status` is the answer, after which the connection must close.
pub fn parse_request(buf: &[u8], limits: &HeadLimits) -> Result<Option<RequestHead>, HeadError> {
    let _ = (buf, limits);
    unimplemented!()
}
