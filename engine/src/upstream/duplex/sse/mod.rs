//! Servers of HTTP with SSE (revision 2024-11-05): owns the stream on which a server speaks, from the GET that opens it to its
//! end. The messages that go the other way are [`post`]'s. Never what a message means.

mod post;
mod target;

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use mcp_protocol::http1::{Method, is_event_stream};
use mcp_protocol::sse::{Decoder, Event};

use super::hub::Wire;
use super::{Closed, breathe, spawn};
use crate::shard::clock::Millis;
use crate::shard::{Elapsed, Shard};
use crate::upstream::Endpoint;
use crate::upstream::answer::Answer;
use crate::upstream::call::{self, Ask};
use post::Posts;
use target::{Origin, target};

/// How long a stream may take to open, from the connection's first packet to the event that says where messages go.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens a stream at the endpoint and connects it with the wire; `fields` are header lines of all its requests.
pub(super) fn open(shard: &Rc<Shard>, endpoint: &Rc<Endpoint>, fields: Vec<u8>, wire: &Wire) {
    let (endpoint, wire) = (endpoint.clone(), wire.clone());
    spawn(shard, |shard| serve(shard, endpoint, fields, wire));
}

async fn serve(shard: Rc<Shard>, endpoint: Rc<Endpoint>, fields: Vec<u8>, wire: Wire) {
    let why = match wire.opened(connect(&shard, &endpoint, &fields)).await {
        Ok((mut stream, target)) => {
            let posts = Posts::new(endpoint, target, fields, &wire);
            spawn(&shard, |shard| post::send_all(shard, posts));
            carry(&shard, &mut stream, &wire).await
        }
        Err(why) => why,
    };
    wire.close(&shard, why);
}

/// A server's stream with the events on it that nobody has taken yet.
struct Stream {
    answer: Answer,
    decoder: Decoder,
    events: Vec<Event>,
}

impl Stream {
    /// Takes the stream's next bytes; what they complete is in `events`.
    async fn read(&mut self, wire: Option<&Wire>) -> Result<(), Closed> {
        let piece = {
            let mut next = pin!(self.answer.next());
            poll_fn(|cx| {
                // What clients are too slow for stays where it is.
                if let Some(wire) = wire
                    && !ready!(wire.poll_may_read(cx))
                {
                    return Poll::Ready(Err(Closed::Ended));
                }
                let piece = ready!(next.as_mut().poll(cx));
                Poll::Ready(piece.ok().flatten().ok_or(Closed::Gone))
            })
            .await?
        };
        let taken = self.decoder.push(self.answer.bytes(piece), &mut self.events);
        taken.map_err(|_| Closed::Malformed("an event that is too large"))
    }
}

/// Opens the stream and learns where messages go.
async fn connect(
    shard: &Rc<Shard>,
    endpoint: &Rc<Endpoint>,
    fields: &[u8],
) -> Result<(Stream, String), Closed> {
    let upstream = shard.upstream(usize::from(endpoint.server));
    let server = &*upstream.name;
    let by = shard.core.clock.after(OPEN_TIMEOUT);
    let mut head = format!("GET {} HTTP/1.1\r\n", endpoint.path).into_bytes();
    head.extend_from_slice(fields);
    head.extend_from_slice(b"Accept: text/event-stream\r\nCache-Control: no-cache\r\n\r\n");
    let ask = Ask { method: Method::Get, head: &head, body: b"", repeatable: true, place_by: by };
    let mut answer = call::ask(shard, endpoint, &ask, by).await.map_err(|error| {
        tracing::warn!(server, ?error, "a server's stream cannot be opened");
        Closed::Connect
    })?;
    if answer.status() != 200 || !is_event_stream(answer.content_type()) {
        tracing::warn!(server, status = answer.status(), "a server answered with no event stream");
        return Err(Closed::Connect);
    }
    answer.detach();
    let decoder = Decoder::new(shard.setup().config.server.max_body_bytes);
    let mut stream = Stream { answer, decoder, events: Vec::new() };
    let uri = first_event(shard, &mut stream, by).await.inspect_err(|_| {
        tracing::warn!(server, "a server did not say where messages go");
    })?;
    let origin =
        Origin { tls: endpoint.is_encrypted(), authority: &endpoint.authority, path: &endpoint.path };
    match target(&origin, &uri) {
        Some(target) => Ok((stream, target)),
        None => {
            tracing::warn!(server, uri, "a server would have messages sent to another origin, or nowhere");
            Err(Closed::Malformed("an endpoint that is not the server's own"))
        }
    }
}

/// The data of the event `endpoint`, which comes before all others.
async fn first_event(shard: &Rc<Shard>, stream: &mut Stream, by: Millis) -> Result<String, Closed> {
    while stream.events.is_empty() {
        let reading = pin!(stream.read(None));
        shard.deadline(by, reading).await.map_err(|Elapsed| Closed::Connect)??;
    }
    let first = stream.events.remove(0);
    if first.event.as_deref() == Some("endpoint") { Ok(first.data) } else { Err(Closed::Connect) }
}

/// Hands on what the server says until the channel's end; says whose that is.
async fn carry(shard: &Rc<Shard>, stream: &mut Stream, wire: &Wire) -> Closed {
    let upstream = shard.upstream(usize::from(wire.server()));
    let server = &*upstream.name;
    loop {
        for event in stream.events.drain(..) {
            let is_message = event.event.as_deref().is_none_or(|name| name == "message");
            if is_message && wire.on_message(shard, event.data.as_bytes()).is_err() {
                tracing::warn!(server, "a server sent an event that is no message");
            }
        }
        if let Err(why) = stream.read(Some(wire)).await {
            tracing::debug!(server, ?why, "a server's stream ended");
            return why;
        }
        breathe().await;
    }
}
