//! From a frame's payload to a message: owns the per-message wrapper, the login's own members and MCPB's limits on what
//! a message says. Never the connection, never an answer.

use std::rc::Rc;

use mcp_protocol::StrSpan;
use mcp_protocol::jsonrpc::{Kind, Payload, ScanError, ScanLimits, scan};
use mcp_protocol::mcpb::{AuthWrapper, FrameError, is_valid_method, login_token};

use super::login::{bare_initialize, without_member};
use crate::door::framed;
use crate::respond::Refusal;

/// What a Request or Response frame holds.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it lives as long as a call, and a box would cost every message"
)]
pub(super) enum Read {
    Message(Message),
    /// No message: the sender is told by a Response frame, with its raw id where one was seen.
    Refused(Refusal, Option<Vec<u8>>),
}

/// A message, stripped of what is the gateway's own.
pub(super) type Message = framed::Message<Login>;

/// What an `initialize` brings about when it succeeds.
#[derive(Debug)]
pub(crate) struct Login {
    pub(super) kind: LoginKind,
    pub(super) authorization: Option<Rc<str>>,
}

/// The two forms of `initialize` (wire protocol, "Order on a connection", 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoginKind {
    /// With the MCP fields: the client speaks MCP's own handshake.
    Mcp,
    /// Without: the gateway makes the handshake with the server on the client's behalf.
    Bare,
}

/// Reads a Request frame's payload: a bare message or the wrapper `{"auth_token", "request"}`.
///
/// # Errors
/// [`FrameError`] where the wrapper, a token, the id or the method breaks a limit, or the text is not UTF-8: the
/// connection ends. JSON that is no message is [`Read::Refused`] instead.
pub(super) fn read_request(mut payload: Vec<u8>) -> Result<Read, FrameError> {
    let limits = ScanLimits::default();
    let mut authorization = None;
    let mut found = scan(&payload, &limits);
    // A JSON-RPC message is no wrapper whatever else it holds, so only what is none is looked at as one.
    if found.is_err()
        && let Some(wrapper) = AuthWrapper::parse(&payload)?
    {
        authorization = credential(wrapper.auth_token, &payload)?;
        payload = wrapper.request.of(&payload).to_vec();
        found = scan(&payload, &limits);
    }
    let scan = match found {
        Ok(Payload::Single(scan)) => scan,
        Ok(Payload::Batch(_)) => return Ok(Read::Refused(Refusal::Batch, None)),
        Err(failure) => {
            let refusal = refusal(failure.error)?;
            return Ok(Read::Refused(refusal, failure.id.map(|id| id.of(&payload).to_vec())));
        }
    };
    if scan.kind == Kind::Response {
        return Err(FrameError::InvalidPayload { expected: "a JSON-RPC request or notification" });
    }
    if !scan.method.is_some_and(|method| is_valid_method(method.decode(&payload).as_bytes())) {
        return Err(METHOD);
    }
    let message = Message { body: payload, scan, authorization, login: None };
    if scan.kind == Kind::Request && message.is("initialize") {
        return read_login(message);
    }
    Ok(Read::Message(message))
}

/// Reads a Response frame's payload.
///
/// # Errors
/// [`FrameError`] for anything but one JSON-RPC response: there is nobody who could be told otherwise.
pub(super) fn read_response(payload: Vec<u8>) -> Result<Message, FrameError> {
    match scan(&payload, &ScanLimits::default()) {
        Ok(Payload::Single(scan)) if scan.kind == Kind::Response => {
            Ok(Message { body: payload, scan, authorization: None, login: None })
        }
        Err(failure) => {
            refusal(failure.error)?;
            Err(FrameError::InvalidPayload { expected: "a JSON-RPC response" })
        }
        Ok(_) => Err(FrameError::InvalidPayload { expected: "a JSON-RPC response" }),
    }
}

const METHOD: FrameError =
    FrameError::InvalidPayload { expected: "a method of 1 to 255 characters of [A-Za-z0-9._/-]" };

/// What breaks a limit of MCPB ends the connection; other errors are JSON-RPC's.
fn refusal(error: ScanError) -> Result<Refusal, FrameError> {
    match error {
        ScanError::NotUtf8 { offset } => Err(FrameError::NotUtf8 { offset }),
        ScanError::InvalidId { .. } => {
            Err(FrameError::InvalidPayload { expected: "an integer or at most 255 characters as id" })
        }
        ScanError::InvalidMethod { .. } => Err(METHOD),
        other => Ok(Refusal::Scan(other)),
    }
}

