//! From a stream's header list to the request head that HTTP/1.1 would have carried: owns the text. Everything behind the
//! doors reads a request in one form only, so that admission and the fields passed on cannot differ by protocol.

use http::header::{CONTENT_LENGTH, HOST};
use http::request::Parts;
use mcp_protocol::http1::write_field;

/// Writes the head. `ends` says that no body follows; one without a length gets the framing that says so.
///
/// Neither h2's names nor its values can hold a CR or LF, so no line can be made of a value.
pub(super) fn write_head(out: &mut Vec<u8>, parts: &Parts, ends: bool) {
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    match parts.uri.path_and_query() {
        Some(target) => out.extend_from_slice(target.as_str().as_bytes()),
        // CONNECT has no path (RFC 9113, section 8.5).
        None => out.extend_from_slice(authority.unwrap_or_default()),
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(authority) = authority {
        write_field(out, b"host", authority);
    }
    for (name, value) in &parts.headers {
        // A second, different name for the host stays, and is refused like two Host lines (RFC 9113, section 8.3.1).
        if name == HOST && authority == Some(value.as_bytes()) {
            continue;
        }
        write_field(out, name.as_str().as_bytes(), value.as_bytes());
    }
    if !ends && !parts.headers.contains_key(CONTENT_LENGTH) {
        write_field(out, b"transfer-encoding", b"chunked");
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(request: http::request::Builder, ends: bool) -> String {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let mut out = Vec::new();
        write_head(&mut out, &parts, ends);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_reads_like_one_of_http_1() {
        let request = Request::post("https://gw:8443/mcp/a?b=c")
            .header("host", "gw:8443")
            .header("content-length", "2")
            .header("accept", "a")
            .header("accept", "b");
        assert_eq!(
            head(request, false),
            "POST /mcp/a?b=c HTTP/1.1\r\nhost: gw:8443\r\ncontent-length: 2\r\naccept: a\r\naccept: b\r\n\r\n"
        );
    }

    #[test]
    fn a_body_without_a_length_is_said_to_follow() {
        let framed = head(Request::post("https://gw/mcp"), false);
        assert!(framed.ends_with("transfer-encoding: chunked\r\n\r\n"), "{framed}");
        assert_eq!(head(Request::get("https://gw/mcp"), true), "GET /mcp HTTP/1.1\r\nhost: gw\r\n\r\n");
    }

    #[test]
    fn two_different_hosts_are_left_for_the_parser_to_refuse() {
        let text = head(Request::get("https://gw/mcp").header("host", "other"), true);
        assert!(text.contains("host: gw\r\nhost: other\r\n"), "{text}");
        assert!(head(Request::get("/mcp").header("host", "gw"), true).contains("\r\nhost: gw\r\n"));
    }
}
