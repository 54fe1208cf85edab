//! A stream in flight: owns its phases and the reading of its body. It never sends and never starts anything.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use h2::RecvStream;

use super::answer::Answer;
use super::reply::H2Reply;
use crate::exchange::HttpHead;
use crate::policy::admission::Route;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::clock::{Millis, NEVER};
use crate::shard::tasks::TaskId;

/// A stream in flight.
pub(super) struct Flight {
    pub(super) stream: u32,
    pub(super) answer: Rc<Answer>,
    pub(super) phase: Phase,
    /// Bytes of the request.
    pub(super) bytes: usize,
    /// When the client must have taken more of the answer.
    pub(super) stalled_by: Millis,
}

impl Flight {
    pub(super) fn new(stream: u32, answer: &Rc<Answer>) -> Self {
        Flight { stream, answer: answer.clone(), phase: Phase::Ending, bytes: 0, stalled_by: NEVER }
    }

    /// Bytes of the request's content.
    pub(super) fn content_bytes(&self) -> usize {
        match &self.phase {
            Phase::Body(pending) => pending.body.len(),
            Phase::Exchange(_) | Phase::Ending => self.bytes,
        }
    }

    /// When the patience with its client ends.
    pub(super) fn by(&self) -> Millis {
        match &self.phase {
            Phase::Body(pending) => pending.by.min(self.stalled_by),
            Phase::Exchange(_) | Phase::Ending => self.stalled_by,
        }
    }
}

pub(super) enum Phase {
    Body(Box<Pending>),
    Exchange(TaskId),
    /// The answer is complete; what is unsent of it leaves.
    Ending,
}

/// A request, with its body as far as it is here.
pub(super) struct Pending {
    pub(super) http: HttpHead,
    pub(super) body: Vec<u8>,
    pub(super) route: Route,
    pub(super) reply: H2Reply,
    input: RecvStream,
    by: Millis,
}

/// How the reading of a body ended.
pub(super) enum Read {
    Whole,
    Refused(Refusal),
    /// The stream is gone.
    Gone,
}

/// A stream whose client reads nothing, and its exchange where that still runs.
pub(super) type Stalled = (Rc<Answer>, Option<TaskId>);

impl Pending {
    pub(super) fn new(
        shard: &Shard,
        http: HttpHead,
        route: Route,
        reply: H2Reply,
        input: RecvStream,
    ) -> Box<Self> {
        let by = shard.core.clock.after(shard.setup().config.server.read_timeout);
        Box::new(Pending { http, body: shard.take_buffer(), route, reply, input, by })
    }

    pub(super) fn bytes(&self) -> usize {
        self.http.bytes.capacity() + self.body.capacity()
    }

    /// Reads what is there; `None` when more is to come.
    pub(super) fn read(&mut self, shard: &Shard) -> Option<Read> {
        let limit = shard.setup().config.server.max_body_bytes;
        let cx = &mut Context::from_waker(Waker::noop());
        loop {
            match self.input.poll_data(cx) {
                Poll::Pending => return None,
                Poll::Ready(None) => return Some(Read::Whole),
                Poll::Ready(Some(Err(_))) => return Some(Read::Gone),
                Poll::Ready(Some(Ok(data))) => {
                    if self.body.len() + data.len() > limit {
                        return Some(Read::Refused(Refusal::BodyTooLarge { limit }));
                    }
                    self.body.extend_from_slice(&data);
                    // The window grows again by what was taken; the body's own limit bounds it.
                    if self.input.flow_control().release_capacity(data.len()).is_err() {
                        return Some(Read::Gone);
                    }
                }
            }
        }
    }
}
