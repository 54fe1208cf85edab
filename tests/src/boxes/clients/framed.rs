//! Owns clients whose connection is their session's: WebSocket, which comes back with its session, and MCPB, which begins
//! anew as `mcp-gateway connect` does. MCPB shows all servers as one.

use serde_json::{Value, json};

use super::{Client, Era, Outcome, Target, Trouble, failed, judge, message};
use crate::Connection;
use crate::boxes::ledger::{Ledger, Way};
use crate::mcp::{LEGACY, initialize};
use crate::mcpb::{CONTROL, Frames, REQUEST, RESPONSE};
use crate::ws::{CLOSE, PING, PONG, Socket, TEXT};

/// "Service Restart" (RFC 6455's registry): what the gateway has not answered, it has not taken (docs/websocket.md).
const RESTART: &[u8] = &1012_u16.to_be_bytes();

/// Over a WebSocket.
pub(super) struct Ws {
    target: Target,
    era: Era,
    socket: Option<Socket>,
    session: Option<String>,
}

/// Over the binary port.
pub(super) struct Mcpb {
    target: Target,
    era: Era,
    frames: Option<Frames>,
}

impl Ws {
    pub(super) fn new(target: &Target, era: Era) -> Self {
        Self { target: target.clone(), era, socket: None, session: None }
    }

    fn open(&mut self, ledger: &Ledger) -> Result<Socket, Trouble> {
        let path = if self.era == Era::Legacy { "/ws/legacy" } else { "/ws/modern" };
        let mut headers = vec![("sec-websocket-protocol", "mcp")];
        headers.extend(self.session.as_deref().map(|session| ("mcp-session-id", session)));
        let connection = Connection::tls(self.target.https, &self.target.tls)
            .map_err(|error| failed("connecting", error))?;
        let mut socket = match Socket::upgrade(connection, path, &headers) {
            Ok(Ok(socket)) => socket,
            Ok(Err(refusal)) => {
                let refused = super::http::judge_http(&refusal).err();
                return Err(refused.unwrap_or_else(|| failed("no upgrade", refusal.status)));
            }
            Err(error) => return Err(failed("upgrading", error)),
        };
        if self.era == Era::Legacy && self.session.is_none() {
            let answer = ask(&mut socket, &initialize(LEGACY))?;
            let Some(session) = answer["result"]["_meta"]["mcp-gateway/sessionId"].as_str() else {
                return Err(judge(answer).err().unwrap_or_else(|| failed("no session", path)));
            };
            let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
            socket.try_send_json(&initialized).map_err(|error| failed("sending", error))?;
            ledger.opened(session, Way::One);
            self.session = Some(session.to_owned());
        }
        Ok(socket)
    }
}

impl Client for Ws {
    fn call(&mut self, ledger: &Ledger, number: u64) -> Outcome {
        if self.socket.as_mut().is_some_and(Socket::is_over) {
            self.socket = None;
        }
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.open(ledger)?,
        };
        let answer = judge(ask(&mut socket, &message(self.era, "where", number))?);
        if answer != Err(Trouble::NotTaken) {
            self.socket = Some(socket);
        }
        answer
    }

    fn forget(&mut self) {
        (self.socket, self.session) = (None, None);
    }
}

impl Mcpb {
    pub(super) fn new(target: &Target, era: Era) -> Self {
        Self { target: target.clone(), era, frames: None }
    }

    fn open(&mut self, ledger: &Ledger) -> Result<Frames, Trouble> {
        let mut frames = Frames::open_at(self.target.mcpb, &self.target.tls)
            .map_err(|error| failed("connecting", error))?;
        if self.era == Era::Legacy {
            let (answer, _) = exchange(&mut frames, &initialize(LEGACY))?;
            let Some(session) = answer["result"]["sessionId"].as_str() else {
                return Err(judge(answer).err().unwrap_or_else(|| failed("no session", "MCPB")));
            };
            let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
            let text = initialized.to_string();
            frames.send(REQUEST, text.as_bytes()).map_err(|error| failed("sending", error))?;
            ledger.opened(session, Way::All);
        }
        Ok(frames)
    }
}

impl Client for Mcpb {
    fn call(&mut self, ledger: &Ledger, number: u64) -> Outcome {
        if self.frames.as_mut().is_some_and(Frames::has_ended) {
            self.frames = None;
        }
        let mut frames = match self.frames.take() {
            Some(frames) => frames,
            None => self.open(ledger)?,
        };
        let tool = if self.era == Era::Legacy { "legacy__where" } else { "modern__where" };
        let (answer, leaves) = exchange(&mut frames, &message(self.era, tool, number))?;
        let answer = judge(answer);
        if !leaves && answer != Err(Trouble::NotTaken) {
            self.frames = Some(frames);
        }
        answer
    }

    fn forget(&mut self) {
        self.frames = None;
    }
}

/// Sends a request over a socket and gives its response.
fn ask(socket: &mut Socket, request: &Value) -> Outcome {
    socket.try_send_json(request).map_err(|error| failed("sending", error))?;
    loop {
        let frame = socket.try_receive().map_err(|error| failed("no answer", error))?;
        match frame.first {
            PING => socket.try_send(PONG, &frame.payload).map_err(|error| failed("sending", error))?,
            TEXT => {
                let message: Value =
                    serde_json::from_slice(&frame.payload).map_err(|error| failed("no JSON", error))?;
                if message.get("method").is_none() && message["id"] == request["id"] {
                    return Ok(message);
                }
            }
            CLOSE if frame.payload.starts_with(RESTART) => return Err(Trouble::NotTaken),
            _ => return Err(failed("closed", String::from_utf8_lossy(&frame.payload))),
        }
    }
}

/// Sends a request and gives its response, and whether the gateway takes its leave.
fn exchange(frames: &mut Frames, request: &Value) -> Result<(Value, bool), Trouble> {
    frames.send(REQUEST, request.to_string().as_bytes()).map_err(|error| failed("sending", error))?;
    let mut leaves = false;
    loop {
        let (kind, payload) = frames.receive().map_err(|error| failed("no answer", error))?;
        match kind {
            CONTROL => {
                leaves = true;
                let heard = br#"{"command":"shutdown_ack","status":"ok"}"#;
                frames.send(CONTROL, heard).map_err(|error| failed("sending", error))?;
            }
            RESPONSE => {
                let message: Value =
                    serde_json::from_slice(&payload).map_err(|error| failed("no JSON", error))?;
                if message["id"] == request["id"] {
                    return Ok((message, leaves));
                }
            }
            // What the servers say by themselves.
            REQUEST => {}
            other => {
                return Err(failed("a frame", format!("{other}: {}", String::from_utf8_lossy(&payload))));
            }
        }
    }
}
