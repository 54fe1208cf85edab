//! The hub of one server's channel, on which messages go both ways without a request of HTTP around them: owns what is in
//! flight, the seats of the sessions that share it, and what waits to be sent. Where a message of the server's goes is in
//! [`route`](super::route). Never a socket or a process: those are behind a [`Wire`].
//!
//! Invariants: what the channel's end leaves unanswered is told to whoever waits; no borrow is held while a message is
//! handed on.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use mcp_protocol::Span;
use mcp_protocol::jsonrpc::{Kind, Scan};
use mcp_protocol::mcp::correlate::splice;

use super::flight::{Flight, Key, Purpose, Stage};
use super::queue::{Backlog, Queue};
use super::seat::Seat;
use super::told::Answering;
use super::{Closed, SeatId};
use crate::metrics::ChannelEvent;
use crate::shard::clock::Millis;
use crate::shard::{Elapsed, Shard};
use crate::upstream::call::CallError;

/// Requests in flight on one channel.
const MAX_IN_FLIGHT: usize = 1024;
/// Bytes that wait to be sent before a request waits, too; one message may be larger.
const MAX_OUTBOX_BYTES: usize = 1 << 20;
/// Messages of the hub's own (cancellations, answers to pings) that wait to be sent; further ones are dropped.
const MAX_OUTBOX_MESSAGES: usize = 4096;
/// Bytes that wait for slow clients of one session before its channel is not read.
const MAX_BACKLOG_BYTES: usize = 256 << 10;

/// A channel's server and what goes over it.
pub(crate) struct Hub {
    pub(super) server: u16,
    /// Several sessions share the channel: ids on it are the hub's own.
    pub(super) is_shared: bool,
    pub(super) backlog: Rc<Backlog>,
    pub(super) state: RefCell<State>,
}

#[derive(Default)]
pub(super) struct State {
    /// Whether there is a channel, and which one it is of those that came one after the other.
    is_open: bool,
    generation: u64,
    outbox: VecDeque<Vec<u8>>,
    outbox_bytes: usize,
    writer: Option<Waker>,
    reader: Option<Waker>,
    /// Those who wait for room in the outbox, or for `initialize`.
    pub(super) waiting: Vec<Waker>,
    next_id: u64,
    pub(super) pending: HashMap<Key, Pending>,
    pub(super) tokens: HashMap<Key, Pending>,
    pub(super) seats: HashMap<SeatId, Seat>,
    /// Requests in flight that belong to no session, in their order.
    pub(super) unseated: Vec<Rc<Flight>>,
    pub(super) greeting: Greeting,
    /// When it was last used.
    used_at: Millis,
}

/// Whose an id or a token on the wire is.
#[derive(Clone)]
pub(super) struct Pending {
    pub(super) flight: Rc<Flight>,
    /// What the client calls it, raw.
    pub(super) original: Key,
}

/// What became of the gateway's own `initialize` on a shared channel.
#[derive(Default)]
pub(super) enum Greeting {
    #[default]
    Due,
    UnderWay,
    /// The server's response.
    Done(Rc<Vec<u8>>),
}

/// A message that goes to the server, with what its scan found.
pub(super) struct Outgoing<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) scan: Scan,
}

impl Hub {
    pub(super) fn new(server: u16, is_shared: bool, now: Millis) -> Rc<Self> {
        let state = State { used_at: now, ..State::default() };
        Rc::new(Hub { server, is_shared, backlog: Rc::default(), state: RefCell::new(state) })
    }

    /// Begins with a channel; what is said on one before it no longer counts.
    pub(super) fn attach(self: &Rc<Self>) -> Wire {
        let mut state = self.state.borrow_mut();
        state.is_open = true;
        state.generation += 1;
        Wire { hub: self.clone(), generation: state.generation }
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.borrow().is_open
    }

    /// Whether no session has a seat, nothing is in flight, and nothing was since `before`.
    pub(super) fn is_unused_since(&self, before: Millis) -> bool {
        let state = self.state.borrow();
        state.seats.is_empty() && state.pending.is_empty() && state.used_at < before
    }

    /// Ends the channel from this side.
    pub(super) fn end(&self) {
        self.on_closed(Closed::Ended);
    }

