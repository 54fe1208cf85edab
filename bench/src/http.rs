//! The HTTP/1.1 that a load driver and its upstream need: heads by `httparse`, bodies by length or chunks.
//!
//! Pure: bytes in, offsets and values out. It never reads a socket and never keeps state between calls; a caller that
//! has only a part of a message calls again when there is more.

use std::ops::Range;

/// Header fields per head. Gateways add some; 64 leaves room.
const MAX_HEADERS: usize = 64;
/// Bytes of a head, so that a peer that never ends one is found out.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Bytes of a body, in either direction: the worst case one connection may hold.
pub const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// Why bytes are not a message of this HTTP.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HttpError {
    /// The head is no HTTP/1.1 head, or it has too many fields.
    #[error("malformed head: {0}")]
    Head(#[from] httparse::Error),
    /// The head is longer than [`MAX_HEAD_BYTES`].
    #[error("head of {have} bytes without an end")]
    HeadTooLong {
        /// Bytes received so far.
        have: usize,
    },
    /// Content-Length is no number, or contradicts Transfer-Encoding.
    #[error("body framing not understood")]
    Framing,
    /// A chunk's size line or end is malformed.
    #[error("malformed chunk")]
    Chunk,
    /// The body is longer than [`MAX_BODY_BYTES`].
    #[error("body of more than {MAX_BODY_BYTES} bytes")]
    BodyTooLong,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes (0: no body).
    Length(usize),
    /// By a last chunk.
    Chunked,
    /// With the connection (answers only).
    UntilClose,
}

/// The head of an answer, with what a client of MCP wants to know.
#[derive(Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// Bytes of the head.
    pub len: usize,
    /// How the body ends.
    pub framing: Framing,
    /// The connection may carry another request.
    pub keep_alive: bool,
    /// The body is an event stream.
    pub event_stream: bool,
    /// Where the value of `Mcp-Session-Id` lies.
    pub session: Option<Range<usize>>,
    /// There is a `Retry-After`.
    pub retry_after: bool,
}

/// The head of a request, with what an MCP server wants to know.
#[derive(Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a str,
    /// The path and query.
    pub target: &'a str,
    /// Bytes of the head.
    pub len: usize,
    /// How the body ends; never [`Framing::UntilClose`].
    pub framing: Framing,
    /// The connection may carry another request.
    pub keep_alive: bool,
    /// `MCP-Protocol-Version`.
    pub version: Option<&'a [u8]>,
    /// `Mcp-Method`.
    pub mcp_method: Option<&'a [u8]>,
    /// `Mcp-Name`.
    pub mcp_name: Option<&'a [u8]>,
    /// `Mcp-Session-Id`.
    pub session: Option<&'a [u8]>,
}

/// Parses the head of an answer; `None` while it is not complete. Interim answers (1xx) are for the caller to skip.
///
/// # Errors
/// [`HttpError`] when more bytes cannot mend it.
pub fn parse_response_head(bytes: &[u8]) -> Result<Option<ResponseHead>, HttpError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(len) = parsed.parse(bytes)? else { return unfinished(bytes) };
    let status = parsed.code.unwrap_or(0);
    let mut common = Common::new(parsed.version);
    let mut event_stream = false;
    let (mut session, mut retry_after) = (None, false);
    for field in parsed.headers.iter() {
        if is(field.name, "content-type") {
            event_stream =
                field.value.get(..17).is_some_and(|v| v.eq_ignore_ascii_case(b"text/event-stream"));
        } else if is(field.name, "mcp-session-id") {
            let from = field.value.as_ptr().addr() - bytes.as_ptr().addr();
            session = Some(from..from + field.value.len());
        } else if is(field.name, "retry-after") {
            retry_after = true;
        } else {
            common.take(field)?;
        }
    }
    let bodiless = status < 200 || status == 204 || status == 304;
    let framing = if bodiless { Framing::Length(0) } else { common.framing(Framing::UntilClose)? };
    let keep_alive = common.keep_alive && framing != Framing::UntilClose;
    Ok(Some(ResponseHead { status, len, framing, keep_alive, event_stream, session, retry_after }))
}

/// Parses the head of a request; `None` while it is not complete.
///
/// # Errors
/// [`HttpError`] when more bytes cannot mend it.
pub fn parse_request_head(bytes: &[u8]) -> Result<Option<RequestHead<'_>>, HttpError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(len) = parsed.parse(bytes)? else { return unfinished(bytes) };
    let mut common = Common::new(parsed.version);
    let mut head = RequestHead {
        method: parsed.method.unwrap_or_default(),
        target: parsed.path.unwrap_or_default(),
        len,
        framing: Framing::Length(0),
        keep_alive: true,
        version: None,
        mcp_method: None,
        mcp_name: None,
        session: None,
    };
    for field in parsed.headers.iter() {
        match field.name {
            n if is(n, "mcp-protocol-version") => head.version = Some(field.value),
            n if is(n, "mcp-method") => head.mcp_method = Some(field.value),
            n if is(n, "mcp-name") => head.mcp_name = Some(field.value),
            n if is(n, "mcp-session-id") => head.session = Some(field.value),
            _ => common.take(field)?,
        }
    }
    head.framing = common.framing(Framing::Length(0))?;
    head.keep_alive = common.keep_alive;
    Ok(Some(head))
}

