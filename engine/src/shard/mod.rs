//! A shard: owns everything that one pinned thread needs to serve connections from accept to close, and the turn of its
//! loop. It shares with other shards only what [`crate::process::Process`] holds.
//!
//! Invariants: mail is read before sockets in every turn (the store's invalidations depend on it); no `RefCell` borrow is
//! held while a door, a task or another connection runs.

pub(crate) mod clock;
pub(crate) mod conn;
pub(crate) mod conns;
mod crowd;
pub(crate) mod mailbox;
pub(crate) mod spare;
pub(crate) mod table;
pub(crate) mod tasks;
pub(crate) mod wheel;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use mcp_protocol::http1::{RequestHead, ResponseHead};
use mcp_shard_store::memory::{MemoryStore, Peers, StoreMail};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::door;
use crate::metrics::{Gauges, Metrics, Rejection};
use crate::net::event::{EVENTS_PER_WAIT, Event, What};
use crate::net::listener::{Accepted, DoorKind, Listener};
use crate::net::probe::Probe;
use crate::net::reactor::{DriverKind, Reactor};
use crate::net::token::{Kind, Token};
use crate::policy::overload::Overload;
use crate::process::Process;
use crate::runtime::{Drive, Turn};
use crate::upstream::Upstream;
use clock::{Clock, Millis, NEVER};
use conn::Conn;
use conns::Conns;
use crowd::{Crowd, Look};
use mailbox::Mail;
use spare::{Release, Spare};
use tasks::Tasks;
use wheel::{Timer, Wheel};

/// Bytes of the shard's receive scratch: one read's worth (64 KiB keeps a large upload at few system calls), with room in
/// front for what a connection carries over (a TLS record of 16 KiB, or a handshake message of 64 KiB).
const RECEIVE_SCRATCH_BYTES: usize = 160 << 10;
/// Scratch vectors that grew beyond this are given back after use.
const SCRATCH_KEEP_BYTES: usize = 256 << 10;
/// Buffers kept for the next exchange, and how large each may be: 256 × 64 KiB = 16 MiB per shard at the very most.
const SPARE_BUFFERS: usize = 256;
const SPARE_BUFFER_BYTES: usize = 64 << 10;
/// Parsed heads kept for the next exchange: 256 of each, of at most 3 KiB.
const SPARE_HEADS: usize = 256;
/// How often pools and sessions are looked over.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Connections accepted per event: each brings a handshake, the most expensive thing that a stranger can ask for, so 16 of
/// them are 1 to 2 ms of a turn. While the shard lags, or so many handshakes wait already, one: the listener's backlog
/// holds the others.
const ACCEPTS_PER_EVENT: usize = 16;
const ACCEPTS_WHEN_LAGGING: usize = 1;
const MANY_POSTPONED: usize = 256;
/// Events of connections in their handshake per turn: two for each, so as many handshakes as are accepted. Further ones
/// wait for the next turn, behind those who wait already; whoever is through its handshake does not wait for them.
const HANDSHAKE_EVENTS_PER_TURN: usize = 2 * ACCEPTS_PER_EVENT;
/// How long accepting pauses when descriptors or memory ran out.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(250);

/// What is still in flight is cut this much before `drain_timeout`, so that the process is gone by then.
const DRAIN_MARGIN: Duration = Duration::from_millis(250);

/// A task's time is over.
#[derive(Debug)]
pub(crate) struct Elapsed;

