//! Calls that one connection has brought: owns their tasks, the windows of their answers, and the way from an answer to frames.
//! Never the way to the server.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use mcp_protocol::http1::write_field;
use mcp_protocol::mcpb::FrameKind;

use super::super::wire::Wire;
use super::frame::{AskerWord, Failed, OwnerWord, write_piece};
use super::{MAX_CALLS, MAX_PIECE, WINDOW};
use crate::shard::Shard;
use crate::shard::tasks::TaskId;
use crate::upstream::answer::Answer;
use crate::upstream::call::CallError;

/// The calls of a connection. Dropped with it, they are cancelled.
pub(in crate::peer) struct Calls {
    shard: Rc<Shard>,
    serving: Rc<RefCell<HashMap<u64, Serving>>>,
}

struct Serving {
    task: TaskId,
    window: Rc<Window>,
}

impl Calls {
    pub(in crate::peer) fn new(shard: &Rc<Shard>) -> Self {
        Calls { shard: shard.clone(), serving: Rc::default() }
    }

    pub(in crate::peer) fn is_full(&self) -> bool {
        self.serving.borrow().len() >= MAX_CALLS
    }

    /// Whether a call of this number is being served.
    pub(in crate::peer) fn has(&self, number: u64) -> bool {
        self.serving.borrow().contains_key(&number)
    }

    /// Starts a call of a number that no other has. A drain waits for it, as for every exchange.
    pub(in crate::peer) fn start<F>(&self, number: u64, serve: impl FnOnce(Rc<Window>) -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        let window = Rc::new(Window::new());
        let place = Place { serving: self.serving.clone(), number };
        let served = serve(window.clone());
        let task = self.shard.core.tasks.spawn(|| async move {
            let _place = place;
            served.await;
        });
        self.serving.borrow_mut().insert(number, Serving { task, window });
    }

    /// Whoever asked has something to say.
    pub(in crate::peer) fn on_word(&self, word: AskerWord) {
        match word {
            AskerWord::Credit { call, bytes } => {
                let window = self.serving.borrow().get(&call).map(|serving| serving.window.clone());
                if let Some(window) = window {
                    window.widen(bytes);
                }
            }
            AskerWord::Cancel { call } => {
                let cancelled = self.serving.borrow_mut().remove(&call);
                self.cancel(cancelled);
            }
        }
    }

    /// Nothing is borrowed: what ends may have more to say.
    fn cancel(&self, calls: impl IntoIterator<Item = Serving>) {
        for serving in calls {
            self.shard.core.tasks.cancel(serving.task);
        }
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        let serving = self.serving.take();
        self.cancel(serving.into_values());
    }
}

/// A call's place among those of its connection.
struct Place {
    serving: Rc<RefCell<HashMap<u64, Serving>>>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut serving = self.serving.borrow_mut();
        serving.remove(&self.number);
        if serving.is_empty() {
            serving.shrink_to_fit();
        }
    }
}

/// How much of an answer may be sent.
pub(in crate::peer) struct Window {
    room: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl Window {
    fn new() -> Self {
        Window { room: Cell::new(WINDOW), waker: RefCell::default() }
    }

    /// Whoever asked has read so much; never more than a window.
    fn widen(&self, bytes: usize) {
        self.room.set(self.room.get().saturating_add(bytes).min(WINDOW));
        let waker = self.waker.take();
        waker.into_iter().for_each(Waker::wake);
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.room.get() > 0 {
            return Poll::Ready(self.room.get());
        }
        self.waker.replace(Some(cx.waker().clone()));
        Poll::Pending
    }
}

/// Where an answer goes.
pub(in crate::peer) struct Outlet {
    pub(in crate::peer) wire: Rc<Wire>,
    pub(in crate::peer) window: Rc<Window>,
    pub(in crate::peer) call: u64,
    /// The answer has no end of its own: a drain ends it.
    pub(in crate::peer) is_endless: bool,
}

impl Outlet {
    /// Sends an answer as it comes, no faster than it is read.
    pub(in crate::peer) async fn pass(&self, shard: &Shard, mut answer: Answer) {
        let mut fields = Vec::new();
        answer.each_field(|name, value| write_field(&mut fields, name, value));
        let (call, status, length) = (self.call, answer.status(), answer.length());
        self.say(&OwnerWord::Head { call, status, length, fields: String::from_utf8_lossy(&fields) });
        loop {
            let piece = match self.next(shard, &mut answer).await {
                Ok(Some(piece)) => piece,
                Ok(None) => return self.end(None),
                Err(error) => return self.end(Some(Failed::of(&error))),
            };
            let (bytes, is_last) = (answer.bytes(piece), answer.is_complete());
            self.send(bytes).await;
            if is_last {
                return self.end(None);
            }
        }
    }

    /// Says that there is no more, and why.
    pub(in crate::peer) fn end(&self, failed: Option<Failed>) {
        self.say(&OwnerWord::End { call: self.call, failed });
    }

    async fn next(
        &self,
        shard: &Shard,
        answer: &mut Answer,
    ) -> Result<Option<std::ops::Range<usize>>, CallError> {
        let mut next = pin!(answer.next());
        poll_fn(|cx| {
            // A drain wakes every task.
            if self.is_endless && shard.is_draining() {
                Poll::Ready(Ok(None))
            } else {
                next.as_mut().poll(cx)
            }
        })
        .await
    }

    async fn send(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = poll_fn(|cx| {
                std::task::ready!(self.wire.poll_room(cx));
                self.window.poll_room(cx)
            })
            .await;
            let (piece, rest) = bytes.split_at(bytes.len().min(room).min(MAX_PIECE));
            self.window.room.set(room - piece.len());
            self.queue(FrameKind::Request, &write_piece(self.call, piece));
            bytes = rest;
        }
    }

    fn say(&self, word: &OwnerWord<'_>) {
        let (kind, payload) = word.write();
        self.queue(kind, &payload);
    }

    fn queue(&self, kind: FrameKind, payload: &[u8]) {
        if let Err(error) = self.wire.queue(&[(kind, payload)]) {
            tracing::warn!(%error, "what an owner has to say fits in no frame");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_never_wider_than_it_was_and_wakes_who_waits() {
        let window = Window::new();
        let mut cx = Context::from_waker(Waker::noop());
        window.widen(1);
        assert_eq!(window.poll_room(&mut cx), Poll::Ready(WINDOW));
        window.room.set(0);
        assert!(window.poll_room(&mut cx).is_pending() && window.waker.borrow().is_some());
        window.widen(5);
        assert!(window.waker.borrow().is_none());
        assert_eq!(window.poll_room(&mut cx), Poll::Ready(5));
        window.widen(usize::MAX);
        assert_eq!(window.poll_room(&mut cx), Poll::Ready(WINDOW));
    }
}
