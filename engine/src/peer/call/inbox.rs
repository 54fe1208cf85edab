//! What has come of a call's answer and has not been read: owns these bytes and their window. It never sends anything.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::WINDOW;
use super::frame::Failed;
use crate::shard::Shard;
use crate::upstream::answer::Step;

/// How an answer begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::peer) struct Head {
    pub(in crate::peer) status: u16,
    pub(in crate::peer) length: Option<u64>,
    /// Header lines, each with its CR LF.
    pub(in crate::peer) fields: Vec<u8>,
}

/// An owner that sends what it may not.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::peer) struct Unruly;

#[derive(Default)]
pub(in crate::peer) struct Inbox {
    head: Option<Head>,
    has_head: bool,
    bytes: Vec<u8>,
    /// Bytes that were read and not made known to the owner.
    owed: usize,
    end: Option<Result<(), Failed>>,
    waker: Option<Waker>,
}

impl Inbox {
    /// The answer has begun.
    ///
    /// # Errors
    /// It had before.
    pub(in crate::peer) fn on_head(&mut self, head: Head) -> Result<(), Unruly> {
        if std::mem::replace(&mut self.has_head, true) || self.end.is_some() {
            return Err(Unruly);
        }
        self.head = Some(head);
        Ok(())
    }

    /// More of the body has come.
    ///
    /// # Errors
    /// It is more than the window holds, or nothing to go on from.
    pub(in crate::peer) fn on_piece(&mut self, piece: &[u8]) -> Result<(), Unruly> {
        if !self.has_head || self.end.is_some() || self.bytes.len() + self.owed + piece.len() > WINDOW {
            return Err(Unruly);
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// There is no more; the first end counts.
    pub(in crate::peer) fn on_end(&mut self, end: Result<(), Failed>) {
        // Without a head there is no answer that could be complete.
        let end = if self.has_head { end } else { end.and(Err(Failed::Closed)) };
        self.end.get_or_insert(end);
    }

    pub(in crate::peer) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Whoever waits for what has come.
    pub(in crate::peer) fn take_waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }

    /// The answer's beginning, or why there is none.
    pub(in crate::peer) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Failed>> {
        match (self.head.take(), self.end) {
            (Some(head), _) => Poll::Ready(Ok(head)),
            (None, Some(end)) => Poll::Ready(Err(end.err().unwrap_or(Failed::Closed))),
            (None, None) => self.wait(cx),
        }
    }

    /// All that has come, in `piece`, which is empty.
    pub(in crate::peer) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        piece: &mut Vec<u8>,
    ) -> Poll<Result<Step, Failed>> {
        if !self.bytes.is_empty() {
            std::mem::swap(&mut self.bytes, piece);
            self.owed += piece.len();
            return Poll::Ready(Ok(if self.end == Some(Ok(())) { Step::Last } else { Step::Piece }));
        }
        match self.end {
            Some(end) => Poll::Ready(end.map(|()| Step::End)),
            None => self.wait(cx),
        }
    }

    /// Bytes that the owner may send more: said when it is half a window, so that it seldom waits for it.
    pub(in crate::peer) fn take_credit(&mut self) -> Option<usize> {
        let is_due = self.owed >= WINDOW / 2 && self.end.is_none();
        is_due.then(|| std::mem::take(&mut self.owed))
    }

    pub(in crate::peer) fn unread(&self) -> usize {
        self.bytes.len()
    }

    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// An inbox whose bytes count among those that the shard holds.
pub(in crate::peer) struct Counted {
    shard: Rc<Shard>,
    inbox: RefCell<Inbox>,
}

impl Counted {
    pub(in crate::peer) fn new(shard: &Rc<Shard>) -> Self {
        Counted { shard: shard.clone(), inbox: RefCell::default() }
    }

