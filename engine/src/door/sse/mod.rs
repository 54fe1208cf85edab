//! HTTP with SSE (revision 2024-11-05) at `/sse` and `/sse/<server>`: a GET opens a stream, whose first event names where
//! messages are to be POSTed; their answers, and what the server says by itself, come as events of the stream. Owns the
//! streams of a shard and the step from a POST to a message of one of them. A message's way goes through
//! [`crate::exchange`] as over any other door.
//!
//! A stream is a legacy session, which ends with it. A POST may reach any shard of any pod: it is forwarded to the stream's
//! owner ([`crate::peer`]), and answered 202 when that has taken the message.
//!
//! Invariants: no borrow of a stream is held while bytes are sent or a task is cancelled, because both may end it; an idle
//! stream owns no buffer, and one small task that sleeps.

mod open;
mod post;
pub(crate) mod recipient;
mod state;
mod stream;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use mcp_shard_store::SessionId;

use crate::exchange::{Inbound, find_trace};
use crate::metrics::{Protocol, RequestLabels, Took};
use crate::shard::Shard;
pub(crate) use open::open;
pub(crate) use post::{post, take};
pub(crate) use state::With;
pub(crate) use stream::{Arrived, Stream};

/// Counts a request that no exchange counts: the opening of a stream, and a POST that was refused.
fn account(shard: &Shard, inbound: &Inbound, method: usize, status: u16, started_us: u64) {
    let labels = RequestLabels {
        server: inbound.scope.label(),
        method: method as u8,
        status,
        protocol: Protocol::Sse,
    };
    let took = Took::between(started_us, shard.core.clock.precise_us());
    shard.metrics.request(labels, Some(took), || find_trace(shard, &inbound.message, None));
}

/// A shard's open streams, by their sessions.
#[derive(Default)]
pub(crate) struct Streams(RefCell<HashMap<SessionId, Rc<Stream>>>);

impl Streams {
    /// The stream of a session, when this shard holds it.
    pub(crate) fn get(&self, id: &SessionId) -> Option<Rc<Stream>> {
        self.0.borrow().get(id).cloned()
    }

    fn insert(&self, stream: &Rc<Stream>) {
        self.0.borrow_mut().insert(stream.id, stream.clone());
    }

    fn remove(&self, id: &SessionId) {
        let mut streams = self.0.borrow_mut();
        streams.remove(id);
        if streams.is_empty() {
            streams.shrink_to_fit();
        }
    }
}
