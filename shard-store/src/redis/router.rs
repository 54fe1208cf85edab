//! Where commands go: owns the seam between the client and a topology, and the simplest topology, a single node.

use std::cell::OnceCell;
use std::rc::Rc;

use super::client::{Client, Health};
use super::command::Lane;
use super::connection::Connection;
use super::node::Node;
use super::waiters::{Waiter, WaiterId};
use crate::StoreError;
use crate::runtime::{Address, Runtime};

/// Where a command goes.
pub(crate) enum Route<R: Runtime> {
    /// There.
    To(Rc<Connection<R>>),
    /// The router keeps it and has it sent, or finished, by itself.
    Kept,
}

/// What becomes of a command that was answered with an error.
pub(crate) enum Verdict<R: Runtime> {
    /// The error is the answer.
    Answer,
    /// It is sent again, there, after `ASKING` where asked for.
    Again(Rc<Connection<R>>, bool),
    /// The router keeps it and has it sent, or finished, by itself.
    Kept,
}

/// A topology. Nothing in it blocks; what takes time is a task of the client's runtime.
pub(crate) trait Router<R: Runtime> {
    /// Begins; called once.
    fn start(&self, client: &Rc<Client<R>>);

    /// The slot of a key, where there are slots.
    fn slot(&self, _key: &[u8]) -> Option<u16> {
        None
    }

    /// Where a command on `slot` goes.
    ///
    /// # Errors
    /// Why it cannot be sent now.
    fn route(
        &self,
        client: &Rc<Client<R>>,
        id: WaiterId,
        slot: Option<u16>,
        lane: Lane,
    ) -> Result<Route<R>, StoreError>;

    /// The node that a command on `slot` would go to; its main connection vouches for copies.
    fn owner(&self, slot: Option<u16>) -> Option<Rc<Node<R>>>;

    /// A command was answered with an error. The client's waiters are lent out meanwhile: what is to be sent or finished by
    /// the router is done later.
    fn on_error(
        &self,
        _client: &Rc<Client<R>>,
        _from: &Rc<Connection<R>>,
        _id: WaiterId,
        _waiter: &mut Waiter,
        _text: &str,
    ) -> Verdict<R> {
        Verdict::Answer
    }

    /// A connection broke, or could not be made: what was in flight is dealt with afterwards. Or its node has not answered
    /// for a whole command's time: said again while it does not.
    fn on_trouble(&self, _connection: &Rc<Connection<R>>) {}

    /// A connection's replies, all that had come, were given out.
    fn after_replies(&self, _client: &Rc<Client<R>>) {}

    /// All nodes that are known.
    fn nodes(&self) -> Vec<Rc<Node<R>>>;

    /// How the nodes are.
    fn health(&self) -> Health;

    /// Ends everything.
    fn close(&self);
}

/// A single node.
pub(crate) struct Single<R: Runtime> {
    address: Address,
    node: OnceCell<Rc<Node<R>>>,
}

impl<R: Runtime> Single<R> {
    pub(crate) fn new(address: Address) -> Self {
        Single { address, node: OnceCell::new() }
    }
}

impl<R: Runtime> Router<R> for Single<R> {
    fn start(&self, client: &Rc<Client<R>>) {
        self.node.get_or_init(|| Node::open(client, self.address.clone(), false));
    }

    fn route(
        &self,
        client: &Rc<Client<R>>,
        _id: WaiterId,
        _slot: Option<u16>,
        lane: Lane,
    ) -> Result<Route<R>, StoreError> {
        let node = self.node.get().ok_or(StoreError::Unreachable)?;
        Ok(Route::To(node.lane(client, lane)))
    }

    fn owner(&self, _slot: Option<u16>) -> Option<Rc<Node<R>>> {
        self.node.get().cloned()
    }

    fn nodes(&self) -> Vec<Rc<Node<R>>> {
        self.node.get().cloned().into_iter().collect()
    }

    fn health(&self) -> Health {
        if self.node.get().is_some_and(|node| node.is_up()) { Health::Up } else { Health::Down }
    }

    fn close(&self) {
        if let Some(node) = self.node.get() {
            node.close();
        }
    }
}
