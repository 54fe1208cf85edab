//! Owns the response head: its status and how its body is framed.

use std::mem::MaybeUninit;

use super::fields::{Field, Fields, Framing};
use super::head::{HEADER_CEILING, HeadEnd, find_end, grammar_error};
use super::{HeadError, HeadLimits, HeaderList, Method};
use crate::Span;

/// How a response's body is framed (RFC 9112, section 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ResponseBody {
    /// The status or the request's method says that there is none.
    #[default]
    None,
    /// `Content-Length`, in bytes; may be 0.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Everything until the upstream closes.
    UntilClose,
}

/// A response head; every span is an offset into the buffer that was parsed. The default is one without any lines, which
/// [`parse_response_into`] fills.
#[derive(Clone, Debug, Default)]
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
    /// `Content-Encoding`.
    pub content_encoding: Option<Span>,
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
    let mut head = ResponseHead::default();
    Ok(parse_response_into(&mut head, buf, request, limits)?.then_some(head))
}

/// As [`parse_response`], into a head that may have been used before: it is some 700 bytes, too much to be moved about
/// for each answer. `false` means that more bytes are needed; the head is worth nothing then, nor after an error.
///
/// # Errors
/// [`HeadError`]; the upstream's connection can't be used any more.
pub fn parse_response_into(
    into: &mut ResponseHead,
    buf: &[u8],
    request: Method,
    limits: &HeadLimits,
) -> Result<bool, HeadError> {
    let end = match find_end(buf, limits, 0)? {
        HeadEnd::Complete { end, .. } => end,
        HeadEnd::Early { .. } => buf.len(),
        HeadEnd::Partial => return Ok(false),
    };
    let mut lines = [const { MaybeUninit::uninit() }; HEADER_CEILING];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut response, &buf[..end], &mut lines);
    if parsed.map_err(|error| grammar_error(error, limits))?.is_partial() {
        return Ok(false);
    }
    let (Some(status), Some(version)) = (response.code, response.version) else { return Ok(false) };
    if status < 100 {
        return Err(HeadError::Malformed { what: "status" });
    }
    let http10 = version == 0;
    let fields = Fields::collect(buf, response.headers, &mut into.headers)?;
    into.body = match fields.framing(buf, http10)? {
        _ if request == Method::Head || matches!(status, 100..=199 | 204 | 304) => ResponseBody::None,
        Framing::Unsaid => ResponseBody::UntilClose,
        Framing::Length(length) => ResponseBody::Length(length),
        Framing::Chunked => ResponseBody::Chunked,
    };
    into.status = status;
    into.http10 = http10;
    into.head_len = end;
    into.keep_alive = fields.keeps_alive(http10) && into.body != ResponseBody::UntilClose;
    into.content_type = fields.get(Field::ContentType);
    into.content_encoding = fields.get(Field::ContentEncoding);
    into.session_id = fields.get(Field::SessionId);
    into.protocol_version = fields.get(Field::ProtocolVersion);
    into.www_authenticate = fields.get(Field::WwwAuthenticate);
    into.retry_after = fields.get(Field::RetryAfter);
    into.allow = fields.get(Field::Allow);
    into.cache_control = fields.get(Field::CacheControl);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, request: Method) -> Result<Option<ResponseHead>, HeadError> {
        parse_response(text.as_bytes(), request, &HeadLimits::default())
    }

    #[test]
    fn everything_that_is_asked_for_is_found() {
        let text = concat!(
            "HTTP/1.1 401 Nicht erlaubt\r\nContent-Type: application/json\r\nContent-Encoding: br\r\nMcp-Session-Id: s\r\nRetry-After: 3\r\n",
            "MCP-Protocol-Version: 2025-06-18\r\nWWW-Authenticate: Bearer\r\nWWW-Authenticate: Basic\r\nAllow: POST\r\n",
            "Cache-Control: no-store\r\nContent-Length: 5\r\n\r\n",
        );
        for len in 0..text.len() {
            assert!(parse(&text[..len], Method::Post).unwrap().is_none(), "{len}");
        }
        let head = parse(&format!("{text}hello"), Method::Post).unwrap().unwrap();
        let of = |span: Option<Span>| span.map(|span| std::str::from_utf8(span.of(text.as_bytes())).unwrap());
        assert_eq!((head.status, head.http10, head.head_len), (401, false, text.len()));
        assert_eq!((head.body, head.keep_alive), (ResponseBody::Length(5), true));
        for (span, value) in [
            (head.content_type, "application/json"),
            (head.content_encoding, "br"),
            (head.session_id, "s"),
            (head.protocol_version, "2025-06-18"),
            (head.www_authenticate, "Bearer"),
            (head.retry_after, "3"),
            (head.allow, "POST"),
            (head.cache_control, "no-store"),
        ] {
            assert_eq!(of(span), Some(value));
        }
        assert_eq!(head.headers.all(text.as_bytes(), "www-authenticate").count(), 2);
    }

    #[test]
    fn the_body_follows_from_status_method_and_headers() {
        use ResponseBody::{Chunked, Length, None, UntilClose};
        for (start, request, body, lives) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 0", Method::Get, Length(0), true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9", Method::Head, None, true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", Method::Post, Chunked, true),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close",
                Method::Post,
                Chunked,
                false,
            ),
            ("HTTP/1.1 200\r\nA: b", Method::Post, UntilClose, false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2", Method::Post, Length(2), false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive", Method::Post, Length(2), true),
            ("HTTP/1.1 202 Accepted\r\nContent-Length: 0", Method::Post, Length(0), true),
            ("HTTP/1.1 204 No Content\r\nA: b", Method::Delete, None, true),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9", Method::Get, None, true),
            ("HTTP/1.1 100 Continue\r\nA: b", Method::Post, None, true),
            ("HTTP/1.1 103 Early Hints\r\nLink: x", Method::Post, None, true),
        ] {
            let head = parse(&format!("{start}\r\n\r\n"), request).unwrap().unwrap();
            assert_eq!((head.body, head.keep_alive), (body, lives), "{start}");
        }
    }

    #[test]
    fn a_head_that_could_be_read_differently_is_refused() {
        for (text, error) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                HeadError::ConflictingLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                HeadError::DuplicateHeader { name: "Content-Length" },
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", HeadError::UnsupportedTransferCoding),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", HeadError::TransferCodingInHttp10),
            ("HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\n", HeadError::Malformed { what: "header name" }),
            ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", HeadError::ObsoleteFolding { offset: 23 }),
            ("HTTP/1.1 200 OK\n\n", HeadError::BareLineFeed { offset: 15 }),
            (
                "\r\nHTTP/1.1 200 OK\r\n\r\n",
                HeadError::Malformed { what: "empty line before the start line" },
            ),
            ("HTTP/1.1 099 Low\r\n\r\n", HeadError::Malformed { what: "status" }),
            ("HTTP/1.1 20 OK\r\n\r\n", HeadError::Malformed { what: "status" }),
            ("HTTP/2 200\r\n\r\n", HeadError::UnsupportedVersion),
            ("SSH-2.0-OpenSSH_9.2\r\n", HeadError::UnsupportedVersion),
        ] {
            assert_eq!(parse(text, Method::Post).expect_err(text), error, "{text:?}");
        }
    }
}
