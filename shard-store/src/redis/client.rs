//! The client: owns the way of a command through breaker, topology and connection, and what becomes of it when one of them
//! changes.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::Poll;

use mcp_protocol::resp::Reply;

use super::breaker::{Breaker, Turned, is_failure};
use super::cluster::Cluster;
use super::command::{Command, Effect, Lane};
use super::connection::{Connection, Plan, Times};
use super::login::Login;
use super::node::Counters;
use super::pause::{jittered, pause};
use super::pipeline::For;
use super::replicated::WaitGroup;
use super::router::{Route, Router, Single, Verdict};
use super::sentinel::Sentinel;
use super::settings::{Settings, Topology};
use super::waiters::{Start, WaiterId, Waiters};
use crate::error::{Change, ServerCode};
use crate::runtime::{Address, Runtime};
use crate::stats::{BreakerState, ClientStats};
use crate::{Millis, StoreError};

/// How often a node is asked whether it serves again while the breaker is open, in milliseconds; jittered.
const PROBE_EVERY_MS: Millis = 200;
/// How often a command may be sent again because its connection broke.
const RESENDS: u8 = 1;
/// How many redirects a command may follow.
const REDIRECTS: u8 = 5;

/// Names the connection that vouches for what is cached of a slot: a copy is coherent while [`Client::origin`] of its key
/// gives the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin(pub(crate) u64);

/// What the client tells its owner.
pub trait Events {
    /// These keys changed, or are gone. `None`: any may have, all copies are worthless.
    fn invalidated(&self, keys: Option<&[&[u8]]>);
}

/// How the store is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Every node that should be there is connected, and the breaker is closed.
    Up,
    /// Some node is not connected, the breaker is probing, or the last write was refused.
    Impaired,
    /// The breaker is open, or no node is connected.
    Down,
}

/// A shard's client.
pub struct Client<R: Runtime> {
    pub(crate) runtime: R,
    pub(crate) settings: Settings,
    events: Rc<dyn Events>,
    me: Weak<Self>,
    router: Box<dyn Router<R>>,
    pub(crate) waiters: RefCell<Waiters>,
    /// Connections to be flushed at the end of this turn.
    gathered: RefCell<Vec<Rc<Connection<R>>>>,
    breaker: Breaker,
    origins: Cell<u64>,
    /// The last write that was answered was refused for a reason that others would be, too.
    writes_refused: Cell<bool>,
    nowhere: Rc<Counters>,
    closed: Cell<bool>,
}

impl<R: Runtime> Client<R> {
    /// Starts connecting in the background. The client ends when it is closed or dropped.
    pub fn new(runtime: R, settings: Settings, events: Rc<dyn Events>) -> Rc<Self> {
        let router: Box<dyn Router<R>> = match settings.topology.clone() {
            Topology::Single(address) => Box::new(Single::new(address)),
            Topology::Sentinel { master, sentinels, auth } => {
                Box::new(Sentinel::new(&settings, master, sentinels, auth))
            }
            Topology::Cluster(seeds) => Box::new(Cluster::new(&settings, seeds)),
        };
        let client = Rc::new_cyclic(|me| Client {
            runtime,
            events,
            me: me.clone(),
            router,
            waiters: RefCell::default(),
            gathered: RefCell::default(),
            breaker: Breaker::new(settings.failure_threshold, settings.success_threshold),
            origins: Cell::default(),
            writes_refused: Cell::default(),
            nowhere: Rc::default(),
            closed: Cell::default(),
            settings,
        });
        client.router.start(&client);
        client
    }

    /// Sends a command and waits for its reply, at most [`Settings::command_timeout_ms`]. Whoever drops the future leaves
    /// the stream of replies intact; the command may have been carried out.
    ///
    /// # Errors
    /// [`StoreError`]; an error reply is [`StoreError::Refused`].
    pub async fn call(&self, command: &Command<'_>) -> Result<Reply, StoreError> {
        self.guarded(command, Lane::Main, (0, 0)).await.map(|(reply, _)| reply)
    }

    /// Sends a write and waits until `replicas` replicas have it, at most `timeout_ms`. The write's reply.
    ///
    /// # Errors
    /// [`StoreError::NotReplicated`] where the write was made and too few replicas are known to have it; else as
    /// [`Client::call`].
    pub async fn call_replicated(
        &self,
        command: &Command<'_>,
        replicas: u32,
        timeout_ms: u64,
    ) -> Result<Reply, StoreError> {
        if replicas == 0 {
            return self.call(command).await;
        }
        let (reply, group) = self.guarded(command, Lane::Durable, (replicas, timeout_ms)).await?;
        let acknowledged = match group {
            Some(group) => group.settled().await.unwrap_or(0),
            None => 0,
        };
        if acknowledged < replicas {
            return Err(StoreError::NotReplicated { acknowledged, wanted: replicas });
        }
        Ok(reply)
    }

