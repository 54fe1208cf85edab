//! An answer on a stream of HTTP with SSE: owns what becomes of a server's answer in events. A JSON body is one event, each
//! event of a server's stream another; a client's notification or response gets nothing. Never decides what the answer is.
//!
//! Invariant: a request gets exactly one response, whatever becomes of the server's answer, unless the stream ends or the
//! client cancelled it.

use std::rc::Rc;

use mcp_protocol::http1::is_event_stream;
use mcp_protocol::jsonrpc::{Kind, Scan};
use mcp_protocol::sse::raw_events;

use super::state::{Ended, Held, Resume};
use super::stream::Stream;
use crate::door::framed::{MAX_RESUMES, Position, each_message, field, no_response, response_to};
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::conn::Gone;

pub(crate) struct SseReply {
    shard: Rc<Shard>,
    stream: Rc<Stream>,
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
pub(super) struct About {
    /// The exchange's number on its stream.
    pub(super) flight: u32,
    /// The raw id of a request that waits for its response.
    pub(super) id: Option<Rc<[u8]>>,
    /// The request is `initialize`.
    pub(super) initializes: bool,
    /// The answer's stream may be resumed: the message is of the legacy era.
    pub(super) resumable: bool,
    /// For a stream that is resumed: those before it, in a row, on which no message came.
    pub(super) tries: Option<u32>,
    pub(super) position: Position,
}

impl SseReply {
    pub(super) fn new(shard: &Rc<Shard>, stream: &Rc<Stream>, about: About) -> Self {
        SseReply {
            shard: shard.clone(),
            stream: stream.clone(),
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
    }

    pub(crate) async fn data(&mut self, data: &[u8]) -> Result<(), Gone> {
        if self.events {
            // The stream is others' as well: what they have sent meanwhile counts.
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
        self.stream.drained().await
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
            self.stream.send_refusal(&self.shard, refusal, &id);
        }
    }

    pub(crate) fn done(mut self) {
        let resume = self.resume();
        if self.about.id.is_some() && resume.is_none() {
            let server = self.server_name();
            self.refuse_counted(&Refusal::UpstreamClosed { server });
        }
        let SseReply { shard, stream, about, status, session_ended, .. } = self;
        let ended = Ended { flight: about.flight, status, session_ended, position: about.position, resume };
        stream.on_answered(&shard, ended);
    }

    /// How the answer goes on, when its stream ended before the response and can be resumed.
    fn resume(&self) -> Option<Resume> {
        let About { id, resumable, tries, position, .. } = &self.about;
        let id = id.clone().filter(|_| self.events && *resumable && position.id.is_some())?;
        let tries = if position.moved { 0 } else { tries.map_or(0, |tries| tries + 1) };
        (tries < MAX_RESUMES && !self.shard.is_draining()).then_some(Resume { id, tries })
    }

    fn server_name(&self) -> String {
        self.stream.scope.name(&self.shard).to_string()
    }

    fn refuse_counted(&mut self, refusal: &Refusal) {
        self.shard.metrics.refused(refusal.row().reason);
        self.refuse(refusal);
    }

    fn collect(&mut self, data: &[u8]) -> Result<(), Gone> {
        let refusal = if self.body.len() + data.len() > self.shard.setup().config.server.max_body_bytes {
            Refusal::UpstreamMalformed { server: self.server_name(), what: "more than a message may hold" }
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
            self.refuse_counted(&no_response(self.server_name(), self.status));
        }
        Ok(())
    }

    fn pass(&mut self, said: &[u8]) -> Result<(), Gone> {
        each_message(said, |message, scan| self.pass_one(message, scan))
    }

    fn pass_one(&mut self, message: &[u8], scan: &Scan) -> Result<(), Gone> {
        match scan.kind {
            Kind::Notification | Kind::Request => self.stream.send(&self.shard, message),
            Kind::Response => {
                let response = self.about.id.as_deref().and_then(|id| response_to(id, message, scan));
                response.map_or(Ok(()), |response| self.respond(&response, scan))
            }
        }
    }

    /// Sends the response that the request waits for.
    fn respond(&mut self, response: &[u8], scan: &Scan) -> Result<(), Gone> {
        self.about.id = None;
        if let Some(revision) = scan.result_protocol_version.filter(|_| self.about.initializes) {
            self.stream.on_initialized(&revision.decode(response));
        }
        self.stream.send(&self.shard, response)
    }
}
