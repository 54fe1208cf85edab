//! Owns the header/body rules of 2026-07-28 (streamable-http.mdx, "Request Metadata" and "Server Validation";
//! basic/index.mdx, "`_meta`").

use std::borrow::Cow;
use std::fmt;

use thiserror::Error;

use super::Revision;
use super::value::{InvalidValue, decode_value};
use crate::StrSpan;
use crate::jsonrpc::{INVALID_REQUEST, Kind, Scan, write_json_string};

/// Headers and body disagree, or a required header is absent or malformed.
pub const HEADER_MISMATCH: i64 = -32020;
/// The revision is not one that the server supports.
pub const UNSUPPORTED_VERSION: i64 = -32022;
/// JSON-RPC 2.0: invalid parameters; for MCP also a missing required `_meta` field.
pub const INVALID_PARAMS: i64 = -32602;

/// The request headers that mirror the body, as sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MirroredHeaders<'a> {
    /// `MCP-Protocol-Version`.
    pub protocol_version: Option<&'a [u8]>,
    /// `Mcp-Method`.
    pub method: Option<&'a [u8]>,
    /// `Mcp-Name`.
    pub name: Option<&'a [u8]>,
}

/// How a header differs from the body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mismatch {
    /// The header is required and absent.
    Missing,
    /// The header is there, the body has no value for it.
    Unexpected,
    /// The header stands twice.
    Repeated,
    /// The body has the value's key twice.
    Ambiguous,
    /// The header's value stands for nothing.
    Invalid(InvalidValue),
    /// The two values, each shortened to 64 characters.
    Different {
        /// The header's, decoded.
        header: String,
        /// The body's.
        body: String,
    },
}

/// A broken rule of the modern era. All of them answer status 400.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ModernError {
    /// A header does not mirror the body.
    #[error("Header mismatch: {header} {mismatch}")]
    HeaderMismatch {
        /// The header's canonical name.
        header: Cow<'static, str>,
        /// What is wrong with it.
        mismatch: Mismatch,
    },
    /// Header and body agree on a revision that is not supported.
    #[error("Unsupported protocol version: {requested}")]
    UnsupportedVersion {
        /// The revision asked for, shortened to 64 characters.
        requested: String,
        /// The revisions that would do.
        supported: Vec<Revision>,
    },
    /// A required `_meta` field is absent or of the wrong type.
    #[error("Invalid params: _meta field {key} is missing or of the wrong type")]
    MissingMeta {
        /// The field's key.
        key: &'static str,
    },
    /// A client sent a response; the modern era has none from clients.
    #[error("Invalid request: a client must not send a response")]
    ResponseFromClient,
}

impl ModernError {
    /// The JSON-RPC error code.
    pub fn code(&self) -> i64 {
        match self {
            Self::HeaderMismatch { .. } => HEADER_MISMATCH,
            Self::UnsupportedVersion { .. } => UNSUPPORTED_VERSION,
            Self::MissingMeta { .. } => INVALID_PARAMS,
            Self::ResponseFromClient => INVALID_REQUEST,
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        400
    }

    /// The JSON-RPC error message; plain text, not escaped.
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// The JSON text of the error's `data`, for the errors that have some.
    pub fn data(&self) -> Option<String> {
        let Self::UnsupportedVersion { requested, supported } = self else { return None };
        let mut data = b"{\"supported\":[".to_vec();
        for (index, revision) in supported.iter().enumerate() {
            if index > 0 {
                data.push(b',');
            }
            write_json_string(&mut data, revision.as_str());
        }
        data.extend_from_slice(b"],\"requested\":");
        write_json_string(&mut data, requested);
        data.push(b'}');
        String::from_utf8(data).ok()
    }

    pub(super) fn mismatch(header: impl Into<Cow<'static, str>>, mismatch: Mismatch) -> Self {
        Self::HeaderMismatch { header: header.into(), mismatch }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("required header is missing"),
            Self::Unexpected => f.write_str("header is present but the body has no such value"),
            Self::Repeated => f.write_str("header is repeated"),
            Self::Ambiguous => f.write_str("body has the value's key twice"),
            Self::Invalid(reason) => write!(f, "header value {reason}"),
            Self::Different { header, body } => {
                write!(f, "header value '{header}' does not match body value '{body}'")
            }
        }
    }
}

