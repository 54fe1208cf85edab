//! WebSocket from the client's side: owns the upgrade and the session's id, by which a socket that breaks is followed by one
//! in the same session. Frames are `tungstenite`'s, which reads and writes memory here.

use std::io::{self, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mcp_config::Endpoint;
use mcp_protocol::http1::{HeadLimits, Method, ResponseHead, parse_response};
use mcp_protocol::jsonrpc::INVALID_REQUEST;
use mcp_protocol::ws::{SUBPROTOCOL, VERSION, accept_of};
use tungstenite::Utf8Bytes;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};

use super::codec::{Codec, Event};
use crate::connect::message::{Fault, Message};
use crate::connect::target::authority;
use crate::door::ws::{SESSION_META, SESSION_OVER};

/// Bytes of the upgrade's answer.
const HEAD_LIMITS: HeadLimits = HeadLimits { max_bytes: 32 << 10, max_headers: 100 };
/// Bytes that frames are taken from at a time.
const READ_BUFFER: usize = 16 << 10;
const KEY_BYTES: usize = 16;
/// Close codes of an end in order: normal, going away, restart (RFC 6455, section 7.4.1, and its registry), and the echo of
/// our own.
const IN_ORDER: [u16; 4] = [1000, 1001, 1012, SESSION_OVER];

/// A socket after another.
pub(in crate::connect) struct Ws {
    path: String,
    /// `Host`, and what the user added.
    common: Vec<u8>,
    max_message: usize,
    /// The legacy session that the sockets belong to.
    session: Option<String>,
    /// The socket of the moment goes on with it.
    is_resumed: bool,
    stage: Stage,
}

enum Stage {
    /// The upgrade was asked for with this key.
    Upgrading {
        key: String,
    },
    Open(Box<WebSocketContext>),
}

impl Ws {
    pub(in crate::connect) fn new(endpoint: &Endpoint, added: &[u8], max_message: usize) -> Self {
        let mut common = format!("Host: {}\r\n", authority(endpoint)).into_bytes();
        common.extend_from_slice(added);
        Ws {
            path: endpoint.path.clone(),
            common,
            max_message,
            session: None,
            is_resumed: false,
            stage: Stage::Upgrading { key: String::new() },
        }
    }
}

impl Codec for Ws {
    fn begin(&mut self, token: Option<&str>, out: &mut Vec<u8>) {
        let mut bytes = [0; KEY_BYTES];
        // The key need not be secret, only unlike what a cache has seen; the socket is inside TLS as a rule.
        let _ = getrandom::fill(&mut bytes);
        let key = STANDARD.encode(bytes);
        out.extend_from_slice(format!("GET {} HTTP/1.1\r\n", self.path).as_bytes());
        out.extend_from_slice(&self.common);
        let mut line = |name: &str, value: &str| {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        };
        line("Upgrade", "websocket");
        line("Connection", "Upgrade");
        line("Sec-WebSocket-Version", VERSION);
        line("Sec-WebSocket-Protocol", SUBPROTOCOL);
        line("Sec-WebSocket-Key", &key);
        if let Some(token) = token {
            line("Authorization", &format!("Bearer {token}"));
        }
        if let Some(session) = &self.session {
            line("Mcp-Session-Id", session);
        }
        out.extend_from_slice(b"\r\n");
        self.is_resumed = false;
        self.stage = Stage::Upgrading { key };
    }

    fn check(&self, message: &Message) -> Result<(), Fault> {
        match message.is_batch {
            true => Err(Fault::malformed(INVALID_REQUEST, "a WebSocket carries no batches")),
            false => Ok(()),
        }
    }

    fn encode(&mut self, message: &Message, _token: Option<&str>, out: &mut Vec<u8>) -> Result<(), Fault> {
        let refused = |what: String| Fault::lasting(format!("the message cannot be sent: {what}"));
        let Stage::Open(socket) = &mut self.stage else { return Err(refused("no socket is open".into())) };
        let text = String::from_utf8(message.body.clone()).map_err(|error| refused(error.to_string()))?;
        let mut memory = Memory { input: &mut Vec::new(), out };
        let written = socket.write(&mut memory, tungstenite::Message::text(text));
        written.and_then(|()| socket.flush(&mut memory)).map_err(|error| refused(error.to_string()))
    }

