//! What doors without header fields read out of an answer that is told in HTTP's terms: owns the search for a field, and
//! the comparison and repair of a response's id. Pure functions of bytes.

use serde_json::Value;

/// A header line's value.
pub(super) fn field<'a>(fields: &'a [u8], name: &str) -> Option<&'a [u8]> {
    fields.split(|&byte| byte == b'\n').find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        found.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
    })
}

/// Whether two raw ids are the same string or number; a server may write one differently than the client did.
pub(super) fn same_id(ours: &[u8], theirs: &[u8]) -> bool {
    let value = |raw| serde_json::from_slice::<Value>(raw).ok();
    ours == theirs || (value(ours).is_some() && value(ours) == value(theirs))
}

/// An error response with this id in place of none.
pub(super) fn with_id(response: &[u8], id: &[u8]) -> Vec<u8> {
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
    fn ids_are_the_same_however_they_are_written() {
        assert!(same_id(b"1", b"1"));
        assert!(same_id("\"é\"".as_bytes(), b"\"\\u00e9\""));
        assert!(!same_id(b"1", b"\"1\""));
        assert!(!same_id(b"1", b"2"));
    }

    #[test]
    fn an_error_without_an_id_gets_the_request_s_own() {
        let found =
            with_id(br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"m"}}"#, b"\"a\"");
        let value: Value = serde_json::from_slice(&found).unwrap();
        assert_eq!((&value["id"], &value["error"]["code"]), (&"a".into(), &(-32600).into()));
    }
}