const PROTOCOL_VERSION_HEADER: &str = "MCP-Protocol-Version";
const METHOD_HEADER: &str = "Mcp-Method";
const NAME_HEADER: &str = "Mcp-Name";

/// Checks a client's message against its headers and the revisions that are supported. The order of the checks: version
/// header present, version field present, both equal, supported, then method, name, and the other required fields.
/// Notifications are held to the version only (the revision defines no more for them).
///
/// # Errors
/// The first rule that is broken.
pub fn check_modern(
    headers: &MirroredHeaders<'_>,
    body: &[u8],
    scan: &Scan,
    supported: &[Revision],
) -> Result<(), ModernError> {
    if scan.kind == Kind::Response {
        return Err(ModernError::ResponseFromClient);
    }
    check_version(headers, body, scan, supported)?;
    if scan.kind == Kind::Notification {
        return Ok(());
    }
    let Some(method) = headers.method else {
        return Err(ModernError::mismatch(METHOD_HEADER, Mismatch::Missing));
    };
    compare(METHOD_HEADER, plain(METHOD_HEADER, method)?, body, scan.method)?;
    check_name(headers, body, scan)?;
    if scan.meta_client_capabilities.is_none() {
        return Err(ModernError::MissingMeta { key: "io.modelcontextprotocol/clientCapabilities" });
    }
    Ok(())
}

fn check_version(
    headers: &MirroredHeaders<'_>,
    body: &[u8],
    scan: &Scan,
    supported: &[Revision],
) -> Result<(), ModernError> {
    let Some(version) = headers.protocol_version else {
        return Err(ModernError::mismatch(PROTOCOL_VERSION_HEADER, Mismatch::Missing));
    };
    let version = plain(PROTOCOL_VERSION_HEADER, version)?;
    if scan.meta_protocol_version.is_some() {
        compare(PROTOCOL_VERSION_HEADER, version, body, scan.meta_protocol_version)?;
    } else if scan.kind == Kind::Request {
        return Err(ModernError::MissingMeta { key: "io.modelcontextprotocol/protocolVersion" });
    }
    if Revision::parse(version).is_some_and(|revision| supported.contains(&revision)) {
        return Ok(());
    }
    Err(ModernError::UnsupportedVersion { requested: shortened(version), supported: supported.to_vec() })
}

/// `Mcp-Name` is required by three methods. Others may send it; it must then be right where the body has such a value.
fn check_name(headers: &MirroredHeaders<'_>, body: &[u8], scan: &Scan) -> Result<(), ModernError> {
    let is = |name| scan.method.is_some_and(|method| method.eq_str(body, name));
    let (required, value) = if is("tools/call") || is("prompts/get") {
        (true, scan.name)
    } else if is("resources/read") {
        (true, scan.uri)
    } else {
        (false, scan.name.or(scan.uri))
    };
    match headers.name {
        None if required => Err(ModernError::mismatch(NAME_HEADER, Mismatch::Missing)),
        Some(name) if required || value.is_some() => {
            let name = decode_value(name)
                .map_err(|reason| ModernError::mismatch(NAME_HEADER, Mismatch::Invalid(reason)))?;
            compare(NAME_HEADER, &name, body, value)
        }
        Some(_) | None => Ok(()),
    }
}

/// A header value that has no encoding.
fn plain<'a>(header: &'static str, value: &'a [u8]) -> Result<&'a [u8], ModernError> {
    if value.iter().all(|&b| matches!(b, b'\t' | 0x20..=0x7E)) {
        return Ok(value);
    }
    Err(ModernError::mismatch(header, Mismatch::Invalid(InvalidValue::Character)))
}

fn compare(
    header: &'static str,
    header_value: &[u8],
    body: &[u8],
    value: Option<StrSpan>,
) -> Result<(), ModernError> {
    let Some(value) = value else { return Err(ModernError::mismatch(header, Mismatch::Unexpected)) };
    if std::str::from_utf8(header_value).is_ok_and(|header_value| value.eq_str(body, header_value)) {
        return Ok(());
    }
    let (header_value, value) = (shortened(header_value), shortened(value.decode(body).as_bytes()));
    Err(ModernError::mismatch(header, Mismatch::Different { header: header_value, body: value }))
}

