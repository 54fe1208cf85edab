//! Messages on their way to one client: owns the order in which they wait, who is woken for them, and what all queues of a
//! channel hold together. Never what a message means.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Bytes that wait in all queues of a channel, and the channel's reader, which waits until they are fewer.
#[derive(Default)]
pub(super) struct Backlog {
    bytes: Cell<usize>,
    reader: RefCell<Option<Waker>>,
}

impl Backlog {
    pub(super) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Ready once fewer than `limit` bytes wait.
    pub(super) fn poll_below(&self, cx: &Context<'_>, limit: usize) -> Poll<()> {
        if self.bytes.get() < limit {
            return Poll::Ready(());
        }
        *self.reader.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    fn wake(&self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }
}

/// A queue; what is left in it when it goes no longer counts in the backlog.
pub(super) struct Queue {
    backlog: Rc<Backlog>,
    messages: RefCell<VecDeque<Vec<u8>>>,
    bytes: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl Queue {
    pub(super) fn new(backlog: &Rc<Backlog>) -> Self {
        Queue {
            backlog: backlog.clone(),
            messages: RefCell::default(),
            bytes: Cell::new(0),
            waker: RefCell::default(),
        }
    }

    pub(super) fn push(&self, message: Vec<u8>) {
        self.count(message.len());
        self.messages.borrow_mut().push_back(message);
        self.wake();
    }

    pub(super) fn pop(&self) -> Option<Vec<u8>> {
        let message = self.messages.borrow_mut().pop_front()?;
        self.discount(message.len());
        Some(message)
    }

    /// All that waits, in its order.
    pub(super) fn take_all(&self) -> VecDeque<Vec<u8>> {
        self.discount(self.bytes.get());
        self.messages.take()
    }

    pub(super) fn len(&self) -> usize {
        self.messages.borrow().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.borrow().is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Whoever reads the queue is woken by the next message.
    pub(super) fn wait(&self, cx: &Context<'_>) {
        *self.waker.borrow_mut() = Some(cx.waker().clone());
    }

    /// Wakes whoever reads: something else than a message came about.
    pub(super) fn wake(&self) {
        self.waker.take().into_iter().for_each(Waker::wake);
    }

    fn count(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
        self.backlog.bytes.set(self.backlog.bytes.get() + bytes);
    }

    fn discount(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() - bytes);
        self.backlog.bytes.set(self.backlog.bytes.get() - bytes);
        self.backlog.wake();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.discount(self.bytes.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backlog_is_what_all_queues_hold() {
        let backlog = Rc::new(Backlog::default());
        let (a, b) = (Queue::new(&backlog), Queue::new(&backlog));
        a.push(vec![0; 3]);
        a.push(vec![0; 4]);
        b.push(vec![0; 5]);
        assert_eq!((a.bytes(), b.len(), backlog.bytes()), (7, 1, 12));
        let cx = Context::from_waker(Waker::noop());
        assert!(backlog.poll_below(&cx, 12).is_pending());
        assert_eq!(a.pop().map(|message| message.len()), Some(3));
        assert!(backlog.poll_below(&cx, 12).is_ready());
        drop(b);
        assert_eq!(a.take_all().len(), 1);
        assert!(a.is_empty() && backlog.bytes() == 0);
    }
}
