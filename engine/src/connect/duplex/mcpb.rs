//! The binary protocol from the client's side: owns its frames and where a token goes. Version 1, byte for byte.

use mcp_protocol::jsonrpc::{INVALID_REQUEST, Kind, write_json_string};
use mcp_protocol::mcpb::{
    Control, FrameKind, HEADER_LEN, MAX_PAYLOAD, VersionNegotiation, is_valid_method, parse_header,
    parse_version_ack, write_frame,
};

use super::codec::{Codec, Event};
use crate::connect::message::{Fault, Message};

/// Room that the token and its wrapper take at most, escapes included: a token is at most 4096 bytes of visible ASCII.
const TOKEN_ROOM: usize = 2 * 4096 + 64;

/// Frames of one connection.
#[derive(Default)]
pub(in crate::connect) struct Mcpb {
    /// The version is agreed on.
    is_open: bool,
}

impl Codec for Mcpb {
    fn begin(&mut self, _token: Option<&str>, out: &mut Vec<u8>) {
        self.is_open = false;
        let mut payload = Vec::new();
        VersionNegotiation::ours().write(&mut payload);
        append(out, FrameKind::VersionNegotiation, &payload);
    }

    fn check(&self, message: &Message) -> Result<(), Fault> {
        let refused = |what: &str| Err(Fault::malformed(INVALID_REQUEST, what));
        if message.is_batch {
            return refused("MCPB carries no batches");
        }
        if message.body.len() + TOKEN_ROOM > MAX_PAYLOAD as usize {
            return refused("the message is longer than MCPB carries");
        }
        let method = message.single().and_then(|scan| scan.method);
        match method.is_none_or(|method| is_valid_method(method.decode(&message.body).as_bytes())) {
            true => Ok(()),
            false => refused("MCPB carries methods of [A-Za-z0-9._/-] only"),
        }
    }

    fn encode(&mut self, message: &Message, token: Option<&str>, out: &mut Vec<u8>) -> Result<(), Fault> {
        let is_response = message.single().is_some_and(|scan| scan.kind == Kind::Response);
        let kind = if is_response { FrameKind::Response } else { FrameKind::Request };
        let with_token = token.and_then(|token| payload_with(message, token));
        let payload = with_token.as_deref().unwrap_or(&message.body);
        write_frame(out, kind, payload).map_err(|error| Fault::malformed(INVALID_REQUEST, error.to_string()))
    }

    fn part(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        append(out, FrameKind::Control, Control::Shutdown.payload());
        Ok(())
    }

    fn decode(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<Option<Event>, String> {
        loop {
            let Some(header) = parse_header(input).map_err(|error| error.to_string())? else {
                return Ok(None);
            };
            let end = HEADER_LEN + header.len as usize;
            if input.len() < end {
                return Ok(None);
            }
            let payload = input[HEADER_LEN..end].to_vec();
            input.drain(..end);
            if let Some(event) = self.on_frame(header.kind, payload, out)? {
                return Ok(Some(event));
            }
        }
    }
}

impl Mcpb {
    fn on_frame(
        &mut self,
        kind: FrameKind,
        payload: Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, String> {
        Ok(match kind {
            FrameKind::VersionAck if !self.is_open => {
                parse_version_ack(&payload).map_err(|error| error.to_string())?;
                self.is_open = true;
                Some(Event::Open)
            }
            FrameKind::Request | FrameKind::Response if self.is_open => Some(Event::Message(payload)),
            FrameKind::Control => match Control::parse(&payload).map_err(|error| error.to_string())? {
                Control::Shutdown => {
                    append(out, FrameKind::Control, Control::ShutdownAck.payload());
                    Some(Event::Leaving)
                }
                Control::ShutdownAck => None,
            },
            FrameKind::HealthCheck => {
                let answer: &[u8] = match payload.is_empty() {
                    true => b"",
                    false => br#"{"check":"simple","status":"ok"}"#,
                };
                append(out, FrameKind::HealthCheck, answer);
                None
            }
            FrameKind::Error => Some(Event::Refused(String::from_utf8_lossy(&payload).into_owned())),
            other => return Err(format!("an unexpected {} frame", other.label())),
        })
    }
}

/// Appends a frame of the wire's own.
fn append(out: &mut Vec<u8>, kind: FrameKind, payload: &[u8]) {
    // These payloads are far shorter than any limit.
    let _ = write_frame(out, kind, payload);
}

/// The payload of a message with its token, where one goes: the login carries it beside its params, a modern message, which
/// has no login, in the wrapper. Everything else belongs to a login.
fn payload_with(message: &Message, token: &str) -> Option<Vec<u8>> {
    let mut payload = Vec::new();
    if message.is("initialize") {
        let params = message.single()?.params?;
        let inside = params.start as usize + 1;
        let is_empty = params.of(&message.body)[1..].trim_ascii_start().first() == Some(&b'}');
        payload.extend_from_slice(&message.body[..inside]);
        payload.extend_from_slice(b"\"token\":");
        write_json_string(&mut payload, token);
        payload.extend_from_slice(if is_empty { b"" } else { b"," });
        payload.extend_from_slice(&message.body[inside..]);
        return Some(payload);
    }
    if !message.is_modern() {
        return None;
    }
    payload.extend_from_slice(b"{\"auth_token\":");
    write_json_string(&mut payload, token);
    payload.extend_from_slice(b",\"request\":");
    payload.extend_from_slice(&message.body);
    payload.push(b'}');
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        match Message::parse(text.into()) {
            Ok(message) => message,
            Err((_, failure)) => panic!("{text}: {failure}"),
        }
    }

