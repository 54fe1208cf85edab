//! Owns the request head: its target, its host, how its body is framed.

use std::mem::MaybeUninit;

use super::fields::{Field, Fields, Framing, span_in};
use super::head::{HEADER_CEILING, HeadEnd, find_end, grammar_error};
use super::{HeadError, HeadLimits, HeaderList};
use crate::Span;

/// Empty lines that may stand before the request line (RFC 9112, section 2.2 asks for one at least).
const MAX_LEADING_LINES: usize = 2;

/// The request's method; names are case-sensitive (RFC 9110, section 9.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
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
    #[default]
    Other,
}

/// How a request's body is framed (RFC 9112, section 6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Body {
    /// Neither `Content-Length` nor `Transfer-Encoding`.
    #[default]
    None,
    /// `Content-Length`, in bytes; may be 0.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A request head; every span is an offset into the buffer that was parsed. The default is one without any lines, which
/// [`parse_request_into`] fills.
#[derive(Clone, Debug, Default)]
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
    /// `traceparent` (W3C Trace Context); the first where there are several.
    pub traceparent: Option<Span>,
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
    let mut head = RequestHead::default();
    Ok(parse_request_into(&mut head, buf, limits)?.then_some(head))
}

/// As [`parse_request`], into a head that may have been used before: it is some 700 bytes, too much to be moved about for
/// each request. `false` means that more bytes are needed; the head is worth nothing then, nor after an error.
///
/// # Errors
/// [`HeadError`]; its `status` is the answer, after which the connection must close.
pub fn parse_request_into(
    into: &mut RequestHead,
    buf: &[u8],
    limits: &HeadLimits,
) -> Result<bool, HeadError> {
    let (start, end) = match find_end(buf, limits, MAX_LEADING_LINES)? {
        HeadEnd::Complete { start, end } => (start, end),
        HeadEnd::Early { start } => (start, buf.len()),
        HeadEnd::Partial => return Ok(false),
    };
    let head = &buf[start..end];
    let mut lines = [const { MaybeUninit::uninit() }; HEADER_CEILING];
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(head, &mut lines);
    if parsed.map_err(|error| grammar_error(error, limits))?.is_partial() {
        return Ok(false);
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Ok(false);
    };
    let http10 = version == 0;
    let fields = Fields::collect(buf, request.headers, &mut into.headers)?;
    let host = fields.get(Field::Host);
    match host {
        Some(host) if !host.of(buf).iter().copied().all(is_host_byte) => return Err(HeadError::InvalidHost),
        None if !http10 => return Err(HeadError::MissingHost),
        Some(_) | None => {}
    }
    let method = Method::parse(method);
    let host_text = host.map(|host| host.of(buf));
    let (path, query) = split_target(method, target.as_bytes(), host_text)?;
    let expect = fields.get(Field::Expect).map(|expect| expect.of(buf));
    if expect.is_some_and(|expect| !expect.eq_ignore_ascii_case(b"100-continue")) {
        return Err(HeadError::UnsupportedExpectation);
    }
    into.method = method;
    into.path = span_in(buf, path);
    into.query = query.map(|query| span_in(buf, query));
    into.http10 = http10;
    into.head_len = end;
    into.body = match fields.framing(buf, http10)? {
        Framing::Unsaid => Body::None,
        Framing::Length(length) => Body::Length(length),
        Framing::Chunked => Body::Chunked,
    };
    into.keep_alive = fields.keeps_alive(http10);
    // An HTTP/1.0 client can't wait for an interim response (RFC 9110, section 10.1.1).
    into.expect_continue = expect.is_some() && !http10;
    into.host = host;
    into.origin = fields.get(Field::Origin);
    into.accept = fields.get(Field::Accept);
    into.content_type = fields.get(Field::ContentType);
    into.content_encoding = fields.get(Field::ContentEncoding);
    into.authorization = fields.get(Field::Authorization);
    into.session_id = fields.get(Field::SessionId);
    into.protocol_version = fields.get(Field::ProtocolVersion);
    into.last_event_id = fields.get(Field::LastEventId);
    into.traceparent = fields.get(Field::TraceParent);
    into.mcp_method = fields.get(Field::McpMethod);
    into.mcp_name = fields.get(Field::McpName);
    into.access_control_request_method = fields.get(Field::AccessControlRequestMethod);
    Ok(true)
}

