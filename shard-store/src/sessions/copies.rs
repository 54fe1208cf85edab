//! A shard's copies of session records: owns whether a copy may be believed without asking Redis. It never asks.
//!
//! Invariants: a copy that came from a question is believed only if, between the question and its being kept, nothing was
//! heard of its key and nothing was done to it here. Whatever is heard or done takes the reads and the writes under way off
//! their lists, and who is not on the list any more when the answer comes keeps no believed copy.

use std::cell::RefCell;
use std::rc::Rc;

use super::flight::Flight;
use super::key;
use crate::cache::{CACHE_ENTRIES, IdCache};
use crate::id::IdMap;
use crate::redis::{Events, Origin};
use crate::{Millis, Record, SessionId};

/// How long a copy is believed where Redis does not say what changes.
pub const FALLBACK_TTL_MS: Millis = 2_000;

/// Copies whose session's life is over are dropped with every so many calls of [`Copies::expire`]: all have to be looked at,
/// and most go before, because Redis says when a key has ended.
const SWEEP_EVERY: u32 = 64;

/// Copies of one shard, and what is asked or changed at the moment. Give it to the client as its [`Events`].
pub struct Copies {
    inner: RefCell<Inner>,
}

struct Inner {
    copies: IdCache<Kept>,
    /// Questions under way whose answer may still be believed.
    reads: IdMap<Rc<Flight>>,
    /// Changes under way, by the number of the last one for each session.
    writes: IdMap<u32>,
    changes: u32,
    /// Grows whenever all copies lose their credit.
    epoch: u32,
    expire_calls: u32,
}

struct Kept {
    record: Rc<Record>,
    belief: Belief,
    epoch: u32,
    expires: Millis,
    touch_due: Millis,
}

/// On whose word a copy is believed.
#[derive(Clone, Copy)]
enum Belief {
    Nobody,
    Connection(Origin),
    Clock { until: Millis },
}

/// What is known of a session's life at Redis.
#[derive(Clone, Copy)]
pub(super) struct Life {
    /// When it ends, unless it is used.
    pub(super) expires: Millis,
    /// When Redis is to be told that it is used.
    pub(super) touch_due: Millis,
}

/// A change under way; whoever makes it holds this.
pub(super) struct Changing<'a> {
    copies: &'a Copies,
    id: SessionId,
    number: u32,
}

impl Changing<'_> {
    /// The change was made, or was not; whether what was written may be believed. Questions that were under way beside it
    /// may not.
    pub(super) fn ended(&self) -> bool {
        let inner = &mut *self.copies.inner.borrow_mut();
        inner.reads.remove(&self.id);
        let listed = inner.writes.get(&self.id) == Some(&self.number);
        if listed {
            inner.writes.remove(&self.id);
        }
        listed
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.ended();
    }
}

/// Who vouches for an answer: the connection before the question was sent and after the answer came.
pub(super) struct Vouchers {
    pub(super) asked: Millis,
    pub(super) before: Option<Origin>,
    pub(super) after: Option<Origin>,
}

impl Vouchers {
    fn belief(&self) -> Belief {
        match (self.before, self.after) {
            (Some(before), Some(after)) if before == after => Belief::Connection(before),
            (None, None) => Belief::Clock { until: self.asked + FALLBACK_TTL_MS },
            _ => Belief::Nobody,
        }
    }
}

impl Default for Copies {
    fn default() -> Self {
        Self::new()
    }
}

