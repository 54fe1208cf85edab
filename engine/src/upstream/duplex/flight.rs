//! A client's request while its answer is due: owns what the server has said for it and the client has not heard yet. Never
//! where a message belongs, which is the hub's to know.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll};

use super::queue::{Backlog, Queue};
use super::{Closed, SeatId};
use crate::upstream::call::CallError;

/// A message's id or token as it stands on the wire: raw JSON.
pub(super) type Key = Box<[u8]>;

/// What kind of request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// `initialize`, which must not be cancelled.
    Opens,
    /// Of a legacy session.
    Legacy,
    /// Of the modern era: it is cancelled when its client leaves.
    Modern,
}

pub(super) struct Flight {
    pub(super) seat: Option<SeatId>,
    pub(super) purpose: Purpose,
    queue: Queue,
    /// Responses that are still to come: one, or those of a batch.
    due: Cell<usize>,
    /// A response has come.
    answered: Cell<bool>,
    closed: Cell<Option<Closed>>,
    /// Ids under which the server knows it; those that are answered stay.
    pub(super) keys: RefCell<Vec<Key>>,
    /// Its progress tokens as the server knows them.
    pub(super) tokens: RefCell<Vec<Key>>,
}

/// What is known of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The response is here, and nothing came before it.
    Whole,
    /// Messages come before the response, or there will be none.
    Stream,
}

impl Flight {
    pub(super) fn new(backlog: &Rc<Backlog>, seat: Option<SeatId>, purpose: Purpose) -> Rc<Self> {
        Rc::new(Flight {
            seat,
            purpose,
            queue: Queue::new(backlog),
            due: Cell::new(0),
            answered: Cell::new(false),
            closed: Cell::new(None),
            keys: RefCell::default(),
            tokens: RefCell::default(),
        })
    }

    /// A response more is to come.
    pub(super) fn expect_response(&self) {
        self.due.set(self.due.get() + 1);
    }

    /// Whether a response is still to come.
    pub(super) fn is_due(&self) -> bool {
        self.due.get() > 0 && self.closed.get().is_none()
    }

    /// The server said something on the way to the response.
    pub(super) fn push(&self, message: Vec<u8>) {
        self.queue.push(message);
    }

    /// A response has come.
    pub(super) fn push_response(&self, message: Vec<u8>) {
        self.due.set(self.due.get().saturating_sub(1));
        self.answered.set(true);
        self.queue.push(message);
    }

    /// No response will come: the client has cancelled one.
    pub(super) fn cancelled(&self) {
        self.due.set(self.due.get().saturating_sub(1));
        self.queue.wake();
    }

    /// The channel is gone, or this request's part in it.
    pub(super) fn close(&self, why: Closed) {
        if self.is_due() {
            self.closed.set(Some(why));
        }
        self.queue.wake();
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.queue.bytes()
    }

    pub(super) fn has_message(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The next message; `None` when the last one has passed.
    pub(super) fn poll_message(&self, cx: &Context<'_>) -> Poll<Result<Option<Vec<u8>>, CallError>> {
        if let Some(message) = self.queue.pop() {
            return Poll::Ready(Ok(Some(message)));
        }
        match self.closed.get() {
            // The client itself has ended the session: what it still waited for ends, too.
            Some(Closed::Ended) => return Poll::Ready(Ok(None)),
            Some(closed) => return Poll::Ready(Err(closed.error())),
            None => {}
        }
        if self.due.get() == 0 {
            return Poll::Ready(Ok(None));
        }
        self.queue.wait(cx);
        Poll::Pending
    }

    /// Whether nothing follows the messages that have been taken.
    pub(super) fn is_over(&self) -> bool {
        self.queue.is_empty() && self.due.get() == 0
    }

    /// Ready when it is known how the answer begins.
    pub(super) fn poll_stage(&self, cx: &Context<'_>) -> Poll<Result<Stage, CallError>> {
        let due = self.due.get();
        if self.queue.is_empty() {
            match self.closed.get() {
                Some(Closed::Ended) => return Poll::Ready(Ok(Stage::Stream)),
                Some(closed) => return Poll::Ready(Err(closed.error())),
                None => {}
            }
            if due > 0 {
                self.queue.wait(cx);
                return Poll::Pending;
            }
        }
        let is_one = self.queue.len() == 1 && self.keys.borrow().len() == 1;
        let is_whole = is_one && due == 0 && self.answered.get();
        Poll::Ready(Ok(if is_whole { Stage::Whole } else { Stage::Stream }))
    }

    /// The message that is the whole answer.
    pub(super) fn take_whole(&self) -> Vec<u8> {
        self.queue.pop().unwrap_or_default()
    }
}