/// `initialize`: the token is the gateway's own member and leaves the params; the server gets it as `Authorization`.
fn read_login(message: Message) -> Result<Read, FrameError> {
    let Message { body, scan: found, mut authorization, .. } = message;
    let token = login_token(&body, &found)?;
    if let Some(token) = token {
        authorization = credential(token, &body)?;
    }
    let is_bare = found.init_protocol_version.is_none()
        && found.init_capabilities.is_none()
        && found.init_client_info.is_none();
    let (body, kind) = match (is_bare, token) {
        (true, _) => (bare_initialize(found.id.map(|id| id.of(&body)).unwrap_or_default()), LoginKind::Bare),
        (false, Some(token)) => (without_member(&body, token.span), LoginKind::Mcp),
        (false, None) => (body, LoginKind::Mcp),
    };
    match scan(&body, &ScanLimits::default()) {
        Ok(Payload::Single(scan)) => {
            let login = Some(Login { kind, authorization: authorization.clone() });
            Ok(Read::Message(Message { body, scan, authorization, login }))
        }
        Ok(Payload::Batch(_)) => Ok(Read::Refused(Refusal::Batch, None)),
        Err(failure) => Ok(Read::Refused(refusal(failure.error)?, None)),
    }
}

/// The `Authorization` value that a token stands for; none for an empty one. A token must not be able to end a header
/// line (RFC 6750, section 2.1, allows less still).
fn credential(token: StrSpan, payload: &[u8]) -> Result<Option<Rc<str>>, FrameError> {
    let token = token.decode(payload);
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(FrameError::InvalidPayload { expected: "a token of visible ASCII characters" });
    }
    Ok((!token.is_empty()).then(|| format!("Bearer {token}").into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &str) -> Message {
        match read_request(payload.as_bytes().to_vec()) {
            Ok(Read::Message(message)) => message,
            other => panic!("{payload}: {other:?}"),
        }
    }

    fn text(message: &Message) -> &str {
        std::str::from_utf8(&message.body).unwrap()
    }

    fn kind(message: &Message) -> Option<LoginKind> {
        message.login.as_ref().map(|login| login.kind)
    }

    #[test]
    fn a_bare_message_stays_as_it_is() {
        let payload = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","auth_token":"x","request":{}}"#;
        let message = message(payload);
        assert_eq!((text(&message), &message.authorization, kind(&message)), (payload, &None, None));
    }

    #[test]
    fn a_wrapper_is_taken_off_and_its_token_kept() {
        let message =
            message(r#"{"auth_token":"s3cr\u0065t","request": {"jsonrpc":"2.0","id":"a","method":"ping"} }"#);
        assert_eq!(text(&message), r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#);
        assert_eq!(message.authorization.as_deref(), Some("Bearer s3cret"));
        assert_eq!(message.scan.id.unwrap().of(&message.body), b"\"a\"");
    }

    #[test]
    fn a_login_loses_its_token_and_nothing_else() {
        let message = message(concat!(
            r#"{"method":"initialize","params":{"token":"t","protocolVersion":"2025-06-18"},"#,
            r#""jsonrpc":"2.0","id":1}"#
        ));
        let expected =
            r#"{"method":"initialize","params":{"protocolVersion":"2025-06-18"},"jsonrpc":"2.0","id":1}"#;
        assert_eq!((text(&message), kind(&message)), (expected, Some(LoginKind::Mcp)));
        assert_eq!(message.authorization.as_deref(), Some("Bearer t"));
    }

    #[test]
    fn a_bare_login_becomes_the_gateway_s_own_handshake() {
        for payload in [
            r#"{"method":"initialize","params":{"token":"t"},"jsonrpc":"2.0","id":"x"}"#,
            r#"{"method":"initialize","jsonrpc":"2.0","id":"x"}"#,
        ] {
            let message = message(payload);
            assert_eq!(kind(&message), Some(LoginKind::Bare));
            assert_eq!(message.scan.id.unwrap().of(&message.body), b"\"x\"");
            assert!(message.scan.init_protocol_version.is_some(), "{}", text(&message));
            assert_eq!(message.authorization.is_some(), payload.contains("token"));
        }
    }

    #[test]
    fn broken_limits_end_the_connection_and_broken_json_does_not() {
        let long = "x".repeat(256);
        let token = "t".repeat(4097);
        for (payload, label) in [
            (format!(r#"{{"jsonrpc":"2.0","id":"{long}","method":"ping"}}"#), "invalid_payload"),
            (format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{long}"}}"#), "invalid_payload"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"a$b"}"#.to_owned(), "invalid_payload"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.to_owned(), "invalid_payload"),
            (r#"{"auth_token":"a\r\nX: y","request":{}}"#.to_owned(), "invalid_payload"),
            (format!(r#"{{"auth_token":"{token}","request":{{}}}}"#), "token_too_long"),
            (
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"token":"{token}"}}}}"#),
                "token_too_long",
            ),
        ] {
            let error = read_request(payload.clone().into_bytes()).expect_err(&payload);
            assert_eq!(error.label(), label, "{payload}");
        }
        assert_eq!(read_request(b"{\"a\":\"\xff\"}".to_vec()).unwrap_err().label(), "not_utf8");
        for payload in ["{", "[]", "1", r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#] {
            assert!(matches!(read_request(payload.into()), Ok(Read::Refused(_, _))), "{payload}");
        }
    }

    #[test]
    fn only_a_response_is_one() {
        assert!(read_response(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#.to_vec()).is_ok());
        for payload in [&b"{"[..], br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, b"[]"] {
            assert_eq!(read_response(payload.to_vec()).unwrap_err().label(), "invalid_payload");
        }
    }
}
