//! Header fields on their way through: owns which fields of a client go to the server and which of a server's come back.
//! Never a message's content.

use std::io::Write;

use mcp_protocol::http1::{is_named_by, write_field};

use super::message::{HttpHead, Message, Origin};
use crate::upstream::Endpoint;
use crate::upstream::answer::Answer;

/// What ends at the gateway: hop-by-hop fields (RFC 9110, 7.6.1), framing, what the gateway writes itself, and what only
/// the gateway may claim about the client. `Origin` was checked here; the server sees no browser. By length, so that a
/// field is compared with few names.
fn ends_before_server(name: &[u8]) -> bool {
    let listed: &[&str] = match name.len() {
        2 => &["te"],
        4 => &["host"],
        6 => &["accept", "expect", "origin"],
        7 => &["trailer", "upgrade"],
        9 => &["forwarded", "x-real-ip"],
        10 => &["connection", "keep-alive"],
        12 => &["content-type"],
        14 => &["content-length", "mcp-session-id"],
        15 => &["accept-encoding", "x-forwarded-for"],
        16 => &["content-encoding", "proxy-connection", "x-forwarded-host"],
        17 => &["transfer-encoding", "x-forwarded-proto"],
        18 => &["proxy-authenticate"],
        19 => &["proxy-authorization"],
        _ => &[],
    };
    is_listed(listed, name)
}

/// The same on the way back; CORS is the gateway's own matter.
fn ends_before_client(name: &[u8]) -> bool {
    let listed: &[&str] = match name.len() {
        2 => &["te"],
        7 => &["trailer", "upgrade"],
        10 => &["connection", "keep-alive"],
        14 => &["content-length", "mcp-session-id"],
        16 => &["proxy-connection"],
        17 => &["transfer-encoding"],
        18 => &["proxy-authenticate"],
        22 => &["access-control-max-age"],
        27 => &["access-control-allow-origin"],
        28 => &["access-control-allow-headers", "access-control-allow-methods"],
        29 => &["access-control-expose-headers"],
        32 => &["access-control-allow-credentials"],
        _ => &[],
    };
    is_listed(listed, name)
}

/// Names compare without case.
fn is_listed(list: &[&str], name: &[u8]) -> bool {
    list.iter().any(|listed| listed.as_bytes().eq_ignore_ascii_case(name))
}