impl Method {
    fn parse(token: &str) -> Self {
        match token {
            "GET" => Self::Get,
            "POST" => Self::Post,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            "HEAD" => Self::Head,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }
}

/// The target's path and query (RFC 9112, section 3.2). An absolute target must name the authority that `Host` names.
fn split_target<'a>(
    method: Method,
    target: &'a [u8],
    host: Option<&[u8]>,
) -> Result<(&'a [u8], Option<&'a [u8]>), HeadError> {
    let bad = |what| Err(HeadError::BadTarget { what });
    if !target.iter().all(u8::is_ascii_graphic) {
        return bad("character outside visible ASCII");
    }
    if target.contains(&b'#') {
        return bad("fragment");
    }
    if target == b"*" {
        return if method == Method::Options { Ok((target, None)) } else { bad("`*` without OPTIONS") };
    }
    let local = if target.first() == Some(&b'/') {
        target
    } else {
        let Some(rest) = strip_scheme(target) else { return bad("neither a path nor an http URI") };
        let at = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
        let (authority, local) = rest.split_at(at);
        if !host.is_some_and(|host| host.eq_ignore_ascii_case(authority)) {
            return bad("authority differs from Host");
        }
        local
    };
    match memchr::memchr(b'?', local) {
        Some(at) => Ok((&local[..at], Some(&local[at + 1..]))),
        None => Ok((local, None)),
    }
}