/// Decodes a chunked body that begins at the start of `input` into `body`, which is cleared first. Returns the bytes
/// of `input` that it took, trailers included, or `None` while it is not complete.
///
/// # Errors
/// [`HttpError::Chunk`] and [`HttpError::BodyTooLong`].
pub fn decode_chunked(input: &[u8], body: &mut Vec<u8>) -> Result<Option<usize>, HttpError> {
    body.clear();
    let mut at = 0;
    loop {
        let (skip, size) = match httparse::parse_chunk_size(&input[at..]) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(HttpError::Chunk),
        };
        let size = usize::try_from(size).map_err(|_| HttpError::BodyTooLong)?;
        if size > MAX_BODY_BYTES - body.len() {
            return Err(HttpError::BodyTooLong);
        }
        at += skip;
        if size == 0 {
            return Ok(trailers_end(&input[at..])?.map(|n| at + n));
        }
        let Some(end) = input.get(at + size..at + size + 2) else { return Ok(None) };
        if end != b"\r\n" {
            return Err(HttpError::Chunk);
        }
        body.extend_from_slice(&input[at..at + size]);
        at += size + 2;
    }
}

/// The end of the trailers and the empty line behind a last chunk.
fn trailers_end(input: &[u8]) -> Result<Option<usize>, HttpError> {
    let mut at = 0;
    loop {
        let Some(line) = memchr::memchr(b'\n', &input[at..]) else {
            return if input.len() > MAX_HEAD_BYTES { Err(HttpError::Chunk) } else { Ok(None) };
        };
        let empty = matches!(&input[at..at + line], b"" | b"\r");
        at += line + 1;
        if empty {
            return Ok(Some(at));
        }
    }
}

fn unfinished<T>(bytes: &[u8]) -> Result<Option<T>, HttpError> {
    if bytes.len() > MAX_HEAD_BYTES { Err(HttpError::HeadTooLong { have: bytes.len() }) } else { Ok(None) }
}

fn is(name: &str, wanted: &str) -> bool {
    name.len() == wanted.len() && name.eq_ignore_ascii_case(wanted)
}

/// The fields that frame a message in both directions.
struct Common {
    keep_alive: bool,
    length: Option<usize>,
    chunked: bool,
}

impl Common {
    fn new(minor_version: Option<u8>) -> Self {
        Self { keep_alive: minor_version == Some(1), length: None, chunked: false }
    }

    fn take(&mut self, field: &httparse::Header<'_>) -> Result<(), HttpError> {
        if is(field.name, "content-length") {
            let digits = field.value.iter().all(u8::is_ascii_digit);
            let value = std::str::from_utf8(field.value).ok().and_then(|s| s.parse().ok());
            match value {
                Some(n) if digits && self.length.is_none_or(|l| l == n) => self.length = Some(n),
                _ => return Err(HttpError::Framing),
            }
        } else if is(field.name, "transfer-encoding") {
            if !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err(HttpError::Framing);
            }
            self.chunked = true;
        } else if is(field.name, "connection") {
            if field.value.eq_ignore_ascii_case(b"close") {
                self.keep_alive = false;
            } else if field.value.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            }
        }
        Ok(())
    }

    fn framing(&self, absent: Framing) -> Result<Framing, HttpError> {
        match (self.chunked, self.length) {
            (true, None) => Ok(Framing::Chunked),
            (true, Some(_)) => Err(HttpError::Framing),
            (false, Some(n)) if n > MAX_BODY_BYTES => Err(HttpError::BodyTooLong),
            (false, Some(n)) => Ok(Framing::Length(n)),
            (false, None) => Ok(absent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_head_with_session_and_length() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nMCP-Session-Id: abc\r\nContent-Length: 5\r\n\r\nhello";
        let head = parse_response_head(bytes).unwrap().unwrap();
        assert_eq!((head.status, head.framing, head.event_stream), (200, Framing::Length(5), true));
        assert_eq!(&bytes[head.session.unwrap()], b"abc");
        assert_eq!(&bytes[head.len..], b"hello");
        for end in 0..head.len {
            assert_eq!(parse_response_head(&bytes[..end]), Ok(None), "cut at {end}");
        }
    }

    #[test]
    fn contradicting_framing_is_refused() {
        let both = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(parse_response_head(both), Err(HttpError::Framing));
        let two = b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n";
        assert_eq!(parse_request_head(two), Err(HttpError::Framing));
        let sign = b"POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n";
        assert_eq!(parse_request_head(sign), Err(HttpError::Framing));
    }

    #[test]
    fn an_answer_without_framing_lasts_until_the_connection_closes() {
        let head = parse_response_head(b"HTTP/1.1 200 OK\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.framing, head.keep_alive), (Framing::UntilClose, false));
        let head = parse_response_head(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.framing, head.keep_alive), (Framing::Length(0), true));
    }

    #[test]
    fn chunks_are_joined_at_every_cut() {
        let input = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: v\r\n\r\nrest";
        let whole = input.len() - 4;
        let mut body = Vec::new();
        assert_eq!(decode_chunked(input, &mut body), Ok(Some(whole)));
        assert_eq!(body, b"abcde");
        for end in 0..whole {
            assert_eq!(decode_chunked(&input[..end], &mut body), Ok(None), "cut at {end}");
        }
        assert_eq!(decode_chunked(b"zz\r\n", &mut body), Err(HttpError::Chunk));
        assert_eq!(decode_chunked(b"1\r\nabc", &mut body), Err(HttpError::Chunk));
        assert_eq!(decode_chunked(b"ffffffffff\r\n", &mut body), Err(HttpError::BodyTooLong));
    }

    #[test]
    fn a_head_without_end_is_found_out() {
        let mut bytes = b"HTTP/1.1 200 OK\r\nA: ".to_vec();
        bytes.resize(MAX_HEAD_BYTES + 1, b'a');
        assert_eq!(parse_response_head(&bytes), Err(HttpError::HeadTooLong { have: MAX_HEAD_BYTES + 1 }));
    }
}