/// Writes a request's head for an endpoint.
pub(super) fn write_request(
    out: &mut Vec<u8>,
    verb: &str,
    endpoint: &Endpoint,
    message: &Message,
    session: Option<&[u8]>,
    peer: std::net::IpAddr,
) {
    out.extend_from_slice(verb.as_bytes());
    out.push(b' ');
    out.extend_from_slice(endpoint.path.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    out.extend_from_slice(endpoint.authority.as_bytes());
    match verb {
        "GET" => out.extend_from_slice(b"\r\nAccept: text/event-stream\r\n"),
        "POST" => {
            out.extend_from_slice(
                b"\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
                  Content-Length: ",
            );
            let mut digits = itoa::Buffer::new();
            out.extend_from_slice(digits.format(message.body.len()).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        _ => out.extend_from_slice(b"\r\n"),
    }
    if let Some(session) = session {
        out.extend_from_slice(b"Mcp-Session-Id: ");
        out.extend_from_slice(session);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"X-Forwarded-For: ");
    write_address(out, peer);
    out.extend_from_slice(b"\r\nX-Forwarded-Proto: https\r\n");
    match &message.origin {
        Origin::Http(head) => write_client_fields(out, head),
        Origin::Frame(frame) => frame.write_fields(out),
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes an address; IPv4, which most are, without the formatter, which would cost more than all the fields around it.
fn write_address(out: &mut Vec<u8>, address: std::net::IpAddr) {
    match address {
        std::net::IpAddr::V4(address) => {
            let mut digits = itoa::Buffer::new();
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(digits.format(octet).as_bytes());
            }
        }
        // Writing to a Vec cannot fail.
        std::net::IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

/// Writes the fields of a client's head that go to the server.
fn write_client_fields(out: &mut Vec<u8>, head: &HttpHead) {
    let connection = head.head.headers.all(&head.bytes, "connection").next();
    for (name, value) in head.head.headers.iter(&head.bytes) {
        if !ends_before_server(name) && !is_named_by(connection, name) {
            write_field(out, name, value);
        }
    }
}

/// Writes those of a client's fields that go to the server and that a message of a stream does not carry apart.
pub(super) fn write_other_fields(out: &mut Vec<u8>, head: &HttpHead) {
    const APART: [&[u8]; 5] =
        [b"authorization", b"last-event-id", b"mcp-method", b"mcp-name", b"mcp-protocol-version"];
    let connection = head.head.headers.all(&head.bytes, "connection").next();
    for (name, value) in head.head.headers.iter(&head.bytes) {
        let is_apart = APART.iter().any(|apart| apart.eq_ignore_ascii_case(name));
        if !is_apart && !ends_before_server(name) && !is_named_by(connection, name) {
            write_field(out, name, value);
        }
    }
}

/// Fields that go to a server and prove nothing of their sender.
const PROVE_NOTHING: [&str; 13] = [
    "accept-language",
    "baggage",
    "cache-control",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "pragma",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-correlation-id",
    "x-request-id",
];

/// Writes all that a server could tell a message's sender by: what an answer for this sender alone depends on.
pub(super) fn write_identity(out: &mut Vec<u8>, message: &Message) {
    let all = |name: &[u8]| !is_listed(&PROVE_NOTHING, name);
    match &message.origin {
        Origin::Http(head) => {
            let connection = head.head.headers.all(&head.bytes, "connection").next();
            for (name, value) in head.head.headers.iter(&head.bytes) {
                if all(name) && !ends_before_server(name) && !is_named_by(connection, name) {
                    write_field(out, &name.to_ascii_lowercase(), value);
                }
            }
        }
        Origin::Frame(frame) => {
            if let Some(authorization) = &frame.authorization {
                write_field(out, b"authorization", authorization.as_bytes());
            }
            let fields = frame.fields.as_deref().unwrap_or_default();
            for line in fields.split_inclusive(|&byte| byte == b'\n') {
                if memchr::memchr(b':', line).is_some_and(|colon| all(&line[..colon])) {
                    out.extend_from_slice(line);
                }
            }
        }
    }
}

/// Writes the fields of a server's answer that the client gets, without an end.
pub(super) fn write_answer_fields(out: &mut Vec<u8>, answer: &Answer) {
    answer.each_field(|name, value| {
        if !ends_before_client(name) {
            write_field(out, name, value);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_here_is_found_in_any_case() {
        for name in [
            "accept",
            "accept-encoding",
            "connection",
            "content-encoding",
            "content-length",
            "content-type",
            "expect",
            "forwarded",
            "host",
            "keep-alive",
            "mcp-session-id",
            "origin",
            "proxy-authenticate",
            "proxy-authorization",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-real-ip",
        ] {
            assert!(ends_before_server(name.as_bytes()), "{name}");
            assert!(ends_before_server(name.to_ascii_uppercase().as_bytes()), "{name}");
        }
        for name in [
            "access-control-allow-credentials",
            "access-control-allow-headers",
            "access-control-allow-methods",
            "access-control-allow-origin",
            "access-control-expose-headers",
            "access-control-max-age",
            "connection",
            "content-length",
            "keep-alive",
            "mcp-session-id",
            "proxy-authenticate",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ] {
            assert!(ends_before_client(name.as_bytes()), "{name}");
            assert!(ends_before_client(name.to_ascii_uppercase().as_bytes()), "{name}");
        }
        for name in ["authorization", "mcp-method", "mcp-protocol-version", "x-request-id", ""] {
            assert!(!ends_before_server(name.as_bytes()) && !ends_before_client(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn addresses_are_written_as_the_standard_library_writes_them() {
        for address in ["127.0.0.1", "203.0.113.255", "::1", "2001:db8::7"] {
            let mut out = Vec::new();
            write_address(&mut out, address.parse().unwrap());
            assert_eq!(out, address.as_bytes());
        }
    }
}