pub(crate) struct Shard {
    pub(crate) index: usize,
    pub(crate) process: Arc<Process>,
    pub(crate) reactor: Rc<Reactor>,
    pub(crate) clock: Clock,
    pub(crate) conns: Conns,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: Metrics,
    pub(crate) sessions: MemoryStore<Neighbours>,
    pub(crate) upstreams: Vec<Upstream>,
    /// Bytes held for unfinished requests and slow readers.
    pub(crate) buffered: Cell<usize>,
    pub(crate) receive_scratch: RefCell<Box<[u8]>>,
    scratch: RefCell<Vec<Vec<u8>>>,
    spare: Spare<Vec<u8>, SPARE_BUFFERS>,
    pub(crate) request_heads: Spare<Box<RequestHead>, SPARE_HEADS>,
    pub(crate) response_heads: Spare<Rc<ResponseHead>, SPARE_HEADS>,
    wheel: RefCell<Wheel>,
    housekeeping: Timer,
    crowd: RefCell<Crowd>,
    timer: OwnedFd,
    /// When the timer descriptor goes off; [`NEVER`] where it does not.
    timer_due: Cell<Millis>,
    listeners: RefCell<Vec<(Listener, Timer)>>,
    revisit: RefCell<Vec<Token>>,
    unflushed: RefCell<Vec<Token>>,
    /// Connections whose door has more to do and has had its share of the turn; each is here once.
    resting: RefCell<Vec<Token>>,
    /// Connections in their handshake that are not read until a later turn; each is here once.
    postponed: RefCell<VecDeque<Token>>,
    handshake_events: Cell<usize>,
    pub(crate) overload: Rc<Overload>,
    probe: Probe,
    events: RefCell<Vec<Event>>,
    draining: Cell<Option<Millis>>,
}

/// The other shards, as the memory store sees them.
pub(crate) struct Neighbours(Arc<Process>);

impl Peers for Neighbours {
    fn count(&self) -> usize {
        self.0.mailboxes.len()
    }

    fn send(&self, shard: usize, mail: StoreMail) -> bool {
        self.0.mailboxes.get(shard).is_some_and(|mailbox| mailbox.send(Mail::Store(mail)).is_ok())
    }
}

impl Shard {
    /// Builds the shard on its own thread and starts listening.
    ///
    /// # Errors
    /// The system's, with what was tried.
    pub(crate) fn new(process: Arc<Process>, index: usize, driver: DriverKind) -> io::Result<Rc<Self>> {
        let reactor = Rc::new(Reactor::new(driver)?);
        let clock = Clock::new(process.start);
        reactor.add_level(process.mailboxes[index].descriptor(), Token::plain(Kind::Mailbox, 0))?;
        let timer = rustix::time::timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        reactor.add_level(&timer, Token::plain(Kind::Clock, 0))?;

        let server = &process.config.server;
        let mut listeners =
            vec![Listener::bind(SocketAddr::new(server.listen, server.https_port), DoorKind::Https)?];
        if let Some(port) = server.binary_port {
            listeners.push(Listener::bind(SocketAddr::new(server.listen, port), DoorKind::Mcpb)?);
        }
        for (number, listener) in listeners.iter().enumerate() {
            reactor.add_level(listener.descriptor(), Token::plain(Kind::Listener, number))?;
        }

        let ttl_ms = process.config.session.ttl.as_millis() as u64;
        let sessions =
            MemoryStore::new(index as u16, ttl_ms, process.shard_sessions(), Neighbours(process.clone()));
        let upstreams =
            (0..process.config.upstreams.len()).map(|server| Upstream::new(&process, server)).collect();
        let wheel = RefCell::new(Wheel::new(clock.now()));
        let overload = Rc::new(Overload::new(&process.config.overload));
        let probe = Probe::new(&reactor)?;
        Ok(Rc::new(Shard {
            index,
            reactor,
            clock,
            conns: Conns::default(),
            tasks: Tasks::default(),
            metrics: Metrics::default(),
            sessions,
            upstreams,
            buffered: Cell::new(0),
            receive_scratch: RefCell::new(vec![0; RECEIVE_SCRATCH_BYTES].into_boxed_slice()),
            scratch: RefCell::default(),
            spare: Spare::default(),
            request_heads: Spare::default(),
            response_heads: Spare::default(),
            wheel,
            housekeeping: Timer::default(),
            crowd: RefCell::default(),
            timer,
            timer_due: Cell::new(NEVER),
            listeners: RefCell::new(
                listeners.into_iter().map(|listener| (listener, Timer::default())).collect(),
            ),
            revisit: RefCell::default(),
            unflushed: RefCell::default(),
            resting: RefCell::default(),
            postponed: RefCell::default(),
            handshake_events: Cell::new(0),
            overload,
            probe,
            events: RefCell::new(Vec::with_capacity(EVENTS_PER_WAIT)),
            draining: Cell::new(None),
            process,
        }))
    }

