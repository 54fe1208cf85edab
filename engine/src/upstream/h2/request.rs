//! From a head of HTTP/1.1 to a header list and back: owns the translation alone. Which fields pass is decided where the head is
//! written, and where the answer is relayed.

use std::io;

use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method as Verb, Request, Uri};
use mcp_protocol::http1::{Method, write_field};

use crate::upstream::call::{Ask, CallError};
use crate::upstream::endpoint::Endpoint;

/// The request whose head is written in `ask`.
///
/// # Errors
/// [`CallError::Connect`] where the endpoint's host or path cannot stand in a request.
pub(super) fn of(endpoint: &Endpoint, ask: &Ask<'_>) -> Result<Request<()>, CallError> {
    let unspeakable =
        |error: http::Error| CallError::Connect(io::Error::new(io::ErrorKind::InvalidInput, error));
    let uri = Uri::builder()
        .scheme(if endpoint.is_encrypted() { "https" } else { "http" })
        .authority(&*endpoint.authority)
        .path_and_query(&*endpoint.path)
        .build()
        .map_err(unspeakable)?;
    let verb = match ask.method {
        Method::Get => Verb::GET,
        Method::Delete => Verb::DELETE,
        _ => Verb::POST,
    };
    let mut request = Request::builder().method(verb).uri(uri).body(()).map_err(unspeakable)?;
    write_headers(ask.head, request.headers_mut());
    Ok(request)
}

/// Takes the fields of a head that the gateway wrote: one to a line, none folded. The host stands in the URI, where HTTP/2 has
/// it.
fn write_headers(head: &[u8], headers: &mut HeaderMap) {
    for line in head.split(|&byte| byte == b'\n').skip(1) {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        // The gateway's parser lets through no name and no value that HTTP/2 could not carry.
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()))
            && name != HOST
        {
            headers.append(name, value);
        }
    }
}

/// The answer's fields as header lines.
pub(super) fn fields(headers: &HeaderMap) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in headers {
        write_field(&mut lines, name.as_str().as_bytes(), value.as_bytes());
    }
    lines
}

/// The answer's length, where the server told it.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_becomes_a_header_list_and_an_answer_s_list_lines() {
        let mut headers = HeaderMap::new();
        let head = b"POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nX-A: 1:2\r\nx-a: \xc3\xa4\r\n\r\n";
        write_headers(head, &mut headers);
        let all: Vec<_> = headers.get_all("x-a").iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(all, [&b"1:2"[..], "ä".as_bytes()]);
        assert_eq!((headers.len(), length(&headers)), (3, Some(2)));
        headers.remove("x-a");
        assert_eq!(fields(&headers), b"content-length: 2\r\n");
    }
}
