//! Where the answers of single servers go when the client asked all: owns their joining on the way to the client
//! ([`FederatedReply::Joined`]), their collecting ([`FederatedReply::Collect`]), and their feeding into a stream of many
//! ([`FederatedReply::Feed`]). Never decides what an answer is.

use std::rc::Rc;

use mcp_protocol::http1::{is_event_stream, is_json};
use mcp_protocol::jsonrpc::{Kind, Payload, ScanLimits, scan};
use mcp_protocol::mcp::federation::Asked;
use mcp_protocol::sse::{RawEvent, raw_events};

use super::feed::Feed;
use crate::door::Reply;
use crate::door::answers::field;
use crate::door::reply::Framing;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::conn::Gone;

pub(crate) enum FederatedReply {
    Joined(Box<Joined>),
    Collect(Collect),
    Feed(Feed),
}

/// The client's own reply, through which one server speaks, as soon as it is known which.
pub(crate) struct Joined {
    shard: Rc<Shard>,
    inner: Reply,
    of: Option<(usize, Asked)>,
    body: Body,
}

/// What an answer's body is.
enum Body {
    /// Nothing of a server's, or nothing that is known to hold names.
    Plain,
    Events,
    /// JSON as far as it is here; its head waits for the whole.
    Json {
        fields: Vec<u8>,
        text: Vec<u8>,
    },
}

/// An answer that is wanted whole.
pub(crate) struct Collect {
    shard: Rc<Shard>,
    pub(super) status: u16,
    pub(super) fields: Vec<u8>,
    events: bool,
    /// The body, or the response among its events.
    pub(super) body: Vec<u8>,
    counted: usize,
}

impl FederatedReply {
    /// The client's reply, for a message to all.
    pub(crate) fn new(shard: &Rc<Shard>, inner: Reply) -> Self {
        FederatedReply::Joined(Box::new(Joined { shard: shard.clone(), inner, of: None, body: Body::Plain }))
    }

    /// An answer that is collected.
    pub(in crate::exchange) fn collect(shard: &Rc<Shard>) -> Self {
        FederatedReply::Collect(Collect {
            shard: shard.clone(),
            status: 0,
            fields: Vec::new(),
            events: false,
            body: Vec::new(),
            counted: 0,
        })
    }

    /// What was collected: status, header lines and body, or the response alone where it came as an event.
    pub(in crate::exchange) fn into_parts(self) -> (u16, Vec<u8>, Vec<u8>) {
        match self {
            FederatedReply::Collect(mut collect) => {
                let fields = if collect.events {
                    b"Content-Type: application/json\r\n".to_vec()
                } else {
                    std::mem::take(&mut collect.fields)
                };
                (collect.status, fields, std::mem::take(&mut collect.body))
            }
            FederatedReply::Joined(_) | FederatedReply::Feed(_) => (0, Vec::new(), Vec::new()),
        }
    }

    /// From now on this server speaks, in answer to this.
    pub(super) fn join(&mut self, server: usize, asked: Asked) {
        if let FederatedReply::Joined(joined) = self {
            joined.of = Some((server, asked));
        }
    }

    pub(crate) fn status(&self) -> u16 {
        match self {
            FederatedReply::Joined(joined) => match &joined.body {
                Body::Json { .. } => 200,
                Body::Plain | Body::Events => joined.inner.status(),
            },
            FederatedReply::Collect(collect) => collect.status,
            FederatedReply::Feed(feed) => feed.status(),
        }
    }

    pub(crate) fn begin(&mut self, status: u16, fields: &[u8], framing: Framing) {
        match self {
            FederatedReply::Joined(joined) => joined.begin(status, fields, framing),
            FederatedReply::Collect(collect) => collect.begin(status, fields),
            FederatedReply::Feed(feed) => feed.begin(status, fields),
        }
    }

    pub(crate) fn flush_head(&mut self) -> Result<(), Gone> {
        match self {
            FederatedReply::Joined(joined) => joined.inner.flush_head(),
            FederatedReply::Collect(_) | FederatedReply::Feed(_) => Ok(()),
        }
    }

    pub(crate) async fn data(&mut self, data: &[u8]) -> Result<(), Gone> {
        match self {
            FederatedReply::Joined(joined) => joined.data(data).await,
            FederatedReply::Collect(collect) => collect.data(data),
            FederatedReply::Feed(feed) => feed.data(data).await,
        }
    }

    pub(crate) fn push(&mut self, event: &[u8]) -> Result<(), Gone> {
        match self {
            FederatedReply::Joined(joined) => joined.inner.push(event),
            FederatedReply::Collect(_) | FederatedReply::Feed(_) => Err(Gone),
        }
    }

    pub(crate) fn wants_comments(&self) -> bool {
        match self {
            FederatedReply::Joined(joined) => joined.inner.wants_comments(),
            FederatedReply::Collect(_) | FederatedReply::Feed(_) => false,
        }
    }

    pub(crate) fn comment(&mut self) -> Result<(), Gone> {
        match self {
            FederatedReply::Joined(joined) => joined.inner.comment(),
            FederatedReply::Collect(_) | FederatedReply::Feed(_) => Ok(()),
        }
    }

    pub(crate) async fn drained(&self) -> Result<(), Gone> {
        match self {
            FederatedReply::Joined(joined) => Box::pin(joined.inner.drained()).await,
            FederatedReply::Collect(_) => Ok(()),
            FederatedReply::Feed(feed) => feed.drained().await,
        }
    }