    fn frame(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_frame(&mut out, kind, payload).unwrap();
        out
    }

    /// An open connection.
    fn open() -> Mcpb {
        let mut codec = Mcpb::default();
        codec.begin(None, &mut Vec::new());
        let mut input = frame(FrameKind::VersionAck, br#"{"agreed_version":1}"#);
        assert_eq!(codec.decode(&mut input, &mut Vec::new()), Ok(Some(Event::Open)));
        assert!(input.is_empty());
        codec
    }

    #[test]
    fn a_connection_begins_with_the_versions() {
        let mut out = Vec::new();
        Mcpb::default().begin(None, &mut out);
        let versions = br#"{"min_version":1,"max_version":1,"preferred_version":1,"supported_versions":[1]}"#;
        assert_eq!(out, frame(FrameKind::VersionNegotiation, versions));
        open();
    }

    #[test]
    fn the_token_goes_where_each_era_has_a_place_for_it() {
        let modern = r#"{"jsonrpc":"2.0","id":1,"method":"server/discover"}"#;
        for (text, payload) in [
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"a":1}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"token":"t\"","a":1}}"#.to_owned(),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{ }}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"token":"t\"" }}"#.to_owned(),
            ),
            (modern, format!(r#"{{"auth_token":"t\"","request":{modern}}}"#)),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#.to_owned(),
            ),
        ] {
            let mut out = Vec::new();
            open().encode(&message(text), Some("t\""), &mut out).unwrap();
            assert_eq!(out, frame(FrameKind::Request, payload.as_bytes()), "{text}");
        }
        let mut out = Vec::new();
        let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        open().encode(&message(response), Some("t"), &mut out).unwrap();
        assert_eq!(out, frame(FrameKind::Response, response.as_bytes()));
    }

    #[test]
    fn the_wire_s_own_frames_are_answered_however_they_are_cut() {
        let mut stream = frame(FrameKind::HealthCheck, b"");
        stream.extend(frame(FrameKind::Request, b"{}"));
        stream.extend(frame(FrameKind::Control, Control::Shutdown.payload()));
        stream.extend(frame(FrameKind::Response, b"[]"));
        stream.extend(frame(FrameKind::Error, b"over"));
        for piece in 1..stream.len() {
            let (mut codec, mut input, mut out, mut events) = (open(), Vec::new(), Vec::new(), Vec::new());
            for part in stream.chunks(piece) {
                input.extend_from_slice(part);
                while let Some(event) = codec.decode(&mut input, &mut out).unwrap() {
                    events.push(event);
                }
            }
            let expected = [
                Event::Message(b"{}".to_vec()),
                Event::Leaving,
                Event::Message(b"[]".to_vec()),
                Event::Refused("over".into()),
            ];
            assert_eq!(events, expected, "{piece}");
            let mut answers = frame(FrameKind::HealthCheck, b"");
            answers.extend(frame(FrameKind::Control, Control::ShutdownAck.payload()));
            assert_eq!(out, answers);
        }
    }

    #[test]
    fn what_mcpb_cannot_carry_is_refused_and_what_breaks_it_ends_the_connection() {
        let codec = open();
        let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#;
        for text in [batch, r#"{"jsonrpc":"2.0","id":1,"method":"a$b"}"#] {
            assert_eq!(codec.check(&message(text)).unwrap_err().code, -32600, "{text}");
        }
        let long = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#, "x".repeat(200));
        assert!(codec.check(&message(&long)).is_ok());
        let huge = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"x":"{}"}}}}"#,
            "x".repeat(10_480_000)
        );
        assert!(codec.check(&message(&huge)).is_err());
        for bytes in [
            b"HTTP/1.1 400".to_vec(),
            frame(FrameKind::VersionNegotiation, b"{}"),
            frame(FrameKind::VersionAck, br#"{"agreed_version":1}"#),
            frame(FrameKind::Control, b"{}"),
        ] {
            assert!(open().decode(&mut bytes.clone(), &mut Vec::new()).is_err(), "{bytes:?}");
        }
        let early = frame(FrameKind::Response, b"{}");
        assert!(Mcpb::default().decode(&mut early.clone(), &mut Vec::new()).is_err());
    }
}
