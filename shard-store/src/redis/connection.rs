//! A connection to a node: owns its stream, its place in connecting, logging in, serving and coming back, and its pipeline.
//! Never what a command means: replies, failures and changes of state go to the client.
//!
//! While a connection is made for the first time, or again right after it broke, commands wait in its pipeline; after a try
//! has failed they fail at once, until a later one succeeds. A node that is silent for a whole command's time is stalled:
//! commands fail at once, until it says anything or the connection is given up.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use futures_io::{AsyncRead, AsyncWrite};
use mcp_protocol::resp::{Reply, write_command};

use super::client::Client;
use super::command::Lane;
use super::link::{Inbox, Link};
use super::login::{Agreed, Login, LoginError, login};
use super::node::Counters;
use super::pause::jittered;
use super::pipeline::{For, Pipeline};
use super::replicated::WaitGroup;
use super::waiters::{Waiter, WaiterId};
use crate::runtime::{Address, Elapsed, Runtime};
use crate::{Millis, StoreError};

/// After so long without a byte the node is asked whether it is still there. Until it has not answered either, copies that
/// it vouches for are believed: so much later than a change, plus a command's time, a copy may be at worst.
const HEARTBEAT_MS: Millis = 2_000;
/// Reads per poll, so that a node with much to say does not hold up the shard.
const READS_PER_POLL: usize = 16;
/// A connection that broke sooner than this is not made again at once.
const SHORT_LIVED_MS: Millis = 1_000;

const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// A first try is under way: commands wait.
    Connecting,
    Up,
    /// Up, and silent for too long.
    Stalled,
    /// The last try failed; another one follows.
    Down,
    Closed,
}

/// How long things may take, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) command: Millis,
    pub(crate) connect: Millis,
    /// First and longest pause between two tries.
    pub(crate) backoff: (Millis, Millis),
}

pub(crate) struct Connection<R: Runtime> {
    pub(crate) address: Address,
    pub(crate) lane: Lane,
    pub(crate) counters: Rc<Counters>,
    client: Weak<Client<R>>,
    login: Login,
    times: Times,
    window: usize,
    max_reply_bytes: usize,
    state: Cell<State>,
    pipeline: RefCell<Pipeline>,
    stream: RefCell<Option<R::Stream>>,
    /// The stream holds bytes back that it has taken.
    unflushed: Cell<bool>,
    /// Its task's.
    waker: RefCell<Option<Waker>>,
    /// When the task wakes by itself.
    armed: Cell<Millis>,
    /// The pause before the next try is over.
    hurried: Cell<bool>,
    /// When the node last said anything.
    heard: Cell<Millis>,
    /// Since when it is stalled.
    stalled: Cell<Millis>,
    /// A number for each time that it came up with tracking; 0 while it vouches for nothing.
    origin: Cell<u64>,
    /// The `WAIT` that will follow the writes of this turn.
    group: RefCell<Option<Rc<WaitGroup>>>,
    gathered: Cell<bool>,
    last_failure: RefCell<String>,
    was_up: Cell<bool>,
}

/// Why the task stopped polling its stream.
enum Wake {
    Broken(io::Error),
    Closed,
    /// A command is due sooner than the timer.
    Rearm,
}

/// What a connection is made with.
pub(crate) struct Plan {
    pub(crate) address: Address,
    pub(crate) lane: Lane,
    pub(crate) counters: Rc<Counters>,
    pub(crate) login: Login,
    pub(crate) times: Times,
    pub(crate) window: usize,
    pub(crate) max_reply_bytes: usize,
}

impl<R: Runtime> Connection<R> {
    /// Starts connecting in the background, and again until it is closed.
    pub(crate) fn open(runtime: &R, client: Weak<Client<R>>, plan: Plan) -> Rc<Self> {
        let connection = Rc::new(Connection {
            address: plan.address,
            lane: plan.lane,
            counters: plan.counters,
            client,
            login: plan.login,
            times: plan.times,
            window: plan.window,
            max_reply_bytes: plan.max_reply_bytes,
            state: Cell::new(State::Connecting),
            pipeline: RefCell::default(),
            stream: RefCell::new(None),
            unflushed: Cell::new(false),
            waker: RefCell::default(),
            armed: Cell::new(Millis::MAX),
            hurried: Cell::default(),
            heard: Cell::default(),
            stalled: Cell::default(),
            origin: Cell::default(),
            group: RefCell::default(),
            gathered: Cell::new(false),
            last_failure: RefCell::default(),
            was_up: Cell::new(false),
        });
        runtime.spawn(Box::pin(connection.clone().run(runtime.clone())));
        connection
    }