    fn decode(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<Option<Event>, String> {
        loop {
            let event = match &mut self.stage {
                Stage::Open(socket) => return next_message(socket, &mut Memory { input, out }),
                Stage::Upgrading { .. } => {
                    let head = parse_response(input, Method::Get, &HEAD_LIMITS);
                    let Some(head) = head.map_err(|error| error.to_string())? else { return Ok(None) };
                    let event = self.on_answer(&head, input)?;
                    input.drain(..head.head_len);
                    event
                }
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    fn part(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        let Stage::Open(socket) = &mut self.stage else { return Err("no socket is open".into()) };
        let why =
            CloseFrame { code: SESSION_OVER.into(), reason: Utf8Bytes::from_static("the client leaves") };
        let mut memory = Memory { input: &mut Vec::new(), out };
        socket.close(&mut memory, Some(why)).map_err(|error| error.to_string())
    }

    fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    fn learn(&mut self, initialized: &[u8]) {
        let answer: serde_json::Value = serde_json::from_slice(initialized).unwrap_or_default();
        let id = answer["result"]["_meta"][SESSION_META].as_str();
        // What no header can hold is no id.
        self.session = id.filter(|id| id.bytes().all(|byte| byte.is_ascii_graphic())).map(str::to_owned);
    }

    fn forget_session(&mut self) {
        self.session = None;
    }
}

impl Ws {
    /// The upgrade's answer; `None` for an interim one.
    fn on_answer(&mut self, head: &ResponseHead, bytes: &[u8]) -> Result<Option<Event>, String> {
        let only = |name| head.headers.all(bytes, name).next();
        let Stage::Upgrading { key } = &self.stage else { return Ok(None) };
        Ok(Some(match head.status {
            101 if only("sec-websocket-accept") != Some(&accept_of(key.as_bytes())[..]) => {
                return Err("the upgrade's answer does not fit its question".into());
            }
            101 => {
                let resumed = head.session_id.map(|id| id.of(bytes));
                self.is_resumed =
                    self.session.as_ref().is_some_and(|session| resumed == Some(session.as_bytes()));
                let config = WebSocketConfig::default()
                    .read_buffer_size(READ_BUFFER)
                    .write_buffer_size(0)
                    .max_message_size(Some(self.max_message))
                    .max_frame_size(Some(self.max_message));
                self.stage = Stage::Open(Box::new(WebSocketContext::new(Role::Client, Some(config))));
                Event::Open
            }
            100..200 => return Ok(None),
            404 if self.session.is_some() => Event::SessionEnded,
            401 => Event::Denied("the gateway asks for a valid token (401)".into()),
            status @ (408 | 429) => Event::Refused(format!("it answered with status {status}")),
            status @ 300..500 => {
                Event::Denied(format!("the gateway refuses a WebSocket at {} ({status})", self.path))
            }
            status => Event::Refused(format!("it answered with status {status}")),
        }))
    }
}

fn next_message(socket: &mut WebSocketContext, memory: &mut Memory<'_>) -> Result<Option<Event>, String> {
    use tungstenite::{Error, Message};
    loop {
        return match socket.read(memory) {
            Ok(Message::Text(text)) => Ok(Some(Event::Message(text.as_bytes().to_vec()))),
            Ok(Message::Close(why)) => Ok(Some(match why {
                Some(why) if !IN_ORDER.contains(&u16::from(why.code)) => {
                    Event::Refused(format!("{} ({})", why.reason, u16::from(why.code)))
                }
                Some(why) => Event::Ended(why.reason.to_string()),
                None => Event::Ended("closed".into()),
            })),
            // Pongs to pings have been written.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
            Ok(Message::Binary(_)) => Err("a binary message".into()),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.to_string()),
        };
    }
}

/// What a socket reads from and writes to.
struct Memory<'a> {
    input: &'a mut Vec<u8>,
    out: &'a mut Vec<u8>,
}

impl Read for Memory<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let read = into.len().min(self.input.len());
        into[..read].copy_from_slice(&self.input[..read]);
        self.input.drain(..read);
        Ok(read)
    }
}

