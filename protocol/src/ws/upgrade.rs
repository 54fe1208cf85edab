//! The upgrade from HTTP/1.1 (RFC 6455, section 4.2): owns what a request must say, and the head that answers it. Paths,
//! `Host`, `Origin` and sessions are the caller's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::http1::{Body, Method, RequestHead};

/// The subprotocol of MCP's messages, one per text message.
pub const SUBPROTOCOL: &str = "mcp";
/// The version of RFC 6455; there is no other.
pub const VERSION: &str = "13";

/// What the key is hashed with (section 1.3).
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of a key before base64, and of an accepted key after it.
const KEY_BYTES: usize = 16;
const ACCEPT_CHARS: usize = 28;

/// A request that may be upgraded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Upgrade {
    /// The value of `Sec-WebSocket-Accept`.
    accept: [u8; ACCEPT_CHARS],
    /// The client offered [`SUBPROTOCOL`].
    subprotocol: bool,
}

/// Why a request cannot be upgraded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UpgradeError {
    /// Not GET.
    #[error("a WebSocket begins with GET")]
    Method,
    /// HTTP/1.0.
    #[error("a WebSocket needs HTTP/1.1")]
    Http10,
    /// No `Upgrade: websocket`, or `Connection` does not name `Upgrade`.
    #[error("this path speaks WebSocket: Upgrade: websocket and Connection: Upgrade are required")]
    NoUpgrade,
    /// `Sec-WebSocket-Version` is missing or names another version.
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
    /// `Sec-WebSocket-Key` is missing, repeated, or not 16 bytes in base64.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64, once")]
    Key,
    /// `Sec-WebSocket-Protocol` offers subprotocols, and not ours: the client means another language.
    #[error("the only subprotocol here is \"mcp\"")]
    Subprotocol,
    /// The request has a body.
    #[error("an upgrade has no body")]
    HasBody,
}

impl UpgradeError {
    /// The HTTP status that says so.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::NoUpgrade | Self::Version => 426,
            Self::Http10 | Self::Key | Self::Subprotocol | Self::HasBody => 400,
        }
    }

    /// The header lines that must stand beside the status, each with its CR LF.
    #[must_use]
    pub fn fields(self) -> &'static [u8] {
        match self {
            Self::Method => b"Allow: GET\r\n",
            Self::NoUpgrade | Self::Version => {
                b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            }
            Self::Http10 | Self::Key | Self::Subprotocol | Self::HasBody => b"",
        }
    }
}

/// Checks a request whose head stands in `bytes`.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_upgrade(head: &RequestHead, bytes: &[u8]) -> Result<Upgrade, UpgradeError> {
    if head.method != Method::Get {
        return Err(UpgradeError::Method);
    }
    if head.http10 {
        return Err(UpgradeError::Http10);
    }
    let lists =
        |name, token: &str| list(head, bytes, name).any(|found| found.eq_ignore_ascii_case(token.as_bytes()));
    if !lists("upgrade", "websocket") || !lists("connection", "upgrade") {
        return Err(UpgradeError::NoUpgrade);
    }
    if only(head, bytes, "sec-websocket-version") != Some(VERSION.as_bytes()) {
        return Err(UpgradeError::Version);
    }
    let key = only(head, bytes, "sec-websocket-key").ok_or(UpgradeError::Key)?;
    if !STANDARD.decode(key).is_ok_and(|decoded| decoded.len() == KEY_BYTES) {
        return Err(UpgradeError::Key);
    }
    // Subprotocols compare with case (section 4.1, 10).
    let mut offered = list(head, bytes, "sec-websocket-protocol").peekable();
    let offers = offered.peek().is_some();
    let subprotocol = offered.any(|found| found == SUBPROTOCOL.as_bytes());
    if offers && !subprotocol {
        return Err(UpgradeError::Subprotocol);
    }
    if !matches!(head.body, Body::None | Body::Length(0)) {
        return Err(UpgradeError::HasBody);
    }
    Ok(Upgrade { accept: accept_of(key), subprotocol })
}

/// Writes the head of `101 Switching Protocols`; `fields` are further header lines, each with its CR LF.
pub fn write_switch(out: &mut Vec<u8>, upgrade: &Upgrade, fields: &[u8]) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    out.extend_from_slice(&upgrade.accept);
    out.extend_from_slice(b"\r\n");
    if upgrade.subprotocol {
        out.extend_from_slice(b"Sec-WebSocket-Protocol: mcp\r\n");
    }
    out.extend_from_slice(fields);
    out.extend_from_slice(b"\r\n");
}

