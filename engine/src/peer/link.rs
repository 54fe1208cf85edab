//! A link to other owners: owns connecting, back-off, and the match of answers to those who wait for them. Never what a
//! message says.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use mcp_protocol::mcpb::FrameKind;

use super::call::frame::{AskerWord, Failed, OwnerWord, parse_piece};
use super::call::inbox::{Counted, Head, Inbox, Unruly};
use super::call::{Asked, MAX_CALLS};
use super::frame::{Forward, Reply, Verdict};
use super::wire::Wire;
use super::{ANSWER_TIMEOUT, Target};
use crate::metrics::PeerKind;
use crate::net::socket::Socket;
use crate::net::stream::Stream;
use crate::shard::clock::Millis;
use crate::shard::{Elapsed, Shard};

/// How long a connection may take to come up, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Messages of one link that wait for their owner, and bytes of them that wait to be sent; one of the largest size is
/// always taken when nothing else waits.
const MAX_WAITING: usize = 1024;
const MAX_UNSENT_BYTES: usize = 16 << 20;
/// The pause after a first failure to connect, and the longest one: pauses double.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);

pub(super) struct Link {
    target: Target,
    wire: Wire,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// A task connects, or is connected.
    is_up: bool,
    waiting: HashMap<u64, Waiting>,
    /// Answers that are due or have begun.
    calls: HashMap<u64, Rc<Counted>>,
    next: u64,
    /// Nothing is tried before.
    retry_at: Millis,
    pause: Duration,
    /// The last connection ended or failed then, and none has come up since.
    down_since: Option<Millis>,
}

#[derive(Default)]
struct Waiting {
    outcome: Option<Result<Verdict, Failure>>,
    waker: Option<Waker>,
}

/// Why nothing is known of a message's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No way to other processes is configured.
    NoWay,
    /// Its process had this one's address.
    Gone,
    /// As much is on its way as may be.
    Busy,
    /// It does not answer; whether it has the message is not known.
    Silent,
    /// There has been no connection since then.
    Unreachable { since: Millis },
}

impl Link {
    pub(super) fn new(target: Target) -> Self {
        Link { target, wire: Wire::default(), state: RefCell::default() }
    }

    /// Whether it is connected, or somebody waits for it.
    pub(super) fn is_wanted(&self) -> bool {
        let state = self.state.borrow();
        state.is_up || !state.waiting.is_empty() || !state.calls.is_empty()
    }

    /// Sends a message and waits for what becomes of it.
    ///
    /// # Errors
    /// [`Failure`]; but for [`Failure::Silent`], nothing has become of it.
    pub(super) async fn forward(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        forward: &Forward<'_>,
        body: &[u8],
    ) -> Result<Verdict, Failure> {
        let waiter = self.send(shard, forward, body, None)?;
        self.verdict(shard, waiter).await
    }

    /// Sends a call and waits until its owner has taken it.
    ///
    /// # Errors
    /// What became of it otherwise.
    pub(super) async fn call(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        forward: &Forward<'_>,
        body: &[u8],
    ) -> Result<Asked, Result<Verdict, Failure>> {
        if self.state.borrow().calls.len() >= MAX_CALLS || !shard.has_memory() {
            return Err(Err(Failure::Busy));
        }
        let inbox = Rc::new(Counted::new(shard));
        let waiter = self.send(shard, forward, body, Some(&inbox)).map_err(Err)?;
        let asked = Asked { link: self.clone(), number: waiter.number, inbox };
        match self.verdict(shard, waiter).await {
            Ok(Verdict::Accepted) => Ok(asked),
            outcome => {
                // There is nothing to cancel.
                asked.inbox.with(|inbox| inbox.on_end(Err(Failed::Closed)));
                Err(outcome)
            }
        }
    }

    /// Says something of a call to its owner, while there is a connection.
    pub(super) fn say(&self, word: AskerWord) {
        if self.state.borrow().is_up {
            let (kind, payload) = word.write();
            // Two numbers always fit.
            let _ = self.wire.queue(&[(kind, &payload)]);
        }
    }

    /// What comes of this call is passed over from now on.
    pub(super) fn forget(&self, call: u64) {
        let mut state = self.state.borrow_mut();
        state.calls.remove(&call);
        if state.calls.is_empty() {
            state.calls.shrink_to_fit();
        }
    }

