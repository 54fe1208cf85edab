//! A node: owns its connections, one for nearly everything and one for writes that wait for replicas, and what is counted
//! about it.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use super::client::Client;
use super::command::Lane;
use super::connection::{Connection, State};
use crate::runtime::{Address, Runtime};
use crate::stats::{Latency, NodeStats};

pub(crate) struct Node<R: Runtime> {
    pub(crate) address: Address,
    pub(crate) main: Rc<Connection<R>>,
    pub(crate) counters: Rc<Counters>,
    durable: OnceCell<Rc<Connection<R>>>,
    require_master: bool,
}

impl<R: Runtime> Node<R> {
    /// Connects in the background. `require_master`: a node that is none is as good as down.
    pub(crate) fn open(client: &Client<R>, address: Address, require_master: bool) -> Rc<Self> {
        let counters = Rc::new(Counters::default());
        let main = client.connect(address.clone(), Lane::Main, counters.clone(), require_master);
        Rc::new(Node { address, main, counters, durable: OnceCell::new(), require_master })
    }

    /// One of its connections; the durable one is opened with its first use.
    pub(crate) fn lane(&self, client: &Client<R>, lane: Lane) -> Rc<Connection<R>> {
        match lane {
            Lane::Main => self.main.clone(),
            Lane::Durable => self
                .durable
                .get_or_init(|| {
                    let counters = self.counters.clone();
                    client.connect(self.address.clone(), Lane::Durable, counters, self.require_master)
                })
                .clone(),
        }
    }

    /// Its connections that were ever used.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = &Rc<Connection<R>>> {
        std::iter::once(&self.main).chain(self.durable.get())
    }

    pub(crate) fn is_up(&self) -> bool {
        self.main.state() == State::Up
    }

    /// Where it is not connected, tries again now.
    pub(crate) fn hurry(&self) {
        self.lanes().for_each(|lane| lane.hurry());
    }

    pub(crate) fn close(&self) {
        self.lanes().for_each(|lane| lane.close());
    }

    pub(crate) fn stats(&self) -> NodeStats {
        let in_flight = self.lanes().map(|lane| lane.in_flight() as u64).sum();
        self.counters.stats(self.address.to_string(), self.is_up(), in_flight)
    }
}

/// What is counted about a node.
#[derive(Default)]
pub(crate) struct Counters {
    commands: RefCell<Vec<(&'static str, &'static str, u64)>>,
    redirects: RefCell<Vec<(&'static str, u64)>>,
    latency: RefCell<Latency>,
    depth: Cell<u64>,
    reconnects: Cell<u64>,
    invalidations: Cell<u64>,
}

impl Counters {
    /// A command ended; `us` is its time, where it was answered.
    pub(crate) fn ended(&self, name: &'static str, result: &'static str, us: Option<u64>) {
        if let Some(us) = us {
            self.latency.borrow_mut().record(us);
        }
        let mut commands = self.commands.borrow_mut();
        match commands.iter_mut().find(|(n, r, _)| std::ptr::eq(*r, result) && std::ptr::eq(*n, name)) {
            Some((_, _, count)) => *count += 1,
            None => commands.push((name, result, 1)),
        }
    }

    pub(crate) fn redirected(&self, kind: &'static str) {
        let mut redirects = self.redirects.borrow_mut();
        match redirects.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => redirects.push((kind, 1)),
        }
    }

    pub(crate) fn gathered(&self, commands: u64) {
        self.depth.set(self.depth.get().max(commands));
    }

    pub(crate) fn reconnected(&self) {
        self.reconnects.set(self.reconnects.get() + 1);
    }

    pub(crate) fn invalidated(&self, keys: u64) {
        self.invalidations.set(self.invalidations.get() + keys);
    }

    /// Commands by name and result.
    pub(crate) fn commands(&self) -> Vec<(&'static str, &'static str, u64)> {
        let mut commands: Vec<(&'static str, &'static str, u64)> = Vec::new();
        for &(name, result, count) in &*self.commands.borrow() {
            // The same text may stand at two addresses.
            match commands.iter_mut().find(|(n, r, _)| *n == name && *r == result) {
                Some((_, _, sum)) => *sum += count,
                None => commands.push((name, result, count)),
            }
        }
        commands
    }

    fn stats(&self, address: String, up: bool, in_flight: u64) -> NodeStats {
        NodeStats {
            address,
            up,
            commands: self.commands(),
            latency: self.latency.borrow().clone(),
            in_flight,
            pipeline_depth: self.depth.take(),
            reconnects: self.reconnects.get(),
            redirects: self.redirects.borrow().clone(),
            invalidations: self.invalidations.get(),
        }
    }
}