    /// Sends requests and waits for what comes first.
    ///
    /// # Errors
    /// The channel's end; [`CallError::Timeout`], after which the server has been told that nobody waits;
    /// [`CallError::Exhausted`] when as many are in flight as may be.
    pub(super) async fn request(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        (seat, purpose): (Option<SeatId>, Purpose),
        messages: &[Outgoing<'_>],
        deadline: Millis,
    ) -> Result<(Answering, Stage), CallError> {
        self.room(shard, deadline).await?;
        let flight = Flight::new(&self.backlog, seat, purpose);
        let answering = Answering::new(self, flight.clone());
        self.take_off(&flight, messages, shard.core.clock.now())?;
        shard.core.tasks.sent();
        let first = pin!(poll_fn(|cx| flight.poll_stage(cx)));
        match shard.deadline(deadline, first).await {
            Ok(stage) => Ok((answering, stage?)),
            Err(Elapsed) => {
                self.tell_cancelled(&flight);
                Err(CallError::Timeout)
            }
        }
    }

    /// Sends what nobody answers.
    ///
    /// # Errors
    /// The channel's end; [`CallError::Timeout`] when there was no room in time.
    pub(super) async fn tell(
        &self,
        shard: &Rc<Shard>,
        seat: Option<SeatId>,
        message: &Outgoing<'_>,
        deadline: Millis,
    ) -> Result<(), CallError> {
        self.room(shard, deadline).await?;
        self.use_seat(seat, shard.core.clock.now());
        self.pass_on(seat, message);
        Ok(())
    }

    /// Has what nobody answers sent, where the server is to hear it.
    pub(super) fn pass_on(&self, seat: Option<SeatId>, message: &Outgoing<'_>) {
        if let Some(bytes) = self.as_server_knows_it(seat, message) {
            self.state.borrow_mut().send(bytes);
        }
    }

    async fn room(&self, shard: &Rc<Shard>, deadline: Millis) -> Result<(), CallError> {
        let room = poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            if !state.is_open {
                return Poll::Ready(Err(CallError::Closed));
            }
            if state.outbox_bytes < MAX_OUTBOX_BYTES && state.outbox.len() < MAX_OUTBOX_MESSAGES {
                return Poll::Ready(Ok(()));
            }
            state.waiting.push(cx.waker().clone());
            Poll::Pending
        });
        shard.deadline(deadline, pin!(room)).await.unwrap_or(Err(CallError::Timeout))
    }

    /// Notes requests as in flight and has them sent.
    pub(super) fn take_off(
        &self,
        flight: &Rc<Flight>,
        messages: &[Outgoing<'_>],
        now: Millis,
    ) -> Result<(), CallError> {
        let mut state = self.state.borrow_mut();
        let requests = messages.iter().filter(|message| message.scan.kind == Kind::Request).count();
        if state.pending.len() + requests > MAX_IN_FLIGHT {
            return Err(CallError::Exhausted);
        }
        state.used_at = now;
        match flight.seat {
            Some(seat) => {
                let seat = state.seats.get_mut(&seat).ok_or(CallError::Closed)?;
                seat.used_at = now;
                seat.flights.push(flight.clone());
            }
            None => state.unseated.push(flight.clone()),
        }
        for message in messages {
            let bytes = state.register(flight, message, self.is_shared);
            state.send(bytes);
        }
        Ok(())
    }

    /// What a client says beside its requests, as the server must read it; `None` where it is nothing to the server.
    fn as_server_knows_it(&self, seat: Option<SeatId>, message: &Outgoing<'_>) -> Option<Vec<u8>> {
        let Outgoing { bytes, scan } = message;
        let is = |name: &str| scan.method.is_some_and(|method| method.eq_str(bytes, name));
        if scan.kind == Kind::Response || is("notifications/initialized") {
            // A shared server has asked nobody, and the gateway has initialized it.
            return (!self.is_shared).then(|| bytes.to_vec());
        }
        if !is("notifications/cancelled") {
            return Some(bytes.to_vec());
        }
        let span = scan.request_id?;
        let mut state = self.state.borrow_mut();
        let Some((key, flight)) = state.find_flight(seat, span.of(bytes)) else {
            return (!self.is_shared).then(|| bytes.to_vec());
        };
        state.pending.remove(&key);
        drop(state);
        flight.cancelled();
        Some(splice(bytes, &[(span, &key)]))
    }

    /// Nobody waits for this request's answer any more.
    pub(super) fn on_left(&self, flight: &Rc<Flight>) {
        if flight.purpose == Purpose::Modern {
            self.tell_cancelled(flight);
        }
        let is_unanswered = flight.is_due();
        {
            let mut state = self.state.borrow_mut();
            for key in flight.keys.borrow().iter() {
                state.pending.remove(key);
            }
            for token in flight.tokens.borrow().iter() {
                state.tokens.remove(token);
            }
            state.unseated.retain(|other| !Rc::ptr_eq(other, flight));
            if let Some(seat) = flight.seat.and_then(|seat| state.seats.get_mut(&seat)) {
                seat.flights.retain(|other| !Rc::ptr_eq(other, flight));
            }
        }
        if flight.purpose == Purpose::Opens
            && is_unanswered
            && let Some(seat) = flight.seat
        {
            self.end_seat(seat);
        }
    }

    /// Tells the server that nobody waits for these requests; `initialize` must not be cancelled.
    fn tell_cancelled(&self, flight: &Flight) {
        if !flight.is_due() || flight.purpose == Purpose::Opens {
            return;
        }
        let mut state = self.state.borrow_mut();
        for key in flight.keys.borrow().iter() {
            if state.pending.remove(key).is_some() {
                let mut message =
                    b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":"
                        .to_vec();
                message.extend_from_slice(key);
                message.extend_from_slice(b",\"reason\":\"the client is gone\"}}");
                state.send_own(message);
            }
        }
        drop(state);
        flight.close(Closed::Ended);
    }

    /// Sends a message of the hub's own.
    pub(super) fn send_own(&self, message: Vec<u8>) {
        self.state.borrow_mut().send_own(message);
    }

    /// The channel is gone. Requests in flight are told so; sessions end with it, unless they share it and the server holds
    /// nothing of theirs.
    pub(super) fn on_closed(&self, why: Closed) {
        let (flights, ended) = {
            let mut state = self.state.borrow_mut();
            if !state.is_open {
                return;
            }
            state.is_open = false;
            state.outbox.clear();
            state.outbox_bytes = 0;
            state.greeting = Greeting::Due;
            state.writer.take().into_iter().for_each(Waker::wake);
            state.reader.take().into_iter().for_each(Waker::wake);
            state.wake_waiting();
            state.tokens.clear();
            let flights: Vec<_> = state.pending.drain().map(|(_, pending)| pending.flight).collect();
            let is_shared = self.is_shared;
            let ended: Vec<_> = state
                .seats
                .extract_if(|_, seat| !is_shared || seat.has_state)
                .map(|(_, seat)| seat)
                .collect();
            (flights, ended)
        };
        for flight in flights {
            flight.close(why);
        }
        ended.iter().for_each(Seat::wake);
    }
}

