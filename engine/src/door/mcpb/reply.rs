//! An answer over MCPB: owns what becomes of a server's answer in frames. A JSON body is one Response frame; of an event
//! stream each message is a frame of its own, server requests and notifications as Request; a client's notification
//! or response gets nothing. Never decides what the answer is.
//!
//! Invariant: a request gets exactly one Response frame, whatever becomes of the server's answer, unless the connection
//! ends or the client cancelled it.

use std::rc::Rc;
use std::time::SystemTime;

use mcp_protocol::http1::is_event_stream;
use mcp_protocol::jsonrpc::{Kind, Payload, Scan, ScanLimits, scan};
use mcp_protocol::mcpb::{FrameKind, MAX_PAYLOAD};
use mcp_protocol::sse::raw_events;
use mcp_shard_store::id::ID_CHARS;
use serde_json::value::RawValue;

use super::login::{bare_response, expires_at, with_session};
use super::request::LoginKind;
use super::{Ended, Session};
use crate::door::framed::{field, same_id, with_id};
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::conn::{Conn, Gone};

/// What an `initialize` brings about when it succeeds.
pub(super) struct Login {
    pub(super) kind: LoginKind,
    pub(super) authorization: Option<Rc<str>>,
}

pub(crate) struct McpbReply {
    shard: Rc<Shard>,
    conn: Rc<Conn>,
    /// The exchange's number on its connection.
    flight: u32,
    /// The raw id of a request that waits for its response.
    id: Option<Rc<[u8]>>,
    login: Option<Login>,
    status: u16,
    /// The body is an event stream.
    events: bool,
    /// The session that the answer's head names: `initialize` opened it.
    session: Option<[u8; ID_CHARS]>,
    /// A JSON body as far as it is here, counted in [`Shard::buffered`].
    body: Vec<u8>,
    counted: usize,
    /// A bare login succeeded: the server must still be told.
    announce: bool,
}

impl McpbReply {
    pub(super) fn new(
        shard: &Rc<Shard>,
        conn: &Rc<Conn>,
        flight: u32,
        id: Option<Rc<[u8]>>,
        login: Option<Login>,
    ) -> Self {
        McpbReply {
            shard: shard.clone(),
            conn: conn.clone(),
            flight,
            id,
            login,
            status: 0,
            events: false,
            session: None,
            body: Vec::new(),
            counted: 0,
            announce: false,
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
                if let Some(message) = event.data {
                    self.pass(&message)?;
                }
            }
        } else {
            self.collect(data)?;
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
        if let Some(id) = self.id.take() {
            let _ = super::send_refusal(&self.shard, &self.conn, refusal, Some(&id));
        }
    }

    pub(crate) fn done(mut self) {
        if self.id.is_some() {
            let server = self.server();
            self.refuse_counted(&Refusal::UpstreamClosed { server });
        }
        let ended = Ended { flight: self.flight, status: self.status, announce: self.announce };
        let (shard, conn) = (self.shard.clone(), self.conn.clone());
        drop(self);
        super::on_answered(&shard, &conn, ended);
    }

    fn server(&self) -> String {
        self.shard.upstreams[super::SERVER].name.to_string()
    }

    fn refuse_counted(&mut self, refusal: &Refusal) {
        self.shard.metrics.refused(refusal.row().reason);
        self.refuse(refusal);
    }

    fn collect(&mut self, data: &[u8]) -> Result<(), Gone> {
        let refusal = if self.body.len() + data.len() > MAX_PAYLOAD as usize {
            Refusal::UpstreamMalformed { server: self.server(), what: "more than a frame can hold" }
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
            let (server, status) = (self.server(), self.status);
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
            Kind::Notification => self.send(FrameKind::Request, message),
            Kind::Request => {
                self.send(FrameKind::Request, message)?;
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
        let Some(id) = self.id.take() else { return Ok(()) };
        let session = self.session.filter(|_| !scan.is_error);
        let revision = scan.result_protocol_version.map(|revision| revision.decode(response));
        let (Some(login), Some(session), Some(revision), Some(result)) =
            (self.login.take(), session, revision, scan.result)
        else {
            return self.send_response(response, &id);
        };
        let expires_at = expires_at(SystemTime::now(), self.shard.process.config.session.ttl);
        super::open_session(
            &self.shard,
            &self.conn,
            Session { id: session, revision: revision.as_ref().into(), authorization: login.authorization },
        );
        match login.kind {
            LoginKind::Mcp => self.send_response(&with_session(response, result, &session, &expires_at), &id),
            LoginKind::Bare => {
                self.announce = true;
                self.send_response(&bare_response(&id, &session, &expires_at), &id)
            }
        }
    }

    fn send_response(&mut self, response: &[u8], id: &Rc<[u8]>) -> Result<(), Gone> {
        if response.len() > MAX_PAYLOAD as usize {
            self.id = Some(id.clone());
            let server = self.server();
            self.refuse_counted(&Refusal::UpstreamMalformed { server, what: "more than a frame can hold" });
            return Ok(());
        }
        self.send(FrameKind::Response, response)
    }

    fn send(&self, kind: FrameKind, message: &[u8]) -> Result<(), Gone> {
        super::send(&self.shard, &self.conn, kind, message)
    }
}

impl Drop for McpbReply {
    fn drop(&mut self) {
        self.count(0);
    }
}
