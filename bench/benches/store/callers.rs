//! What every client is asked to do: owns the load, the keys and values, and when all callers are done.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::VALUE_BYTES;

/// Which command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Get,
    Set,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Get => "GET",
            Kind::Set => "SET",
        }
    }
}

/// A round's work.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// The server's port on 127.0.0.1.
    pub(crate) port: u16,
    pub(crate) kind: Kind,
    /// Callers at the same time; each has one command in flight.
    pub(crate) callers: usize,
    /// Commands of each caller.
    pub(crate) each: usize,
    /// Whether the crates' commands get a deadline.
    pub(crate) deadlines: bool,
}

impl Load {
    /// A tenth of it: connections, buffers and tables grow before the time is taken.
    pub(crate) fn warm_up(&self) -> Load {
        Load { each: self.each.div_ceil(10), ..*self }
    }

    pub(crate) fn commands(&self) -> usize {
        self.callers * self.each
    }
}

/// A caller's own key.
pub(crate) fn key(caller: usize) -> String {
    format!("bench:{caller}")
}

/// What every key holds.
pub(crate) fn value() -> [u8; VALUE_BYTES] {
    [b'v'; VALUE_BYTES]
}

/// Counts the callers that are still at it, on one thread.
#[derive(Clone, Default)]
pub(crate) struct Countdown(Rc<(Cell<usize>, RefCell<Option<Waker>>)>);

impl Countdown {
    pub(crate) fn of(callers: usize) -> Self {
        let countdown = Countdown::default();
        countdown.0.0.set(callers);
        countdown
    }

    pub(crate) fn one_is_done(&self) {
        self.0.0.set(self.0.0.get() - 1);
        if self.0.0.get() == 0
            && let Some(waker) = self.0.1.take()
        {
            waker.wake();
        }
    }

    pub(crate) async fn all_are_done(&self) {
        poll_fn(|cx| match self.0.0.get() {
            0 => Poll::Ready(()),
            _ => {
                *self.0.1.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await;
    }
}
