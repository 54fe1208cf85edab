//! What doors without header fields read out of an answer that is told in HTTP's terms: owns the search for a field, the
//! messages of a body or event, and the repair of a response's id. Pure functions of bytes.

use std::borrow::Cow;

use mcp_protocol::jsonrpc::{Payload, Scan, ScanLimits, scan};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::exchange::same_id;
use crate::respond::Refusal;
use crate::shard::conn::Gone;

/// A header line's value.
pub(crate) fn field<'a>(fields: &'a [u8], name: &str) -> Option<&'a [u8]> {
    fields.split(|&byte| byte == b'\n').find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        found.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
    })
}

/// Gives out what a server said: one message, or several of a batch. What is no message is left out.
///
/// # Errors
/// [`Gone`], where `pass` says so.
pub(super) fn each_message(
    said: &[u8],
    mut pass: impl FnMut(&[u8], &Scan) -> Result<(), Gone>,
) -> Result<(), Gone> {
    match scan(said, &ScanLimits::default()) {
        Ok(Payload::Single(scan)) => pass(said, &scan),
        Ok(Payload::Batch(_)) => {
            let messages: Vec<&RawValue> = serde_json::from_slice(said).unwrap_or_default();
            for message in messages {
                if let Ok(Payload::Single(scan)) = scan(message.get().as_bytes(), &ScanLimits::default()) {
                    pass(message.get().as_bytes(), &scan)?;
                }
            }
            Ok(())
        }
        // An event without data is a server's way to name a stream's position (2025-11-25, "Sending Messages").
        Err(_) if said.is_empty() => Ok(()),
        Err(error) => {
            tracing::debug!(%error, "a server sent what is no message");
            Ok(())
        }
    }
}

/// A response as the request with this id may get it; `None` where it is to another one.
pub(super) fn response_to<'a>(id: &[u8], response: &'a [u8], scan: &Scan) -> Option<Cow<'a, [u8]>> {
    match scan.id {
        Some(found) => same_id(id, found.of(response)).then_some(Cow::Borrowed(response)),
        // An error about the whole HTTP request names no id; there is only one that it can mean.
        None => Some(Cow::Owned(with_id(response, id))),
    }
}

/// A whole answer that holds no response becomes an error, so that no request waits for ever.
pub(super) fn no_response(server: String, status: u16) -> Refusal {
    if status >= 400 {
        Refusal::UpstreamStatus { server, status }
    } else {
        Refusal::UpstreamMalformed { server, what: "no response to the request" }
    }
}

/// An error response with this id in place of none.
fn with_id(response: &[u8], id: &[u8]) -> Vec<u8> {
    let error = match serde_json::from_slice::<Value>(response) {
        Ok(mut response) => response["error"].take(),
        Err(_) => Value::Null,
    };
    let mut out = br#"{"jsonrpc":"2.0","id":"#.to_vec();
    out.extend_from_slice(id);
    out.extend_from_slice(b",\"error\":");
    out.extend_from_slice(error.to_string().as_bytes());
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_without_case() {
        let fields = b"X-Content-Type: no\r\nCONTENT-TYPE:  text/event-stream \r\nMcp-Session-Id: s\r\n";
        assert_eq!(field(fields, "content-type"), Some(&b"text/event-stream"[..]));
        assert_eq!(field(fields, "mcp-session-id"), Some(&b"s"[..]));
        assert_eq!(field(fields, "content"), None);
    }

    #[test]
    fn an_error_without_an_id_gets_the_request_s_own() {
        let found =
            with_id(br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"m"}}"#, b"\"a\"");
        let value: Value = serde_json::from_slice(&found).unwrap();
        assert_eq!((&value["id"], &value["error"]["code"]), (&"a".into(), &(-32600).into()));
    }
}