    pub(crate) fn state(&self) -> State {
        self.state.get()
    }

    /// What vouches for copies read here; 0 for nothing.
    pub(crate) fn origin(&self) -> u64 {
        if self.state.get() == State::Up { self.origin.get() } else { 0 }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.pipeline.borrow().len()
    }

    /// The present end of what has been sent here; see [`Connection::is_past`].
    pub(crate) fn mark(&self) -> u64 {
        self.pipeline.borrow().mark()
    }

    /// Whether everything before a mark has been answered, or has failed.
    pub(crate) fn is_past(&self, mark: u64) -> bool {
        let pipeline = self.pipeline.borrow();
        pipeline.is_past(mark) || pipeline.len() == 0
    }

    /// Takes a command; it leaves with the next [`Connection::flush`].
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], [`StoreError::Busy`].
    pub(crate) fn submit(&self, id: WaiterId, waiter: &mut Waiter, asking: bool) -> Result<(), StoreError> {
        if !matches!(self.state.get(), State::Up | State::Connecting) {
            return Err(StoreError::Unreachable);
        }
        let mut pipeline = self.pipeline.borrow_mut();
        if pipeline.len() >= self.window {
            return Err(StoreError::Busy);
        }
        if asking {
            pipeline.push(ASKING, For::Nobody, waiter.deadline);
        }
        pipeline.push(&waiter.bytes, For::Waiter(id), waiter.deadline);
        if waiter.replicas.0 > 0 {
            let mut group = self.group.borrow_mut();
            waiter.group = Some(group.get_or_insert_default().join(waiter.replicas));
        }
        drop(pipeline);
        if waiter.deadline < self.armed.get() {
            self.wake();
        }
        Ok(())
    }

    /// Whether the connection is to be flushed at the end of this turn, and was not before.
    pub(crate) fn gather(&self) -> bool {
        !self.gathered.replace(true)
    }

    /// Sends what was gathered, in one write where the stream takes it.
    pub(crate) fn flush(&self, now: Millis) {
        self.gathered.set(false);
        if let Some(group) = self.group.take() {
            let (replicas, timeout_ms) = group.wanted();
            let mut bytes = Vec::with_capacity(64);
            let (replicas, timeout_ms) = (replicas.to_string(), timeout_ms.to_string());
            write_command(&mut bytes, &[b"WAIT", replicas.as_bytes(), timeout_ms.as_bytes()]);
            self.pipeline.borrow_mut().push(&bytes, For::Group(group), now + self.times.command);
        }
        let depth = self.pipeline.borrow_mut().take_gathered();
        self.counters.gathered(depth);
        let Some(waker) = self.waker.borrow().clone() else { return };
        if self.poll_write(&mut Context::from_waker(&waker)).is_err() {
            // Its task finds the same error, and sees to it.
            waker.wake();
        }
    }

    /// Ends the connection; what is in flight fails.
    pub(crate) fn close(&self) {
        self.state.set(State::Closed);
        self.origin.set(0);
        self.wake();
    }

    /// Tries again now rather than after the pause.
    pub(crate) fn hurry(&self) {
        if self.state.get() == State::Down {
            self.hurried.set(true);
            self.wake();
        }
    }

    fn wake(&self) {
        self.waker.borrow_mut().take().into_iter().for_each(Waker::wake);
    }

    async fn run(self: Rc<Self>, runtime: R) {
        let mut failures: u32 = 0;
        while self.state.get() != State::Closed {
            let error = match self.connect(&runtime).await {
                Ok((stream, inbox, agreed)) => {
                    let since = runtime.now();
                    self.on_up(stream, agreed, since);
                    let error = self.serve(&runtime, inbox).await;
                    if runtime.now().saturating_sub(since) >= SHORT_LIVED_MS {
                        failures = 0;
                    }
                    LoginError::Io(error)
                }
                Err(error) => {
                    failures += 1;
                    error
                }
            };
            self.on_down(&error, failures);
            if failures > 0 {
                self.pause(&runtime, failures).await;
            } else {
                // The next try comes at once, the one after it does not.
                failures = 1;
            }
        }
    }

    /// Connects and logs in; commands that wait for it are told when their time is over.
    async fn connect(self: &Rc<Self>, runtime: &R) -> Result<(R::Stream, Inbox, Agreed), LoginError> {
        let give_up = runtime.now() + self.times.connect;
        let mut coming = pin!(self.come_up(runtime));
        loop {
            let at = self.pipeline.borrow().deadline().map_or(give_up, |due| due.min(give_up));
            self.armed.set(at);
            let step = poll_fn(|cx| {
                if self.state.get() == State::Closed {
                    return Poll::Ready(Some(Err(LoginError::Io(io::ErrorKind::NotConnected.into()))));
                }
                self.waker.replace(Some(cx.waker().clone()));
                match coming.as_mut().poll(cx) {
                    Poll::Ready(done) => Poll::Ready(Some(done)),
                    Poll::Pending if self.is_due_sooner() => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                }
            });
            match runtime.deadline(at, step).await {
                Ok(Some(done)) => return done,
                Ok(None) => {}
                Err(Elapsed) if runtime.now() >= give_up => return Err(LoginError::Timeout),
                Err(Elapsed) => self.expire(runtime.now()),
            }
        }
    }

    async fn come_up(&self, runtime: &R) -> Result<(R::Stream, Inbox, Agreed), LoginError> {
        let stream = runtime.connect(&self.address).await?;
        let mut link = Link::new(stream, self.max_reply_bytes);
        let agreed = login(&mut link, &self.login).await?;
        let (stream, inbox) = link.into_parts();
        Ok((stream, inbox, agreed))
    }

    fn on_up(self: &Rc<Self>, stream: R::Stream, agreed: Agreed, now: Millis) {
        if self.state.get() == State::Closed {
            return;
        }
        self.stream.replace(Some(stream));
        self.heard.set(now);
        self.state.set(State::Up);
        if self.was_up.replace(true) {
            self.counters.reconnected();
        }
        let Some(client) = self.client.upgrade() else { return };
        self.origin.set(if agreed.tracking { client.next_origin() } else { 0 });
        self.last_failure.borrow_mut().clear();
        tracing::info!(node = %self.address, lane = ?self.lane, tracking = agreed.tracking, "connected to Redis");
    }

    fn on_down(self: &Rc<Self>, error: &LoginError, failures: u32) {
        self.stream.replace(None);
        self.unflushed.set(false);
        self.origin.set(0);
        let was = self.state.get();
        if was != State::Closed {
            self.state.set(if failures == 0 { State::Connecting } else { State::Down });
            self.say(error);
        }
        let failed = self.pipeline.borrow_mut().fail();
        if let Some(group) = self.group.take() {
            group.settle(Err(StoreError::Unreachable));
        }
        match self.client.upgrade() {
            Some(client) => client.on_down(self, failed),
            None => self.state.set(State::Closed),
        }
    }

    /// Says once what is wrong, and again when it is something else.
    fn say(&self, error: &LoginError) {
        let text = error.to_string();
        if *self.last_failure.borrow() == text {
            tracing::debug!(node = %self.address, error = text, "Redis is not connected");
            return;
        }
        tracing::warn!(node = %self.address, lane = ?self.lane, error = text, "Redis is not connected");
        self.last_failure.replace(text);
    }

    /// Waits before the next try, twice as long as before.
    async fn pause(&self, runtime: &R, failures: u32) {
        let (first, longest) = self.times.backoff;
        let whole = first.saturating_mul(1 << failures.min(16).saturating_sub(1)).min(longest).max(2);
        self.hurried.set(false);
        let step = poll_fn(|cx| {
            if self.state.get() == State::Closed || self.hurried.get() {
                return Poll::Ready(());
            }
            self.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        });
        // Either way the next try follows.
        let _ = runtime.deadline(runtime.now() + jittered(whole), step).await;
    }

    /// Reads replies until the connection breaks.
    async fn serve(self: &Rc<Self>, runtime: &R, mut inbox: Inbox) -> io::Error {
        loop {
            let at = self.wake_at(runtime.now());
            self.armed.set(at);
            match runtime.deadline(at, poll_fn(|cx| self.poll_io(runtime, cx, &mut inbox))).await {
                Ok(Wake::Broken(error)) => return error,
                Ok(Wake::Closed) => return io::ErrorKind::NotConnected.into(),
                Ok(Wake::Rearm) => {}
                Err(Elapsed) => {
                    if let Some(error) = self.on_time(runtime.now()) {
                        return error;
                    }
                }
            }
        }
    }

    fn wake_at(&self, now: Millis) -> Millis {
        let latest = match self.state.get() {
            State::Stalled => now + self.times.command,
            _ => (self.heard.get() + HEARTBEAT_MS).max(now + self.times.command),
        };
        self.pipeline.borrow().deadline().map_or(latest, |due| due.min(latest))
    }

    /// The timer came up: tells those whose time is over, asks whether the node is there, gives up on one that is not.
    fn on_time(self: &Rc<Self>, now: Millis) -> Option<io::Error> {
        let silent_for = now.saturating_sub(self.heard.get());
        self.expire(now);
        if self.state.get() == State::Stalled && now.saturating_sub(self.stalled.get()) >= self.times.connect
        {
            return Some(io::Error::new(io::ErrorKind::TimedOut, "no answer for too long"));
        }
        if silent_for >= HEARTBEAT_MS && self.pipeline.borrow().len() == 0 {
            self.pipeline.borrow_mut().push(PING, For::Heartbeat, now + self.times.command);
        }
        None
    }

    /// Tells those whose time is over; a node that was silent all that time is stalled.
    fn expire(self: &Rc<Self>, now: Millis) {
        let expired = self.pipeline.borrow_mut().take_expired(now);
        let is_silent = now.saturating_sub(self.heard.get()) >= self.times.command;
        if !expired.is_empty() && is_silent && self.state.get() == State::Up {
            tracing::warn!(node = %self.address, lane = ?self.lane, "Redis does not answer");
            self.state.set(State::Stalled);
            self.stalled.set(now);
        }
        if let Some(client) = self.client.upgrade() {
            client.on_expired(self, expired);
            if self.state.get() == State::Stalled {
                client.on_stalled(self);
            }
        }
    }

    /// Whether a command is due before the task wakes by itself.
    fn is_due_sooner(&self) -> bool {
        self.pipeline.borrow().deadline().is_some_and(|due| due < self.armed.get())
    }

    fn poll_io(self: &Rc<Self>, runtime: &R, cx: &mut Context<'_>, inbox: &mut Inbox) -> Poll<Wake> {
        if self.state.get() == State::Closed {
            return Poll::Ready(Wake::Closed);
        }
        self.waker.replace(Some(cx.waker().clone()));
        if let Err(error) = self.poll_write(cx) {
            return Poll::Ready(Wake::Broken(error));
        }
        for _ in 0..READS_PER_POLL {
            let read = {
                let mut stream = self.stream.borrow_mut();
                let Some(stream) = &mut *stream else { return Poll::Ready(Wake::Closed) };
                Pin::new(stream).poll_read(cx, inbox.room())
            };
            match read {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Wake::Broken(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(Ok(count)) => {
                    inbox.took(count);
                    if let Err(error) = self.take_replies(runtime.now(), inbox) {
                        return Poll::Ready(Wake::Broken(error));
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Wake::Broken(error)),
                Poll::Pending if self.is_due_sooner() => return Poll::Ready(Wake::Rearm),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn take_replies(self: &Rc<Self>, now: Millis, inbox: &mut Inbox) -> io::Result<()> {
        self.heard.set(now);
        if self.state.get() == State::Stalled {
            tracing::info!(node = %self.address, lane = ?self.lane, "Redis answers again");
            self.state.set(State::Up);
        }
        let Some(client) = self.client.upgrade() else { return Err(io::ErrorKind::NotConnected.into()) };
        while let Some(reply) = inbox.next()? {
            if let Reply::Push(items) = reply {
                client.on_push(self, &items);
                continue;
            }
            let Some(reply_for) = self.pipeline.borrow_mut().answered() else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a reply to nothing"));
            };
            client.on_reply(self, reply_for, reply);
        }
        client.after_replies();
        Ok(())
    }

    fn poll_write(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut stream = self.stream.borrow_mut();
        let Some(stream) = &mut *stream else { return Ok(()) };
        let mut pipeline = self.pipeline.borrow_mut();
        while !pipeline.unsent().is_empty() {
            match Pin::new(&mut *stream).poll_write(cx, pipeline.unsent()) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    pipeline.took(count);
                    self.unflushed.set(true);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        if self.unflushed.get() {
            match Pin::new(stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed.set(false),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {}
            }
        }
        Ok(())
    }
}
