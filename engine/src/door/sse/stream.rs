//! A stream: owns where its events go, what is in flight on it, and the start of its messages' exchanges. What becomes of an
//! answer is told in [`crate::door::answers`].

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mcp_protocol::jsonrpc::{Kind, Scan};
use mcp_protocol::mcp::Revision;
use mcp_protocol::sse::write_event;
use mcp_shard_store::SessionId;

use super::recipient::{OnStream, SseReply};
use super::state::{Flight, MAX_IN_FLIGHT, MAX_IN_FLIGHT_BYTES, State, With};
use crate::door::Reply;
use crate::door::answers::{About, Ended, Held, Listener, MessageReply, Position, Resume};
use crate::exchange::{self, FrameOrigin, Inbound, Origin, Scope};
use crate::metrics::Protocol;
use crate::policy::admission::Verb;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::clock::Millis;
use crate::shard::conn::Gone;

pub(crate) struct Stream {
    pub(crate) id: SessionId,
    pub(crate) scope: Scope,
    /// Who opened it.
    peer: IpAddr,
    reply: RefCell<Option<Reply>>,
    /// When the last event or comment left.
    spoke: Cell<Millis>,
    state: RefCell<State>,
}

/// A message for a stream.
pub(crate) struct Arrived {
    pub(crate) body: Vec<u8>,
    pub(crate) scan: Scan,
    pub(crate) with: With,
}

impl Arrived {
    fn is(&self, method: &str) -> bool {
        self.scan.method.is_some_and(|found| found.eq_str(&self.body, method))
    }

    fn is_request(&self) -> bool {
        self.scan.kind == Kind::Request
    }
}

impl Stream {
    pub(super) fn new(
        shard: &Shard,
        (id, scope, peer): (SessionId, Scope, IpAddr),
        authorization: Option<Rc<str>>,
        reply: Reply,
    ) -> Rc<Self> {
        let with = With { authorization, ..With::default() };
        let state = State { with, ..State::default() };
        Rc::new(Stream {
            id,
            scope,
            peer,
            reply: RefCell::new(Some(reply)),
            spoke: Cell::new(shard.core.clock.now()),
            state: RefCell::new(state),
        })
    }

    /// When the stream has been silent for so long that it needs a comment.
    pub(super) fn comment_at(&self, shard: &Shard) -> Millis {
        self.spoke.get() + shard.setup().config.server.sse_keep_alive.as_millis() as Millis
    }

    /// Sends a comment.
    pub(super) fn comment(&self, shard: &Shard) {
        self.spoke.set(shard.core.clock.now());
        // A client that is gone is noticed by its door, which ends the stream.
        let _ = self.reply.borrow_mut().as_mut().map(Reply::comment);
    }

    pub(super) fn is_initialized(&self) -> bool {
        self.state.borrow().initialized
    }