fn strip_scheme(target: &[u8]) -> Option<&[u8]> {
    [&b"http://"[..], b"https://"].into_iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// The bytes of a host and port (RFC 3986, section 3.2), without user information, and without the comma, which is how
/// some would join two hosts.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:[]%".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RICH: &str = concat!(
        "POST /mcp/everything?a=b?c HTTP/1.1\r\nHost: gw.example:8443\r\nAccept: application/json\r\n",
        "accept:text/event-stream\r\nContent-Type:  application/json \r\nContent-Length: 12\r\nMcp-Session-Id: s-1\r\n",
        "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: a\tb\r\nAuthorization: Bearer x\r\n",
        "Origin: https://app.example\r\nLast-Event-ID: 7\r\nContent-Encoding: identity\r\nExpect: 100-Continue\r\n",
        "Access-Control-Request-Method: POST\r\nMcp-Param-Region: us-west1\r\nX-Empty:\r\nConnection: x, Keep-Alive\r\n",
        "TraceParent: 00-1\r\ntraceparent: 00-2\r\n\r\n",
    );

    fn parse(text: &str) -> Result<Option<RequestHead>, HeadError> {
        parse_request(text.as_bytes(), &HeadLimits::default())
    }

    fn complete(text: &str) -> RequestHead {
        parse(text).unwrap_or_else(|e| panic!("{text:?}: {e}")).unwrap_or_else(|| panic!("partial: {text:?}"))
    }

    fn with_lines(lines: &str) -> String {
        format!("POST /mcp HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
    }

    #[test]
    fn everything_that_is_asked_for_is_found() {
        let text = format!("\r\n\r\n{RICH}body");
        let head = complete(&text);
        let of = |span: Option<Span>| span.map(|span| std::str::from_utf8(span.of(text.as_bytes())).unwrap());
        assert_eq!((head.method, head.http10, head.head_len), (Method::Post, false, RICH.len() + 4));
        assert_eq!(of(Some(head.path)), Some("/mcp/everything"));
        assert_eq!(of(head.query), Some("a=b?c"));
        assert_eq!((head.body, head.keep_alive, head.expect_continue), (Body::Length(12), true, true));
        for (span, value) in [
            (head.host, "gw.example:8443"),
            (head.origin, "https://app.example"),
            (head.accept, "application/json"),
            (head.content_type, "application/json"),
            (head.content_encoding, "identity"),
            (head.authorization, "Bearer x"),
            (head.session_id, "s-1"),
            (head.protocol_version, "2026-07-28"),
            (head.last_event_id, "7"),
            (head.traceparent, "00-1"),
            (head.mcp_method, "tools/call"),
            (head.mcp_name, "a\tb"),
            (head.access_control_request_method, "POST"),
        ] {
            assert_eq!(of(span), Some(value));
        }
        assert_eq!(head.headers.len(), 20);
        let lines: Vec<_> = head.headers.iter(text.as_bytes()).collect();
        assert_eq!(lines[0], (&b"Host"[..], &b"gw.example:8443"[..]));
        assert_eq!(lines[15], (&b"Mcp-Param-Region"[..], &b"us-west1"[..]));
        assert_eq!(lines[16], (&b"X-Empty"[..], &b""[..]));
        let accepts: Vec<_> = head.headers.all(text.as_bytes(), "ACCEPT").collect();
        assert_eq!(accepts, [&b"application/json"[..], b"text/event-stream"]);
    }

    #[test]
    fn every_prefix_is_partial_and_the_rest_does_not_matter() {
        for len in 0..RICH.len() {
            assert!(parse(&RICH[..len]).unwrap().is_none(), "{len}");
        }
        assert_eq!(complete(&format!("{RICH}\n\n\0")).head_len, RICH.len());
    }

    #[test]
    fn targets_have_few_forms() {
        let request = |line: &str| format!("{line} HTTP/1.1\r\nHost: h.example:80\r\n\r\n");
        for (line, path, query) in [
            ("GET /", "/", None),
            ("GET /?", "/", Some("")),
            ("GET //x/%2e%2E?q", "//x/%2e%2E", Some("q")),
            ("OPTIONS *", "*", None),
            ("GET http://h.example:80/mcp?x", "/mcp", Some("x")),
            ("GET HTTPS://H.Example:80/mcp", "/mcp", None),
            ("GET http://h.example:80", "", None),
            ("GET http://h.example:80?x", "", Some("x")),
        ] {
            let text = request(line);
            let head = complete(&text);
            assert_eq!(head.path.of(text.as_bytes()), path.as_bytes(), "{line}");
            assert_eq!(head.query.map(|q| q.of(text.as_bytes())), query.map(str::as_bytes), "{line}");
        }
        for line in [
            "GET *",
            "GET mcp",
            "GET h.example:80",
            "CONNECT h.example:80",
            "GET /a#b",
            "GET /é",
            "GET http://other/mcp",
            "GET http://h.example/mcp",
            "GET http://u@h.example:80/mcp",
            "GET ftp://h.example:80/mcp",
            "GET http:/mcp",
        ] {
            let error = parse(&request(line)).expect_err(line);
            assert!(matches!(error, HeadError::BadTarget { .. }), "{line}: {error}");
            assert_eq!(error.status(), 400);
        }
    }

    #[test]
    fn framing_that_two_readers_could_take_differently_is_refused() {
        for (lines, expected) in [
            ("", Ok(Body::None)),
            ("Content-Length: 0\r\n", Ok(Body::Length(0))),
            ("Transfer-Encoding: chunked\r\n", Ok(Body::Chunked)),
            ("Transfer-Encoding:\tCHUNKED \r\n", Ok(Body::Chunked)),
            ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", Err((HeadError::ConflictingLength, 400))),
            ("Transfer-Encoding: x\r\nContent-Length: 3\r\n", Err((HeadError::ConflictingLength, 400))),
            (
                "Content-Length: 3\r\nContent-Length: 3\r\n",
                Err((HeadError::DuplicateHeader { name: "Content-Length" }, 400)),
            ),
            (
                "Content-Length: 3\r\ncontent-length: 4\r\n",
                Err((HeadError::DuplicateHeader { name: "Content-Length" }, 400)),
            ),
            ("Content-Length: 3, 3\r\n", Err((HeadError::InvalidLength, 400))),
            ("Content-Length:\r\n", Err((HeadError::InvalidLength, 400))),
            ("Content-Length: +3\r\n", Err((HeadError::InvalidLength, 400))),
            ("Transfer-Encoding: gzip, chunked\r\n", Err((HeadError::UnsupportedTransferCoding, 501))),
            ("Transfer-Encoding: chunked, chunked\r\n", Err((HeadError::UnsupportedTransferCoding, 501))),
            ("Transfer-Encoding: identity\r\n", Err((HeadError::UnsupportedTransferCoding, 501))),
            ("Transfer-Encoding: \"chunked\"\r\n", Err((HeadError::UnsupportedTransferCoding, 501))),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Err((HeadError::DuplicateHeader { name: "Transfer-Encoding" }, 400)),
            ),
            ("Expect: 200-ok\r\n", Err((HeadError::UnsupportedExpectation, 417))),
        ] {
            let found = parse(&with_lines(lines)).map(|head| head.expect(lines).body);
            assert_eq!(found.map_err(|error| (error, error.status())), expected, "{lines:?}");
        }
        let error = parse("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap_err();
        assert_eq!(error, HeadError::TransferCodingInHttp10);
    }

    #[test]
    fn grammar_is_strict() {
        let malformed = |what| HeadError::Malformed { what };
        for (text, error) in [
            (with_lines("A : b\r\n"), malformed("header name")),
            (with_lines("A\t: b\r\n"), malformed("header name")),
            (with_lines(": b\r\n"), malformed("header name")),
            (with_lines("A\r\n"), malformed("header name")),
            (with_lines("A(b): c\r\n"), malformed("header name")),
            (with_lines("Content-Length\0: 1\r\n"), malformed("header name")),
            (with_lines("A: b\0c\r\n"), malformed("header value")),
            (with_lines("A: b\rc\r\n"), malformed("header value")),
            (with_lines("A: b\x7f\r\n"), malformed("header value")),
            (with_lines("A: b\nC: d\r\n"), HeadError::BareLineFeed { offset: 33 }),
            (with_lines("A: b\r\n c\r\n"), HeadError::ObsoleteFolding { offset: 35 }),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), malformed("start line")),
            ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n".to_owned(), malformed("line end")),
            ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), malformed("start line")),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), HeadError::UnsupportedVersion),
            ("PRI * HTTP/2.0\r\n\r\n".to_owned(), HeadError::UnsupportedVersion),
            ("\r\n\r\n\r\nGET / HTTP/1.1\r\n".to_owned(), malformed("empty line before the start line")),
        ] {
            assert_eq!(parse(&text).expect_err(&text), error, "{text:?}");
        }
        assert_eq!(HeadError::UnsupportedVersion.status(), 505);
    }

    #[test]
    fn nonsense_is_told_before_the_head_ends() {
        for text in
            ["\x16\x03\x01\x02\0", "{\"jsonrpc\":\"2.0\"", "GET / FTP/1.1\r\nHo", "GET / HTTP/1.1\r\nA b"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn one_host_and_one_of_each_singleton() {
        for (text, error) in [
            ("GET / HTTP/1.1\r\n\r\n", HeadError::MissingHost),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", HeadError::DuplicateHost),
            ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", HeadError::InvalidHost),
            ("GET / HTTP/1.1\r\nHost: u@b\r\n\r\n", HeadError::InvalidHost),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", HeadError::InvalidHost),
        ] {
            assert_eq!(parse(text).expect_err(text), error, "{text:?}");
        }
        assert!(complete("GET / HTTP/1.0\r\n\r\n").host.is_none());
        assert!(complete("GET / HTTP/1.1\r\nHost: [::1]:8443\r\n\r\n").host.is_some());
        for name in [
            "Content-Type",
            "Mcp-Session-Id",
            "MCP-Protocol-Version",
            "Mcp-Method",
            "Mcp-Name",
            "Origin",
            "Authorization",
            "Last-Event-ID",
        ] {
            let text = with_lines(&format!("{name}: a\r\n{}: a\r\n", name.to_ascii_lowercase()));
            assert_eq!(parse(&text).expect_err(name), HeadError::DuplicateHeader { name });
        }
    }

    #[test]
    fn the_connection_lives_by_version_and_options() {
        for (version, lines, lives, waits) in [
            ("1.1", "", true, false),
            ("1.1", "Connection: close\r\n", false, false),
            ("1.1", "Connection: a, CLOSE\r\n", false, false),
            ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false, false),
            ("1.1", "Expect: 100-continue\r\n", true, true),
            ("1.0", "", false, false),
            ("1.0", "Connection: Keep-Alive\r\n", true, false),
            ("1.0", "Connection: keep-alive, close\r\n", false, false),
            ("1.0", "Expect: 100-continue\r\n", false, false),
        ] {
            let head = complete(&format!("POST / HTTP/{version}\r\nHost: a\r\n{lines}\r\n"));
            assert_eq!((head.keep_alive, head.expect_continue), (lives, waits), "{version} {lines:?}");
        }
    }

    #[test]
    fn limits_answer_with_their_status() {
        let limits = HeadLimits { max_bytes: 256, max_headers: 4 };
        let parse =
            |text: String| parse_request(text.as_bytes(), &limits).map(|head| head.map(|h| h.headers.len()));
        assert_eq!(parse(with_lines("A: 1\r\nB: 2\r\nC: 3\r\n")), Ok(Some(4)));
        let error = parse(with_lines("A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n")).unwrap_err();
        assert_eq!((error, error.status()), (HeadError::TooManyHeaders { limit: 4 }, 431));
        let error = parse(with_lines(&format!("A: {}\r\n", "x".repeat(300)))).unwrap_err();
        assert_eq!((error, error.status()), (HeadError::TooLarge { limit: 256 }, 431));
        let error = parse(format!("GET /{}", "x".repeat(300))).unwrap_err();
        assert_eq!((error, error.status()), (HeadError::TargetTooLong { limit: 256 }, 414));
        let many: String = (0..HEADER_CEILING - 1).map(|n| format!("A{n}: b\r\n")).collect();
        let limits = HeadLimits { max_bytes: 1 << 16, max_headers: usize::MAX };
        let parse =
            |text: String| parse_request(text.as_bytes(), &limits).map(|head| head.map(|h| h.headers.len()));
        assert_eq!(parse(with_lines(&many)), Ok(Some(HEADER_CEILING)));
        assert_eq!(
            parse(with_lines(&format!("{many}B: c\r\n"))),
            Err(HeadError::TooManyHeaders { limit: HEADER_CEILING })
        );
    }
}
