//! The memory store: owns one partition of the process's sessions per shard, and a cache of other shards' sessions. It never
//! takes a lock: what concerns another shard's partition travels as [`StoreMail`], which the engine carries.
//!
//! Invariants: a record lives in exactly one partition, the one its id names; a cached copy is dropped before any message
//! that was sent after the deletion's answer, because mail is in order and is read before sockets.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use slab::Slab;

use crate::id::IdMap;
use crate::{Millis, Record, SessionId, SessionStore, StoreError};

/// Cached records of other partitions per shard; at about 250 bytes each, 65,536 are 16 MiB.
const CACHE_ENTRIES: usize = 65_536;
/// Questions to other partitions that may wait for their answer, per shard.
const PENDING_QUESTIONS: usize = 65_536;
/// A cached session's life is extended at its home at most this often, as a share of the TTL.
const TOUCHES_PER_TTL: u64 = 16;
/// Sessions looked at per call of [`MemoryStore::expire`].
const EXPIRE_BATCH: usize = 4_096;

/// Carries mail to other shards.
pub trait Peers {
    /// Number of shards, this one included.
    fn count(&self) -> usize;
    /// Sends without waiting; `false` when the shard's mailbox is full.
    fn send(&self, shard: usize, mail: StoreMail) -> bool;
}

/// What the memory stores of two shards say to each other.
#[derive(Debug)]
pub struct StoreMail {
    from: u16,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Ask { question: u32, id: SessionId, ask: Ask },
    Answer { question: u32, answer: Answer },
    Touch(SessionId),
    Invalidate(SessionId),
}

#[derive(Debug)]
enum Ask {
    Get,
    Update(Record),
    Delete,
}

#[derive(Clone, Debug)]
enum Answer {
    Record(Option<Record>),
    Done(bool),
}

struct Entry {
    record: Rc<Record>,
    expires: Millis,
}

struct Cached {
    record: Rc<Record>,
    touched: Millis,
}

struct Question {
    id: SessionId,
    answer: Option<Answer>,
    waker: Option<Waker>,
    /// Guards against an answer to an earlier question of the same slot.
    abandoned: bool,
}

/// One shard's part of the memory store.
pub struct MemoryStore<P> {
    shard: u16,
    ttl_ms: Millis,
    max_sessions: usize,
    peers: P,
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    home: IdMap<Entry>,
    /// Sessions by the time at which they were last known to expire, oldest first.
    expiry: VecDeque<(Millis, SessionId)>,
    cache: IdMap<Cached>,
    questions: Slab<Question>,
}

impl<P: Peers> MemoryStore<P> {
    /// The part of `shard`. `max_sessions` is this partition's bound; `ttl_ms` the sliding life of a session.
    pub fn new(shard: u16, ttl_ms: Millis, max_sessions: usize, peers: P) -> Self {
        MemoryStore { shard, ttl_ms, max_sessions, peers, inner: RefCell::default() }
    }

    /// Sessions at home in this partition.
    pub fn sessions(&self) -> usize {
        self.inner.borrow().home.len()
    }

    /// Drops sessions whose life has ended. Call about once a second while there are sessions.
    pub fn expire(&self, now: Millis) {
        let mut ended = Vec::new();
        {
            let mut inner = self.inner.borrow_mut();
            for _ in 0..EXPIRE_BATCH {
                let Some(&(due, id)) = inner.expiry.front() else { break };
                if due > now {
                    break;
                }
                inner.expiry.pop_front();
                match inner.home.get(&id).map(|entry| entry.expires) {
                    Some(expires) if expires > now => inner.expiry.push_back((expires, id)),
                    Some(_) => {
                        inner.home.remove(&id);
                        ended.push(id);
                    }
                    None => {}
                }
            }
        }
        for id in ended {
            self.invalidate(id);
        }
    }

    /// Takes mail from another shard's store.
    pub fn on_mail(&self, mail: StoreMail, now: Millis) {
        match mail.body {
            Body::Ask { question, id, ask } => {
                let answer = match ask {
                    Ask::Get => Answer::Record(self.get_home(&id, now).map(|record| (*record).clone())),
                    Ask::Update(record) => Answer::Done(self.update_home(&id, record, now)),
                    Ask::Delete => Answer::Done(self.delete_home(&id)),
                };
                // A full mailbox loses the answer; the asker's deadline reports that.
                self.send(mail.from, Body::Answer { question, answer });
            }
            Body::Answer { question, answer } => {
                // Cached here and not by the asker, so that an invalidation that follows this mail finds the copy.
                if let Answer::Record(Some(record)) = &answer {
                    let id = self.inner.borrow().questions.get(question as usize).map(|waiting| waiting.id);
                    if let Some(id) = id {
                        self.keep_cached(id, Rc::new(record.clone()), now);
                    }
                }
                let mut inner = self.inner.borrow_mut();
                if inner.questions.get(question as usize).is_some_and(|waiting| waiting.abandoned) {
                    inner.questions.remove(question as usize);
                } else if let Some(waiting) = inner.questions.get_mut(question as usize) {
                    waiting.answer = Some(answer);
                    if let Some(waker) = waiting.waker.take() {
                        waker.wake();
                    }
                }
            }
            Body::Touch(id) => {
                self.get_home(&id, now);
            }
            Body::Invalidate(id) => {
                self.inner.borrow_mut().cache.remove(&id);
            }
        }
    }

    fn is_home(&self, id: &SessionId) -> bool {
        id.partition() == self.shard
    }

    fn get_home(&self, id: &SessionId, now: Millis) -> Option<Rc<Record>> {
        let mut inner = self.inner.borrow_mut();
        let entry = inner.home.get_mut(id).filter(|entry| entry.expires > now)?;
        entry.expires = now + self.ttl_ms;
        Some(entry.record.clone())
    }