impl State {
    /// Notes a request under an id of its own and gives out what is sent; what is no request passes as it is.
    fn register(&mut self, flight: &Rc<Flight>, message: &Outgoing<'_>, is_shared: bool) -> Vec<u8> {
        let Outgoing { bytes, scan } = message;
        let Some(id) = scan.id.filter(|_| scan.kind == Kind::Request) else { return bytes.to_vec() };
        let original: Key = id.of(bytes).into();
        let is_taken = self.pending.contains_key(&original);
        let key = if is_shared || is_taken { self.own_id(is_shared) } else { original.clone() };
        let token = scan.progress_token.map(|span| -> (Span, Key, Key) {
            let original: Key = span.of(bytes).into();
            let is_taken = self.tokens.contains_key(&original);
            (span, original.clone(), if is_shared || is_taken { key.clone() } else { original })
        });
        flight.expect_response();
        flight.keys.borrow_mut().push(key.clone());
        let mut places: Vec<(Span, &[u8])> = vec![(id, &key)];
        if let Some((span, original, token)) = &token {
            flight.tokens.borrow_mut().push(token.clone());
            self.tokens.insert(token.clone(), Pending { flight: flight.clone(), original: original.clone() });
            places.push((*span, token));
        }
        places.sort_by_key(|(span, _)| span.start);
        let sent = splice(bytes, &places);
        self.pending.insert(key, Pending { flight: flight.clone(), original });
        sent
    }

    /// An id that nobody else uses: a number where all are the hub's own, else a text that no client would choose.
    fn own_id(&mut self, is_shared: bool) -> Key {
        self.next_id += 1;
        let id = self.next_id;
        if is_shared { id.to_string() } else { format!("\"mcp-gateway-{id}\"") }.into_bytes().into()
    }

    /// The request that the client of a seat calls so.
    fn find_flight(&self, seat: Option<SeatId>, original: &[u8]) -> Option<(Key, Rc<Flight>)> {
        let mut pending = self.pending.iter();
        let (key, found) =
            pending.find(|(_, pending)| pending.flight.seat == seat && *pending.original == *original)?;
        Some((key.clone(), found.flight.clone()))
    }

