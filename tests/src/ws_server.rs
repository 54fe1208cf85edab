//! Owns the server's side of a WebSocket for scripted upstreams: the upgrade, and frames as a test wants them, malformed ones
//! too. It shares no code with the gateway.

use std::io::{Read, Write};
use std::net::TcpStream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha1::{Digest, Sha1};

use crate::upstream::UpstreamRequest;
use crate::ws::{CLOSE, PING, PONG, TEXT};

/// What every accepted key is followed by (RFC 6455, section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// An open socket of a client's.
pub struct ServerSocket<'a>(&'a mut TcpStream);

impl<'a> ServerSocket<'a> {
    /// Accepts the upgrade that `request` asks for; `None` when it asks for none or the connection fails.
    pub fn accept(request: &UpstreamRequest, stream: &'a mut TcpStream) -> Option<Self> {
        let key = request.header("sec-websocket-key")?;
        let accept = STANDARD.encode(Sha1::digest(format!("{key}{GUID}")));
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: mcp\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).ok()?;
        Some(Self(stream))
    }

    /// The client's next message, or the close code and reason of its goodbye; `None` at the connection's end. Pings are
    /// answered on the way.
    ///
    /// # Panics
    /// When a frame is none of a client's, or a text no JSON.
    pub fn receive(&mut self) -> Option<Result<Value, Vec<u8>>> {
        loop {
            let head = self.read(2)?;
            assert!(head[1] & 0x80 != 0, "a client masks what it sends");
            let length = match head[1] & 0x7f {
                126 => number(&self.read(2)?),
                127 => number(&self.read(8)?),
                length => usize::from(length),
            };
            let mask = self.read(4)?;
            let mut payload = self.read(length)?;
            payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
            match head[0] {
                TEXT => return Some(Ok(serde_json::from_slice(&payload).expect("JSON"))),
                CLOSE => return Some(Err(payload)),
                PING => self.send(PONG, &payload)?,
                PONG => {}
                other => panic!("first byte {other:#x}"),
            }
        }
    }

    /// Sends a message.
    pub fn send_json(&mut self, message: &Value) -> Option<()> {
        self.send(TEXT, message.to_string().as_bytes())
    }

    /// Sends a frame.
    pub fn send(&mut self, first: u8, payload: &[u8]) -> Option<()> {
        let mut bytes = vec![first];
        match payload.len() {
            length @ ..126 => bytes.push(length as u8),
            length @ 126..=0xffff => {
                bytes.push(126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                bytes.push(127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(payload);
        self.send_bytes(&bytes)
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Option<()> {
        self.0.write_all(bytes).ok()
    }

    fn read(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, &byte| number << 8 | usize::from(byte))
}