    /// Lends a scratch vector for the length of `work`; nothing of it is kept.
    pub(crate) fn with_scratch<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut vector = self.scratch.borrow_mut().pop().unwrap_or_default();
        let result = work(&mut vector);
        vector.clear();
        if vector.capacity() <= SCRATCH_KEEP_BYTES {
            self.scratch.borrow_mut().push(vector);
        }
        result
    }

    /// An empty buffer for an exchange; give it back with [`Shard::give_buffer`].
    pub(crate) fn take_buffer(&self) -> Vec<u8> {
        self.spare.take().unwrap_or_default()
    }

    pub(crate) fn give_buffer(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0 && buffer.capacity() <= SPARE_BUFFER_BYTES {
            buffer.clear();
            self.spare.give(buffer);
        }
    }

    /// Whether the shard may hold more bytes for unfinished work.
    pub(crate) fn has_memory(&self) -> bool {
        self.buffered.get() < self.process.shard_budget_bytes()
    }

    /// Whether the process is shutting down.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get().is_some()
    }

    /// Sets an owner's deadline on the wheel.
    pub(crate) fn arm(&self, timer: &Timer, owner: Token, deadline: Millis) {
        self.wheel.borrow_mut().set(timer, owner.pack(), deadline);
    }

    /// An owner of a deadline is gone.
    pub(crate) fn disarm(&self, timer: &Timer) {
        self.wheel.borrow_mut().forget(timer);
    }

    /// Has a connection looked at again in the next turn.
    pub(crate) fn revisit(&self, conn: Token) {
        self.revisit.borrow_mut().push(conn);
    }

    /// Has a connection's door send, at the end of this turn, what it has gathered.
    pub(crate) fn flush_later(&self, conn: Token) {
        self.unflushed.borrow_mut().push(conn);
    }

    /// Has a connection's door go on in the next turn, when the others have had theirs.
    pub(crate) fn rest(&self, conn: Token) {
        self.resting.borrow_mut().push(conn);
    }

    /// Waits until a client that was refused may be read again; a drain ends the waiting.
    pub(crate) async fn held(&self) {
        let until = self.overload.hold_until(self.clock.now());
        let drained = poll_fn(|_| if self.is_draining() { Poll::Ready(()) } else { Poll::Pending });
        // Either end is one.
        let _ = self.deadline(until, pin!(drained)).await;
    }

    /// Bounds the time of a task's step. Must be awaited by the task itself; steps are bounded one at a time.
    pub(crate) async fn deadline<T>(
        &self,
        deadline: Millis,
        step: impl Future<Output = T>,
    ) -> Result<T, Elapsed> {
        let mut step = pin!(step);
        let mut armed = None;
        let outcome = poll_fn(|cx| {
            if let Poll::Ready(value) = step.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            if self.clock.now() >= deadline {
                return Poll::Ready(Err(Elapsed));
            }
            if armed.is_none()
                && let Some(task) = self.tasks.current()
            {
                armed = Some(task.slot());
                self.set_task_deadline(task.slot(), deadline);
            }
            Poll::Pending
        })
        .await;
        if let Some(slot) = armed {
            self.set_task_deadline(slot, NEVER);
        }
        outcome
    }

    fn set_task_deadline(&self, slot: usize, deadline: Millis) {
        self.tasks.with_timer(slot, |timer| self.arm(timer, Token::plain(Kind::Task, slot), deadline));
    }

    /// Has the shard's once-a-second work done while there is something to look after; in a drain, no later than at its
    /// end, which nothing else may be there to wake for.
    pub(crate) fn want_housekeeping(&self) {
        let due = self.clock.after(HOUSEKEEPING).min(self.draining.get().unwrap_or(NEVER));
        if due < self.housekeeping.deadline() {
            self.arm(&self.housekeeping, Token::plain(Kind::Housekeeping, 0), due);
        }
    }

    fn keep_house(&self) {
        self.sessions.expire(self.clock.now());
        let mut more = self.sessions.sessions() > 0 || self.is_draining();
        for upstream in &self.upstreams {
            more |= upstream.drop_idle(self.clock.now());
        }
        more |= self.release_memory();
        self.arm(&self.housekeeping, Token::plain(Kind::Housekeeping, 0), NEVER);
        if more {
            self.want_housekeeping();
        }
    }

    /// Gives back some of what recent work needed and present work does not; says whether there may be more to give back.
    fn release_memory(&self) -> bool {
        let look = self.crowd.borrow_mut().look(self.conns.removed(), self.conns.len());
        let rate = if look == Look::Gone { Release::All } else { Release::Half };
        let spares = [
            self.spare.release(rate),
            self.request_heads.release(rate),
            self.response_heads.release(rate),
            self.tasks.release_spare(rate),
            self.reactor.ring().is_some_and(|ring| ring.release_spare(rate)),
        ];
        if look == Look::Gone {
            self.conns.release();
            crowd::give_back();
        }
        spares.contains(&true) || look == Look::Leaving
    }

    /// One turn of the loop: waits unless there is work left, then does what is due.
    pub(crate) fn turn(self: &Rc<Self>) -> Turn {
        let mut events = self.events.take();
        let block = !self.has_work();
        if let Err(error) = self.reactor.wait(block, &mut events) {
            crate::fatal::end(&format!("waiting for events failed on shard {}: {error}", self.index));
        }
        self.clock.refresh();
        self.wheel.borrow_mut().catch_up(self.clock.now());
        let started = self.clock.precise_us();
        let mut busy = !events.is_empty();
        let mut served = false;

        busy |= self.read_mail();
        busy |= self.serve_waiting();
        for event in events.drain(..) {
            served |= matches!(event.token.kind, Kind::Conn | Kind::Socket | Kind::Listener);
            self.on_event(event.token, event.what);
        }
        self.events.replace(events);
        for token in self.revisit.take() {
            busy = true;
            if let Some(conn) = self.conns.get(token) {
                conn::on_readable(self, &conn);
            }
        }
        busy |= self.tasks.run();
        self.flush();
        self.keep_timer();
        if busy {
            let ended = self.clock.precise_us();
            self.metrics.turn(ended.saturating_sub(started));
            // An idle shard is not woken by its own probe.
            if served && let Some(waiting) = self.probe.on_turn(ended).filter(|us| self.overload.is_long(*us))
            {
                self.on_queue_delay(waiting);
            }
        }
        let next = self.after_turn();
        if next == Turn::Finished {
            // What was asked for in this turn still reaches the kernel.
            let last = self.reactor.wait(false, &mut self.events.borrow_mut());
            tracing::debug!(?last, shard = self.index, "finished");
        }
        next
    }

    fn flush(self: &Rc<Self>) {
        let mut unflushed = self.unflushed.take();
        for token in unflushed.drain(..) {
            if let Some(conn) = self.conns.get(token) {
                door::flush(self, &conn);
            }
        }
        // A connection that failed may have had others say something: that is for the next turn.
        unflushed.append(&mut self.unflushed.borrow_mut());
        self.unflushed.replace(unflushed);
    }

    fn has_work(&self) -> bool {
        self.tasks.any_ready()
            || !self.unflushed.borrow().is_empty()
            || !self.revisit.borrow().is_empty()
            || !self.resting.borrow().is_empty()
            || !self.postponed.borrow().is_empty()
    }

    /// Serves what had to wait for this turn, first come first served.
    fn serve_waiting(self: &Rc<Self>) -> bool {
        let resting = self.resting.take();
        let mut busy = !resting.is_empty();
        for token in resting {
            if let Some(conn) = self.conns.get(token) {
                door::go_on(self, &conn);
            }
        }
        self.handshake_events.set(0);
        while self.handshake_events.get() < HANDSHAKE_EVENTS_PER_TURN {
            let Some(token) = self.postponed.borrow_mut().pop_front() else { break };
            let Some(conn) = self.conns.get(token) else { continue };
            busy = true;
            self.handshake_events.set(self.handshake_events.get() + 1);
            // Read when the turn comes to those that are looked at again.
            conn.resume(self);
        }
        busy
    }

    fn on_conn_event(self: &Rc<Self>, conn: &Rc<Conn>, what: What) {
        if conn.is_handshaking() && !matches!(what, What::Sent(_)) {
            let over = self.handshake_events.get() >= HANDSHAKE_EVENTS_PER_TURN;
            self.handshake_events.set(self.handshake_events.get() + 1);
            // During the pause the event only leaves its note that there is something to read.
            if over && !conn.pause() {
                self.postponed.borrow_mut().push_back(conn.token);
            }
        }
        conn::on_event(self, conn, what);
    }

    fn on_queue_delay(&self, us: u64) {
        self.metrics.queue_delay(us);
        self.overload.on_delay(self.clock.now(), us);
    }

    fn after_turn(&self) -> Turn {
        if let Some(deadline) = self.draining.get() {
            if self.conns.is_empty() && self.tasks.live() == 0 {
                return Turn::Finished;
            }
            if self.clock.now() >= deadline {
                tracing::warn!(
                    shard = self.index,
                    connections = self.conns.len(),
                    "drain_timeout reached, cut"
                );
                return Turn::Finished;
            }
        }
        Turn::More
    }

    fn on_event(self: &Rc<Self>, token: Token, what: What) {
        match token.kind {
            Kind::Conn => {
                if let Some(conn) = self.conns.get(token) {
                    self.on_conn_event(&conn, what);
                }
            }
            Kind::Probe => {
                if let Some(waited) = self.probe.on_event(self.clock.precise_us()) {
                    self.on_queue_delay(waited);
                }
            }
            Kind::Socket => self.reactor.on_event(token, what),
            Kind::Listener => self.accept(token.index as usize),
            Kind::Clock => self.on_clock(),
            // Read at the start of the turn.
            Kind::Mailbox => {}
            Kind::Task | Kind::Housekeeping => {}
        }
    }

    fn on_clock(self: &Rc<Self>) {
        let mut expirations = [0u8; 8];
        // EAGAIN only says that it was read before.
        let _ = rustix::io::read(&self.timer, &mut expirations);
        self.timer_due.set(NEVER);
        let now = self.clock.now();
        let mut due = Vec::new();
        self.wheel.borrow_mut().advance(now, &mut due);
        for (bits, tick) in due {
            let Some(token) = Token::unpack(bits) else { continue };
            match token.kind {
                Kind::Conn => {
                    let Some(conn) = self.conns.get(token) else { continue };
                    if self.came_up(&conn.timer, token, tick, now) {
                        conn::on_deadline(self, &conn);
                    }
                }
                Kind::Task => {
                    let slot = token.index as usize;
                    let over = self.tasks.with_timer(slot, |timer| self.came_up(timer, token, tick, now));
                    if over == Some(true) {
                        self.tasks.wake_slot(slot);
                    }
                }
                Kind::Housekeeping => {
                    if self.came_up(&self.housekeeping, token, tick, now) {
                        self.keep_house();
                    }
                }
                Kind::Listener => self.resume_listener(token, tick, now),
                Kind::Socket | Kind::Mailbox | Kind::Clock | Kind::Probe => {}
            }
        }
    }

    /// Whether a timer's deadline has passed; puts it back on the wheel when it moved.
    fn came_up(&self, timer: &Timer, token: Token, tick: u64, now: Millis) -> bool {
        match Wheel::visit(timer, tick, now) {
            Some(true) => true,
            Some(false) => {
                self.arm(timer, token, timer.deadline());
                false
            }
            None => false,
        }
    }

    /// Sets the timer descriptor for the next tick that has something to look at. One that is set for a tick which nobody
    /// needs any more is left: it costs one turn, and setting it again costs a system call for each connection.
    fn keep_timer(&self) {
        let Some(due) = self.wheel.borrow_mut().next_due() else { return };
        if self.timer_due.get() <= due {
            return;
        }
        let wait_ms = due.saturating_sub(self.clock.now()).max(1);
        let once = Timespec { tv_sec: (wait_ms / 1000) as i64, tv_nsec: (wait_ms % 1000) as i64 * 1_000_000 };
        let setting = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: once };
        match rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting) {
            Ok(_) => self.timer_due.set(due),
            Err(error) => crate::fatal::end(&format!("timerfd_settime failed: {error}")),
        }
    }

    fn read_mail(self: &Rc<Self>) -> bool {
        let mailbox = &self.process.mailboxes[self.index];
        if mailbox.is_empty() {
            return false;
        }
        mailbox.acknowledge();
        while let Some(mail) = mailbox.take() {
            match mail {
                Mail::Store(mail) => self.sessions.on_mail(mail, self.clock.now()),
                Mail::Metrics(answer) => {
                    let snapshot = self.metrics.snapshot(self.index, self.gauges());
                    // The admin listener gave up on an answer this late.
                    let _ = answer.try_send(Box::new(snapshot));
                }
                Mail::Drain => self.drain(),
            }
        }
        true
    }

    fn gauges(&self) -> Gauges {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let mut pools = Vec::new();
        for (server, upstream) in self.upstreams.iter().enumerate() {
            for (endpoint, (in_use, idle)) in upstream.pool_sizes().enumerate() {
                pools.push((server as u16, endpoint as u16, in_use as u64, idle as u64));
            }
        }
        Gauges {
            sessions: self.sessions.sessions() as u64,
            buffered_bytes: self.buffered.get() as u64,
            in_flight_limit: self.overload.limit() as u64,
            cpu_us: cpu.tv_sec as u64 * 1_000_000 + cpu.tv_nsec as u64 / 1_000,
            pools,
        }
    }

    /// Stops listening, says goodbye to idle connections, lets what is in flight finish.
    fn drain(self: &Rc<Self>) {
        if self.is_draining() {
            return;
        }
        let timeout = self.process.config.server.drain_timeout;
        self.draining.set(Some(self.clock.after(timeout - timeout.min(DRAIN_MARGIN))));
        for (number, (listener, _)) in self.listeners.take().iter().enumerate() {
            let token = Token::plain(Kind::Listener, number);
            if let Err(error) = self.reactor.set_level(listener.descriptor(), token, false) {
                tracing::warn!(%error, "a listener could not be taken off");
            }
        }
        for conn in self.conns.all() {
            crate::door::on_drain(self, &conn);
        }
        // Streams without an end of their own look for the drain when they wake.
        self.tasks.wake_all();
        // Something must tick until the deadline even when nothing else does.
        self.want_housekeeping();
    }

    fn accept(self: &Rc<Self>, number: usize) {
        let lags = self.overload.is_lagging() || self.postponed.borrow().len() >= MANY_POSTPONED;
        let most = if lags { ACCEPTS_WHEN_LAGGING } else { ACCEPTS_PER_EVENT };
        let mut arrived = Vec::new();
        let outcome = {
            let listeners = self.listeners.borrow();
            let Some((listener, _)) = listeners.get(number) else { return };
            let door = listener.door;
            (listener.accept(most, |descriptor, peer| arrived.push((descriptor, peer))), door)
        };
        for (descriptor, peer) in arrived {
            match self.process.table.enter(peer) {
                Ok(()) => Conn::open(self, descriptor, peer, outcome.1),
                Err(table::Full::Process) => self.metrics.rejected(Rejection::MaxConnections),
                Err(table::Full::Address) => self.metrics.rejected(Rejection::MaxConnectionsPerIp),
            }
        }
        if outcome.0 == Accepted::Exhausted {
            self.metrics.rejected(Rejection::Exhausted);
            self.pause_listener(number);
        }
    }

    fn pause_listener(&self, number: usize) {
        let listeners = self.listeners.borrow();
        let Some((listener, timer)) = listeners.get(number) else { return };
        let token = Token::plain(Kind::Listener, number);
        match self.reactor.set_level(listener.descriptor(), token, false) {
            Ok(()) => self.arm(timer, token, self.clock.after(ACCEPT_BACKOFF)),
            Err(error) => tracing::error!(%error, "accepting could not be paused"),
        }
    }

    fn resume_listener(&self, token: Token, tick: u64, now: Millis) {
        let listeners = self.listeners.borrow();
        let Some((listener, timer)) = listeners.get(token.index as usize) else { return };
        if self.came_up(timer, token, tick, now)
            && let Err(error) = self.reactor.set_level(listener.descriptor(), token, true)
        {
            crate::fatal::end(&format!("accepting could not be resumed: {error}"));
        }
    }
}

/// A shard as the executor drives it.
pub(crate) struct Driven(pub(crate) Rc<Shard>);

impl Drive for Driven {
    fn turn(&self) -> Turn {
        self.0.turn()
    }
}
