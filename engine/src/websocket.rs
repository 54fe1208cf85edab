//! A WebSocket from the client's side: owns the upgrade's question, the check of its answer, and the messages on the socket.
//! Frames are `tungstenite`'s, which reads and writes memory here. Never a connection, and never what a message means.

use std::io::{self, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mcp_protocol::http1::{HeadLimits, Method, parse_response};
use mcp_protocol::ws::{SUBPROTOCOL, VERSION, accept_of};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message, Utf8Bytes};

/// Bytes of the upgrade's answer.
const HEAD_LIMITS: HeadLimits = HeadLimits { max_bytes: 32 << 10, max_headers: 100 };
/// Bytes that frames are taken from at a time; each socket owns as many.
const READ_BUFFER: usize = 4 << 10;
const KEY_BYTES: usize = 16;

/// An upgrade that was asked for.
pub(crate) struct Upgrade {
    key: String,
}

/// The answer to an upgrade.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    /// 101 where the connection is a WebSocket now.
    pub(crate) status: u16,
    /// `Mcp-Session-Id`.
    pub(crate) session: Option<Box<[u8]>>,
}

/// What a server says on a socket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Message(Vec<u8>),
    /// It closes; without a code where it gave none.
    Close {
        code: Option<u16>,
        reason: String,
    },
}

impl Upgrade {
    /// Appends the request; `fields` are header lines, each with its CR LF, `Host` among them.
    pub(crate) fn ask(path: &str, fields: &[u8], out: &mut Vec<u8>) -> Self {
        let mut bytes = [0; KEY_BYTES];
        // The key need not be secret, only unlike what a cache has seen; the socket is inside TLS as a rule.
        let _ = getrandom::fill(&mut bytes);
        let key = STANDARD.encode(bytes);
        out.extend_from_slice(format!("GET {path} HTTP/1.1\r\n").as_bytes());
        out.extend_from_slice(fields);
        for (name, value) in [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", VERSION),
            ("Sec-WebSocket-Protocol", SUBPROTOCOL),
            ("Sec-WebSocket-Key", &key),
        ] {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        Upgrade { key }
    }

    /// Takes the answer's head from `input`; `None` while it is not whole. Interim answers are passed over.
    ///
    /// # Errors
    /// What is no answer to this request.
    pub(crate) fn read(&self, input: &mut Vec<u8>) -> Result<Option<Answered>, String> {
        loop {
            let head = parse_response(input, Method::Get, &HEAD_LIMITS).map_err(|error| error.to_string())?;
            let Some(head) = head else { return Ok(None) };
            let only = |name| head.headers.all(input, name).next();
            if head.status == 101 {
                if only("sec-websocket-accept") != Some(&accept_of(self.key.as_bytes())[..]) {
                    return Err("the upgrade's answer does not fit its question".into());
                }
                // RFC 6455, section 4.1: a subprotocol that was not offered fails the connection.
                if only("sec-websocket-protocol").is_some_and(|chosen| chosen != SUBPROTOCOL.as_bytes()) {
                    return Err("the upgrade's answer names another subprotocol".into());
                }
            }
            let session = head.session_id.map(|id| id.of(input).into());
            input.drain(..head.head_len);
            if head.status == 101 || head.status >= 200 {
                return Ok(Some(Answered { status: head.status, session }));
            }
        }
    }
}

/// An open socket.
pub(crate) struct Socket(Box<WebSocketContext>);

impl Socket {
    /// A socket whose messages have at most `max_message` bytes.
    pub(crate) fn new(max_message: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        Socket(Box::new(WebSocketContext::new(Role::Client, Some(config))))
    }

    /// Appends a text message.
    ///
    /// # Errors
    /// Why it cannot be sent; nothing was appended.
    pub(crate) fn write_text(&mut self, text: Vec<u8>, out: &mut Vec<u8>) -> Result<(), String> {
        let text = String::from_utf8(text).map_err(|error| error.to_string())?;
        self.write(Message::text(text), out)
    }

    /// Appends a ping.
    ///
    /// # Errors
    /// As [`Socket::write_text`].
    pub(crate) fn write_ping(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        self.write(Message::Ping(Default::default()), out)
    }

    /// Appends the goodbye; nothing is sent after it.
    ///
    /// # Errors
    /// As [`Socket::write_text`].
    pub(crate) fn write_close(
        &mut self,
        code: u16,
        reason: &'static str,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let why = CloseFrame { code: code.into(), reason: Utf8Bytes::from_static(reason) };
        let mut memory = Memory { input: &mut Vec::new(), out };
        self.0.close(&mut memory, Some(why)).map_err(|error| error.to_string())
    }