/// The start of a value, for error messages.
pub(super) fn shortened(value: &[u8]) -> String {
    /// The most characters of a value that a message repeats.
    const MAX_CHARS: usize = 64;
    /// UTF-8 needs no more for a character.
    const MAX_BYTES: usize = MAX_CHARS * 4;
    String::from_utf8_lossy(&value[..value.len().min(MAX_BYTES)]).chars().take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::{Payload, ScanLimits, scan};

    const META: &str = concat!(
        r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
        r#""io.modelcontextprotocol/clientCapabilities":{}}"#
    );

    fn request(method: &str, params: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}}}}}"#)
    }

    fn check(
        version: Option<&str>,
        method: Option<&str>,
        name: Option<&str>,
        body: &str,
    ) -> Result<(), ModernError> {
        let Ok(Payload::Single(scan)) = scan(body.as_bytes(), &ScanLimits::default()) else {
            panic!("{body}")
        };
        let headers = MirroredHeaders {
            protocol_version: version.map(str::as_bytes),
            method: method.map(str::as_bytes),
            name: name.map(str::as_bytes),
        };
        check_modern(&headers, body.as_bytes(), &scan, Revision::MODERN)
    }

    #[test]
    fn requests_whose_headers_mirror_the_body_pass() {
        let version = Some("2026-07-28");
        for (method, name, params) in [
            ("tools/list", None, META.to_owned()),
            ("tools/call", Some("get_weather"), format!(r#""name":"get_weather",{META}"#)),
            ("tools/call", Some("get_weather"), format!(r#""n\u0061me":"get\u005fweather",{META}"#)),
            ("prompts/get", Some("=?base64?5LiW55WM?="), format!(r#""name":"世界",{META}"#)),
            ("resources/read", Some("file:///a"), format!(r#""uri":"file:///a","name":"other",{META}"#)),
            ("tools/list", Some("whatever"), META.to_owned()),
            ("x/y", Some("n"), format!(r#""name":"n",{META}"#)),
        ] {
            let body = request(method, &params);
            assert_eq!(check(version, Some(method), name, &body), Ok(()), "{body}");
        }
    }

    #[test]
    fn broken_rules_are_told_in_their_order() {
        let version = Some("2026-07-28");
        let call = request("tools/call", &format!(r#""name":"bar",{META}"#));
        let nameless = request("tools/call", META);
        let future = call.replace("2026-07-28", "2027-01-01");
        let legacy = call.replace("2026-07-28", "2025-11-25");
        let no_version = call.replace("protocolVersion", "x");
        let no_capabilities = call.replace("clientCapabilities", "x");
        let wrong_capabilities = call.replace(":{}}", ":[]}");
        let list = request("tools/list", META);
        let long_name = "é".repeat(100);
        for (headers, body, code, message) in [
            (
                (None, None, None),
                &call,
                -32020,
                "Header mismatch: MCP-Protocol-Version required header is missing",
            ),
            (
                (Some("2025-11-25"), None, None),
                &call,
                -32020,
                "Header mismatch: MCP-Protocol-Version header value '2025-11-25' does not match body value '2026-07-28'",
            ),
            ((Some("2027-01-01"), None, None), &future, -32022, "Unsupported protocol version: 2027-01-01"),
            ((Some("2025-11-25"), None, None), &legacy, -32022, "Unsupported protocol version: 2025-11-25"),
            (
                (version, None, None),
                &no_version,
                -32602,
                "Invalid params: _meta field io.modelcontextprotocol/protocolVersion is missing or of the wrong type",
            ),
            ((version, None, None), &call, -32020, "Header mismatch: Mcp-Method required header is missing"),
            (
                (version, Some("tools/list"), None),
                &call,
                -32020,
                "Header mismatch: Mcp-Method header value 'tools/list' does not match body value 'tools/call'",
            ),
            (
                (version, Some("Tools/Call"), Some("bar")),
                &call,
                -32020,
                "Header mismatch: Mcp-Method header value 'Tools/Call' does not match body value 'tools/call'",
            ),
            (
                (version, Some("=?base64?dG9vbHMvY2FsbA==?="), Some("bar")),
                &call,
                -32020,
                concat!(
                    "Header mismatch: Mcp-Method header value '=?base64?dG9vbHMvY2FsbA==?=' does not match ",
                    "body value 'tools/call'"
                ),
            ),
            (
                (version, Some("tools/call"), None),
                &call,
                -32020,
                "Header mismatch: Mcp-Name required header is missing",
            ),
            (
                (version, Some("tools/call"), Some("foo")),
                &call,
                -32020,
                "Header mismatch: Mcp-Name header value 'foo' does not match body value 'bar'",
            ),
            (
                (version, Some("tools/call"), Some("=?base64?YmFy?")),
                &call,
                -32020,
                "Header mismatch: Mcp-Name header value '=?base64?YmFy?' does not match body value 'bar'",
            ),
            (
                (version, Some("tools/call"), Some("=?base64?YmF?=")),
                &call,
                -32020,
                "Header mismatch: Mcp-Name header value is not valid base64",
            ),
            (
                (version, Some("tools/call"), Some(&long_name)),
                &call,
                -32020,
                "Header mismatch: Mcp-Name header value contains a character that is not allowed",
            ),
            (
                (version, Some("tools/call"), Some("foo")),
                &nameless,
                -32020,
                "Header mismatch: Mcp-Name header is present but the body has no such value",
            ),
            (
                (version, Some("tools/call"), Some("bar")),
                &no_capabilities,
                -32602,
                "Invalid params: _meta field io.modelcontextprotocol/clientCapabilities is missing or of the wrong type",
            ),
            (
                (version, Some("tools/call"), Some("bar")),
                &wrong_capabilities,
                -32602,
                "Invalid params: _meta field io.modelcontextprotocol/clientCapabilities is missing or of the wrong type",
            ),
            (
                (version, Some("tools/list\u{e9}"), None),
                &list,
                -32020,
                "Header mismatch: Mcp-Method header value contains a character that is not allowed",
            ),
        ] {
            let (version, method, name) = headers;
            let error = check(version, method, name, body).expect_err(message);
            assert_eq!((error.code(), error.status(), error.message().as_str()), (code, 400, message));
            assert_eq!(error.data().is_some(), code == UNSUPPORTED_VERSION);
        }
    }

    #[test]
    fn notifications_are_held_to_the_version_only() {
        let bare = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
        assert_eq!(check(Some("2026-07-28"), None, None, bare), Ok(()));
        assert_eq!(check(None, None, None, bare).unwrap_err().code(), HEADER_MISMATCH);
        assert_eq!(check(Some("1"), None, None, bare).unwrap_err().code(), UNSUPPORTED_VERSION);
        let other = concat!(
            r#"{"jsonrpc":"2.0","method":"n","params":{"_meta":"#,
            r#"{"io.modelcontextprotocol/protocolVersion":"2025-11-25"}}}"#
        );
        assert_eq!(check(Some("2026-07-28"), None, None, other).unwrap_err().code(), HEADER_MISMATCH);
        let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        let error = check(Some("2026-07-28"), None, None, response).unwrap_err();
        assert_eq!((error.code(), error.data()), (INVALID_REQUEST, None));
    }

    #[test]
    fn an_unsupported_version_lists_what_would_do() {
        let error = ModernError::UnsupportedVersion {
            requested: "\"x".to_owned(),
            supported: vec![Revision::V2025_11_25, Revision::V2026_07_28],
        };
        assert_eq!(error.data().unwrap(), r#"{"supported":["2025-11-25","2026-07-28"],"requested":"\"x"}"#);
    }

    #[test]
    fn values_are_shortened_by_characters() {
        assert_eq!(shortened("é".repeat(100).as_bytes()), "é".repeat(64));
        assert_eq!(shortened(&[0xFF; 300]).chars().count(), 64);
        assert_eq!(shortened(b"short"), "short");
    }
}
