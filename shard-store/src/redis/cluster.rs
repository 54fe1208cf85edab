//! A cluster: owns which node a slot's commands go to, the nodes' connections, and what happens to a command that is
//! redirected. Whom to ask for the table and when is its task's ([`scout`](super::scout)).
//!
//! Order within a key: a command is sent to its slot's node in the order of the calls. When the node says that the slot
//! has moved, or a new table says so, commands for it that came before are sent on as their redirects arrive, in order,
//! and later ones are held until the old node has answered all that was in flight there ([`kept`](super::kept)). `ASK` leaves the
//! table as it is, so all commands for the slot take the same way. `TRYAGAIN` (commands with several keys) gives the
//! order up.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::{Rc, Weak};

use mcp_protocol::resp::key_slot;

use super::bell::Bell;
use super::client::{Client, Health};
use super::command::Lane;
use super::connection::{Connection, State};
use super::kept::{Fence, Tended, tend};
use super::layout::{Layout, Redirect, read_redirect};
use super::login::Login;
use super::node::Node;
use super::pause::{jittered, pause};
use super::router::{Route, Router, Verdict};
use super::scout::scout;
use super::settings::Settings;
use super::slots::{Listens, SlotTable};
use super::waiters::{Waiter, WaiterId};
use crate::error::ServerCode;
use crate::runtime::{Address, Runtime};
use crate::{Millis, StoreError};

/// How long a node that is not in the table is kept after the last `ASK` that named it, in milliseconds.
const GUEST_MS: Millis = 10_000;
/// Longest pause before a command is tried again that a node could not carry out in the middle of a move (`TRYAGAIN`), in
/// milliseconds; at least half of it.
const TRY_AGAIN_MS: Millis = 40;

/// The topology; its state is shared with its tasks.
pub(crate) struct Cluster<R: Runtime> {
    map: Rc<Map<R>>,
}

/// What the task that asks for the table sees.
pub(super) struct Map<R: Runtime> {
    pub(super) seeds: Vec<Address>,
    pub(super) login: Login,
    pub(super) tls: bool,
    pub(super) max_reply_bytes: usize,
    pub(super) ask_ms: u64,
    /// Rung when the table is to be asked for.
    pub(super) bell: Bell,
    table: RefCell<SlotTable<Rc<Node<R>>>>,
    /// Connected, but in the table no more, or not yet; until when they are kept.
    guests: RefCell<Vec<(Rc<Node<R>>, Millis)>>,
    knowledge: Cell<Knowledge>,
    closed: Cell<bool>,
    tended: Rc<Tended<Mark<R>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Knowledge {
    /// Nobody has been asked yet.
    Unasked,
    /// All were asked in vain, and there never was a table.
    Nothing,
    Table,
}

impl<R: Runtime> Listens for Rc<Node<R>> {
    fn address(&self) -> &Address {
        &self.address
    }
}

/// What was in flight on a connection when a slot moved away.
struct Mark<R: Runtime> {
    connection: Rc<Connection<R>>,
    mark: u64,
}

impl<R: Runtime> Fence for Mark<R> {
    fn is_past(&self) -> bool {
        self.connection.is_past(self.mark)
    }
}

impl<R: Runtime> Cluster<R> {
    pub(crate) fn new(settings: &Settings, seeds: Vec<Address>) -> Self {
        let auth = settings.auth.clone();
        Cluster {
            map: Rc::new(Map {
                seeds,
                login: Login { auth, database: 0, tracked_prefix: Vec::new(), require_master: false },
                tls: settings.tls,
                max_reply_bytes: settings.max_reply_bytes,
                ask_ms: settings.command_timeout_ms.min(settings.connect_timeout_ms),
                bell: Bell::default(),
                table: RefCell::new(SlotTable::empty()),
                guests: RefCell::default(),
                knowledge: Cell::new(Knowledge::Unasked),
                closed: Cell::default(),
                tended: Rc::new(Tended::new(settings.window)),
            }),
        }
    }
}

impl<R: Runtime> Map<R> {
    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Whether every slot has a node, and every node is connected.
    pub(super) fn is_well(&self) -> bool {
        let table = self.table.borrow();
        !table.has_holes() && table.nodes().all(|node| node.is_up())
    }

