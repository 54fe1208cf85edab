//! Callers that wait for one answer of Redis together: owns who asks for a key, and passing that on when the asker goes. At
//! most one caller asks for a key at a time. Never a decision.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Decision;
use super::script::Digest;

/// Keys that are asked for at once; below the client's window, which other commands share.
pub(super) const MAX_KEYS: usize = 8_192;
/// Callers that wait for one answer; as many as a shard has exchanges at the very most.
pub(super) const MAX_WAITERS: usize = 65_536;
/// Places that are kept for keys whatever happens.
const KEPT: usize = 64;

/// The keys that are being asked for, each with those who wait.
#[derive(Default)]
pub(super) struct Asking {
    keys: RefCell<HashMap<Digest, VecDeque<Rc<Waiter>>>>,
}

/// What a caller is to do.
pub(super) enum Joined<'a> {
    /// Ask.
    Lead(Lead<'a>),
    /// Wait for the answer that is under way.
    Wait(Wait<'a>),
    /// Neither: as many wait as may.
    Full,
}

/// How waiting ended.
pub(super) enum Outcome<'a> {
    /// With the answer.
    Decided(Decision),
    /// It is this caller's turn to ask.
    Lead(Lead<'a>),
}

#[derive(Default)]
struct Waiter {
    told: Cell<Option<Told>>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy)]
enum Told {
    Decided(Decision),
    Lead,
}

impl Asking {
    pub(super) fn join(&self, key: Digest) -> Joined<'_> {
        let mut keys = self.keys.borrow_mut();
        let room = keys.len() < MAX_KEYS;
        match keys.get_mut(&key) {
            Some(queue) if queue.len() < MAX_WAITERS => {
                let waiter = Rc::new(Waiter::default());
                queue.push_back(waiter.clone());
                Joined::Wait(Wait { asking: self, key, waiter })
            }
            None if room => {
                keys.insert(key, VecDeque::new());
                Joined::Lead(Lead { asking: self, key })
            }
            _ => Joined::Full,
        }
    }

    pub(super) fn shrink(&self) {
        let mut keys = self.keys.borrow_mut();
        if keys.len() < keys.capacity() / 8 {
            let kept = KEPT.max(2 * keys.len());
            keys.shrink_to(kept);
        }
    }

    /// Tells those who wait, in the order in which they came, what `decide` says. Where it knows nothing more the next one
    /// asks, and the rest wait on.
    fn hand_on(&self, key: &Digest, mut decide: impl FnMut() -> Option<Decision>) {
        while let Some(waiter) = self.next(key) {
            // Only the queue knew of it: the caller has gone.
            if Rc::strong_count(&waiter) == 1 {
                continue;
            }
            let told = decide().map_or(Told::Lead, Told::Decided);
            waiter.told.set(Some(told));
            let waker = waiter.waker.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
            if matches!(told, Told::Lead) {
                return;
            }
        }
    }

    /// The first of those who wait; without any the key is asked for no longer.
    fn next(&self, key: &Digest) -> Option<Rc<Waiter>> {
        let mut keys = self.keys.borrow_mut();
        let waiter = keys.get_mut(key)?.pop_front();
        if waiter.is_none() {
            keys.remove(key);
        }
        waiter
    }
}

/// The right, and the duty, to ask for a key. Dropped, it goes to the next who waits.
pub(super) struct Lead<'a> {
    asking: &'a Asking,
    key: Digest,
}

impl Lead<'_> {
    /// Callers that wait for the answer.
    pub(super) fn waiting(&self) -> usize {
        let keys = self.asking.keys.borrow();
        keys.get(&self.key)
            .map_or(0, |queue| queue.iter().filter(|waiter| Rc::strong_count(waiter) > 1).count())
    }

    /// Gives those who wait what `decide` says; where it says `None` the next one asks.
    pub(super) fn finish(self, decide: impl FnMut() -> Option<Decision>) {
        self.asking.hand_on(&self.key, decide);
        // It holds nothing but references; its end would hand the question on once more.
        std::mem::forget(self);
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.asking.hand_on(&self.key, || None);
    }
}

/// Waits for the answer to another caller's question.
pub(super) struct Wait<'a> {
    asking: &'a Asking,
    key: Digest,
    waiter: Rc<Waiter>,
}

impl<'a> Future for Wait<'a> {
    type Output = Outcome<'a>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome<'a>> {
        match self.waiter.told.take() {
            Some(Told::Decided(decision)) => Poll::Ready(Outcome::Decided(decision)),
            Some(Told::Lead) => Poll::Ready(Outcome::Lead(Lead { asking: self.asking, key: self.key })),
            None => {
                *self.waiter.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(Told::Lead) = self.waiter.told.take() {
            drop(Lead { asking: self.asking, key: self.key });
        }
    }
}
