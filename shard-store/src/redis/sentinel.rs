//! The master that sentinels name: owns the node that is the master now, and the change to another one. Whom to ask and
//! when is its task's ([`watch`](super::watch)).
//!
//! A node is believed to be the master only when it says so itself as well (the login asks it): what a sentinel knows may
//! be old. Commands that come before any sentinel has answered wait; once all of them were asked in vain, they fail at once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::bell::Bell;
use super::client::{Client, Health};
use super::command::Lane;
use super::connection::Connection;
use super::kept::{Fence, Tended, tend};
use super::login::Login;
use super::node::Node;
use super::router::{Route, Router, Verdict};
use super::settings::{Auth, Settings};
use super::waiters::{Waiter, WaiterId};
use super::watch::watch;
use crate::StoreError;
use crate::error::ServerCode;
use crate::runtime::{Address, Runtime};

/// The topology; its state is shared with its tasks.
pub(crate) struct Sentinel<R: Runtime> {
    watched: Rc<Watched<R>>,
}

/// What the task that asks sentinels sees.
pub(super) struct Watched<R: Runtime> {
    /// The master's name.
    pub(super) name: String,
    pub(super) sentinels: Vec<Address>,
    pub(super) login: Login,
    pub(super) max_reply_bytes: usize,
    pub(super) connect_ms: u64,
    pub(super) ask_ms: u64,
    /// Rung when a sentinel is to be asked now.
    pub(super) bell: Bell,
    master: RefCell<Option<Rc<Node<R>>>>,
    /// The master refused a write as a replica does.
    doubted: Cell<bool>,
    /// All sentinels were asked in vain.
    unknown: Cell<bool>,
    closed: Cell<bool>,
    tended: Rc<Tended<NoFence>>,
}

/// Nothing is held back by slot.
struct NoFence;

impl Fence for NoFence {
    fn is_past(&self) -> bool {
        true
    }
}

impl<R: Runtime> Sentinel<R> {
    pub(crate) fn new(
        settings: &Settings,
        name: String,
        sentinels: Vec<Address>,
        auth: Option<Auth>,
    ) -> Self {
        let login = Login { auth, database: 0, tracked_prefix: Vec::new(), require_master: false };
        Sentinel {
            watched: Rc::new(Watched {
                name,
                sentinels,
                login,
                max_reply_bytes: settings.max_reply_bytes,
                connect_ms: settings.connect_timeout_ms,
                ask_ms: settings.command_timeout_ms,
                bell: Bell::default(),
                master: RefCell::default(),
                doubted: Cell::default(),
                unknown: Cell::default(),
                closed: Cell::default(),
                tended: Rc::new(Tended::new(settings.window)),
            }),
        }
    }
}

impl<R: Runtime> Watched<R> {
    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Whether the master is connected.
    pub(super) fn is_well(&self) -> bool {
        self.master().is_some_and(|master| master.is_up())
    }

    /// A sentinel named the master.
    pub(super) fn on_master(&self, client: &Rc<Client<R>>, address: Address) {
        self.unknown.set(false);
        let doubted = self.doubted.take();
        let known = self.master().filter(|master| master.address == address);
        if self.closed.get() {
            return;
        }
        if let Some(master) = known.filter(|_| !doubted) {
            return master.hurry();
        }
        tracing::info!(master = self.name, node = %address, "the sentinels name the master");
        let old = self.master.replace(Some(Node::open(client, address, true)));
        // What was in flight there is sent again, where it may be, to the new one.
        if let Some(old) = old {
            old.close();
        }
        self.tended.release_arrivals(client);
    }

    /// All sentinels were asked in vain.
    pub(super) fn on_unknown(&self, client: &Client<R>) {
        self.unknown.set(true);
        self.tended.release_arrivals(client);
    }

    fn master(&self) -> Option<Rc<Node<R>>> {
        self.master.borrow().clone()
    }

    fn is_masters(&self, connection: &Rc<Connection<R>>) -> bool {
        self.master().is_some_and(|master| master.lanes().any(|lane| Rc::ptr_eq(lane, connection)))
    }

    fn on_trouble(&self, connection: &Rc<Connection<R>>) {
        if self.is_masters(connection) {
            self.bell.ring();
        }
    }
}

impl<R: Runtime> Router<R> for Sentinel<R> {
    fn start(&self, client: &Rc<Client<R>>) {
        let (runtime, me) = (&client.runtime, Rc::downgrade(client));
        runtime.spawn(Box::pin(watch(runtime.clone(), self.watched.clone(), me.clone())));
        runtime.spawn(Box::pin(tend(runtime.clone(), self.watched.tended.clone(), me)));
    }

    fn route(
        &self,
        client: &Rc<Client<R>>,
        id: WaiterId,
        _slot: Option<u16>,
        lane: Lane,
    ) -> Result<Route<R>, StoreError> {
        match &*self.watched.master.borrow() {
            Some(master) => Ok(Route::To(master.lane(client, lane))),
            None if self.watched.unknown.get() => Err(StoreError::Unreachable),
            None => self.watched.tended.with(|kept| kept.arrive(id)).map(|()| Route::Kept),
        }
    }

    fn owner(&self, _slot: Option<u16>) -> Option<Rc<Node<R>>> {
        self.watched.master()
    }

    fn on_error(
        &self,
        _client: &Rc<Client<R>>,
        from: &Rc<Connection<R>>,
        _id: WaiterId,
        _waiter: &mut Waiter,
        text: &str,
    ) -> Verdict<R> {
        match ServerCode::of(text) {
            ServerCode::ReadOnly if self.watched.is_masters(from) => {
                self.watched.doubted.set(true);
                self.watched.bell.ring();
            }
            ServerCode::MasterDown | ServerCode::Loading => self.watched.on_trouble(from),
            _ => {}
        }
        Verdict::Answer
    }

    fn on_trouble(&self, connection: &Rc<Connection<R>>) {
        self.watched.on_trouble(connection);
    }

    fn nodes(&self) -> Vec<Rc<Node<R>>> {
        self.watched.master().into_iter().collect()
    }

    fn health(&self) -> Health {
        if self.watched.is_well() { Health::Up } else { Health::Down }
    }

    fn close(&self) {
        self.watched.closed.set(true);
        self.watched.tended.close();
        self.watched.bell.ring();
        if let Some(master) = self.watched.master() {
            master.close();
        }
    }
}