impl Write for Memory<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"_meta":{"mcp-gateway/sessionId":"s1"}}}"#;

    fn begun(session: bool) -> (Ws, String) {
        let mut codec =
            Ws::new(&Endpoint::parse("wss://gw:8443/ws/a", "ws", "wss").unwrap(), b"X: y\r\n", 1000);
        if session {
            codec.learn(SAID.as_bytes());
        }
        let mut out = Vec::new();
        codec.begin(Some("t"), &mut out);
        (codec, String::from_utf8(out).unwrap())
    }

    fn switch(head: &str, fields: &str) -> Vec<u8> {
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = String::from_utf8(accept_of(key.as_bytes()).to_vec()).unwrap();
        format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{fields}\r\n").into_bytes()
    }

    fn first(codec: &mut Ws, mut input: Vec<u8>) -> Result<Option<Event>, String> {
        codec.decode(&mut input, &mut Vec::new())
    }

    #[test]
    fn an_upgrade_says_who_asks_and_which_session_goes_on() {
        let (mut codec, head) = begun(false);
        assert!(head.starts_with("GET /ws/a HTTP/1.1\r\nHost: gw:8443\r\nX: y\r\n"), "{head}");
        assert!(
            head.contains("\r\nAuthorization: Bearer t\r\n") && !head.contains("Mcp-Session-Id"),
            "{head}"
        );
        assert_eq!(first(&mut codec, switch(&head, "")), Ok(Some(Event::Open)));
        assert!(!codec.is_resumed());

        let (mut codec, head) = begun(true);
        assert!(head.contains("\r\nMcp-Session-Id: s1\r\n"), "{head}");
        assert_eq!(first(&mut codec, switch(&head, "Mcp-Session-Id: s1\r\n")), Ok(Some(Event::Open)));
        assert!(codec.is_resumed());
        let (mut codec, head) = begun(true);
        assert_eq!(first(&mut codec, switch(&head, "Mcp-Session-Id: s2\r\n")), Ok(Some(Event::Open)));
        assert!(!codec.is_resumed(), "another session is not ours");
    }

    #[test]
    fn each_refusal_means_what_it_says() {
        let refused = |session, status: &str| {
            let (mut codec, _) = begun(session);
            first(&mut codec, format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes())
        };
        assert_eq!(refused(true, "404 Not Found"), Ok(Some(Event::SessionEnded)));
        for status in
            ["404 Not Found", "401 Unauthorized", "403 Forbidden", "426 Upgrade Required", "302 Found"]
        {
            assert!(matches!(refused(false, status), Ok(Some(Event::Denied(_)))), "{status}");
        }
        for status in ["429 Too Many", "503 Service Unavailable", "200 OK"] {
            assert!(matches!(refused(false, status), Ok(Some(Event::Refused(_)))), "{status}");
        }
        let (mut codec, head) = begun(false);
        let wrong = String::from_utf8(switch(&head, "")).unwrap().replace("Accept: ", "Accept: A");
        assert!(first(&mut codec, wrong.into_bytes()).is_err());
        assert!(refused(false, "SSH").is_err());
    }

    #[test]
    fn messages_come_whole_however_they_are_cut_and_pings_are_answered() {
        let mut stream = b"\x01\x03abc\x89\x02hi\x80\x03def\x81\x01x".to_vec();
        stream.extend_from_slice(b"\x88\x0f\x03\xf4shutting down");
        for piece in 1..stream.len() {
            let (mut codec, head) = begun(false);
            assert_eq!(first(&mut codec, switch(&head, "")), Ok(Some(Event::Open)));
            let (mut input, mut out, mut events) = (Vec::new(), Vec::new(), Vec::new());
            for part in stream.chunks(piece) {
                input.extend_from_slice(part);
                while let Some(event) = codec.decode(&mut input, &mut out).unwrap() {
                    let is_last = matches!(event, Event::Ended(_));
                    events.push(event);
                    if is_last {
                        break;
                    }
                }
            }
            let expected = [
                Event::Message(b"abcdef".to_vec()),
                Event::Message(b"x".to_vec()),
                Event::Ended("shutting down".into()),
            ];
            assert_eq!(events, expected, "{piece}");
            // A masked pong of two bytes.
            assert_eq!(out[..2], [0x8a, 0x82], "{piece}");
        }
        for broken in [&b"\x82\x01x"[..], b"\x81\x7e\x10\x00", b"\xc1\x01x", b"\x81\x01\xff"] {
            let (mut codec, head) = begun(false);
            let mut input = switch(&head, "");
            input.extend_from_slice(broken);
            let mut out = Vec::new();
            assert_eq!(codec.decode(&mut input, &mut out), Ok(Some(Event::Open)));
            assert!(codec.decode(&mut input, &mut out).is_err(), "{broken:?}");
        }
    }
}
