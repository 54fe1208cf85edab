//! An answer over a socket: owns what becomes of a server's answer in text messages. A JSON body is one message, each event
//! of a stream another; a client's notification or response gets nothing. Never decides what the answer is.
//!
//! Invariant: a request gets exactly one response, whatever becomes of the server's answer, unless the socket closes or
//! the client cancelled it.

use std::rc::Rc;

use mcp_protocol::http1::is_event_stream;
use mcp_protocol::jsonrpc::{Kind, Payload, Scan, ScanLimits, scan};
use mcp_protocol::mcp::with_result_meta;
use mcp_protocol::sse::raw_events;
use mcp_shard_store::id::ID_CHARS;
use serde_json::value::RawValue;

use super::position::Position;
use super::state::{Ended, MAX_RESUMES, Resume, Session};
use crate::door::framed::{field, same_id, with_id};
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::conn::{Conn, Gone};

/// The member of `initialize`'s result `_meta` that tells the session's id.
pub(crate) const SESSION_META: &str = "mcp-gateway/sessionId";

pub(crate) struct WsReply {
    shard: Rc<Shard>,
    conn: Rc<Conn>,
    server: usize,
    /// The exchange's number on its socket.
    flight: u32,
    /// The raw id of a request that waits for its response.
    id: Option<Rc<[u8]>>,
    /// The request is `initialize`: when it succeeds, its session is the socket's.
    opens_session: bool,
    /// The answer's stream may be resumed: the message belongs to a legacy session.
    resumable: bool,
    /// For a stream that is resumed: those before it, in a row, on which no message came.
    tries: Option<u32>,
    position: Position,
    status: u16,
    /// The body is an event stream.
    events: bool,
    /// The session that the answer's head names: `initialize` opened it.
    session: Option<[u8; ID_CHARS]>,
    /// A JSON body as far as it is here, counted in [`Shard::buffered`].
    body: Vec<u8>,
    counted: usize,
    session_ended: bool,
}

/// What an answer is to.
#[derive(Default)]
pub(super) struct About {
    pub(super) flight: u32,
    pub(super) id: Option<Rc<[u8]>>,
    pub(super) opens_session: bool,
    pub(super) resumable: bool,
    pub(super) tries: Option<u32>,
    pub(super) position: Position,
}

