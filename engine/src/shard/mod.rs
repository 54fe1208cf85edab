//! A shard: owns everything that one pinned thread needs to serve connections from accept to close; the turn of its loop is
//! in `turn.rs`. It shares with other shards only what [`crate::process::Process`] holds.
//!
//! Invariant: no `RefCell` borrow is held while a door, a task or another connection runs.

mod accept;
pub(crate) mod clock;
pub(crate) mod conn;
pub(crate) mod conns;
pub(crate) mod core;
mod crowd;
pub(crate) mod mailbox;
mod orphans;
pub(crate) mod spare;
pub(crate) mod table;
pub(crate) mod tasks;
pub(crate) mod turn;
pub(crate) mod view;
pub(crate) mod wheel;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use mcp_protocol::http1::{RequestHead, ResponseHead};
use mcp_shard_store::memory::{Peers as Carrier, StoreMail};

use crate::door::sse::Streams;
use crate::metrics::{Gauges, Metrics};
use crate::net::event::{EVENTS_PER_WAIT, Event};
use crate::net::listener::{DoorKind, Listener};
use crate::net::probe::Probe;
use crate::net::reactor::Reactor;
use crate::net::token::{Kind, Token};
use crate::peer::Peers;
use crate::policy::overload::Overload;
use crate::process::Process;
use crate::store::Kept;
use crate::upstream::duplex::Duplex;
use clock::{Millis, NEVER};
use conns::Conns;
use core::Core;
pub(crate) use core::Elapsed;
use crowd::{Crowd, Look};
use mailbox::Mail;
use orphans::Orphans;
use spare::{Release, Spare};
use view::View;
use wheel::Timer;

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

/// What is still in flight is cut this much before `drain_timeout`, so that the process is gone by then.
const DRAIN_MARGIN: Duration = Duration::from_millis(250);

pub(crate) struct Shard {
    pub(crate) index: usize,
    pub(crate) process: Arc<Process>,
    pub(crate) core: Rc<Core>,
    pub(crate) conns: Conns,
    pub(crate) metrics: Metrics,
    pub(crate) kept: Kept,
    view: RefCell<Rc<View>>,
    pub(crate) peers: Peers,
    pub(crate) duplex: Duplex,
    /// The streams of HTTP with SSE that this shard owns.
    pub(crate) streams: Streams,
    orphans: Orphans,
    /// Bytes held for unfinished requests and slow readers.
    pub(crate) buffered: Cell<usize>,
    pub(crate) receive_scratch: RefCell<Box<[u8]>>,
    scratch: RefCell<Vec<Vec<u8>>>,
    spare: Spare<Vec<u8>, SPARE_BUFFERS>,
    pub(crate) request_heads: Spare<Box<RequestHead>, SPARE_HEADS>,
    pub(crate) response_heads: Spare<Rc<ResponseHead>, SPARE_HEADS>,
    housekeeping: Timer,
    crowd: RefCell<Crowd>,
    /// Connections that gave up most of their memory without closing, since the process started.
    slept: Cell<u64>,
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
    /// A connection of HTTP/1.1 may be used for another request.
    keeps_connections: Cell<bool>,
}

/// The other shards, as the memory store sees them.
pub(crate) struct Neighbours(Arc<Process>);

impl Neighbours {
    pub(crate) fn new(process: &Arc<Process>) -> Self {
        Neighbours(process.clone())
    }
}

