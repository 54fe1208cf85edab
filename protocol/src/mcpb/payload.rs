//! Owns the JSON payloads that MCPB itself defines: version negotiation, control, health checks, the per-message
//! authentication wrapper, the login token.
//!
//! Unknown members are free, so that later clients can say more; a member that is read stands once.

use super::{FrameError, VERSION};
use crate::jsonrpc::{Scan, as_string, for_each_element, for_each_member};
use crate::{Span, StrSpan};

/// The most characters of a token.
pub const MAX_TOKEN_LEN: usize = 4096;

/// The most entries of `supported_versions`.
const MAX_VERSIONS: usize = 16;

/// The client's VersionNegotiation payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VersionNegotiation {
    /// The lowest version that the client speaks.
    pub min_version: u16,
    /// The highest version that the client speaks.
    pub max_version: u16,
    /// The version that the client would like.
    pub preferred_version: u16,
    /// The versions that the client speaks, at most 16 of them; empty when it named none.
    pub supported_versions: Vec<u16>,
}

impl VersionNegotiation {
    /// What this side would send.
    pub fn ours() -> Self {
        Self {
            min_version: VERSION,
            max_version: VERSION,
            preferred_version: VERSION,
            supported_versions: vec![VERSION],
        }
    }

    /// Parses a VersionNegotiation payload. `min_version` and `max_version` are required, the preference is the highest
    /// version when absent.
    ///
    /// # Errors
    /// [`FrameError::InvalidPayload`] or [`FrameError::NotUtf8`].
    pub fn parse(payload: &[u8]) -> Result<Self, FrameError> {
        let keys = ["min_version", "max_version", "preferred_version", "supported_versions"];
        let [min, max, preferred, supported] = members(payload, keys)?;
        let number = |value: Option<Span>, expected| match value {
            Some(value) => version_number(value.of(payload)).ok_or(invalid(expected)).map(Some),
            None => Ok(None),
        };
        let min_version = number(min, "a number as min_version")?.ok_or(invalid("min_version"))?;
        let max_version = number(max, "a number as max_version")?.ok_or(invalid("max_version"))?;
        let preferred_version = number(preferred, "a number as preferred_version")?.unwrap_or(max_version);
        if min_version > max_version {
            return Err(invalid("min_version up to max_version"));
        }
        let supported_versions = match supported {
            Some(list) => version_list(list.of(payload))?,
            None => Vec::new(),
        };
        Ok(Self { min_version, max_version, preferred_version, supported_versions })
    }

    /// Appends the payload.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        for (key, version) in [
            ("{\"min_version\":", self.min_version),
            (",\"max_version\":", self.max_version),
            (",\"preferred_version\":", self.preferred_version),
        ] {
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(digits.format(version).as_bytes());
        }
        out.extend_from_slice(b",\"supported_versions\":[");
        for (index, &version) in self.supported_versions.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(digits.format(version).as_bytes());
        }
        out.extend_from_slice(b"]}");
    }

    /// The version to agree on. Where the client lists its versions the list decides, else its range.
    ///
    /// # Errors
    /// [`FrameError::NoCommonVersion`].
    pub fn agree(&self) -> Result<u16, FrameError> {
        let (min, max) = (self.min_version, self.max_version);
        let in_range = (min..=max).contains(&VERSION);
        if in_range && (self.supported_versions.is_empty() || self.supported_versions.contains(&VERSION)) {
            return Ok(VERSION);
        }
        Err(FrameError::NoCommonVersion { ours: VERSION, min, max })
    }
}

/// Appends a VersionAck payload: `{"agreed_version":1}`.
pub fn write_version_ack(out: &mut Vec<u8>, agreed_version: u16) {
    out.extend_from_slice(b"{\"agreed_version\":");
    out.extend_from_slice(itoa::Buffer::new().format(agreed_version).as_bytes());
    out.push(b'}');
}

/// Parses a VersionAck payload into the version agreed on.
///
/// # Errors
/// [`FrameError::InvalidPayload`] or [`FrameError::NotUtf8`].
pub fn parse_version_ack(payload: &[u8]) -> Result<u16, FrameError> {
    let [agreed] = members(payload, ["agreed_version"])?;
    agreed.and_then(|value| version_number(value.of(payload))).ok_or(invalid("a number as agreed_version"))
}

/// Control payloads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// `{"command": "shutdown"}`: no new requests.
    Shutdown,
    /// `{"command": "shutdown_ack", "status": "ok"}`.
    ShutdownAck,
}