    /// Ready when the stream is to end: its session has, or the process drains or the server was taken off and nothing is in
    /// flight.
    pub(super) fn poll_ended(&self, shard: &Shard, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        let is_over = shard.is_draining() || self.scope.is_gone(shard);
        if state.ended || is_over && !state.is_busy() {
            return Poll::Ready(());
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Takes the answer that the stream is, to end it; nothing can be sent afterwards.
    pub(super) fn take_reply(&self) -> Option<Reply> {
        self.reply.borrow_mut().take()
    }

    /// Cancels what is in flight: for a modern request that is told to its server.
    pub(super) fn stop(&self, shard: &Shard) {
        let (flights, waiting) = {
            let mut state = self.state.borrow_mut();
            state.ended = true;
            (std::mem::take(&mut state.flights), std::mem::take(&mut state.waiting))
        };
        drop(waiting);
        for flight in flights {
            shard.core.tasks.cancel(flight.task);
        }
    }

    /// With what the gateway tells the store and the server of the session's end.
    pub(super) fn last_words(&self) -> Inbound {
        self.inbound(Verb::End, self.origin(None), Vec::new())
    }

    /// Takes a message of the client's.
    ///
    /// # Errors
    /// What keeps it from being served now; nothing has become of it.
    pub(crate) fn accept(self: &Rc<Self>, shard: &Rc<Shard>, arrived: Arrived) -> Result<(), Refusal> {
        let is_request = arrived.is_request();
        let starts = {
            let state = &mut *self.state.borrow_mut();
            if state.ended {
                return Err(Refusal::SessionUnknown);
            }
            if is_request && shard.is_draining() {
                return Err(Refusal::Draining);
            }
            let limit = if is_request { MAX_IN_FLIGHT } else { 2 * MAX_IN_FLIGHT };
            if state.taken() >= limit {
                return Err(Refusal::InFlight { limit });
            }
            let bytes = state.bytes();
            if bytes > 0 && bytes + arrived.body.len() > MAX_IN_FLIGHT_BYTES || !shard.has_memory() {
                return Err(Refusal::Memory);
            }
            state.with = arrived.with.clone();
            state.barrier.is_none()
        };
        let held = Held::new(shard, arrived.body.capacity());
        if starts {
            self.start(shard, arrived, held);
        } else {
            self.state.borrow_mut().waiting.push_back((arrived, held));
        }
        Ok(())
    }

    /// Sends a message to the client.
    ///
    /// # Errors
    /// [`Gone`] when it has left.
    pub(super) fn send(&self, shard: &Shard, message: &[u8]) -> Result<(), Gone> {
        self.spoke.set(shard.core.clock.now());
        shard.with_scratch(|event| {
            write_event(event, Some("message"), None, message);
            self.reply.borrow_mut().as_mut().ok_or(Gone)?.push(event)
        })
    }

    /// Sends the gateway's own error.
    pub(super) fn send_refusal(&self, shard: &Shard, refusal: &Refusal, id: &[u8]) {
        if let Some(why) = refusal.shed() {
            shard.metrics.shed(why);
        }
        let mut response = Vec::new();
        refusal.write_json(Some(id), &mut response);
        // A client that is gone needs no answer; its door has noticed.
        let _ = self.send(shard, &response);
    }

    /// Waits while the client is slow.
    ///
    /// # Errors
    /// [`Gone`] when it has left.
    pub(super) async fn drained(&self) -> Result<(), Gone> {
        // Asked anew each time: the reply is not borrowed while this waits.
        poll_fn(|cx| match &*self.reply.borrow() {
            Some(reply) => pin!(reply.drained()).poll(cx),
            None => Poll::Ready(Err(Gone)),
        })
        .await
    }

    /// `initialize` was answered.
    pub(super) fn on_initialized(&self, revision: &str) {
        let mut state = self.state.borrow_mut();
        state.initialized = true;
        // 2025-06-18, "Protocol Version Header"; before, there was none.
        let has_header =
            Revision::parse(revision.as_bytes()).is_some_and(|found| found >= Revision::V2025_06_18);
        state.revision = has_header.then(|| revision.into());
    }

    /// An exchange has sent its answer, or has none to send.
    pub(super) fn on_answered(self: &Rc<Self>, shard: &Rc<Shard>, ended: Ended) {
        if let Some(resume) = ended.resume {
            return self.resume(shard, ended.flight, &ended.position, resume);
        }
        let Some((flight, listen_in)) = self.take_answered(&ended) else { return };
        if ended.session_ended {
            self.end();
            return;
        }
        if let Some(id) = &flight.cancels {
            let cancelled = self.state.borrow_mut().take_flight(id, false);
            // The server owes no answer any more, and its stream may have no end.
            if let Some(cancelled) = cancelled {
                shard.core.tasks.cancel(cancelled.task);
            }
        }
        let accepted = (200..300).contains(&ended.status);
        if flight.opens_stream && accepted && self.state.borrow().listener == Listener::Off {
            self.listen(shard, Duration::ZERO);
        }
        if let Some(pause) = listen_in {
            self.listen(shard, pause);
        }
        self.go_on(shard);
    }

    /// Takes a flight that is done; says after which pause the server's own stream is opened again, if it was that.
    fn take_answered(&self, ended: &Ended) -> Option<(Flight, Option<Duration>)> {
        let state = &mut *self.state.borrow_mut();
        if state.barrier == Some(ended.flight) {
            state.barrier = None;
        }
        let place = state.flights.iter().position(|flight| flight.number == ended.flight)?;
        let flight = state.flights.swap_remove(place);
        if state.flights.is_empty() {
            state.flights = Vec::new();
        }
        if !flight.is_listener() {
            return Some((flight, None));
        }
        state.listener = state.listener.down(ended.status, &ended.position);
        state.heard = ended.position.clone();
        let pause = match state.listener {
            Listener::Pausing { pause } => Some(pause),
            Listener::Off | Listener::Up { .. } => None,
        };
        Some((flight, pause))
    }

    fn end(&self) {
        let waker = {
            let mut state = self.state.borrow_mut();
            state.ended = true;
            state.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Starts what had to wait, unless it must wait still; in a drain, or without a server, the stream may end now.
    fn go_on(self: &Rc<Self>, shard: &Rc<Shard>) {
        loop {
            let next = {
                let mut state = self.state.borrow_mut();
                if state.barrier.is_some() { None } else { state.waiting.pop_front() }
            };
            let Some((arrived, held)) = next else { break };
            self.start(shard, arrived, held);
        }
        if shard.is_draining() || self.scope.is_gone(shard) {
            let waker = self.state.borrow_mut().waker.take();
            waker.into_iter().for_each(Waker::wake);
        }
    }

    fn start(self: &Rc<Self>, shard: &Rc<Shard>, arrived: Arrived, held: Held) {
        let is_request = arrived.is_request();
        let cancels = arrived
            .scan
            .request_id
            .filter(|_| !is_request && arrived.is("notifications/cancelled"))
            .map(|id| Rc::<[u8]>::from(id.of(&arrived.body)));
        if let Some(id) = &cancels {
            let modern = self.state.borrow_mut().take_flight(id, true);
            if let Some(flight) = modern {
                return shard.core.tasks.cancel(flight.task);
            }
        }
        let is = |method| arrived.is(method);
        let (initialized, initializes) = (is("notifications/initialized"), is_request && is("initialize"));
        let subscribes = is("subscriptions/listen");
        let modern = subscribes || is("server/discover") || arrived.scan.meta_protocol_version.is_some();
        let endless = subscribes && is_request;
        let id = arrived.scan.id.filter(|_| is_request).map(|id| Rc::<[u8]>::from(id.of(&arrived.body)));
        let number = self.number(initialized || initializes);
        let mut origin = self.origin(Some(&arrived.with));
        origin.scan = Some(arrived.scan);
        let about = About { flight: number, id: id.clone(), resumable: !modern, ..About::default() };
        let mut inbound = self.inbound(Verb::Message, origin, arrived.body);
        inbound.peer = arrived.with.peer.unwrap_or(self.peer);
        inbound.place = (!endless).then(|| shard.overload.enter());
        let reply = MessageReply::new(shard, OnStream::new(self, initializes), about);
        let task = shard.core.tasks.spawn(|| exchange::run(shard.clone(), inbound, Reply::Sse(reply)));
        self.state.borrow_mut().flights.push(Flight {
            number,
            task,
            id,
            held,
            modern,
            endless,
            opens_stream: initialized,
            cancels,
        });
    }

    /// Opens the stream on which a legacy server speaks by itself, where it left off.
    fn listen(self: &Rc<Self>, shard: &Rc<Shard>, pause: Duration) {
        let from = {
            let state = &mut *self.state.borrow_mut();
            if state.ended || shard.is_draining() {
                state.listener = Listener::Off;
                return;
            }
            state.listener = state.listener.up();
            state.heard.again()
        };
        let number = self.number(false);
        let mut origin = self.origin(None);
        origin.last_event_id = from.id.clone();
        let about = About { flight: number, position: from, ..About::default() };
        let inbound = self.inbound(Verb::Listen, origin, Vec::new());
        let reply = MessageReply::new(shard, OnStream::new(self, false), about);
        let flight = |task| Flight {
            number,
            task,
            id: None,
            held: Held::new(shard, 0),
            modern: false,
            endless: true,
            opens_stream: false,
            cancels: None,
        };
        let task = run_after(shard, pause, inbound, reply);
        self.state.borrow_mut().flights.push(flight(task));
    }

    /// Goes on with a request whose answer's stream ended before the response; the flight is the same.
    fn resume(self: &Rc<Self>, shard: &Rc<Shard>, flight: u32, position: &Position, resume: Resume) {
        let mut origin = self.origin(None);
        origin.last_event_id = position.id.clone();
        let about = About {
            flight,
            id: Some(resume.id),
            resumable: true,
            tries: Some(resume.tries),
            position: position.again(),
            ..About::default()
        };
        let inbound = self.inbound(Verb::Listen, origin, Vec::new());
        let reply = MessageReply::new(shard, OnStream::new(self, false), about);
        let task = run_after(shard, position.pause(), inbound, reply);
        let mut state = self.state.borrow_mut();
        if let Some(flight) = state.flights.iter_mut().find(|found| found.number == flight) {
            flight.task = task;
        }
    }

    fn number(&self, barrier: bool) -> u32 {
        let mut state = self.state.borrow_mut();
        state.next_flight = state.next_flight.wrapping_add(1);
        if barrier {
            state.barrier = Some(state.next_flight);
        }
        state.next_flight
    }

    /// What comes beside a message; what the gateway sends by itself takes that of the last one.
    fn origin(&self, with: Option<&With>) -> FrameOrigin {
        let state = self.state.borrow();
        let with = with.unwrap_or(&state.with);
        FrameOrigin {
            protocol: Protocol::Sse,
            session: Some(self.id.text()),
            revision: state.revision.clone(),
            authorization: with.authorization.clone(),
            fields: with.fields.clone(),
            ..FrameOrigin::default()
        }
    }

    fn inbound(&self, verb: Verb, origin: FrameOrigin, body: Vec<u8>) -> Inbound {
        let message = exchange::Message { origin: Origin::Frame(Box::new(origin)), body };
        Inbound { verb, scope: self.scope, peer: self.peer, message, place: None }
    }
}

/// Runs an exchange after a pause, which a drain cuts short.
fn run_after(
    shard: &Rc<Shard>,
    pause: Duration,
    inbound: Inbound,
    reply: SseReply,
) -> crate::shard::tasks::TaskId {
    if pause.is_zero() {
        return shard.core.tasks.spawn(|| exchange::run(shard.clone(), inbound, Reply::Sse(reply)));
    }
    let at = shard.core.clock.after(pause);
    let own_shard = shard.clone();
    shard.core.tasks.spawn(|| async move {
        let drained = poll_fn(|_| if own_shard.is_draining() { Poll::Ready(()) } else { Poll::Pending });
        // Either end is one.
        let _ = own_shard.deadline(at, pin!(drained)).await;
        exchange::run(own_shard, inbound, Reply::Sse(reply)).await;
    })
}
