//! An answer in messages: owns what becomes of a server's answer. A JSON body is one message, each event of a stream another;
//! a client's notification or response gets nothing. Never decides what the answer is.
//!
//! Invariant: a request gets exactly one response, whatever becomes of the server's answer, unless its recipient is gone or
//! the client cancelled it.

use std::rc::Rc;

use mcp_protocol::http1::is_event_stream;
use mcp_protocol::jsonrpc::{Kind, Scan};
use mcp_protocol::sse::raw_events;

use super::fields::{each_message, field, no_response, response_to};
use super::{Ended, Held, Position, Recipient, Resume};
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::conn::Gone;

/// How often in a row an answer's stream may end without a message before its request is given up.
const MAX_RESUMES: u32 = 16;

pub(crate) struct MessageReply<R> {
    shard: Rc<Shard>,
    recipient: R,
    about: About,
    status: u16,
    /// The body is an event stream.
    events: bool,
    /// A JSON body as far as it is here.
    body: Vec<u8>,
    held: Held,
    session_ended: bool,
}

/// What an answer is to.
#[derive(Default)]
pub(crate) struct About {
    /// The exchange's number on its connection or stream.
    pub(crate) flight: u32,
    /// The raw id of a request that waits for its response.
    pub(crate) id: Option<Rc<[u8]>>,
    /// The message's own credential.
    pub(crate) authorization: Option<Rc<str>>,
    /// The answer's stream may be resumed: the message belongs to a legacy session.
    pub(crate) resumable: bool,
    /// For a stream that is resumed: those before it, in a row, on which no message came.
    pub(crate) tries: Option<u32>,
    pub(crate) position: Position,
}

impl<R: Recipient> MessageReply<R> {
    pub(crate) fn new(shard: &Rc<Shard>, recipient: R, about: About) -> Self {
        MessageReply {
            shard: shard.clone(),
            recipient,
            about,
            status: 0,
            events: false,
            body: Vec::new(),
            held: Held::new(shard, 0),
            session_ended: false,
        }
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn begin(&mut self, status: u16, fields: &[u8]) {
        self.status = status;
        self.events = field(fields, "content-type").is_some_and(is_event_stream);
        self.recipient.begin(fields);
    }

    pub(crate) async fn data(&mut self, data: &[u8]) -> Result<(), Gone> {
        if self.events {
            // The recipient is others' as well: what they have sent meanwhile counts.
            self.drained().await?;
            for event in raw_events(data) {
                self.about.position.on_event(&event);
                if let Some(message) = event.data {
                    self.pass(&message)?;
                }
            }
        } else {
            self.collect(data)?;
        }
        // A stream that was resumed for one response has done its part.
        if self.about.tries.is_some() && self.about.id.is_none() {
            return Err(Gone);
        }
        self.drained().await
    }

    pub(crate) async fn drained(&self) -> Result<(), Gone> {
        self.recipient.drained().await
    }

    pub(crate) fn full(&mut self, status: u16, fields: &[u8], body: &[u8]) {
        self.begin(status, fields);
        // A client that is gone needs no answer; its door has noticed.
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
        if let Some(id) = self.about.id.take() {
            self.recipient.send_refusal(&self.shard, refusal, &id);
        }
    }

    pub(crate) fn done(mut self) {
        let resume = self.resume();
        if self.about.id.is_some() && resume.is_none() {
            let server = self.recipient.server_name(&self.shard);
            self.refuse_counted(&Refusal::UpstreamClosed { server });
        }
        let MessageReply { shard, recipient, about, status, session_ended, held, .. } = self;
        drop(held);
        let ended = Ended { flight: about.flight, status, session_ended, position: about.position, resume };
        recipient.on_answered(&shard, ended);
    }

    /// How the answer goes on, when its stream ended before the response and can be resumed.
    fn resume(&self) -> Option<Resume> {
        let About { id, authorization, resumable, tries, position, .. } = &self.about;
        let id = id.clone().filter(|_| self.events && *resumable && position.id.is_some())?;
        let tries = if position.moved { 0 } else { tries.map_or(0, |tries| tries + 1) };
        let goes_on =
            tries < MAX_RESUMES && self.recipient.is_waiting(self.about.flight) && !self.shard.is_draining();
        goes_on.then(|| Resume { id, authorization: authorization.clone(), tries })
    }

    fn refuse_counted(&mut self, refusal: &Refusal) {
        self.shard.metrics.refused(refusal.row().reason);
        self.refuse(refusal);
    }

    fn collect(&mut self, data: &[u8]) -> Result<(), Gone> {
        let refusal = if self.body.len() + data.len() > self.recipient.longest(&self.shard) {
            self.too_long()
        } else if !self.shard.has_memory() {
            Refusal::Memory
        } else {
            self.body.extend_from_slice(data);
            self.held = Held::new(&self.shard, self.body.capacity());
            return Ok(());
        };
        self.refuse_counted(&refusal);
        // Nothing more of this answer is wanted.
        Err(Gone)
    }

    /// A whole JSON body.
    fn json(&mut self, body: &[u8]) -> Result<(), Gone> {
        if !body.is_empty() {
            self.pass(body)?;
        }
        if self.about.id.is_some() {
            let server = self.recipient.server_name(&self.shard);
            self.refuse_counted(&no_response(server, self.status));
        }
        Ok(())
    }

    fn pass(&mut self, said: &[u8]) -> Result<(), Gone> {
        each_message(said, |message, scan| self.pass_one(message, scan))
    }

    fn pass_one(&mut self, message: &[u8], scan: &Scan) -> Result<(), Gone> {
        match scan.kind {
            Kind::Notification | Kind::Request => self.recipient.send(&self.shard, scan.kind, message),
            Kind::Response => self.respond(message, scan),
        }
    }

    /// Sends the response that the request waits for.
    fn respond(&mut self, response: &[u8], scan: &Scan) -> Result<(), Gone> {
        let Some(id) = self.about.id.clone() else { return Ok(()) };
        let Some(response) = response_to(&id, response, scan) else { return Ok(()) };
        let response = self.recipient.on_response(&self.shard, &id, response, scan);
        if response.len() > self.recipient.longest(&self.shard) {
            let refusal = self.too_long();
            self.refuse_counted(&refusal);
            return Ok(());
        }
        self.about.id = None;
        self.recipient.send(&self.shard, Kind::Response, &response)
    }

    fn too_long(&self) -> Refusal {
        let server = self.recipient.server_name(&self.shard);
        Refusal::UpstreamMalformed { server, what: "more than a message may hold" }
    }
}
