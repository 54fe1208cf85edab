//! Header fields on their way through: owns which fields of a client go to the server and which of a server's come back.
//! Never a message's content.

use std::io::Write;

use mcp_protocol::http1::ResponseHead;

use super::message::{HttpHead, Message, Origin};
use crate::upstream::Endpoint;

/// What ends at the gateway: hop-by-hop fields (RFC 9110, 7.6.1), framing, what the gateway writes itself, and what only
/// the gateway may claim about the client. `Origin` was checked here; the server sees no browser.
const NOT_TO_SERVER: &[&str] = &[
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
];

/// The same on the way back; CORS is the gateway's own matter.
const NOT_TO_CLIENT: &[&str] = &[
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
];

/// Whether a field's name is in a list; names compare without case.
fn is_listed(list: &[&str], name: &[u8]) -> bool {
    list.iter().any(|listed| listed.len() == name.len() && listed.as_bytes().eq_ignore_ascii_case(name))
}

/// Whether `Connection` names the field as hop-by-hop.
fn is_named_by(connection: Option<&[u8]>, name: &[u8]) -> bool {
    connection.is_some_and(|value| {
        value.split(|&byte| byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(name))
    })
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
    // Writing to a Vec cannot fail.
    let _ = write!(out, "X-Forwarded-For: {peer}\r\nX-Forwarded-Proto: https\r\n");
    match &message.origin {
        Origin::Http(head) => write_client_fields(out, head),
        Origin::Frame(frame) => frame.write_fields(out),
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the fields of a client's head that go to the server.
fn write_client_fields(out: &mut Vec<u8>, head: &HttpHead) {
    let connection = head.head.headers.all(&head.bytes, "connection").next();
    for (name, value) in head.head.headers.iter(&head.bytes) {
        if !is_listed(NOT_TO_SERVER, name) && !is_named_by(connection, name) {
            write_field(out, name, value);
        }
    }
}

/// Writes the fields of a server's answer that the client gets, without an end.
pub(super) fn write_answer_fields(out: &mut Vec<u8>, head: &ResponseHead, bytes: &[u8]) {
    let connection = head.headers.all(bytes, "connection").next();
    for (name, value) in head.headers.iter(bytes) {
        if !is_listed(NOT_TO_CLIENT, name) && !is_named_by(connection, name) {
            write_field(out, name, value);
        }
    }
}

fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