    /// Whether the node there is known not to answer.
    pub(super) fn is_down(&self, address: &Address) -> bool {
        let down = |node: &Rc<Node<R>>| matches!(node.main.state(), State::Down | State::Stalled);
        self.nodes().iter().any(|node| node.address == *address && down(node))
    }

    /// A node told the whole table.
    pub(super) fn on_layout(self: &Rc<Self>, client: &Rc<Client<R>>, layout: &Layout) {
        if self.closed.get() {
            return;
        }
        let waiting: BTreeSet<u16> = client.waiters.borrow().slots().collect();
        let owner = |slot: u16| self.table.borrow().owner(slot).cloned();
        let owners: Vec<_> = waiting.iter().filter_map(|slot| Some((*slot, owner(*slot)?))).collect();
        let left = self.table.borrow_mut().replace(layout, |address| self.open(client, address));
        for (slot, old) in owners {
            if owner(slot).is_some_and(|new| !Rc::ptr_eq(&new, &old)) {
                self.hold(client, slot, &old);
            }
        }
        let until = client.runtime.now() + client.settings.command_timeout_ms;
        for node in left {
            tracing::info!(node = %node.address, "left the cluster's table");
            self.keep_guest(client, node, until);
        }
        // The longest pause between two tries is longer than a failover should be noticed late.
        self.table.borrow().nodes().for_each(|node| node.hurry());
        self.knowledge.set(Knowledge::Table);
        self.tended.release_arrivals(client);
    }

    /// Everybody was asked for the table in vain.
    pub(super) fn on_silence(&self, client: &Client<R>) {
        if self.knowledge.get() == Knowledge::Unasked {
            self.knowledge.set(Knowledge::Nothing);
        }
        self.tended.release_arrivals(client);
    }

    /// A slot is elsewhere now, for good.
    fn on_moved(
        self: &Rc<Self>,
        client: &Rc<Client<R>>,
        from: &Address,
        redirect: &Redirect,
    ) -> Option<Rc<Node<R>>> {
        self.bell.ring();
        let old = self.table.borrow().owner(redirect.slot).cloned();
        if let Some(old) = old.filter(|old| old.address == *from && redirect.to != *from) {
            self.hold(client, redirect.slot, &old);
        }
        let open = || self.open(client, &redirect.to);
        self.table.borrow_mut().assign(redirect.slot, &redirect.to, open).cloned()
    }

    /// Holds later commands for a slot until what is in flight at its former node is answered.
    fn hold(&self, client: &Client<R>, slot: u16, old: &Node<R>) {
        let busy = old.lanes().filter(|lane| lane.in_flight() > 0);
        let marks = busy.map(|lane| Mark { connection: lane.clone(), mark: lane.mark() });
        let until = client.runtime.now() + client.settings.command_timeout_ms;
        self.tended.with(|kept| kept.hold(slot, marks, until));
    }

    /// The node of one command only.
    fn on_ask(self: &Rc<Self>, client: &Rc<Client<R>>, to: &Address) -> Rc<Node<R>> {
        let known = self.table.borrow().find(to).cloned();
        known.unwrap_or_else(|| {
            let node = self.open(client, to);
            self.keep_guest(client, node.clone(), client.runtime.now() + GUEST_MS);
            node
        })
    }

    /// The node that listens there: a guest, who is none any more, or a new one.
    fn open(&self, client: &Client<R>, address: &Address) -> Rc<Node<R>> {
        let mut guests = self.guests.borrow_mut();
        match guests.iter().position(|(guest, _)| guest.address == *address) {
            Some(place) => guests.swap_remove(place).0,
            None => Node::open(client, address.clone(), false),
        }
    }

    /// Closes a node at `until`, unless it has been needed in between.
    fn keep_guest(self: &Rc<Self>, client: &Client<R>, node: Rc<Node<R>>, until: Millis) {
        let (runtime, map, guest) = (client.runtime.clone(), Rc::downgrade(self), Rc::downgrade(&node));
        self.guests.borrow_mut().push((node, until));
        client.runtime.spawn(Box::pin(async move {
            let wait = until.saturating_sub(runtime.now());
            pause(&runtime, wait).await;
            Map::dismiss(&map, &guest, runtime.now());
        }));
    }

    fn dismiss(map: &Weak<Self>, guest: &Weak<Node<R>>, now: Millis) {
        let (Some(map), Some(guest)) = (map.upgrade(), guest.upgrade()) else { return };
        map.guests.borrow_mut().retain(|(node, until)| {
            let over = Rc::ptr_eq(node, &guest) && *until <= now;
            if over {
                node.close();
            }
            !over
        });
    }