    /// Sends what this turn's tasks asked for. The shard calls it at the end of a turn in which
    /// [`Runtime::flush_later`] was called.
    pub fn flush(&self) {
        let now = self.runtime.now();
        let mut gathered = self.gathered.take();
        for connection in gathered.drain(..) {
            connection.flush(now);
        }
        // Nothing is gathered while connections are flushed.
        self.gathered.replace(gathered);
    }

    /// The connection that vouches for copies of `key`. `None` while no connection does: its node is not connected, or
    /// does not follow keys (RESP2, or `CLIENT TRACKING` refused).
    pub fn origin(&self, key: &[u8]) -> Option<Origin> {
        let owner = self.router.owner(self.router.slot(key))?;
        match owner.main.origin() {
            0 => None,
            origin => Some(Origin(origin)),
        }
    }

    /// How the store is doing.
    pub fn health(&self) -> Health {
        match self.breaker.state() {
            BreakerState::Open => Health::Down,
            BreakerState::HalfOpen => Health::Impaired,
            BreakerState::Closed => match self.router.health() {
                Health::Up if self.writes_refused.get() => Health::Impaired,
                health => health,
            },
        }
    }

    /// What has been counted; the pipeline's depth begins anew.
    pub fn stats(&self) -> ClientStats {
        ClientStats {
            nodes: self.router.nodes().iter().map(|node| node.stats()).collect(),
            nowhere: self.nowhere.commands(),
            breaker: self.breaker.state(),
        }
    }

    /// Closes all connections; what is in flight fails.
    pub fn close(&self) {
        self.closed.set(true);
        self.router.close();
    }

    /// Asks one node, whatever the topology says and the breaker thinks.
    pub(crate) async fn call_on(
        &self,
        connection: &Rc<Connection<R>>,
        command: &Command<'_>,
    ) -> Result<Reply, StoreError> {
        let id = self.insert(command, Lane::Main, (0, 0));
        let waiting = Waiting { client: self, id };
        self.send_on(id, connection, false);
        waiting.outcome().await.map(|(reply, _)| reply)
    }

    async fn guarded(
        &self,
        command: &Command<'_>,
        lane: Lane,
        replicas: (u32, u64),
    ) -> Result<(Reply, Option<Rc<WaitGroup>>), StoreError> {
        if self.breaker.state() != BreakerState::Closed {
            self.nowhere.ended(command.name, StoreError::Unreachable.label(), None);
            return Err(StoreError::Unreachable);
        }
        let id = self.insert(command, lane, replicas);
        let waiting = Waiting { client: self, id };
        self.send(id);
        let outcome = waiting.outcome().await;
        self.judge(command, &outcome);
        outcome
    }

    fn insert(&self, command: &Command<'_>, lane: Lane, replicas: (u32, u64)) -> WaiterId {
        let start = Start {
            lane,
            slot: command.key.and_then(|key| self.router.slot(key)),
            deadline: self.runtime.now() + self.settings.command_timeout_ms,
            started_us: self.runtime.precise_us(),
            replicas,
        };
        self.waiters.borrow_mut().insert(command, start)
    }

    /// Tells the breaker, and remembers whether writes are refused.
    fn judge<T>(&self, command: &Command<'_>, outcome: &Result<T, StoreError>) {
        if matches!(outcome, Err(StoreError::Busy)) {
            // That says nothing about the store.
            return;
        }
        let failed = outcome.as_ref().err().is_some_and(is_failure) && !self.has_several_nodes_up();
        if self.breaker.on_outcome(failed) == Some(Turned::Opened) {
            tracing::warn!("too many failures in a row: Redis is not asked until it answers a probe");
            self.probe_until_closed();
        }
        if command.effect == Effect::Write {
            match outcome {
                Ok(_) => self.writes_refused.set(false),
                Err(StoreError::Refused { code, .. }) if *code != ServerCode::NoScript => {
                    self.writes_refused.set(*code != ServerCode::Other);
                }
                Err(_) => {}
            }
        }
    }

    /// One node of several that fails is its own connection's to see to; the others are asked on.
    fn has_several_nodes_up(&self) -> bool {
        self.router.nodes().iter().filter(|node| node.is_up()).nth(1).is_some()
    }

