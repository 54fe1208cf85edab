//! Owns a small blocking WebSocket client that sends whatever frames a test wants, malformed ones too. It shares no code with
//! the gateway, and is strict where the gateway must be right: a server's frames are unmasked, whole and of known kinds.

use std::io::{Error, ErrorKind, Result};

use serde_json::Value;

use crate::{Connection, Gateway, Response};

/// The header fields of a good upgrade.
pub const UPGRADE: [(&str, &str); 4] = [
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-version", "13"),
];

/// First bytes of final frames.
pub const TEXT: u8 = 0x81;
/// A binary message.
pub const BINARY: u8 = 0x82;
/// A goodbye.
pub const CLOSE: u8 = 0x88;
/// A question.
pub const PING: u8 = 0x89;
/// Its answer.
pub const PONG: u8 = 0x8a;

const MASK: [u8; 4] = [0xa1, 0x05, 0x7f, 0x30];

/// An open socket.
pub struct Socket {
    connection: Connection,
    /// The head of the answer to the upgrade.
    pub head: Response,
}

/// A frame of the gateway's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its first byte.
    pub first: u8,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Socket {
    /// Opens a socket at `path` of a gateway, with more header fields.
    ///
    /// # Panics
    /// When the gateway refuses.
    #[must_use]
    pub fn open(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Self {
        let connection = gateway.connect().expect("a connection");
        let socket = Self::upgrade(connection, path, headers).expect("an answer");
        socket.unwrap_or_else(|refusal| panic!("{path}: {} {}", refusal.status, refusal.text()))
    }

    /// Asks for an upgrade over a connection; gives the whole answer where it is refused.
    ///
    /// # Errors
    /// When the connection fails or the answer is malformed.
    pub fn upgrade(
        mut connection: Connection,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<std::result::Result<Self, Box<Response>>> {
        let mut all = UPGRADE.to_vec();
        all.extend_from_slice(headers);
        connection.send_request("GET", path, &all, b"")?;
        let mut head = connection.read_bare_head()?;
        if head.status == 101 {
            assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
            return Ok(Ok(Self { connection, head }));
        }
        let length = head.header("content-length").and_then(|length| length.parse().ok());
        head.body = connection.read_bytes(length.ok_or(ErrorKind::InvalidData)?)?;
        Ok(Err(Box::new(head)))
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// When the connection does not take them.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.connection.send(bytes).expect("sent");
    }

    /// Sends a message, whoever may have gone meanwhile.
    ///
    /// # Errors
    /// When the connection does not take it.
    pub fn try_send_json(&mut self, message: &Value) -> Result<()> {
        self.try_send(TEXT, message.to_string().as_bytes())
    }

    /// As [`Self::send`], whoever may have gone meanwhile.
    ///
    /// # Errors
    /// When the connection does not take it.
    pub fn try_send(&mut self, first: u8, payload: &[u8]) -> Result<()> {
        self.connection.send(&frame(first, payload))
    }

    /// Whether the gateway has said its goodbye, or is gone, by what has come until now.
    pub fn is_over(&mut self) -> bool {
        self.connection.has_ended() || self.connection.unread().first() == Some(&CLOSE)
    }

    /// Sends a masked frame.
    ///
    /// # Panics
    /// When the connection does not take it.
    pub fn send(&mut self, first: u8, payload: &[u8]) {
        self.send_bytes(&frame(first, payload));
    }

    /// Sends a message.
    ///
    /// # Panics
    /// When the connection does not take it.
    pub fn send_json(&mut self, message: &Value) {
        self.send(TEXT, message.to_string().as_bytes());
    }

    /// The next frame.
    ///
    /// # Errors
    /// When the connection ends or fails, or the frame is none of a server's.
    pub fn try_receive(&mut self) -> Result<Frame> {
        let head = self.connection.read_bytes(2)?;
        let length = match head[1] {
            length @ ..126 => usize::from(length),
            126 => number(&self.connection.read_bytes(2)?),
            127 => number(&self.connection.read_bytes(8)?),
            _ => return Err(Error::new(ErrorKind::InvalidData, "a server masks nothing")),
        };
        if ![TEXT, CLOSE, PING, PONG].contains(&head[0]) {
            return Err(Error::new(ErrorKind::InvalidData, format!("first byte {:#x}", head[0])));
        }
        Ok(Frame { first: head[0], payload: self.connection.read_bytes(length)? })
    }

    /// The next frame.
    ///
    /// # Panics
    /// When there is none.
    pub fn receive(&mut self) -> Frame {
        self.try_receive().expect("a frame")
    }

    /// The next message; pings are answered on the way.
    ///
    /// # Panics
    /// When something else comes.
    pub fn message(&mut self) -> Value {
        loop {
            let Frame { first, payload } = self.receive();
            match first {
                PING => self.send(PONG, &payload),
                TEXT => return serde_json::from_slice(&payload).expect("a message is JSON"),
                _ => panic!("no message: {first:#x} {}", String::from_utf8_lossy(&payload)),
            }
        }
    }

    /// Sends a request and gives its response; other messages on the way are passed over.
    ///
    /// # Panics
    /// When none comes.
    pub fn ask(&mut self, request: &Value) -> Value {
        self.send_json(request);
        loop {
            let message = self.message();
            if message.get("method").is_none() && message["id"] == request["id"] {
                return message;
            }
        }
    }

    /// The code and the reason of the gateway's goodbye, which must come next but for messages and pings, and after which
    /// the connection must end in order.
    ///
    /// # Panics
    /// When that is not so.
    pub fn expect_close(&mut self) -> (u16, String) {
        let payload = loop {
            let frame = self.receive();
            if frame.first == CLOSE {
                break frame.payload;
            }
        };
        self.expect_end();
        let (code, reason) = payload.split_first_chunk::<2>().expect("a code");
        (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).expect("UTF-8"))
    }

    /// The connection must have ended in order.
    ///
    /// # Panics
    /// When it has not.
    pub fn expect_end(&mut self) {
        let end = self.try_receive().expect_err("an end");
        assert_eq!(end.kind(), ErrorKind::UnexpectedEof, "{end}");
    }
}

/// A masked frame.
#[must_use]
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length @ ..126) => bytes.push(0x80 | length as u8),
        Ok(length) => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}
