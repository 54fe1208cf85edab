//! A question to Redis that several tasks wait for: owns its outcome and who is to be woken. It never asks; whoever began it
//! does, and when that task goes away another one begins anew.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::copies::Copies;
use crate::{Record, SessionId, StoreError};

/// What a question about a session brings.
pub(super) type Outcome = Result<Option<Rc<Record>>, StoreError>;

#[derive(Default)]
pub(super) struct Flight {
    state: RefCell<State>,
}

enum State {
    /// One waker for each task that waits; these are no more than the shard's requests in flight.
    Waiting(Vec<Waker>),
    /// `None`: whoever asked went away.
    Done(Option<Outcome>),
}

impl Default for State {
    fn default() -> Self {
        State::Waiting(Vec::new())
    }
}

impl Flight {
    /// Waits for the outcome; `None` when it is to be asked for anew.
    pub(super) async fn wait(&self) -> Option<Outcome> {
        let mut place = None;
        poll_fn(|cx| match &mut *self.state.borrow_mut() {
            State::Done(outcome) => Poll::Ready(outcome.clone()),
            State::Waiting(wakers) => {
                match place {
                    Some(place) => Waker::clone_from(&mut wakers[place], cx.waker()),
                    None => {
                        place = Some(wakers.len());
                        wakers.push(cx.waker().clone());
                    }
                }
                Poll::Pending
            }
        })
        .await
    }

    fn end(&self, outcome: Option<Outcome>) {
        let before = self.state.replace(State::Done(outcome));
        if let State::Waiting(wakers) = before {
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

/// Held by the task that asks.
pub(super) struct Asking<'a> {
    copies: &'a Copies,
    id: &'a SessionId,
    flight: Rc<Flight>,
    ended: bool,
}

impl<'a> Asking<'a> {
    pub(super) fn new(copies: &'a Copies, id: &'a SessionId, flight: Rc<Flight>) -> Self {
        Asking { copies, id, flight, ended: false }
    }

    /// Takes the question off the list: the answer is here. Whether it may be believed.
    pub(super) fn answered(&self) -> bool {
        self.copies.leave(self.id, &self.flight)
    }

    /// Tells all who wait.
    pub(super) fn end(mut self, outcome: Outcome) {
        self.ended = true;
        self.flight.end(Some(outcome));
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.copies.leave(self.id, &self.flight);
        if !self.ended {
            self.flight.end(None);
        }
    }
}