    pub(super) fn send(&mut self, message: Vec<u8>) {
        self.outbox_bytes += message.len();
        self.outbox.push_back(message);
        self.writer.take().into_iter().for_each(Waker::wake);
    }

    fn send_own(&mut self, message: Vec<u8>) {
        if self.is_open && self.outbox.len() < MAX_OUTBOX_MESSAGES {
            self.send(message);
        }
    }

    pub(super) fn wake_waiting(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }

    pub(super) fn touch(&mut self, now: Millis) {
        self.used_at = now;
    }
}

/// A channel as its transport sees it. A transport is tasks of the shard that send what [`Wire::outgoing`] gives them and
/// hand what comes to [`Wire::on_message`]; they end when the wire is closed, and close it when they end.
#[derive(Clone)]
pub(crate) struct Wire {
    hub: Rc<Hub>,
    generation: u64,
}

impl Wire {
    /// The next message to send, in its order, one JSON text; `None` when the channel is to be closed.
    pub(crate) async fn outgoing(&self) -> Option<Vec<u8>> {
        poll_fn(|cx| self.poll_outgoing(cx)).await
    }

    /// See [`Wire::outgoing`].
    pub(crate) fn poll_outgoing(&self, cx: &Context<'_>) -> Poll<Option<Vec<u8>>> {
        if self.is_closed() {
            return Poll::Ready(None);
        }
        let mut state = self.hub.state.borrow_mut();
        match state.outbox.pop_front() {
            Some(message) => {
                state.outbox_bytes -= message.len();
                state.wake_waiting();
                Poll::Ready(Some(message))
            }
            None => {
                state.writer = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The server's next message may be read; false when the channel is closed. To be awaited before each read, so that what
    /// clients are too slow for stays where it is.
    pub(crate) fn poll_may_read(&self, cx: &Context<'_>) -> Poll<bool> {
        if self.is_closed() {
            return Poll::Ready(false);
        }
        // For its end.
        self.hub.state.borrow_mut().reader = Some(cx.waker().clone());
        if self.hub.is_shared {
            return Poll::Ready(true);
        }
        self.hub.backlog.poll_below(cx, MAX_BACKLOG_BYTES).map(|()| true)
    }

    /// Takes a message of the server's; what is no JSON-RPC message is counted and forgotten.
    ///
    /// # Errors
    /// The text that is no message.
    pub(crate) fn on_message(&self, shard: &Shard, message: &[u8]) -> Result<(), NotAMessage> {
        if self.is_closed() {
            return Ok(());
        }
        let count = |event| shard.metrics.channel_event(self.hub.server, event);
        match self.hub.on_message(message) {
            Ok(unclaimed) => {
                (0..unclaimed).for_each(|_| count(ChannelEvent::Unclaimed));
                Ok(())
            }
            Err(NotAMessage) => {
                count(ChannelEvent::NotAMessage);
                Err(NotAMessage)
            }
        }
    }

    /// The channel is gone.
    pub(crate) fn close(&self, shard: &Shard, why: Closed) {
        if !self.is_closed() {
            shard.metrics.channel_event(self.hub.server, ChannelEvent::Lost);
            self.hub.on_closed(why);
        }
    }

    /// Ready when the channel is closed. For a writer that waits for its transport.
    pub(crate) fn poll_is_closed(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_closed() {
            return Poll::Ready(());
        }
        self.hub.state.borrow_mut().writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Waits until the transport is open, or the channel is closed.
    ///
    /// # Errors
    /// [`Closed::Ended`], or why it could not be opened.
    pub(super) async fn opened<T>(
        &self,
        opening: impl Future<Output = Result<T, Closed>>,
    ) -> Result<T, Closed> {
        let mut opening = pin!(opening);
        poll_fn(|cx| match self.poll_is_closed(cx) {
            Poll::Ready(()) => Poll::Ready(Err(Closed::Ended)),
            Poll::Pending => opening.as_mut().poll(cx),
        })
        .await
    }

    /// The channel is not opened after all.
    pub(super) fn abandon(&self) {
        self.hub.on_closed(Closed::Connect);
    }

    pub(crate) fn is_closed(&self) -> bool {
        let state = self.hub.state.borrow();
        !state.is_open || state.generation != self.generation
    }

    /// Index of the server.
    pub(crate) fn server(&self) -> u16 {
        self.hub.server
    }
}

/// What a server said is no JSON-RPC message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotAMessage;

/// A queue for a client that listens.
pub(super) fn listener(backlog: &Rc<Backlog>) -> Rc<Queue> {
    Rc::new(Queue::new(backlog))
}
