//! The legacy session: owns its state and who waits for it, and the handshake by which it can be opened again. Pure
//! bookkeeping; requests are sent elsewhere.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::connect::host::Gate;
use crate::connect::message::{Fault, Message};

/// A session as the gateway opened it.
pub(super) struct Session {
    /// Counts the sessions of this run: what failed in one is not held against the next.
    pub(super) generation: u64,
    /// `Mcp-Session-Id`; a server may do without.
    pub(super) id: Option<String>,
    /// The revision that was agreed on.
    pub(super) revision: String,
}

enum State {
    /// The client has not initialized, or could not.
    Closed,
    /// `initialize` is under way; `before` is the session that it replaces, if that was not the client's wish.
    Opening {
        before: Option<Rc<Session>>,
    },
    Open(Rc<Session>),
}

/// The session of the moment.
pub(super) struct Sessions {
    state: RefCell<State>,
    /// `notifications/initialized` is under way: nothing may overtake it.
    settling: Cell<bool>,
    changed: Gate,
    generations: Cell<u64>,
    /// The client's own handshake, to be said again when the gateway has lost the session.
    initialize: RefCell<Option<Rc<Message>>>,
    initialized: RefCell<Option<Rc<Message>>>,
    /// Why a session could not be opened again.
    failure: RefCell<Option<Fault>>,
}

impl Sessions {
    pub(super) fn new() -> Self {
        Sessions {
            state: RefCell::new(State::Closed),
            settling: Cell::new(false),
            changed: Gate::default(),
            generations: Cell::new(0),
            initialize: RefCell::default(),
            initialized: RefCell::default(),
            failure: RefCell::default(),
        }
    }

    /// The client's `initialize`: whatever follows waits for its outcome.
    pub(super) fn begin(&self, initialize: &Rc<Message>) {
        *self.initialize.borrow_mut() = Some(initialize.clone());
        *self.initialized.borrow_mut() = None;
        self.settling.set(false);
        *self.state.borrow_mut() = State::Opening { before: None };
    }

    /// The client's `notifications/initialized`: whatever follows waits until it is delivered.
    pub(super) fn settle(&self, initialized: &Rc<Message>) {
        *self.initialized.borrow_mut() = Some(initialized.clone());
        self.settling.set(true);
    }

    /// It was delivered, or could not be.
    pub(super) fn settled(&self) {
        self.settling.set(false);
        self.changed.open();
    }

    /// The gateway agreed.
    pub(super) fn opened(&self, id: Option<String>, revision: String) -> Rc<Session> {
        let generation = self.generations.get() + 1;
        self.generations.set(generation);
        let session = Rc::new(Session { generation, id, revision });
        *self.state.borrow_mut() = State::Open(session.clone());
        self.changed.open();
        session
    }

    /// The gateway did not agree, or nobody knows: where a session was to be replaced, it stays.
    pub(super) fn not_opened(&self, why: Fault) {
        let mut state = self.state.borrow_mut();
        if let State::Opening { before } = &mut *state {
            *state = before.take().map_or(State::Closed, State::Open);
            *self.failure.borrow_mut() = Some(why);
        }
        drop(state);
        self.changed.open();
    }

    /// The session that the gateway has lost is to be opened again: the handshake to say, when this caller is the one to
    /// say it.
    pub(super) fn replace(&self, lost: u64) -> Option<(Rc<Message>, Option<Rc<Message>>)> {
        let mut state = self.state.borrow_mut();
        let State::Open(session) = &*state else { return None };
        let initialize = self.initialize.borrow().clone()?;
        if session.generation != lost {
            return None;
        }
        *state = State::Opening { before: Some(session.clone()) };
        Some((initialize, self.initialized.borrow().clone()))
    }

    /// Waits until the session that follows `lost` is open.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn follows(&self, lost: u64) -> Result<(), Fault> {
        self.changed
            .until(|| match &*self.state.borrow() {
                State::Opening { .. } => None,
                State::Open(session) if session.generation != lost => Some(Ok(())),
                State::Open(_) | State::Closed => {
                    Some(Err(self.failure.borrow().clone().unwrap_or_else(|| {
                        Fault::retryable("the session has ended and could not be opened again")
                    })))
                }
            })
            .await
    }

    /// The open session, if any; waits while one is being opened, and, with `settled`, until the handshake is complete.
    pub(super) async fn current(&self, settled: bool) -> Option<Rc<Session>> {
        self.changed
            .until(|| match &*self.state.borrow() {
                State::Opening { .. } => None,
                State::Open(_) if settled && self.settling.get() => None,
                State::Open(session) => Some(Some(session.clone())),
                State::Closed => Some(None),
            })
            .await
    }

    /// The open session now.
    pub(super) fn open(&self) -> Option<Rc<Session>> {
        match &*self.state.borrow() {
            State::Open(session) => Some(session.clone()),
            State::Opening { .. } | State::Closed => None,
        }
    }

    pub(super) fn is_current(&self, generation: u64) -> bool {
        self.open().is_some_and(|session| session.generation == generation)
    }
}