impl Control {
    /// Parses a Control payload.
    ///
    /// # Errors
    /// [`FrameError::InvalidPayload`] or [`FrameError::NotUtf8`].
    pub fn parse(payload: &[u8]) -> Result<Self, FrameError> {
        let [command] = members(payload, ["command"])?;
        let is = |name| is_string(payload, command, name);
        if is("shutdown") {
            return Ok(Self::Shutdown);
        }
        if is("shutdown_ack") {
            return Ok(Self::ShutdownAck);
        }
        Err(invalid("command \"shutdown\" or \"shutdown_ack\""))
    }

    /// The payload.
    pub fn payload(self) -> &'static [u8] {
        match self {
            Self::Shutdown => br#"{"command":"shutdown"}"#,
            Self::ShutdownAck => br#"{"command":"shutdown_ack","status":"ok"}"#,
        }
    }
}

/// What a HealthCheck asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HealthCheck {
    /// Empty payload.
    Empty,
    /// `{"check": "simple"}`.
    Simple,
    /// `{"check": "detailed"}`.
    Detailed,
}

impl HealthCheck {
    /// Parses a HealthCheck payload.
    ///
    /// # Errors
    /// [`FrameError::InvalidPayload`] or [`FrameError::NotUtf8`].
    pub fn parse(payload: &[u8]) -> Result<Self, FrameError> {
        if payload.is_empty() {
            return Ok(Self::Empty);
        }
        let [check] = members(payload, ["check"])?;
        let is = |name| is_string(payload, check, name);
        if is("simple") {
            return Ok(Self::Simple);
        }
        if is("detailed") {
            return Ok(Self::Detailed);
        }
        Err(invalid("nothing, or check \"simple\" or \"detailed\""))
    }
}

/// A Request payload of per-message authentication: `{"auth_token": "…", "request": { … }}`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuthWrapper {
    /// `auth_token`.
    pub auth_token: StrSpan,
    /// The raw `request`.
    pub request: Span,
}

impl AuthWrapper {
    /// Parses the wrapper; `None` when the payload is something else (a bare JSON-RPC message, or no JSON at all, which
    /// the scan of the message will tell).
    ///
    /// # Errors
    /// [`FrameError`], when it is a wrapper, but a wrong one.
    pub fn parse(payload: &[u8]) -> Result<Option<Self>, FrameError> {
        let [token, request, version] = match members(payload, ["auth_token", "request", "jsonrpc"]) {
            Ok(found) => found,
            Err(error @ FrameError::InvalidPayload { expected: NO_DUPLICATES }) => return Err(error),
            Err(_) => return Ok(None),
        };
        if token.is_none() && request.is_none() {
            return Ok(None);
        }
        let (Some(token), Some(request), None) = (token, request, version) else {
            // A JSON-RPC message may have members of these names; a wrapper has both of them and no version.
            return if version.is_some() { Ok(None) } else { Err(invalid("auth_token and request")) };
        };
        let auth_token = as_string(payload, token).ok_or(invalid("a string as auth_token"))?;
        check_token(payload, auth_token)?;
        if request.of(payload).first() != Some(&b'{') {
            return Err(invalid("an object as request"));
        }
        Ok(Some(Self { auth_token, request }))
    }
}

/// `params.token` of an `initialize` request; the span is an offset into the payload that was scanned.
///
/// # Errors
/// [`FrameError::InvalidPayload`] when it stands twice or is no string, [`FrameError::TokenTooLong`].
pub fn login_token(payload: &[u8], scan: &Scan) -> Result<Option<StrSpan>, FrameError> {
    let Some(params) = scan.params else { return Ok(None) };
    let [token] = members(params.of(payload), ["token"])?;
    let Some(token) = token else { return Ok(None) };
    let token = Span { start: params.start + token.start, end: params.start + token.end };
    let token = as_string(payload, token).ok_or(invalid("a string as token"))?;
    check_token(payload, token)?;
    Ok(Some(token))
}

/// Whether a method has only the characters that MCPB allows: `[A-Za-z0-9._/-]`.
pub fn is_valid_method(method: &[u8]) -> bool {
    method.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b'-'))
}

const NO_DUPLICATES: &str = "no duplicate members";

const fn invalid(expected: &'static str) -> FrameError {
    FrameError::InvalidPayload { expected }
}