    async fn verdict(&self, shard: &Rc<Shard>, waiter: Waiter<'_>) -> Result<Verdict, Failure> {
        let by = shard.core.clock.after(ANSWER_TIMEOUT);
        match shard.deadline(by, pin!(poll_fn(|cx| waiter.poll(cx.waker())))).await {
            Ok(outcome) => outcome,
            Err(Elapsed) => {
                // Whoever is silent for so long is not asked again on this connection.
                self.wire.give_up();
                Err(Failure::Silent)
            }
        }
    }

    fn send<'a>(
        self: &'a Rc<Self>,
        shard: &Rc<Shard>,
        forward: &Forward<'_>,
        body: &[u8],
        call: Option<&Rc<Counted>>,
    ) -> Result<Waiter<'a>, Failure> {
        let now = shard.core.clock.now();
        let (number, starts) = {
            let state = &mut *self.state.borrow_mut();
            if let Some(since) = state.down_since.filter(|_| !state.is_up && now < state.retry_at) {
                return Err(Failure::Unreachable { since });
            }
            let unsent = self.wire.unsent();
            if state.waiting.len() >= MAX_WAITING || unsent > 0 && unsent + body.len() > MAX_UNSENT_BYTES {
                return Err(Failure::Busy);
            }
            state.next += 1;
            (state.next, !std::mem::replace(&mut state.is_up, true))
        };
        let envelope = Forward { forward: number, ..forward.clone() }.write();
        let queued = self.wire.queue(&[(FrameKind::Request, &envelope), (FrameKind::Request, body)]);
        if starts {
            let (link, own_shard) = (self.clone(), shard.clone());
            let counted = super::Counted::new(&shard.peers);
            shard.core.tasks.spawn(|| async move {
                let _counted = counted;
                link.run(&own_shard).await;
            });
        }
        // The door takes no larger messages than `max_body`, which may be more than a frame holds.
        queued.map_err(|_| Failure::Busy)?;
        let mut state = self.state.borrow_mut();
        state.waiting.insert(number, Waiting::default());
        state.calls.extend(call.map(|call| (number, call.clone())));
        Ok(Waiter { link: self, number })
    }

    async fn run(&self, shard: &Rc<Shard>) {
        let by = shard.core.clock.after(CONNECT_TIMEOUT);
        let connected = match shard.deadline(by, pin!(self.connect(shard))).await {
            Ok(connected) => connected,
            Err(Elapsed) => Err(io::ErrorKind::TimedOut.into()),
        };
        match connected {
            Ok(stream) => {
                self.on_up();
                let open = Connected::new(shard, self.target.kind());
                let error =
                    self.wire.drive(shard, stream, |kind, payload| self.on_frame(kind, &payload)).await;
                drop(open);
                tracing::debug!(target = ?self.target, %error, "a link to an owner ended");
                self.on_down(shard, Failure::Silent);
            }
            Err(error) => {
                tracing::debug!(target = ?self.target, %error, "an owner cannot be reached");
                let since = self.state.borrow().down_since.unwrap_or(shard.core.clock.now());
                self.on_failed(shard);
                self.wire.reset();
                self.on_down(shard, Failure::Unreachable { since });
            }
        }
    }

    async fn connect(&self, shard: &Rc<Shard>) -> io::Result<Stream> {
        let reactor = &shard.core.reactor;
        match self.target {
            Target::Shard(index) => {
                let name = super::settings::socket_name(shard.peers.own().boot, index);
                Ok(Stream::from_socket(Socket::connect_unix(reactor, &name)?))
            }
            Target::Pod(address) => {
                let connector = shard.process.identity.connector(address.ip());
                let connector = connector.ok_or(io::ErrorKind::Unsupported)?;
                let stream = Stream::connect(reactor, std::iter::once(address), Some(&connector)).await?;
                // Whoever waits for an answer must learn that nobody is there any more who could give one.
                stream.probe_silent_peer()?;
                Ok(stream)
            }
        }
    }

    fn on_up(&self) {
        let mut state = self.state.borrow_mut();
        state.down_since = None;
        state.pause = Duration::ZERO;
    }

    fn on_failed(&self, shard: &Shard) {
        let mut state = self.state.borrow_mut();
        state.pause = (state.pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
        state.retry_at = shard.core.clock.after(state.pause);
    }

    /// Nobody waits in vain.
    fn on_down(&self, shard: &Shard, failure: Failure) {
        let (mut wakers, calls): (Vec<Waker>, Vec<Rc<Counted>>) = {
            let state = &mut *self.state.borrow_mut();
            state.is_up = false;
            state.down_since.get_or_insert(shard.core.clock.now());
            let fail = |waiting: &mut Waiting| {
                waiting.outcome.get_or_insert(Err(failure));
                waiting.waker.take()
            };
            let wakers = state.waiting.values_mut().filter_map(fail).collect();
            (wakers, state.calls.drain().map(|(_, call)| call).collect())
        };
        wakers.extend(calls.iter().filter_map(|call| {
            call.with(|inbox| {
                inbox.on_end(Err(Failed::Closed));
                inbox.take_waker()
            })
        }));
        wakers.into_iter().for_each(Waker::wake);
    }

    fn on_frame(&self, kind: FrameKind, payload: &[u8]) -> io::Result<()> {
        let known = match kind {
            FrameKind::Response => Reply::parse(payload).map(|reply| self.on_verdict(reply)),
            FrameKind::Control => OwnerWord::parse(payload).map(|word| self.on_word(word)).transpose()?,
            FrameKind::Request => {
                let piece = parse_piece(payload);
                piece.map(|(call, piece)| self.on_call(call, |inbox| inbox.on_piece(piece))).transpose()?
            }
            _ => None,
        };
        known.ok_or_else(|| io::Error::other("an owner said what is no answer"))
    }

    fn on_verdict(&self, reply: Reply) {
        let waker = {
            let mut state = self.state.borrow_mut();
            // Whoever waited may have left.
            let Some(waiting) = state.waiting.get_mut(&reply.forward) else { return };
            waiting.outcome = Some(Ok(reply.verdict));
            waiting.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    fn on_word(&self, word: OwnerWord<'_>) -> io::Result<()> {
        match word {
            OwnerWord::Head { call, status, length, fields } => {
                let head = Head { status, length, fields: fields.into_owned().into_bytes() };
                self.on_call(call, |inbox| inbox.on_head(head))
            }
            OwnerWord::End { call, failed } => self.on_call(call, |inbox| {
                inbox.on_end(failed.map_or(Ok(()), Err));
                Ok(())
            }),
        }
    }

    fn on_call(&self, call: u64, tell: impl FnOnce(&mut Inbox) -> Result<(), Unruly>) -> io::Result<()> {
        // Whoever asked may have left.
        let Some(inbox) = self.state.borrow().calls.get(&call).cloned() else { return Ok(()) };
        let told = inbox.with(|inbox| tell(inbox).map(|()| inbox.take_waker()));
        let waker = told.map_err(|Unruly| io::Error::other("an owner sent more of an answer than it may"))?;
        waker.into_iter().for_each(Waker::wake);
        Ok(())
    }
}

impl Target {
    fn kind(self) -> PeerKind {
        match self {
            Target::Shard(_) => PeerKind::Shard,
            Target::Pod(_) => PeerKind::Pod,
        }
    }
}

/// A place among those who wait; whoever leaves gives it up.
struct Waiter<'a> {
    link: &'a Link,
    number: u64,
}

impl Waiter<'_> {
    fn poll(&self, waker: &Waker) -> Poll<Result<Verdict, Failure>> {
        let mut state = self.link.state.borrow_mut();
        let Some(waiting) = state.waiting.get_mut(&self.number) else {
            return Poll::Ready(Err(Failure::Silent));
        };
        match waiting.outcome {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                waiting.waker = Some(waker.clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut state = self.link.state.borrow_mut();
        state.waiting.remove(&self.number);
        if state.waiting.is_empty() {
            state.waiting.shrink_to_fit();
        }
    }
}

/// Counts an open connection.
pub(super) struct Connected(Rc<Shard>, PeerKind);

impl Connected {
    pub(super) fn new(shard: &Rc<Shard>, kind: PeerKind) -> Self {
        shard.metrics.peer_connected(kind);
        Connected(shard.clone(), kind)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.metrics.peer_disconnected(self.1);
    }
}