    fn probe_until_closed(&self) {
        let Some(client) = self.me.upgrade() else { return };
        let runtime = self.runtime.clone();
        self.runtime.spawn(Box::pin(async move {
            while client.breaker.state() != BreakerState::Closed && !client.closed.get() {
                let failed = client.probe().await.is_err();
                if client.breaker.on_probe(failed) == Some(Turned::Closed) {
                    tracing::info!("Redis answers again");
                }
                if failed {
                    pause(&runtime, jittered(PROBE_EVERY_MS)).await;
                }
            }
        }));
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let up = self.router.nodes().into_iter().find(|node| node.is_up()).ok_or(StoreError::Unreachable)?;
        let ping = Command { name: "ping", args: &[b"PING"], key: None, effect: Effect::Read };
        match self.call_on(&up.main, &ping).await {
            // Whatever it says, it is there; but one that is not ready to serve is not back.
            Err(error) if is_failure(&error) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Opens a connection for a node.
    pub(crate) fn connect(
        &self,
        address: Address,
        lane: Lane,
        counters: Rc<Counters>,
        require_master: bool,
    ) -> Rc<Connection<R>> {
        let settings = &self.settings;
        let tracked_prefix = if lane == Lane::Main { settings.tracked_prefix.clone() } else { Vec::new() };
        let plan = Plan {
            address,
            lane,
            counters,
            login: Login {
                auth: settings.auth.clone(),
                database: settings.database,
                tracked_prefix,
                require_master,
            },
            times: Times {
                command: settings.command_timeout_ms,
                connect: settings.connect_timeout_ms,
                backoff: settings.backoff_ms,
            },
            window: settings.window,
            max_reply_bytes: settings.max_reply_bytes,
        };
        Connection::open(&self.runtime, self.me.clone(), plan)
    }

    pub(crate) fn next_origin(&self) -> u64 {
        let origin = self.origins.get() + 1;
        self.origins.set(origin);
        origin
    }

    /// Has a command routed and gathered for the end of this turn.
    pub(crate) fn send(&self, id: WaiterId) {
        let Some((slot, lane)) =
            self.waiters.borrow_mut().waiting(id).map(|waiter| (waiter.slot, waiter.lane))
        else {
            return;
        };
        let Some(me) = self.me.upgrade() else { return };
        match self.router.route(&me, id, slot, lane) {
            Ok(Route::To(connection)) => self.send_on(id, &connection, false),
            Ok(Route::Kept) => {}
            Err(error) => self.fail(id, error),
        }
    }

    /// Has a command gathered for a connection.
    pub(crate) fn send_on(&self, id: WaiterId, connection: &Rc<Connection<R>>, asking: bool) {
        let submitted = match self.waiters.borrow_mut().waiting(id) {
            Some(waiter) => connection.submit(id, waiter, asking),
            None => return,
        };
        match submitted {
            Ok(()) => self.gather(connection),
            Err(error) => self.finish(id, &connection.counters, Err(error)),
        }
    }

    fn gather(&self, connection: &Rc<Connection<R>>) {
        if connection.gather() {
            let mut gathered = self.gathered.borrow_mut();
            if gathered.is_empty() {
                self.runtime.flush_later();
            }
            gathered.push(connection.clone());
        }
    }

    /// When a command's time is over; `None` when nobody waits for it any more.
    pub(crate) fn deadline_of(&self, id: WaiterId) -> Option<Millis> {
        self.waiters.borrow_mut().waiting(id).map(|waiter| waiter.deadline)
    }

    /// Ends a command that reached no node.
    pub(crate) fn fail(&self, id: WaiterId, error: StoreError) {
        self.finish(id, &self.nowhere, Err(error));
    }

    /// Gives a command its outcome.
    pub(crate) fn finish(&self, id: WaiterId, counters: &Counters, outcome: Result<Reply, StoreError>) {
        let mut waiters = self.waiters.borrow_mut();
        let Some(waiter) = waiters.waiting(id) else { return };
        let (result, us) = match &outcome {
            Ok(_) => ("ok", Some(self.runtime.precise_us().saturating_sub(waiter.started_us))),
            Err(error) => (error.label(), None),
        };
        counters.ended(waiter.name, result, us);
        waiter.outcome = Some(outcome);
        waiter.finished = true;
        if let Some(waker) = waiter.waker.take() {
            waker.wake();
        }
    }

    /// A node has not answered for a whole command's time.
    pub(crate) fn on_stalled(&self, connection: &Rc<Connection<R>>) {
        self.router.on_trouble(connection);
    }

    /// A connection broke with these in flight; `true` for those that may have reached the node.
    pub(crate) fn on_down(self: &Rc<Self>, connection: &Rc<Connection<R>>, failed: Vec<(For, bool)>) {
        self.router.on_trouble(connection);
        for (reply_for, sent) in failed {
            match reply_for {
                For::Waiter(id) => self.on_lost(id, connection, sent),
                For::Group(group) => group.settle(Err(StoreError::Lost(Change::Unknown))),
                For::Nobody | For::Heartbeat => {}
            }
        }
    }

    fn on_lost(&self, id: WaiterId, connection: &Connection<R>, sent: bool) {
        let again = {
            let mut waiters = self.waiters.borrow_mut();
            let Some(waiter) = waiters.waiting(id) else { return };
            let safe = !sent || waiter.effect == Effect::Read;
            let again = safe && waiter.resent < RESENDS && !self.closed.get();
            waiter.resent += 1;
            again
        };
        if again {
            self.send(id);
            return;
        }
        let error = if sent { StoreError::Lost(self.change(id)) } else { StoreError::Unreachable };
        self.finish(id, &connection.counters, Err(error));
    }

    /// Those whose time is over; `true` for those that may have reached the node.
    pub(crate) fn on_expired(self: &Rc<Self>, connection: &Rc<Connection<R>>, expired: Vec<(For, bool)>) {
        for (reply_for, sent) in expired {
            match reply_for {
                For::Waiter(id) => {
                    let change = if sent { self.change(id) } else { Change::None };
                    self.finish(id, &connection.counters, Err(StoreError::Timeout(change)));
                }
                For::Group(group) => group.settle(Err(StoreError::Timeout(Change::Unknown))),
                For::Nobody | For::Heartbeat => {}
            }
        }
    }

    /// What is known of a change when its command's outcome is not.
    fn change(&self, id: WaiterId) -> Change {
        match self.waiters.borrow_mut().get(id).map(|waiter| waiter.effect) {
            Some(Effect::Write) => Change::Unknown,
            Some(Effect::Read) | None => Change::None,
        }
    }

    pub(crate) fn on_reply(self: &Rc<Self>, connection: &Rc<Connection<R>>, reply_for: For, reply: Reply) {
        match (reply_for, reply) {
            (For::Waiter(id), Reply::Error(text)) => self.on_error(connection, id, &text),
            (For::Waiter(id), reply) => self.finish(id, &connection.counters, Ok(reply)),
            (For::Group(group), reply) => group.settle(match reply {
                Reply::Integer(count) => Ok(u32::try_from(count).unwrap_or(0)),
                Reply::Error(text) => Err(StoreError::refused(&text)),
                _ => Err(StoreError::Malformed("no number of replicas")),
            }),
            (For::Nobody | For::Heartbeat, _) => {}
        }
    }

    fn on_error(self: &Rc<Self>, connection: &Rc<Connection<R>>, id: WaiterId, text: &str) {
        let verdict = {
            let mut waiters = self.waiters.borrow_mut();
            let Some(waiter) = waiters.waiting(id) else { return };
            match waiter.redirects < REDIRECTS {
                true => self.router.on_error(self, connection, id, waiter, text),
                false => Verdict::Answer,
            }
        };
        match verdict {
            Verdict::Answer => self.finish(id, &connection.counters, Err(StoreError::refused(text))),
            Verdict::Again(to, asking) => {
                if let Some(waiter) = self.waiters.borrow_mut().waiting(id) {
                    waiter.redirects += 1;
                }
                self.send_on(id, &to, asking);
            }
            Verdict::Kept => {}
        }
    }

    /// What a node says by itself.
    pub(crate) fn on_push(&self, connection: &Connection<R>, items: &[Reply]) {
        let [kind, keys, ..] = items else { return };
        if kind.as_bytes() != Some(b"invalidate") {
            return;
        }
        match keys {
            Reply::Array(keys) => {
                let keys: Vec<&[u8]> = keys.iter().filter_map(Reply::as_bytes).collect();
                connection.counters.invalidated(keys.len() as u64);
                self.events.invalidated(Some(&keys));
            }
            _ => self.events.invalidated(None),
        }
    }

    pub(crate) fn after_replies(self: &Rc<Self>) {
        self.router.after_replies(self);
    }
}

impl<R: Runtime> Drop for Client<R> {
    fn drop(&mut self) {
        self.router.close();
    }
}

/// A command whose caller waits; given up when the caller goes.
struct Waiting<'a, R: Runtime> {
    client: &'a Client<R>,
    id: WaiterId,
}

impl<R: Runtime> Waiting<'_, R> {
    async fn outcome(&self) -> Result<(Reply, Option<Rc<WaitGroup>>), StoreError> {
        poll_fn(|cx| {
            let mut waiters = self.client.waiters.borrow_mut();
            let waiter = waiters.get(self.id).expect("only its own guard takes a waiter out");
            match waiter.outcome.take() {
                Some(outcome) => Poll::Ready(outcome.map(|reply| (reply, waiter.group.take()))),
                None => {
                    waiter.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl<R: Runtime> Drop for Waiting<'_, R> {
    fn drop(&mut self) {
        let waiter = self.client.waiters.borrow_mut().remove(self.id);
        if let Some(abandoned) = waiter.filter(|waiter| !waiter.finished) {
            self.client.nowhere.ended(abandoned.name, "abandoned", None);
        }
    }
}
