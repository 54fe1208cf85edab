//! An answer in frames: owns what becomes of a server's answer. A JSON body is one message, each event of a stream another;
//! a client's notification or response gets nothing. Never decides what the answer is.
//!
//! Invariant: a request gets exactly one response, whatever becomes of the server's answer, unless the connection ends or
//! the client cancelled it.

use std::rc::Rc;

use mcp_protocol::http1::is_event_stream;
use mcp_protocol::jsonrpc::{Kind, Scan};
use mcp_protocol::sse::raw_events;
use mcp_shard_store::id::ID_CHARS;

use super::answered::on_answered;
use super::fields::{each_message, field, no_response, response_to};
use super::flow::{on_asked, send_refusal};
use super::position::Position;
use super::state::{Ended, MAX_RESUMES, Resume};
use super::{FramedDoor, Opened, with_framed};
use crate::exchange::Scope;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::conn::{Conn, Gone};

pub(crate) struct FramedReply<D: FramedDoor> {
    shard: Rc<Shard>,
    conn: Rc<Conn>,
    scope: Scope,
    /// The exchange's number on its connection.
    flight: u32,
    /// The raw id of a request that waits for its response.
    id: Option<Rc<[u8]>>,
    /// The request is `initialize`: when it succeeds, its session is the connection's.
    login: Option<D::Login>,
    /// The message's own credential.
    authorization: Option<Rc<str>>,
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
pub(super) struct About<L> {
    pub(super) flight: u32,
    pub(super) id: Option<Rc<[u8]>>,
    pub(super) login: Option<L>,
    pub(super) authorization: Option<Rc<str>>,
    pub(super) resumable: bool,
    pub(super) tries: Option<u32>,
    pub(super) position: Position,
}

impl<D: FramedDoor> FramedReply<D> {
    pub(super) fn new(shard: &Rc<Shard>, conn: &Rc<Conn>, scope: Scope, about: About<D::Login>) -> Self {
        FramedReply {
            shard: shard.clone(),
            conn: conn.clone(),
            scope,
            flight: about.flight,
            id: about.id,
            login: about.login,
            authorization: about.authorization,
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
            let _ = send_refusal::<D>(&self.shard, &self.conn, refusal, Some(&id));
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
        on_answered::<D>(&shard, &conn, ended);
    }

    /// How the answer goes on, when its stream ended before the response and can be resumed.
    fn resume(&self) -> Option<Resume> {
        let id = self.id.clone().filter(|_| self.events && self.resumable && self.position.id.is_some())?;
        let tries = if self.position.moved { 0 } else { self.tries.map_or(0, |tries| tries + 1) };
        // A later `initialize` may have opened another session, to which the stream does not belong.
        let is_of_session = with_framed::<D, _>(&self.conn, |framed| {
            let of = framed.flights.iter().find(|flight| flight.number == self.flight);
            of.is_some_and(|flight| flight.session_number == framed.session_number)
        });
        let authorization = self.authorization.clone();
        (tries < MAX_RESUMES && is_of_session && !self.shard.is_draining()).then_some(Resume {
            id,
            authorization,
            tries,
        })
    }

    fn server_name(&self) -> String {
        self.scope.name(&self.shard).to_string()
    }

    fn refuse_counted(&mut self, refusal: &Refusal) {
        self.shard.metrics.refused(refusal.row().reason);
        self.refuse(refusal);
    }

    fn collect(&mut self, data: &[u8]) -> Result<(), Gone> {
        let refusal = if self.body.len() + data.len() > D::longest(&self.shard) {
            self.too_long()
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

    /// A whole JSON body.
    fn json(&mut self, body: &[u8]) -> Result<(), Gone> {
        if !body.is_empty() {
            self.pass(body)?;
        }
        if self.id.is_some() {
            self.refuse_counted(&no_response(self.server_name(), self.status));
        }
        Ok(())
    }

    fn pass(&mut self, said: &[u8]) -> Result<(), Gone> {
        each_message(said, |message, scan| self.pass_one(message, scan))
    }

    fn pass_one(&mut self, message: &[u8], scan: &Scan) -> Result<(), Gone> {
        match scan.kind {
            Kind::Notification => self.send(scan.kind, message),
            Kind::Request => {
                self.send(scan.kind, message)?;
                on_asked::<D>(&self.shard, &self.conn);
                Ok(())
            }
            Kind::Response => {
                let response = self.id.as_deref().and_then(|id| response_to(id, message, scan));
                response.map_or(Ok(()), |response| self.respond(&response, scan))
            }
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
            return self.send_response(response, id);
        };
        let revision = revision.as_ref().into();
        let opened = Opened { request: &id, response, result, session, revision };
        let response = D::log_in(&self.shard, &self.conn, login, opened);
        self.send_response(&response, id)
    }

    fn send_response(&mut self, response: &[u8], id: Rc<[u8]>) -> Result<(), Gone> {
        if response.len() > D::longest(&self.shard) {
            self.id = Some(id);
            let refusal = self.too_long();
            self.refuse_counted(&refusal);
            return Ok(());
        }
        self.send(Kind::Response, response)
    }

    fn too_long(&self) -> Refusal {
        Refusal::UpstreamMalformed { server: self.server_name(), what: "more than a message may hold" }
    }

    fn send(&self, kind: Kind, message: &[u8]) -> Result<(), Gone> {
        D::send(&self.shard, &self.conn, kind, message)
    }
}

impl<D: FramedDoor> Drop for FramedReply<D> {
    fn drop(&mut self) {
        self.count(0);
    }
}