    pub(crate) fn full(&mut self, status: u16, fields: &[u8], body: &[u8]) {
        match self {
            FederatedReply::Joined(joined) => match joined.of {
                Some((server, asked)) => {
                    let setup = joined.shard.setup();
                    let federation = &setup.federation;
                    joined.inner.full(status, fields, &federation.outward(server, asked, body));
                }
                None => joined.inner.full(status, fields, body),
            },
            FederatedReply::Collect(collect) => {
                collect.begin(status, fields);
                // Nobody waits for an answer that is too long.
                let _ = collect.data(body);
            }
            FederatedReply::Feed(feed) => feed.begin(status, fields),
        }
    }

    pub(crate) fn end(&mut self) {
        match self {
            FederatedReply::Joined(joined) => joined.end(),
            FederatedReply::Collect(_) | FederatedReply::Feed(_) => {}
        }
    }

    pub(crate) fn refuse(&mut self, refusal: &Refusal, id: Option<&[u8]>) {
        match self {
            FederatedReply::Joined(joined) => joined.inner.refuse(refusal, id),
            FederatedReply::Collect(_) | FederatedReply::Feed(_) => {}
        }
    }

    pub(crate) fn break_off(&mut self, refusal: &Refusal) {
        match self {
            FederatedReply::Joined(joined) => joined.inner.break_off(refusal),
            FederatedReply::Collect(_) | FederatedReply::Feed(_) => {}
        }
    }

    pub(crate) async fn done(self) {
        match self {
            FederatedReply::Joined(joined) => Box::pin(joined.inner.done()).await,
            FederatedReply::Collect(_) | FederatedReply::Feed(_) => {}
        }
    }
}

impl Joined {
    fn begin(&mut self, status: u16, fields: &[u8], framing: Framing) {
        let kind = field(fields, "content-type").unwrap_or_default();
        if self.of.is_none() {
            self.inner.begin(status, fields, framing);
        } else if is_event_stream(kind) {
            self.body = Body::Events;
            self.inner.begin(status, fields, Framing::Stream);
        } else if is_json(kind) && status == 200 {
            self.body = Body::Json { fields: fields.to_vec(), text: self.shard.take_buffer() };
        } else {
            self.inner.begin(status, fields, framing);
        }
    }

    async fn data(&mut self, data: &[u8]) -> Result<(), Gone> {
        let limit = self.shard.setup().config.server.max_body_bytes;
        match (&mut self.body, self.of) {
            (Body::Events, Some((server, asked))) => {
                let mut out = self.shard.take_buffer();
                raw_events(data).for_each(|event| write_joined(&self.shard, server, asked, &event, &mut out));
                let passed = Box::pin(self.inner.data(&out)).await;
                self.shard.give_buffer(out);
                passed
            }
            (Body::Json { text, .. }, _) if text.len() + data.len() <= limit => {
                text.extend_from_slice(data);
                Ok(())
            }
            (Body::Json { .. }, Some((server, _))) => {
                let server = self.shard.setup().federation.name(server).to_owned();
                let refusal = Refusal::UpstreamMalformed { server, what: "more than a message may hold" };
                self.shard.metrics.refused(refusal.row().reason);
                self.body = Body::Plain;
                Err(Gone)
            }
            (Body::Plain | Body::Json { .. } | Body::Events, _) => Box::pin(self.inner.data(data)).await,
        }
    }

    fn end(&mut self) {
        match (std::mem::replace(&mut self.body, Body::Plain), self.of) {
            (Body::Json { fields, text }, Some((server, asked))) => {
                let setup = self.shard.setup();
                let federation = &setup.federation;
                self.inner.full(200, &fields, &federation.outward(server, asked, &text));
                self.shard.give_buffer(text);
            }
            _ => self.inner.end(),
        }
    }
}

/// Appends a server's event as the client gets it.
pub(super) fn write_joined(
    shard: &Shard,
    server: usize,
    asked: Asked,
    event: &RawEvent<'_>,
    out: &mut Vec<u8>,
) {
    let setup = shard.setup();
    let federation = &setup.federation;
    let data = event.data.as_deref().unwrap_or_default();
    let joined = federation.outward(server, asked, data);
    event.write_with(out, &joined, |id| federation.event_id(server, asked, id));
}

impl Collect {
    fn begin(&mut self, status: u16, fields: &[u8]) {
        self.status = status;
        self.fields = fields.to_vec();
        self.events = field(fields, "content-type").is_some_and(is_event_stream);
    }

    fn data(&mut self, data: &[u8]) -> Result<(), Gone> {
        if self.events {
            let found = raw_events(data).filter_map(|event| event.data).find(|data| is_response(data));
            if let Some(response) = found {
                self.body = response.into_owned();
            }
        } else {
            self.body.extend_from_slice(data);
        }
        self.count(self.body.capacity());
        let fits = self.body.len() <= self.shard.setup().config.server.max_body_bytes;
        if fits && self.shard.has_memory() { Ok(()) } else { Err(Gone) }
    }

    fn count(&mut self, held: usize) {
        self.shard.buffered.set(self.shard.buffered.get() + held - self.counted);
        self.counted = held;
    }
}

impl Drop for Collect {
    fn drop(&mut self) {
        self.count(0);
    }
}

/// Whether a text is a JSON-RPC response.
pub(super) fn is_response(text: &[u8]) -> bool {
    matches!(scan(text, &ScanLimits::default()), Ok(Payload::Single(scan)) if scan.kind == Kind::Response)
}
