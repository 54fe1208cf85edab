//! Writes that must reach replicas: owns the wait that the writes of one turn share. `WAIT` counts the replicas that have
//! everything which its own connection wrote before, so one of them serves all writes of a turn.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::StoreError;

/// One `WAIT` and those who wait for it.
#[derive(Default)]
pub(crate) struct WaitGroup {
    /// Most that any of the writes asked for: replicas, milliseconds.
    wanted: Cell<(u32, u64)>,
    outcome: RefCell<Option<Result<u32, StoreError>>>,
    wakers: RefCell<Vec<Waker>>,
}

impl WaitGroup {
    /// Another write that wants `replicas` within `timeout_ms`.
    pub(crate) fn join(self: &Rc<Self>, (replicas, timeout_ms): (u32, u64)) -> Rc<Self> {
        let (most, longest) = self.wanted.get();
        self.wanted.set((most.max(replicas), longest.max(timeout_ms)));
        self.clone()
    }

    pub(crate) fn wanted(&self) -> (u32, u64) {
        self.wanted.get()
    }

    /// The `WAIT` was answered, or will never be.
    pub(crate) fn settle(&self, outcome: Result<u32, StoreError>) {
        self.outcome.borrow_mut().get_or_insert(outcome);
        self.wakers.take().into_iter().for_each(Waker::wake);
    }

    /// How many replicas have the writes.
    ///
    /// # Errors
    /// Why that is not known.
    pub(crate) async fn settled(&self) -> Result<u32, StoreError> {
        poll_fn(|cx| match &*self.outcome.borrow() {
            Some(outcome) => Poll::Ready(outcome.clone()),
            None => {
                self.wakers.borrow_mut().push(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}