impl Carrier for Neighbours {
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
    pub(crate) fn new(process: Arc<Process>, index: usize, reactor: Reactor) -> io::Result<Rc<Self>> {
        let core = Core::new(process.start, reactor, &process.mailboxes[index])?;

        let setup = process.setup();
        let server = &setup.config.server;
        let mut listeners =
            vec![Listener::bind(SocketAddr::new(server.listen, server.https_port), DoorKind::Https)?];
        if let Some(port) = server.binary_port {
            listeners.push(Listener::bind(SocketAddr::new(server.listen, port), DoorKind::Mcpb)?);
        }
        for (number, listener) in listeners.iter().enumerate() {
            core.reactor.add_level(listener.descriptor(), Token::plain(Kind::Listener, number))?;
        }

        let peers = Peers::new(&process, index)?;
        peers.register(&core.reactor)?;
        let duplex = Duplex::default();
        duplex.grow(setup.servers.len());
        if let Some(keeper) = &process.keeper {
            core.reactor.add_level(keeper.link(index), Token::plain(Kind::Keeper, 0))?;
        }
        let kept = Kept::new(&process, &setup, &core, index);
        let overload = Rc::new(Overload::new(&setup.config.overload));
        let view = Rc::new(View::new(setup, (index, process.mailboxes.len()), None));
        let probe = Probe::new(&core.reactor)?;
        Ok(Rc::new(Shard {
            index,
            core,
            conns: Conns::default(),
            metrics: Metrics::default(),
            kept,
            view: RefCell::new(view),
            peers,
            duplex,
            streams: Streams::default(),
            orphans: Orphans::default(),
            buffered: Cell::new(0),
            receive_scratch: RefCell::new(vec![0; RECEIVE_SCRATCH_BYTES].into_boxed_slice()),
            scratch: RefCell::default(),
            spare: Spare::default(),
            request_heads: Spare::default(),
            response_heads: Spare::default(),
            housekeeping: Timer::default(),
            crowd: RefCell::default(),
            slept: Cell::new(0),
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
            keeps_connections: Cell::new(true),
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

    /// Whether a client of HTTP/1.1 may use its connection again; not when the process drains or is about to.
    pub(crate) fn keeps_connections(&self) -> bool {
        self.keeps_connections.get()
    }

    /// Sets an owner's deadline on the wheel.
    pub(crate) fn arm(&self, timer: &Timer, owner: Token, deadline: Millis) {
        self.core.arm(timer, owner, deadline);
    }

    /// An owner of a deadline is gone.
    pub(crate) fn disarm(&self, timer: &Timer) {
        self.core.disarm(timer);
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
        let until = self.overload.hold_until(self.core.clock.now());
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
        self.core.deadline(deadline, step).await
    }

    /// Has the shard's once-a-second work done while there is something to look after; in a drain, no later than at its
    /// end, which nothing else may be there to wake for.
    pub(crate) fn want_housekeeping(&self) {
        let due = self.core.clock.after(HOUSEKEEPING).min(self.draining.get().unwrap_or(NEVER));
        if due < self.housekeeping.deadline() {
            self.arm(&self.housekeeping, Token::plain(Kind::Housekeeping, 0), due);
        }
    }

    /// A connection stays but gave up most of its memory, which is sought out as if it had gone.
    pub(crate) fn on_slept(&self) {
        self.slept.set(self.slept.get() + 1);
        self.want_housekeeping();
    }

    fn keep_house(&self) {
        let now = self.core.clock.now();
        let mut more = self.kept.keep_house(now) || self.is_draining();
        let setup = self.setup();
        for upstream in setup.upstreams() {
            more |= upstream.drop_idle(self, now);
        }
        more |= self.end_orphans();
        let ttl = setup.config.session.ttl.as_millis() as Millis;
        more |= self.duplex.keep_house(now.saturating_sub(ttl));
        more |= self.release_memory();
        self.arm(&self.housekeeping, Token::plain(Kind::Housekeeping, 0), NEVER);
        if more {
            self.want_housekeeping();
        }
    }

    /// Gives back some of what recent work needed and present work does not; says whether there may be more to give back.
    fn release_memory(&self) -> bool {
        let gone = self.conns.removed() + self.slept.get();
        let look = self.crowd.borrow_mut().look(gone, self.conns.len());
        let rate = if look == Look::Gone { Release::All } else { Release::Half };
        let spares = [
            self.spare.release(rate),
            self.request_heads.release(rate),
            self.response_heads.release(rate),
            self.core.tasks.release_spare(rate),
            self.core.reactor.ring().is_some_and(|ring| ring.release_spare(rate)),
        ];
        if look == Look::Gone {
            self.conns.release();
            crowd::give_back();
        }
        spares.contains(&true) || look == Look::Leaving
    }

    fn gauges(&self) -> Gauges {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let mut pools = Vec::new();
        let setup = self.setup();
        for server in setup.present() {
            let upstream = setup.upstream(server.number.into());
            for (endpoint, (in_use, idle)) in upstream.pool_sizes(self) {
                pools.push((server.number, endpoint, in_use as u64, idle as u64));
            }
        }
        let channels =
            setup.present().map(|server| (server.number, self.duplex.channels(server.number) as u64));
        Gauges {
            channels: channels.filter(|(_, open)| *open > 0).collect(),
            sessions: self.kept.sessions.kept(),
            store: self.kept.gauges(),
            limiter: self.kept.limiter().map(|limiter| limiter.stats()),
            buffered_bytes: self.buffered.get() as u64,
            orphans: self.core.tasks.left() as u64,
            in_flight_limit: self.overload.limit() as u64,
            cpu_us: cpu.tv_sec as u64 * 1_000_000 + cpu.tv_nsec as u64 / 1_000,
            pools,
        }
    }

    /// From now on answers of HTTP/1.1 end their connections. Its clients hear of an end nowhere else: one that is told only
    /// by closing an idle connection crosses the next request, and that client has no answer.
    fn part(&self) {
        self.keeps_connections.set(false);
    }

    /// Stops listening, says goodbye to idle connections, lets what is in flight finish.
    fn drain(self: &Rc<Self>) {
        if self.is_draining() {
            return;
        }
        self.part();
        let timeout = self.setup().config.server.drain_timeout;
        self.draining.set(Some(self.core.clock.after(timeout - timeout.min(DRAIN_MARGIN))));
        for (number, (listener, _)) in self.listeners.take().iter().enumerate() {
            let token = Token::plain(Kind::Listener, number);
            if let Err(error) = self.core.reactor.set_level(listener.descriptor(), token, false) {
                tracing::warn!(%error, "a listener could not be taken off");
            }
        }
        for conn in self.conns.all() {
            crate::door::on_drain(self, &conn);
        }
        // Streams without an end of their own look for the drain when they wake.
        self.core.tasks.wake_all();
        // Something must tick until the deadline even when nothing else does.
        self.want_housekeeping();
    }
}