impl WsReply {
    pub(super) fn new(shard: &Rc<Shard>, conn: &Rc<Conn>, server: usize, about: About) -> Self {
        WsReply {
            shard: shard.clone(),
            conn: conn.clone(),
            server,
            flight: about.flight,
            id: about.id,
            opens_session: about.opens_session,
            resumable: about.resumable,
            tries: about.tries,
            position: about.position,
            status: 0,
            events: false,
            session: None,
            body: Vec::new(),
            counted: 0,
            session_ended: false,
        }
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn begin(&mut self, status: u16, fields: &[u8]) {
        self.status = status;
        self.events = field(fields, "content-type").is_some_and(is_event_stream);
        self.session = field(fields, "mcp-session-id").and_then(|id| id.try_into().ok());
    }

    pub(crate) async fn data(&mut self, data: &[u8]) -> Result<(), Gone> {
        if self.events {
            for event in raw_events(data) {
                self.position.on_event(&event);
                if let Some(message) = event.data {
                    self.pass(&message)?;
                }
            }
        } else {
            self.collect(data)?;
        }
        // A stream that was resumed for one response has done its part.
        if self.tries.is_some() && self.id.is_none() {
            return Err(Gone);
        }
        self.drained().await
    }

    pub(crate) async fn drained(&self) -> Result<(), Gone> {
        self.conn.drained().await
    }

    pub(crate) fn full(&mut self, status: u16, fields: &[u8], body: &[u8]) {
        self.begin(status, fields);
        // A client that is gone needs no answer; the connection has noticed.
        let _ = self.json(body);
    }

    pub(crate) fn end(&mut self) {
        if !self.events {
            let body = std::mem::take(&mut self.body);
            let _ = self.json(&body);
        }
    }

    pub(crate) fn refuse(&mut self, refusal: &Refusal) {
        self.status = refusal.row().status;
        self.session_ended |= matches!(refusal, Refusal::SessionUnknown);
        if let Some(id) = self.id.take() {
            let _ = super::send_refusal(&self.shard, &self.conn, refusal, Some(&id));
        }
    }

    pub(crate) fn done(mut self) {
        let resume = self.resume();
        if self.id.is_some() && resume.is_none() {
            let server = self.server_name();
            self.refuse_counted(&Refusal::UpstreamClosed { server });
        }
        let ended = Ended {
            flight: self.flight,
            status: self.status,
            session_ended: self.session_ended,
            position: std::mem::take(&mut self.position),
            resume,
        };
        let (shard, conn) = (self.shard.clone(), self.conn.clone());
        drop(self);
        super::on_answered(&shard, &conn, ended);
    }

    /// How the answer goes on, when its stream ended before the response and can be resumed.
    fn resume(&self) -> Option<Resume> {
        let id = self.id.clone().filter(|_| self.events && self.resumable && self.position.id.is_some())?;
        let tries = if self.position.moved { 0 } else { self.tries.map_or(0, |tries| tries + 1) };
        (tries < MAX_RESUMES && !self.shard.is_draining()).then_some(Resume { id, tries })
    }

    fn server_name(&self) -> String {
        self.shard.upstreams[self.server].name.to_string()
    }

    fn refuse_counted(&mut self, refusal: &Refusal) {
        self.shard.metrics.refused(refusal.row().reason);
        self.refuse(refusal);
    }

    fn collect(&mut self, data: &[u8]) -> Result<(), Gone> {
        let refusal = if self.body.len() + data.len() > self.shard.process.config.server.max_body_bytes {
            Refusal::UpstreamMalformed { server: self.server_name(), what: "more than a message may hold" }
        } else if !self.shard.has_memory() {
            Refusal::Memory
        } else {
            self.body.extend_from_slice(data);
            self.count(self.body.capacity());
            return Ok(());
        };
        self.refuse_counted(&refusal);
        // Nothing more of this answer is wanted.
        Err(Gone)
    }

    fn count(&mut self, held: usize) {
        self.shard.buffered.set(self.shard.buffered.get() + held - self.counted);
        self.counted = held;
    }

    /// A whole JSON body. One that is not the response asked for becomes an error, so that no request waits for ever.
    fn json(&mut self, body: &[u8]) -> Result<(), Gone> {
        if !body.is_empty() {
            self.pass(body)?;
        }
        if self.id.is_some() {
            let (server, status) = (self.server_name(), self.status);
            self.refuse_counted(&if status >= 400 {
                Refusal::UpstreamStatus { server, status }
            } else {
                Refusal::UpstreamMalformed { server, what: "no response to the request" }
            });
        }
        Ok(())
    }

    /// Passes on what the server said: one message, or several of a batch.
    fn pass(&mut self, message: &[u8]) -> Result<(), Gone> {
        match scan(message, &ScanLimits::default()) {
            Ok(Payload::Single(scan)) => self.pass_one(message, &scan),
            Ok(Payload::Batch(_)) => {
                let messages: Vec<&RawValue> = serde_json::from_slice(message).unwrap_or_default();
                for message in messages {
                    if let Ok(Payload::Single(scan)) = scan(message.get().as_bytes(), &ScanLimits::default())
                    {
                        self.pass_one(message.get().as_bytes(), &scan)?;
                    }
                }
                Ok(())
            }
            // An event without data is a server's way to name a stream's position (2025-11-25, "Sending Messages").
            Err(_) if message.is_empty() => Ok(()),
            Err(error) => {
                tracing::debug!(%error, "a server sent what is no message");
                Ok(())
            }
        }
    }

    fn pass_one(&mut self, message: &[u8], scan: &Scan) -> Result<(), Gone> {
        match scan.kind {
            Kind::Notification => self.send(message),
            Kind::Request => {
                self.send(message)?;
                super::on_asked(&self.shard, &self.conn);
                Ok(())
            }
            Kind::Response => match (self.id.clone(), scan.id) {
                (Some(id), Some(found)) if same_id(&id, found.of(message)) => self.respond(message, scan),
                // An error about the whole HTTP request names no id; there is only one that it can mean.
                (Some(id), None) => self.respond(&with_id(message, &id), scan),
                (_, _) => Ok(()),
            },
        }
    }

    /// Sends the response that the request waits for.
    fn respond(&mut self, response: &[u8], scan: &Scan) -> Result<(), Gone> {
        self.id = None;
        let session = self.session.filter(|_| self.opens_session && !scan.is_error);
        let revision = scan.result_protocol_version.map(|revision| revision.decode(response));
        let (Some(session), Some(revision), Some(result)) = (session, revision, scan.result) else {
            return self.send(response);
        };
        let revision = Some(revision.as_ref().into());
        super::open_session(&self.shard, &self.conn, Session { id: session, revision });
        // An id's characters need no escaping; they are ASCII.
        let id = String::from_utf8_lossy(&session);
        self.send(&with_result_meta(response, result, SESSION_META, &id))
    }

    fn send(&self, message: &[u8]) -> Result<(), Gone> {
        super::send_text(&self.shard, &self.conn, message)
    }
}

impl Drop for WsReply {
    fn drop(&mut self) {
        self.count(0);
    }
}