/// The raw values of these members of the object that `payload` is.
fn members<const N: usize>(payload: &[u8], keys: [&str; N]) -> Result<[Option<Span>; N], FrameError> {
    if let Err(error) = std::str::from_utf8(payload) {
        return Err(FrameError::NotUtf8 { offset: error.valid_up_to() });
    }
    let mut found = [None; N];
    let mut repeated = false;
    let is_object = for_each_member(payload, |key, value| {
        if let Some(index) = keys.iter().position(|wanted| key.eq_str(payload, wanted)) {
            repeated |= found[index].replace(value).is_some();
        }
    });
    match is_object {
        Ok(true) if repeated => Err(invalid(NO_DUPLICATES)),
        Ok(true) => Ok(found),
        Ok(false) | Err(_) => Err(invalid("a JSON object")),
    }
}

fn is_string(payload: &[u8], value: Option<Span>, wanted: &str) -> bool {
    value.and_then(|value| as_string(payload, value)).is_some_and(|text| text.eq_str(payload, wanted))
}

/// A token's raw contents bound its characters; an escaped one may not be longer either.
fn check_token(payload: &[u8], token: StrSpan) -> Result<(), FrameError> {
    if token.span.len() > MAX_TOKEN_LEN && token.decode(payload).chars().count() > MAX_TOKEN_LEN {
        return Err(FrameError::TokenTooLong { limit: MAX_TOKEN_LEN });
    }
    Ok(())
}

fn version_number(value: &[u8]) -> Option<u16> {
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok()
}