/// All elements of a field that is a list, over all its lines; empty ones mean nothing (RFC 9110, section 5.6.1).
fn list<'a>(head: &'a RequestHead, bytes: &'a [u8], name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    let lines = head.headers.all(bytes, name);
    lines
        .flat_map(|line| line.split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|item| !item.is_empty())
}

/// The value of a field that stands on one line.
fn only<'a>(head: &'a RequestHead, bytes: &'a [u8], name: &'static str) -> Option<&'a [u8]> {
    let mut lines = head.headers.all(bytes, name);
    lines.next().filter(|_| lines.next().is_none())
}

/// The `Sec-WebSocket-Accept` that answers this `Sec-WebSocket-Key`.
pub fn accept_of(key: &[u8]) -> [u8; ACCEPT_CHARS] {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(ACCEPT_SUFFIX);
    let mut accept = [b'='; ACCEPT_CHARS];
    // 20 bytes make exactly 28 characters.
    let _ = STANDARD.encode_slice(hash.finalize(), &mut accept);
    accept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{HeadLimits, parse_request};

    const GOOD: [&str; 4] = [
        "Upgrade: websocket",
        "Connection: keep-alive, Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ];

    fn check(start: &str, lines: &[&str]) -> Result<String, UpgradeError> {
        let head = format!("{start}\r\nHost: a\r\n{}\r\n\r\n", lines.join("\r\n"));
        let limits = HeadLimits { max_bytes: 4096, max_headers: 40 };
        let parsed = parse_request(head.as_bytes(), &limits).unwrap().unwrap();
        check_upgrade(&parsed, head.as_bytes()).map(|upgrade| {
            let mut out = Vec::new();
            write_switch(&mut out, &upgrade, b"X: y\r\n");
            String::from_utf8(out).unwrap()
        })
    }

    /// The good request with one line replaced, or left out where `by` is empty.
    fn with(place: usize, by: &str) -> Result<String, UpgradeError> {
        let mut lines = GOOD.to_vec();
        lines[place] = by;
        lines.retain(|line| !line.is_empty());
        check("GET /ws HTTP/1.1", &lines)
    }

    #[test]
    fn the_standard_s_own_example_is_accepted() {
        let answer = check("GET /ws HTTP/1.1", &GOOD).unwrap();
        assert_eq!(
            answer,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nX: y\r\n\r\n"
        );
    }

    #[test]
    fn the_subprotocol_is_ours_or_none() {
        for (offer, expected) in [
            ("Sec-WebSocket-Protocol: mcp", Ok(true)),
            ("Sec-WebSocket-Protocol: other, mcp", Ok(true)),
            ("Sec-WebSocket-Protocol: other\r\nSec-WebSocket-Protocol: mcp", Ok(true)),
            ("Sec-WebSocket-Protocol: ,", Ok(false)),
            ("Sec-WebSocket-Protocol: other", Err(UpgradeError::Subprotocol)),
            ("Sec-WebSocket-Protocol: MCP", Err(UpgradeError::Subprotocol)),
        ] {
            let answer = check("GET /ws HTTP/1.1", &[&GOOD[..], &[offer]].concat());
            assert_eq!(
                answer.map(|answer| answer.contains("\r\nSec-WebSocket-Protocol: mcp\r\n")),
                expected,
                "{offer}"
            );
        }
    }

    #[test]
    fn what_is_missing_or_wrong_has_its_status() {
        for (found, error, status) in [
            (check("POST /ws HTTP/1.1", &GOOD), UpgradeError::Method, 405),
            (check("GET /ws HTTP/1.0", &GOOD), UpgradeError::Http10, 400),
            (with(0, ""), UpgradeError::NoUpgrade, 426),
            (with(0, "Upgrade: h2c"), UpgradeError::NoUpgrade, 426),
            (with(1, ""), UpgradeError::NoUpgrade, 426),
            (with(1, "Connection: keep-alive"), UpgradeError::NoUpgrade, 426),
            (with(3, ""), UpgradeError::Version, 426),
            (with(3, "Sec-WebSocket-Version: 8"), UpgradeError::Version, 426),
            (with(3, "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8"), UpgradeError::Version, 426),
            (with(2, ""), UpgradeError::Key, 400),
            (with(2, "Sec-WebSocket-Key: c2hvcnQ="), UpgradeError::Key, 400),
            (with(2, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"), UpgradeError::Key, 400),
            (with(2, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j%Q=="), UpgradeError::Key, 400),
            (with(0, "Upgrade: websocket\r\nContent-Length: 1"), UpgradeError::HasBody, 400),
        ] {
            assert_eq!(found, Err(error));
            assert_eq!(error.status(), status, "{error}");
            assert_eq!(!error.fields().is_empty(), status != 400);
        }
    }
}