    fn update_home(&self, id: &SessionId, record: Record, now: Millis) -> bool {
        {
            let mut inner = self.inner.borrow_mut();
            let Some(entry) = inner.home.get_mut(id).filter(|entry| entry.expires > now) else {
                return false;
            };
            entry.record = Rc::new(record);
            entry.expires = now + self.ttl_ms;
        }
        self.invalidate(*id);
        true
    }

    fn delete_home(&self, id: &SessionId) -> bool {
        let found = self.inner.borrow_mut().home.remove(id).is_some();
        if found {
            self.invalidate(*id);
        }
        found
    }

    fn invalidate(&self, id: SessionId) {
        for shard in (0..self.peers.count()).filter(|&shard| shard != usize::from(self.shard)) {
            self.send(shard as u16, Body::Invalidate(id));
        }
    }

    fn send(&self, shard: u16, body: Body) -> bool {
        self.peers.send(usize::from(shard), StoreMail { from: self.shard, body })
    }

    fn get_cached(&self, id: &SessionId, now: Millis) -> Option<Rc<Record>> {
        let touch_after = self.ttl_ms / TOUCHES_PER_TTL;
        let (record, touch) = {
            let mut inner = self.inner.borrow_mut();
            let cached = inner.cache.get_mut(id)?;
            if now.saturating_sub(cached.touched) >= self.ttl_ms {
                inner.cache.remove(id);
                return None;
            }
            let touch = now.saturating_sub(cached.touched) > touch_after;
            if touch {
                cached.touched = now;
            }
            (cached.record.clone(), touch)
        };
        if touch && !self.send(id.partition(), Body::Touch(*id)) {
            // The home did not hear of it: ask it the next time instead of believing the cache.
            self.inner.borrow_mut().cache.remove(id);
        }
        Some(record)
    }

    fn keep_cached(&self, id: SessionId, record: Rc<Record>, now: Millis) {
        let mut inner = self.inner.borrow_mut();
        if inner.cache.len() >= CACHE_ENTRIES
            && let Some(&victim) = inner.cache.keys().next()
        {
            inner.cache.remove(&victim);
        }
        inner.cache.insert(id, Cached { record, touched: now });
    }

    async fn ask(&self, id: &SessionId, ask: Ask) -> Result<Answer, StoreError> {
        if usize::from(id.partition()) >= self.peers.count() {
            return Ok(match ask {
                Ask::Get => Answer::Record(None),
                Ask::Update(_) | Ask::Delete => Answer::Done(false),
            });
        }
        let question = {
            let mut inner = self.inner.borrow_mut();
            if inner.questions.len() >= PENDING_QUESTIONS {
                return Err(StoreError::Busy);
            }
            inner.questions.insert(Question { id: *id, answer: None, waker: None, abandoned: false })
        };
        let guard = Waiting { store: self, question };
        if !self.send(id.partition(), Body::Ask { question: question as u32, id: *id, ask }) {
            self.inner.borrow_mut().questions.remove(question);
            std::mem::forget(guard);
            return Err(StoreError::Busy);
        }
        let answer = poll_fn(|cx| {
            let mut inner = self.inner.borrow_mut();
            let waiting = &mut inner.questions[question];
            match waiting.answer.take() {
                Some(answer) => Poll::Ready(answer),
                None => {
                    waiting.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        self.inner.borrow_mut().questions.remove(question);
        std::mem::forget(guard);
        Ok(answer)
    }
}

/// A question whose asker went away keeps its slot until the answer comes, so that the answer cannot reach another.
struct Waiting<'a, P: Peers> {
    store: &'a MemoryStore<P>,
    question: usize,
}

impl<P: Peers> Drop for Waiting<'_, P> {
    fn drop(&mut self) {
        let mut inner = self.store.inner.borrow_mut();
        if let Some(waiting) = inner.questions.get_mut(self.question) {
            waiting.abandoned = true;
            if waiting.answer.is_some() {
                inner.questions.remove(self.question);
            }
        }
    }
}

impl<P: Peers> SessionStore for MemoryStore<P> {
    async fn create(&self, record: Record, now: Millis) -> Result<SessionId, StoreError> {
        let id = SessionId::mint(self.shard)?;
        let mut inner = self.inner.borrow_mut();
        if inner.home.len() >= self.max_sessions {
            return Err(StoreError::Full { limit: self.max_sessions });
        }
        let expires = now + self.ttl_ms;
        inner.home.insert(id, Entry { record: Rc::new(record), expires });
        inner.expiry.push_back((expires, id));
        Ok(id)
    }

    async fn get(&self, id: &SessionId, now: Millis) -> Result<Option<Rc<Record>>, StoreError> {
        if self.is_home(id) {
            return Ok(self.get_home(id, now));
        }
        if let Some(record) = self.get_cached(id, now) {
            return Ok(Some(record));
        }
        match self.ask(id, Ask::Get).await? {
            Answer::Record(record) => Ok(record.map(Rc::new)),
            Answer::Done(_) => Ok(None),
        }
    }

    async fn update(&self, id: &SessionId, record: Record, now: Millis) -> Result<bool, StoreError> {
        if self.is_home(id) {
            return Ok(self.update_home(id, record, now));
        }
        self.inner.borrow_mut().cache.remove(id);
        Ok(matches!(self.ask(id, Ask::Update(record)).await?, Answer::Done(true)))
    }

    async fn delete(&self, id: &SessionId, _now: Millis) -> Result<bool, StoreError> {
        if self.is_home(id) {
            return Ok(self.delete_home(id));
        }
        self.inner.borrow_mut().cache.remove(id);
        Ok(matches!(self.ask(id, Ask::Delete).await?, Answer::Done(true)))
    }
}

#[cfg(test)]
mod tests;