impl Copies {
    /// No copies; at most 65,536 of them.
    pub fn new() -> Self {
        Copies {
            inner: RefCell::new(Inner {
                copies: IdCache::new(CACHE_ENTRIES),
                reads: IdMap::default(),
                writes: IdMap::default(),
                changes: 0,
                epoch: 0,
                expire_calls: 0,
            }),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.inner.borrow().copies.len()
    }

    #[cfg(test)]
    pub(super) fn underway(&self) -> (usize, usize) {
        let inner = self.inner.borrow();
        (inner.reads.len(), inner.writes.len())
    }

    /// A copy that needs no question; `origin` vouches for its key now.
    pub(super) fn believed(&self, id: &SessionId, origin: Option<Origin>, now: Millis) -> Option<Rc<Record>> {
        let inner = &mut *self.inner.borrow_mut();
        let kept = inner.copies.get_mut(id)?;
        let is_believed = kept.epoch == inner.epoch
            && match kept.belief {
                Belief::Nobody => false,
                Belief::Connection(under) => origin == Some(under),
                Belief::Clock { until } => now < until,
            };
        (is_believed && now < kept.expires).then(|| kept.record.clone())
    }

    /// A copy for want of something better.
    pub(super) fn stale(&self, id: &SessionId, now: Millis) -> Option<Rc<Record>> {
        let mut inner = self.inner.borrow_mut();
        let kept = inner.copies.get_mut(id)?;
        if kept.expires <= now {
            inner.copies.remove(id);
            return None;
        }
        Some(kept.record.clone())
    }

    /// Whether Redis is to be told now that a session is used; the next time is put off to `next`.
    pub(super) fn take_touch(&self, id: &SessionId, now: Millis, next: Millis) -> bool {
        let mut inner = self.inner.borrow_mut();
        let Some(kept) = inner.copies.get_mut(id).filter(|kept| kept.touch_due <= now) else { return false };
        kept.touch_due = next;
        true
    }

    /// Redis was told that a session is used.
    pub(super) fn extend(&self, id: &SessionId, expires: Millis) {
        if let Some(kept) = self.inner.borrow_mut().copies.get_mut(id) {
            kept.expires = kept.expires.max(expires);
        }
    }

    /// Joins the question that is under way for a session, or begins one: then `true`.
    pub(super) fn join(&self, id: &SessionId) -> (Rc<Flight>, bool) {
        let mut inner = self.inner.borrow_mut();
        if let Some(flight) = inner.reads.get(id) {
            return (flight.clone(), false);
        }
        let flight = Rc::new(Flight::default());
        inner.reads.insert(*id, flight.clone());
        (flight, true)
    }

    /// A question has ended; whether its answer may be believed.
    pub(super) fn leave(&self, id: &SessionId, flight: &Rc<Flight>) -> bool {
        let mut inner = self.inner.borrow_mut();
        let listed = inner.reads.get(id).is_some_and(|listed| Rc::ptr_eq(listed, flight));
        if listed {
            inner.reads.remove(id);
        }
        listed
    }

    /// A change begins: what is under way is out of date, and a copy is no more than better than nothing.
    pub(super) fn begin_change(&self, id: &SessionId) -> Changing<'_> {
        let inner = &mut *self.inner.borrow_mut();
        inner.reads.remove(id);
        inner.changes = inner.changes.wrapping_add(1);
        inner.writes.insert(*id, inner.changes);
        if let Some(kept) = inner.copies.get_mut(id) {
            kept.belief = Belief::Nobody;
        }
        Changing { copies: self, id: *id, number: inner.changes }
    }

    /// Keeps a copy.
    pub(super) fn keep(&self, id: SessionId, record: Rc<Record>, vouchers: &Vouchers, life: Life) {
        let inner = &mut *self.inner.borrow_mut();
        let (belief, epoch) = (vouchers.belief(), inner.epoch);
        let kept = Kept { record, belief, epoch, expires: life.expires, touch_due: life.touch_due };
        inner.copies.insert(id, kept);
    }

    /// A session has ended, or may have changed: its copy is gone, and what is under way is out of date.
    pub(super) fn forget(&self, id: &SessionId) {
        self.inner.borrow_mut().forget(id);
    }

    /// Drops copies whose session's life is over, and memory that most have left. Call about once a second.
    pub(super) fn expire(&self, now: Millis) {
        let inner = &mut *self.inner.borrow_mut();
        inner.expire_calls = inner.expire_calls.wrapping_add(1);
        if inner.expire_calls.is_multiple_of(SWEEP_EVERY) {
            inner.copies.retain(|kept| now < kept.expires);
        }
        inner.copies.shrink();
        if inner.reads.is_empty() {
            inner.reads.shrink_to_fit();
        }
        if inner.writes.is_empty() {
            inner.writes.shrink_to_fit();
        }
    }
}

impl Inner {
    fn forget(&mut self, id: &SessionId) {
        self.copies.remove(id);
        self.reads.remove(id);
        self.writes.remove(id);
    }
}

impl Events for Copies {
    fn invalidated(&self, keys: Option<&[&[u8]]>) {
        let inner = &mut *self.inner.borrow_mut();
        match keys {
            Some(keys) => {
                keys.iter().filter_map(|key| key::parse_session(key)).for_each(|id| inner.forget(&id))
            }
            None => {
                inner.epoch = inner.epoch.wrapping_add(1);
                inner.reads.clear();
                inner.writes.clear();
            }
        }
    }
}
