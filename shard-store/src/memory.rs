//! The memory store: owns one partition of the process's sessions per shard, and a cache of other shards' sessions. It never
//! takes a lock: what concerns another shard's partition travels as [`StoreMail`], which the engine carries.
//!
//! Invariants: a record lives in exactly one partition, the one its id names; a cached copy is dropped before any message
//! that was sent after the deletion's answer, because mail is in order and is read before sockets.

mod home;

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use slab::Slab;

use self::home::Home;
use crate::cache::{CACHE_ENTRIES, IdCache};
use crate::{Millis, Record, SessionId, SessionStore, StoreError};

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

/// Names a question: its place, and a number by which an answer to an earlier question of the same place is known.
#[derive(Clone, Copy, Debug)]
struct QuestionId {
    place: u32,
    number: u32,
}

#[derive(Debug)]
enum Body {
    Ask { question: QuestionId, id: SessionId, ask: Ask },
    Answer { question: QuestionId, answer: Answer },
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

struct Cached {
    record: Rc<Record>,
    touched: Millis,
}

struct Question {
    number: u32,
    id: SessionId,
    answer: Option<Answer>,
    waker: Option<Waker>,
}

/// One shard's part of the memory store.
pub struct MemoryStore<P> {
    shard: u16,
    ttl_ms: Millis,
    max_sessions: usize,
    peers: P,
    inner: RefCell<Inner>,
}

struct Inner {
    home: Home,
    cache: IdCache<Cached>,
    questions: Slab<Question>,
    asked: u32,
}

impl Inner {
    fn new(cache_entries: usize) -> Self {
        Inner { home: Home::default(), cache: IdCache::new(cache_entries), questions: Slab::new(), asked: 0 }
    }

    /// A question that still waits.
    fn question(&mut self, question: QuestionId) -> Option<&mut Question> {
        self.questions.get_mut(question.place as usize).filter(|waiting| waiting.number == question.number)
    }
}

impl<P: Peers> MemoryStore<P> {
    /// The part of `shard`. `max_sessions` is this partition's bound; `ttl_ms` the sliding life of a session.
    pub fn new(shard: u16, ttl_ms: Millis, max_sessions: usize, peers: P) -> Self {
        Self::with_cache(shard, ttl_ms, max_sessions, peers, CACHE_ENTRIES)
    }

    /// As [`MemoryStore::new`], but other shards' sessions are asked for each time. All shards must be alike in that.
    pub(crate) fn uncached(shard: u16, ttl_ms: Millis, max_sessions: usize, peers: P) -> Self {
        Self::with_cache(shard, ttl_ms, max_sessions, peers, 0)
    }

    fn with_cache(shard: u16, ttl_ms: Millis, max_sessions: usize, peers: P, cache_entries: usize) -> Self {
        MemoryStore { shard, ttl_ms, max_sessions, peers, inner: RefCell::new(Inner::new(cache_entries)) }
    }

    /// Sessions at home in this partition.
    pub fn sessions(&self) -> usize {
        self.inner.borrow().home.len()
    }

    /// Drops sessions whose life has ended, and memory that most sessions have left. Call about once a second while there
    /// are sessions, and once when there are none any more.
    pub fn expire(&self, now: Millis) {
        let mut looks = EXPIRE_BATCH;
        loop {
            let ended = self.inner.borrow_mut().home.take_expired(now, &mut looks);
            let Some(id) = ended else { break };
            self.invalidate(id);
        }
        let inner = &mut *self.inner.borrow_mut();
        inner.home.shrink();
        inner.cache.shrink();
        if inner.questions.is_empty() {
            inner.questions.shrink_to_fit();
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
                let mut inner = self.inner.borrow_mut();
                // Whoever asked may have gone.
                let Some(waiting) = inner.question(question) else { return };
                let id = waiting.id;
                if let Some(waker) = waiting.waker.take() {
                    waker.wake();
                }
                // Cached here and not by the asker, so that an invalidation that follows this mail finds the copy.
                let copy = match &answer {
                    Answer::Record(Some(record)) => Some(Rc::new(record.clone())),
                    Answer::Record(None) | Answer::Done(_) => None,
                };
                waiting.answer = Some(answer);
                drop(inner);
                if let Some(record) = copy {
                    self.keep_cached(id, record, now);
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
        self.inner.borrow_mut().home.touch(id, now, now + self.ttl_ms).map(|record| record.clone())
    }

    fn update_home(&self, id: &SessionId, record: Record, now: Millis) -> bool {
        {
            let mut inner = self.inner.borrow_mut();
            let Some(kept) = inner.home.touch(id, now, now + self.ttl_ms) else { return false };
            *kept = Rc::new(record);
        }
        self.invalidate(*id);
        true
    }

    fn delete_home(&self, id: &SessionId) -> bool {
        let found = self.inner.borrow_mut().home.remove(id);
        if found {
            self.invalidate(*id);
        }
        found
    }

    /// Keeps a session whose id was minted for this partition.
    ///
    /// # Errors
    /// [`StoreError::Full`].
    pub(crate) fn keep(&self, id: SessionId, record: Rc<Record>, now: Millis) -> Result<(), StoreError> {
        let mut inner = self.inner.borrow_mut();
        if inner.home.len() >= self.max_sessions {
            return Err(StoreError::Full { limit: self.max_sessions });
        }
        inner.home.insert(id, record, now + self.ttl_ms);
        Ok(())
    }

    /// A session of this partition and when it ends, without extending its life.
    pub(crate) fn kept(&self, id: &SessionId, now: Millis) -> Option<(Rc<Record>, Millis)> {
        self.inner.borrow().home.peek(id, now)
    }

    /// Ends a session of this partition; `false` when there was none.
    pub(crate) fn forget(&self, id: &SessionId) -> bool {
        self.delete_home(id)
    }

    fn invalidate(&self, id: SessionId) {
        if self.inner.borrow().cache.limit() == 0 {
            return;
        }
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
        self.inner.borrow_mut().cache.insert(id, Cached { record, touched: now });
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
            inner.asked = inner.asked.wrapping_add(1);
            let number = inner.asked;
            let place = inner.questions.insert(Question { number, id: *id, answer: None, waker: None });
            QuestionId { place: place as u32, number }
        };
        let _waiting = Waiting { store: self, question };
        if !self.send(id.partition(), Body::Ask { question, id: *id, ask }) {
            return Err(StoreError::Busy);
        }
        poll_fn(|cx| {
            let mut inner = self.inner.borrow_mut();
            let waiting = inner.question(question).expect("only its own guard takes a question out");
            match waiting.answer.take() {
                Some(answer) => Poll::Ready(Ok(answer)),
                None => {
                    waiting.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// A question's place, given back when its asker has the answer or goes away. An answer that comes later, or that a full
/// mailbox lost, concerns nobody.
struct Waiting<'a, P: Peers> {
    store: &'a MemoryStore<P>,
    question: QuestionId,
}

impl<P: Peers> Drop for Waiting<'_, P> {
    fn drop(&mut self) {
        self.store.inner.borrow_mut().questions.remove(self.question.place as usize);
    }
}

impl<P: Peers> SessionStore for MemoryStore<P> {
    async fn create(&self, record: Record, now: Millis) -> Result<SessionId, StoreError> {
        let id = SessionId::mint(self.shard)?;
        self.keep(id, Rc::new(record), now)?;
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