    fn nodes(&self) -> Vec<Rc<Node<R>>> {
        let table = self.table.borrow();
        let guests = self.guests.borrow();
        table.nodes().chain(guests.iter().map(|(node, _)| node)).cloned().collect()
    }
}

impl<R: Runtime> Router<R> for Cluster<R> {
    fn start(&self, client: &Rc<Client<R>>) {
        let (runtime, me) = (&client.runtime, Rc::downgrade(client));
        runtime.spawn(Box::pin(scout(runtime.clone(), self.map.clone(), me.clone())));
        runtime.spawn(Box::pin(tend(runtime.clone(), self.map.tended.clone(), me)));
    }

    fn slot(&self, key: &[u8]) -> Option<u16> {
        Some(key_slot(key))
    }

    fn route(
        &self,
        client: &Rc<Client<R>>,
        id: WaiterId,
        slot: Option<u16>,
        lane: Lane,
    ) -> Result<Route<R>, StoreError> {
        let map = &self.map;
        match map.knowledge.get() {
            Knowledge::Table => {}
            Knowledge::Unasked => return map.tended.with(|kept| kept.arrive(id)).map(|()| Route::Kept),
            Knowledge::Nothing => return Err(StoreError::Unreachable),
        }
        let table = map.table.borrow();
        let node = match slot {
            Some(slot) if map.tended.keep_if_held(slot, id)? => return Ok(Route::Kept),
            Some(slot) => table.owner(slot).ok_or_else(|| {
                map.bell.ring();
                StoreError::refused("CLUSTERDOWN no node serves this slot")
            })?,
            None => table.nodes().find(|node| node.is_up()).ok_or(StoreError::Unreachable)?,
        };
        Ok(Route::To(node.lane(client, lane)))
    }

    fn owner(&self, slot: Option<u16>) -> Option<Rc<Node<R>>> {
        let table = self.map.table.borrow();
        match slot {
            Some(slot) => table.owner(slot).cloned(),
            None => table.nodes().next().cloned(),
        }
    }

    fn on_error(
        &self,
        client: &Rc<Client<R>>,
        from: &Rc<Connection<R>>,
        id: WaiterId,
        waiter: &mut Waiter,
        text: &str,
    ) -> Verdict<R> {
        let map = &self.map;
        match ServerCode::of(text) {
            ServerCode::Redirect => {
                let Some(redirect) = read_redirect(text, &from.address) else { return Verdict::Answer };
                from.counters.redirected(if redirect.moved { "moved" } else { "ask" });
                let to = match redirect.moved {
                    true => map.on_moved(client, &from.address, &redirect),
                    false => Some(map.on_ask(client, &redirect.to)),
                };
                let asking = !redirect.moved;
                to.map_or(Verdict::Answer, |node| Verdict::Again(node.lane(client, waiter.lane), asking))
            }
            ServerCode::TryAgain => {
                from.counters.redirected("tryagain");
                let due = client.runtime.now() + jittered(TRY_AGAIN_MS);
                let kept = due < waiter.deadline && map.tended.with(|kept| kept.pause(id, due)).is_ok();
                if kept { Verdict::Kept } else { Verdict::Answer }
            }
            ServerCode::ClusterDown | ServerCode::ReadOnly | ServerCode::Loading | ServerCode::MasterDown => {
                map.bell.ring();
                Verdict::Answer
            }
            _ => Verdict::Answer,
        }
    }

    fn on_trouble(&self, _connection: &Rc<Connection<R>>) {
        self.map.bell.ring();
    }

    fn after_replies(&self, client: &Rc<Client<R>>) {
        self.map.tended.release_free(client);
    }

    fn nodes(&self) -> Vec<Rc<Node<R>>> {
        self.map.nodes()
    }

    fn health(&self) -> Health {
        match self.map.is_well() {
            true => Health::Up,
            false if self.map.table.borrow().nodes().any(|node| node.is_up()) => Health::Impaired,
            false => Health::Down,
        }
    }

    fn close(&self) {
        self.map.closed.set(true);
        self.map.tended.close();
        self.map.bell.ring();
        self.map.nodes().iter().for_each(|node| node.close());
    }
}