fn version_list(list: &[u8]) -> Result<Vec<u16>, FrameError> {
    let mut versions = Vec::new();
    let mut valid = true;
    let is_array = for_each_element(list, |item| match version_number(item.of(list)) {
        Some(version) if versions.len() < MAX_VERSIONS => versions.push(version),
        Some(_) | None => valid = false,
    });
    if is_array == Ok(true) && valid {
        return Ok(versions);
    }
    Err(invalid("an array of at most 16 numbers as supported_versions"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::{Payload, ScanLimits, scan};

    #[test]
    fn negotiation_reads_what_it_writes_and_what_clients_send() {
        let text = br#"{"min_version":1,"max_version":1,"preferred_version":1,"supported_versions":[1]}"#;
        let mut out = Vec::new();
        VersionNegotiation::ours().write(&mut out);
        assert_eq!(out, text);
        assert_eq!(VersionNegotiation::parse(text), Ok(VersionNegotiation::ours()));
        for (text, agreed) in [
            (r#"{"min_version":1,"max_version":1}"#, Ok(1)),
            (r#" { "max_version" : 3 , "min_version" : 0 , "x" : [{}] } "#, Ok(1)),
            (r#"{"min_version":1,"max_version":3,"supported_versions":[ 1 , 3 ]}"#, Ok(1)),
            (
                r#"{"min_version":1,"max_version":3,"supported_versions":[2,3]}"#,
                Err(FrameError::NoCommonVersion { ours: 1, min: 1, max: 3 }),
            ),
            (
                r#"{"min_version":2,"max_version":3,"preferred_version":2}"#,
                Err(FrameError::NoCommonVersion { ours: 1, min: 2, max: 3 }),
            ),
        ] {
            assert_eq!(VersionNegotiation::parse(text.as_bytes()).unwrap().agree(), agreed, "{text}");
        }
    }

    #[test]
    fn wrong_negotiations_are_invalid_payloads() {
        let many =
            format!(r#"{{"min_version":1,"max_version":1,"supported_versions":[{}1]}}"#, "1,".repeat(16));
        for text in [
            "",
            "[]",
            "{",
            "{}",
            r#"{"min_version":1}"#,
            r#"{"min_version":"1","max_version":1}"#,
            r#"{"min_version":1.0,"max_version":1}"#,
            r#"{"min_version":-1,"max_version":1}"#,
            r#"{"min_version":1,"max_version":65536}"#,
            r#"{"min_version":2,"max_version":1}"#,
            r#"{"min_version":1,"max_version":1,"min_version":1}"#,
            r#"{"min_version":1,"max_version":1,"supported_versions":1}"#,
            r#"{"min_version":1,"max_version":1,"supported_versions":[[1]]}"#,
            &many,
        ] {
            let error = VersionNegotiation::parse(text.as_bytes()).expect_err(text);
            assert_eq!(error.label(), "invalid_payload", "{text}");
        }
        let error = VersionNegotiation::parse(b"{\"a\":\"\xff\"}").unwrap_err();
        assert_eq!((error, error.label()), (FrameError::NotUtf8 { offset: 6 }, "not_utf8"));
    }

    #[test]
    fn acknowledgements_round_trip() {
        let mut out = Vec::new();
        write_version_ack(&mut out, 1);
        assert_eq!(out, br#"{"agreed_version":1}"#);
        assert_eq!(parse_version_ack(&out), Ok(1));
        assert!(parse_version_ack(br#"{"agreed_version":"1"}"#).is_err());
        assert!(parse_version_ack(b"{}").is_err());
    }

    #[test]
    fn controls_and_checks() {
        for control in [Control::Shutdown, Control::ShutdownAck] {
            assert_eq!(Control::parse(control.payload()), Ok(control));
        }
        assert_eq!(Control::parse(br#"{"x":1,"command":"shutdown"}"#), Ok(Control::Shutdown));
        for wrong in ["", "{}", r#"{"command":1}"#, r#"{"command":"reboot"}"#, r#""shutdown""#] {
            assert!(Control::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert_eq!(HealthCheck::parse(b""), Ok(HealthCheck::Empty));
        assert_eq!(HealthCheck::parse(br#"{"check": "simple"}"#), Ok(HealthCheck::Simple));
        assert_eq!(HealthCheck::parse(br#"{"check": "detailed"}"#), Ok(HealthCheck::Detailed));
        for wrong in [" ", "{}", r#"{"check":"deep"}"#, r#"{"check":"simple","check":"simple"}"#] {
            assert!(HealthCheck::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_wrapper_is_told_from_a_bare_message() {
        let text = br#" {"auth_token": "a\nb", "request": {"jsonrpc":"2.0","id":1,"method":"ping"} }"#;
        let wrapper = AuthWrapper::parse(text).unwrap().unwrap();
        assert_eq!(wrapper.auth_token.decode(text), "a\nb");
        assert_eq!(wrapper.request.of(text), br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
        for bare in [
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","request":{},"auth_token":"x"}"#,
            r#"[{"auth_token":"x","request":{}}]"#,
            "{}",
            "nonsense",
            "",
        ] {
            assert_eq!(AuthWrapper::parse(bare.as_bytes()), Ok(None), "{bare}");
        }
        let long = format!(r#"{{"auth_token":"{}","request":{{}}}}"#, "x".repeat(MAX_TOKEN_LEN + 1));
        for (wrong, label) in [
            (r#"{"auth_token":"x"}"#, "invalid_payload"),
            (r#"{"request":{}}"#, "invalid_payload"),
            (r#"{"auth_token":1,"request":{}}"#, "invalid_payload"),
            (r#"{"auth_token":"x","request":[]}"#, "invalid_payload"),
            (r#"{"auth_token":"x","request":{},"request":{}}"#, "invalid_payload"),
            (r#"{"auth_token":"x","auth\u005ftoken":"y","request":{}}"#, "invalid_payload"),
            (&long, "token_too_long"),
        ] {
            assert_eq!(AuthWrapper::parse(wrong.as_bytes()).expect_err(wrong).label(), label, "{wrong}");
        }
    }

    #[test]
    fn the_login_token_is_found_in_the_params() {
        let token = |text: &str| {
            let Ok(Payload::Single(scan)) = scan(text.as_bytes(), &ScanLimits::default()) else {
                panic!("{text}")
            };
            login_token(text.as_bytes(), &scan).map(|t| t.map(|t| t.decode(text.as_bytes()).into_owned()))
        };
        let with =
            |params: &str| token(&format!(r#" {{"jsonrpc":"2.0","id":1,"method":"initialize"{params}}}"#));
        assert_eq!(with(""), Ok(None));
        assert_eq!(with(r#","params":{}"#), Ok(None));
        assert_eq!(
            with(r#","params":{"capabilities":{"token":"no"},"token":"s\u0065cret"}"#).unwrap().unwrap(),
            "secret"
        );
        assert!(with(r#","params":{"token":null}"#).is_err());
        assert!(with(r#","params":{"token":"a","token":"b"}"#).is_err());
        let fits = "é".repeat(MAX_TOKEN_LEN);
        assert!(with(&format!(r#","params":{{"token":"{fits}"}}"#)).is_ok());
        let error = with(&format!(r#","params":{{"token":"{fits}x"}}"#)).unwrap_err();
        assert_eq!(error, FrameError::TokenTooLong { limit: MAX_TOKEN_LEN });
    }

    #[test]
    fn methods_have_few_characters() {
        assert!(is_valid_method(b"notifications/tools/list_changed"));
        assert!(is_valid_method(b"A-z.0"));
        for wrong in [&b"a b"[..], b"a:b", "é".as_bytes(), b"a\0"] {
            assert!(!is_valid_method(wrong), "{wrong:?}");
        }
    }
}
