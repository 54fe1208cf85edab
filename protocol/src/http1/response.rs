//! Owns the response head.

use super::{HeadError, HeadLimits, HeaderList, Method};
use crate::Span;

/// How a response's body is framed (RFC 9112, section 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResponseBody {
    /// The status or the request's method says that there is none.
    None,
    /// `Content-Length`, in bytes; may be 0.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Everything until the upstream closes.
    UntilClose,
}

/// A response head; every span is an offset into the buffer that was parsed.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The status, 100 to 999.
    pub status: u16,
    /// Whether the version is HTTP/1.0.
    pub http10: bool,
    /// Bytes of the head, its empty line included.
    pub head_len: usize,
    /// How the body is framed.
    pub body: ResponseBody,
    /// Whether the connection can be used again after the body.
    pub keep_alive: bool,
    /// `Content-Type`.
    pub content_type: Option<Span>,
    /// `Mcp-Session-Id`.
    pub session_id: Option<Span>,
    /// `MCP-Protocol-Version`.
    pub protocol_version: Option<Span>,
    /// The first `WWW-Authenticate` line.
    pub www_authenticate: Option<Span>,
    /// `Retry-After`.
    pub retry_after: Option<Span>,
    /// The first `Allow` line.
    pub allow: Option<Span>,
    /// The first `Cache-Control` line.
    pub cache_control: Option<Span>,
    /// All header lines in their order.
    pub headers: HeaderList,
}

/// Parses the head at the start of `buf`, the answer to a request of method `request`; `None` means that more bytes
/// are needed. Interim responses (1xx) come back as they are, the caller skips them.
///
/// # Errors
/// [`HeadError`]; the upstream's connection can't be used any more.
pub fn parse_response(
    buf: &[u8],
    request: Method,
    limits: &HeadLimits,
) -> Result<Option<ResponseHead>, HeadError> {
    let _ = (buf, request, limits);
    unimplemented!()
}