    pub(in crate::peer) fn with<T>(&self, work: impl FnOnce(&mut Inbox) -> T) -> T {
        let inbox = &mut *self.inbox.borrow_mut();
        let before = inbox.unread();
        let outcome = work(inbox);
        let buffered = &self.shard.buffered;
        buffered.set(buffered.get() + inbox.unread() - before);
        outcome
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let buffered = &self.shard.buffered;
        buffered.set(buffered.get() - self.inbox.get_mut().unread());
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn head() -> Head {
        Head { status: 200, length: None, fields: Vec::new() }
    }

    fn read(inbox: &mut Inbox) -> Poll<Result<(Vec<u8>, Step), Failed>> {
        let mut piece = Vec::new();
        let step = inbox.poll_piece(&mut Context::from_waker(Waker::noop()), &mut piece);
        step.map_ok(|step| (piece, step))
    }

    #[test]
    fn pieces_come_together_and_the_last_says_so() {
        let mut inbox = Inbox::default();
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(inbox.poll_head(cx).is_pending() && inbox.take_waker().is_some());
        inbox.on_head(head()).unwrap();
        assert_eq!(inbox.poll_head(cx), Poll::Ready(Ok(head())));
        assert!(read(&mut inbox).is_pending());
        inbox.on_piece(b"a").unwrap();
        inbox.on_piece(b"b").unwrap();
        assert_eq!(read(&mut inbox), Poll::Ready(Ok((b"ab".to_vec(), Step::Piece))));
        inbox.on_piece(b"c").unwrap();
        inbox.on_end(Ok(()));
        assert_eq!(read(&mut inbox), Poll::Ready(Ok((b"c".to_vec(), Step::Last))));
        assert_eq!(read(&mut inbox), Poll::Ready(Ok((Vec::new(), Step::End))));
    }

    #[test]
    fn what_came_before_a_failure_is_read_first() {
        let mut inbox = Inbox::default();
        inbox.on_head(head()).unwrap();
        inbox.on_piece(b"half").unwrap();
        inbox.on_end(Err(Failed::Timeout));
        // The link's own end comes later and changes nothing.
        inbox.on_end(Err(Failed::Closed));
        assert_eq!(read(&mut inbox), Poll::Ready(Ok((b"half".to_vec(), Step::Piece))));
        assert_eq!(read(&mut inbox), Poll::Ready(Err(Failed::Timeout)));
    }

    #[test]
    fn an_end_without_a_beginning_is_a_failure() {
        for (end, failed) in [(Ok(()), Failed::Closed), (Err(Failed::Connect), Failed::Connect)] {
            let mut inbox = Inbox::default();
            inbox.on_end(end);
            let head = inbox.poll_head(&mut Context::from_waker(Waker::noop()));
            assert_eq!(head, Poll::Ready(Err(failed)));
        }
    }

    #[test]
    fn the_window_holds_and_is_given_back_by_halves() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.on_piece(b""), Err(Unruly), "a body before its head");
        inbox.on_head(head()).unwrap();
        assert_eq!(inbox.on_head(head()), Err(Unruly));
        inbox.on_piece(&vec![0; WINDOW - 1]).unwrap();
        assert_eq!(inbox.on_piece(b"ab"), Err(Unruly));
        inbox.on_piece(b"a").unwrap();
        assert_eq!(inbox.take_credit(), None);
        assert!(read(&mut inbox).is_ready());
        // Until the owner is told, it may not send.
        assert_eq!(inbox.on_piece(b"a"), Err(Unruly));
        assert_eq!(inbox.take_credit(), Some(WINDOW));
        inbox.on_piece(&vec![0; WINDOW / 2 - 1]).unwrap();
        assert!(read(&mut inbox).is_ready());
        assert_eq!(inbox.take_credit(), None);
        inbox.on_piece(b"a").unwrap();
        assert!(read(&mut inbox).is_ready());
        assert_eq!(inbox.take_credit(), Some(WINDOW / 2));
        inbox.on_end(Ok(()));
        assert_eq!(inbox.on_piece(b"a"), Err(Unruly), "a body after its end");
    }
}
