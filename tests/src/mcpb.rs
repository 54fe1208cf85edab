//! Owns a small blocking client of the binary protocol (MCPB): frames over TLS, after the agreement on a version. It shares no
//! code with the gateway.

use std::collections::VecDeque;
use std::io::{Error, Read, Result, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use serde_json::Value;

use crate::Gateway;
use crate::tls::{TlsStream, connect_anywhere, read_at_once};

/// A frame's type: a JSON-RPC request, or a notification.
pub const REQUEST: u16 = 1;
/// A JSON-RPC response.
pub const RESPONSE: u16 = 2;
/// The goodbye and its answer.
pub const CONTROL: u16 = 3;
const NEGOTIATION: u16 = 6;
const AGREEMENT: u16 = 7;

/// The longest payload that is read, in bytes.
const MAX_PAYLOAD: usize = 32 << 20;
/// What every frame begins with, version 1 behind it.
const START: &[u8] = b"MCPB\x00\x01";

/// An open connection.
pub struct Frames {
    stream: TlsStream,
    /// What has come and was not asked for yet.
    come: VecDeque<u8>,
}

impl Frames {
    /// Connects to a gateway's binary port and agrees on version 1.
    ///
    /// # Errors
    /// When the connection fails or the gateway agrees on nothing.
    pub fn open(gateway: &Gateway, port: u16) -> Result<Self> {
        Self::open_at(SocketAddr::new(gateway.addr.ip(), port), &gateway.cert.client_config())
    }

    /// Connects to whoever takes connections there for a gateway, and agrees on version 1.
    ///
    /// # Errors
    /// When the connection fails or the gateway agrees on nothing.
    pub fn open_at(addr: SocketAddr, config: &Arc<ClientConfig>) -> Result<Self> {
        let mut frames = Self { stream: connect_anywhere(addr, config)?, come: VecDeque::new() };
        frames.send(NEGOTIATION, br#"{"min_version":1,"max_version":1}"#)?;
        match frames.receive()? {
            (AGREEMENT, _) => Ok(frames),
            (kind, _) => Err(Error::other(format!("a frame of type {kind} instead of an agreement"))),
        }
    }

    /// Whether the connection has ended, with nothing left to read; nothing is waited for.
    pub fn has_ended(&mut self) -> bool {
        match read_at_once(&mut self.stream) {
            Some(come) => {
                self.come.extend(come);
                false
            }
            None => self.come.is_empty(),
        }
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// When the connection does not take it.
    pub fn send(&mut self, kind: u16, payload: &[u8]) -> Result<()> {
        let length = u32::try_from(payload.len()).map_err(Error::other)?;
        let frame = [START, &kind.to_be_bytes(), &length.to_be_bytes(), payload].concat();
        self.stream.write_all(&frame)?;
        self.stream.flush()
    }

    /// The next frame: its type and its payload.
    ///
    /// # Errors
    /// When the connection ends or fails, or the frame is too large.
    pub fn receive(&mut self) -> Result<(u16, Vec<u8>)> {
        let mut head = [0; 12];
        self.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[8], head[9], head[10], head[11]]) as usize;
        if !head.starts_with(START) || length > MAX_PAYLOAD {
            return Err(Error::other(format!("no frame: {head:?}")));
        }
        let mut payload = vec![0; length];
        self.read_exact(&mut payload)?;
        Ok((u16::from_be_bytes([head[6], head[7]]), payload))
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        let early = self.come.len().min(bytes.len());
        self.come.read_exact(&mut bytes[..early])?;
        self.stream.read_exact(&mut bytes[early..])
    }

    /// The next message of the server's, of whatever type.
    ///
    /// # Errors
    /// As for [`Self::receive`], and when the payload is no JSON.
    pub fn message(&mut self) -> Result<Value> {
        let (_, payload) = self.receive()?;
        Ok(serde_json::from_slice(&payload)?)
    }
}