    /// Takes what the server said next from `input`; `None` when more bytes are needed. What must be answered by itself, a
    /// ping, is answered in `out`.
    ///
    /// # Errors
    /// The input breaks the rules: the connection ends.
    pub(crate) fn read(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<Option<Said>, String> {
        let mut memory = Memory { input, out };
        loop {
            return match self.0.read(&mut memory) {
                Ok(Message::Text(text)) => Ok(Some(Said::Message(text.as_bytes().to_vec()))),
                Ok(Message::Close(why)) => Ok(Some(match why {
                    Some(why) => Said::Close { code: Some(why.code.into()), reason: why.reason.to_string() },
                    None => Said::Close { code: None, reason: String::new() },
                })),
                // Pongs to pings have been written.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
                Ok(Message::Binary(_)) => Err("a binary message".into()),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error.to_string()),
            };
        }
    }

    fn write(&mut self, message: Message, out: &mut Vec<u8>) -> Result<(), String> {
        let mut memory = Memory { input: &mut Vec::new(), out };
        let written = self.0.write(&mut memory, message);
        written.and_then(|()| self.0.flush(&mut memory)).map_err(|error| error.to_string())
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

    fn asked() -> (Upgrade, String) {
        let mut out = Vec::new();
        let upgrade = Upgrade::ask("/ws/a", b"Host: gw\r\n", &mut out);
        (upgrade, String::from_utf8(out).unwrap())
    }

    fn switch(head: &str, fields: &str) -> Vec<u8> {
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = String::from_utf8(accept_of(key.as_bytes()).to_vec()).unwrap();
        format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{fields}\r\n").into_bytes()
    }

    #[test]
    fn an_upgrade_is_whole_proven_and_ours() {
        let (upgrade, head) = asked();
        assert!(head.starts_with("GET /ws/a HTTP/1.1\r\nHost: gw\r\nUpgrade: websocket\r\n"), "{head}");
        let answer = switch(&head, "Sec-WebSocket-Protocol: mcp\r\nMcp-Session-Id: s\r\n");
        for cut in 0..answer.len() {
            assert_eq!(upgrade.read(&mut answer[..cut].to_vec()), Ok(None));
        }
        let mut input = [b"HTTP/1.1 103 Early Hints\r\n\r\n", &answer[..], b"\x81\x00"].concat();
        let expected = Answered { status: 101, session: Some(b"s"[..].into()) };
        assert_eq!((upgrade.read(&mut input), &input[..]), (Ok(Some(expected)), &b"\x81\x00"[..]));

        let (upgrade, head) = asked();
        assert!(upgrade.read(&mut switch(&head, "Sec-WebSocket-Protocol: other\r\n")).is_err());
        let wrong = String::from_utf8(switch(&head, "")).unwrap().replace("Accept: ", "Accept: A");
        assert!(upgrade.read(&mut wrong.into_bytes()).is_err());
        assert!(upgrade.read(&mut b"SSH-2.0\r\n\r\n".to_vec()).is_err());
        let refused = upgrade.read(&mut b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec());
        assert_eq!(refused, Ok(Some(Answered { status: 404, session: None })));
    }

    #[test]
    fn messages_come_whole_however_they_are_cut_and_pings_are_answered() {
        let mut stream = b"\x01\x03abc\x89\x02hi\x80\x03def\x81\x01x".to_vec();
        stream.extend_from_slice(b"\x88\x0f\x03\xf4shutting down");
        for piece in 1..stream.len() {
            let mut socket = Socket::new(1000);
            let (mut input, mut out, mut said) = (Vec::new(), Vec::new(), Vec::new());
            for part in stream.chunks(piece) {
                input.extend_from_slice(part);
                while !matches!(said.last(), Some(Said::Close { .. }))
                    && let Some(more) = socket.read(&mut input, &mut out).unwrap()
                {
                    said.push(more);
                }
            }
            let expected = [
                Said::Message(b"abcdef".to_vec()),
                Said::Message(b"x".to_vec()),
                Said::Close { code: Some(1012), reason: "shutting down".into() },
            ];
            assert_eq!(said, expected, "{piece}");
            // A masked pong of two bytes.
            assert_eq!(out[..2], [0x8a, 0x82], "{piece}");
        }
    }

    #[test]
    fn what_breaks_the_rules_or_the_limit_ends_the_socket() {
        for broken in
            [&b"\x82\x01x"[..], b"\x81\x7e\x10\x00", b"\xc1\x01x", b"\x81\x01\xff", b"\x81\x81abcdx"]
        {
            let read = Socket::new(1000).read(&mut broken.to_vec(), &mut Vec::new());
            assert!(read.is_err(), "{broken:?}");
        }
    }

    #[test]
    fn what_is_written_is_masked_text_a_ping_and_a_goodbye() {
        let (mut socket, mut out) = (Socket::new(1000), Vec::new());
        socket.write_text(b"{}".to_vec(), &mut out).unwrap();
        assert_eq!((out.len(), &out[..2]), (8, &[0x81, 0x82][..]));
        out.clear();
        socket.write_ping(&mut out).unwrap();
        assert_eq!(out[..2], [0x89, 0x80]);
        assert!(socket.write_text(b"\xff".to_vec(), &mut out).is_err());
        out.clear();
        socket.write_close(1000, "bye", &mut out).unwrap();
        assert_eq!(out[..2], [0x88, 0x85]);
        assert!(socket.write_text(b"{}".to_vec(), &mut out).is_err());
    }
}
