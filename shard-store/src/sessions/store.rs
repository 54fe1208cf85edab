//! The session store of a shard on Redis: owns the order of the steps of each question. Never whether a copy may be believed
//! (`copies`).

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join;
use mcp_protocol::resp::Reply;

use super::copies::{Copies, Life, Vouchers};
use super::flight::{Asking, Outcome};
use super::unwritten::Unwritten;
use super::{Parts, SessionCommands, Settings, WhenStoreDown, key};
use crate::error::Retry;
use crate::memory::{MemoryStore, Peers, StoreMail};
use crate::record::{self, Directory};
use crate::redis::{Client, Command, Health, Origin};
use crate::runtime::Runtime;
use crate::stats::SessionStats;
use crate::{Millis, Record, SessionId, SessionStore, StoreError};

/// A session's use is told to Redis at most this often, as a share of its life: other shards' copies go with it. After that
/// time each shard waits a random part of as much again, so that mostly one of those that use the session tells it.
const TOUCHES_PER_TTL: u64 = 16;
/// Uses that are being told at the same time; what is beyond is told with the session's next use.
const MAX_TOUCHES: usize = 1_024;
/// Ids that are drawn to find one of a node that is connected: with two of three nodes away, one in half a million times
/// none is.
const MINT_TRIES: usize = 32;
/// How long a mark stays that a session was ended: as long as another pod may take to write again a session whose first
/// write was carried out without its knowing. Longer than that it is cut off from Redis, and the session could come back.
const ENDED_MS: &[u8] = b"60000";

/// One shard's sessions on Redis.
pub struct RedisSessions<R: Runtime, P, C = Client<R>> {
    pub(super) me: Weak<Self>,
    pub(super) shard: u16,
    pub(super) settings: Settings,
    pub(super) runtime: R,
    pub(super) client: Rc<C>,
    pub(super) copies: Rc<Copies>,
    directory: RefCell<Rc<Directory>>,
    /// Sessions that Redis does not have yet, each at home on the shard that opened it.
    pub(super) memory: MemoryStore<P>,
    pub(super) unwritten: RefCell<Unwritten>,
    /// `memory`'s sessions, summed over the shards.
    process_unwritten: Arc<AtomicU64>,
    /// This shard's part in that sum.
    published: Cell<u64>,
    touching: Cell<usize>,
    random_state: Cell<u64>,
    counts: Counts,
}

/// Look-ups, by what served them.
#[derive(Default)]
struct Counts {
    hit: Cell<u64>,
    miss: Cell<u64>,
    stale: Cell<u64>,
    local: Cell<u64>,
    malformed: Cell<u64>,
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

impl<R: Runtime, P: Peers + 'static, C: SessionCommands> RedisSessions<R, P, C> {
    /// Names servers by this directory from now on. A server's number must mean the same server in all of them.
    pub fn know(&self, directory: Rc<Directory>) {
        self.directory.replace(directory);
    }

    fn directory(&self) -> Rc<Directory> {
        self.directory.borrow().clone()
    }

    /// The store of `shard`. `parts.client` tells `parts.copies` what changes.
    pub fn new(shard: u16, settings: Settings, parts: Parts<R, P, C>) -> Rc<Self> {
        let Parts { runtime, client, copies, directory, peers, unwritten } = parts;
        let mut seed = [0; 8];
        // Without random bytes the shards of all processes choose alike, which costs them some commands.
        let _ = getrandom::fill(&mut seed);
        let max_unwritten = settings.max_unwritten;
        let memory = MemoryStore::uncached(shard, settings.ttl_ms, max_unwritten, peers);
        Rc::new_cyclic(|me| RedisSessions {
            me: me.clone(),
            shard,
            settings,
            runtime,
            client,
            copies,
            directory: RefCell::new(directory),
            memory,
            unwritten: RefCell::new(Unwritten::new(max_unwritten)),
            process_unwritten: unwritten,
            published: Cell::new(0),
            touching: Cell::new(0),
            random_state: Cell::new(u64::from_ne_bytes(seed) | 1),
            counts: Counts::default(),
        })
    }

    /// Takes mail from another shard's store.
    pub fn on_mail(&self, mail: StoreMail, now: Millis) {
        self.memory.on_mail(mail, now);
        self.publish_unwritten();
    }

    /// Drops what has ended, and memory that most sessions have left. Call about once a second while
    /// [`RedisSessions::needs_housekeeping`] says so, and once more after that.
    pub fn expire(&self, now: Millis) {
        self.memory.expire(now);
        if self.memory.sessions() < self.unwritten.borrow().len() {
            self.unwritten.borrow_mut().sweep(|id| self.memory.kept(id, now).is_some());
        }
        self.copies.expire(now);
        self.publish_unwritten();
    }

    /// Whether there is anything that housekeeping could drop.
    pub fn needs_housekeeping(&self) -> bool {
        self.unwritten.borrow().len() > 0 || self.copies.len() > 0
    }

    /// What has been counted.
    pub fn stats(&self) -> SessionStats {
        let Counts { hit, miss, stale, local, malformed } = &self.counts;
        SessionStats {
            lookups: vec![
                ("hit", hit.get()),
                ("miss", miss.get()),
                ("stale", stale.get()),
                ("local", local.get()),
                ("malformed", malformed.get()),
            ],
            cached: self.copies.len() as u64,
            unwritten: self.unwritten.borrow().len() as u64,
        }
    }

    /// Tells the other shards how many sessions wait here.
    pub(super) fn publish_unwritten(&self) {
        let (before, now) = (self.published.get(), self.memory.sessions() as u64);
        if before != now {
            self.published.set(now);
            // Wraps where it fell; the sum over all shards is right.
            self.process_unwritten.fetch_add(now.wrapping_sub(before), Ordering::SeqCst);
        }
    }

    /// Whether a session of this process may be one that Redis does not have yet.
    fn has_unwritten(&self) -> bool {
        self.process_unwritten.load(Ordering::SeqCst) > 0
    }

    /// Sends a change; with `replicas`, until they have it.
    pub(super) async fn change(&self, command: &Command<'_>) -> Result<Reply, StoreError> {
        match self.settings.replicas {
            0 => self.client.call(command).await,
            replicas => {
                self.client.call_replicated(command, replicas, self.settings.replicas_timeout_ms).await
            }
        }
    }

    /// Sets the record under one of `SET`'s conditions; `false` when that did not hold.
    pub(super) async fn set(
        &self,
        id: &SessionId,
        record: &Record,
        life_ms: u64,
        condition: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        let (key, life) = (key::session(id), life_ms.to_string());
        let value = record::encode(record, &self.directory())?;
        let args: [&[u8]; 6] = [b"SET", &key, &value, b"PX", life.as_bytes(), condition.unwrap_or_default()];
        let args = if condition.is_some() { &args[..] } else { &args[..5] };
        match self.change(&Command::write("set", &key, args)).await? {
            Reply::Ok => Ok(true),
            Reply::Null => Ok(false),
            _ => Err(StoreError::Malformed("no status for SET")),
        }
    }

    /// Ends the session at Redis; `false` when it had none. What is cached here goes before and after: Redis does not tell us
    /// of our own changes.
    pub(super) async fn del(&self, id: &SessionId) -> Result<bool, StoreError> {
        let key = key::session(id);
        self.copies.forget(id);
        let reply = self.change(&Command::write("del", &key, &[b"DEL", &key])).await;
        self.copies.forget(id);
        match reply? {
            Reply::Integer(gone) => Ok(gone > 0),
            _ => Err(StoreError::Malformed("no number for DEL")),
        }
    }

    /// Ends the session at Redis for good: [`RedisSessions::del`], and the pod that opened it will not write it again.
    pub(super) async fn end(&self, id: &SessionId) -> Result<bool, StoreError> {
        if self.settings.when_store_down == WhenStoreDown::Keep {
            let key = key::ended(id);
            let mark: [&[u8]; 5] = [b"SET", &key, b"1", b"PX", ENDED_MS];
            // The mark comes first: whoever writes the session and sees no mark has written before the deletion.
            self.client.call(&Command::write("set", &key, &mark)).await?;
        }
        self.del(id).await
    }

    /// Asks Redis, or waits for the answer to a question that is under way.
    async fn read(&self, id: &SessionId) -> Outcome {
        loop {
            let (flight, is_mine) = self.copies.join(id);
            if is_mine {
                let asking = Asking::new(&self.copies, id, flight);
                let outcome = self.ask(id, &asking).await;
                asking.end(outcome.clone());
                return outcome;
            }
            if let Some(outcome) = flight.wait().await {
                return outcome;
            }
        }
    }

    async fn ask(&self, id: &SessionId, asking: &Asking<'_>) -> Outcome {
        let key = key::session(id);
        let (before, asked) = (self.client.origin(&key), self.runtime.now());
        let get: [&[u8]; 2] = [b"GET", &key];
        let pttl: [&[u8]; 2] = [b"PTTL", &key];
        let (get, pttl) = (Command::read("get", &key, &get), Command::read("pttl", &key, &pttl));
        let (value, left) = join(self.client.call(&get), self.client.call(&pttl)).await;
        let is_current = asking.answered();
        let record = match value? {
            Reply::Bulk(text) => record::decode(&text, &self.directory())
                .inspect_err(|_| count(&self.counts.malformed))?
                .map(Rc::new),
            Reply::Null => None,
            _ => return Err(StoreError::Malformed("no string for GET")),
        };
        match (&record, left) {
            (Some(record), Ok(Reply::Integer(left))) if left >= -1 => {
                // A key without an end, which somebody else made of ours, gets one again.
                let life = self.life(asked, u64::try_from(left).unwrap_or(1));
                if is_current {
                    let vouchers = Vouchers { asked, before, after: self.client.origin(&key) };
                    self.copies.keep(*id, record.clone(), &vouchers, life);
                } else if life.touch_due <= asked {
                    self.touch(id);
                }
            }
            (None, _) if is_current => self.copies.forget(id),
            _ => {}
        }
        Ok(record)
    }

    /// A life that has `left_ms` to go at `now`.
    fn life(&self, now: Millis, left_ms: u64) -> Life {
        let share = self.settings.ttl_ms / TOUCHES_PER_TTL;
        let unused_ms = self.settings.ttl_ms.saturating_sub(left_ms);
        let due_in_ms = (share + self.random() % (share + 1)).saturating_sub(unused_ms);
        Life { expires: now + left_ms, touch_due: now + due_in_ms }
    }

    /// Nobody knows of this session: it goes, or else ends by itself.
    fn take_back(&self, id: SessionId) {
        let Some(me) = self.me.upgrade() else { return };
        self.runtime.spawn(Box::pin(async move {
            // Counted by the client.
            let _ = me.del(&id).await;
        }));
    }

    /// A number that differs from shard to shard and from time to time (xorshift); nothing secret hangs on it.
    pub(super) fn random(&self) -> u64 {
        let mut state = self.random_state.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.random_state.set(state);
        state
    }

    /// A session is used: Redis is told, where that is due.
    fn touch_if_due(&self, id: &SessionId, now: Millis) {
        if self.copies.take_touch(id, now, now + self.settings.ttl_ms / TOUCHES_PER_TTL) {
            self.touch(id);
        }
    }

    /// Tells Redis that a session is used. Nobody waits for it: if it fails, the next one is due long before the session's
    /// end.
    pub(super) fn touch(&self, id: &SessionId) {
        let Some(me) = self.me.upgrade().filter(|me| me.touching.get() < MAX_TOUCHES) else { return };
        let id = *id;
        self.touching.set(self.touching.get() + 1);
        self.runtime.spawn(Box::pin(async move {
            let asked = me.runtime.now();
            let (key, life) = (key::session(&id), me.settings.ttl_ms.to_string());
            let args: [&[u8]; 3] = [b"PEXPIRE", &key, life.as_bytes()];
            match me.client.call(&Command::write("pexpire", &key, &args)).await {
                Ok(Reply::Integer(1)) => me.copies.extend(&id, asked + me.settings.ttl_ms),
                Ok(Reply::Integer(_)) => me.copies.forget(&id),
                // Counted by the client; the copy goes on as it is.
                Ok(_) | Err(_) => {}
            }
            me.touching.set(me.touching.get() - 1);
        }));
    }
}

impl<R: Runtime, P: Peers + 'static, C: SessionCommands> SessionStore for RedisSessions<R, P, C> {
    async fn create(&self, record: Record, _now: Millis) -> Result<SessionId, StoreError> {
        let id = self.mint()?;
        let record = Rc::new(record);
        let origin = self.client.origin(&key::session(&id));
        match self.write(&id, record.clone(), b"NX").await {
            Ok(true) => Ok(id),
            Err(error) if error.is_outage() && !matches!(error, StoreError::NotReplicated { .. }) => {
                match self.create_elsewhere(origin, record.clone()).await {
                    Some(other) => {
                        if error.retry() != Retry::Safe {
                            self.take_back(id);
                        }
                        Ok(other)
                    }
                    None => self.keep_or_refuse(id, record, error),
                }
            }
            Ok(false) => Err(StoreError::Malformed("a session under an id that is new")),
            Err(error) => self.keep_or_refuse(id, record, error),
        }
    }

    async fn get(&self, id: &SessionId, now: Millis) -> Result<Option<Rc<Record>>, StoreError> {
        if let Some(record) = self.copies.believed(id, self.client.origin(&key::session(id)), now) {
            count(&self.counts.hit);
            self.touch_if_due(id, now);
            return Ok(Some(record));
        }
        let at_home = match self.has_unwritten() {
            true => self.memory.get(id, now).await,
            false => Ok(None),
        };
        if let Ok(Some(record)) = at_home {
            count(&self.counts.local);
            return Ok(Some(record));
        }
        count(&self.counts.miss);
        match self.read(id).await {
            Ok(Some(record)) => {
                self.touch_if_due(id, now);
                Ok(Some(record))
            }
            // Its home might have known it.
            Ok(None) => at_home,
            Err(error) if error.is_outage() => match self.copies.stale(id, self.runtime.now()) {
                Some(record) => {
                    count(&self.counts.stale);
                    Ok(Some(record))
                }
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    async fn update(&self, id: &SessionId, record: Record, now: Millis) -> Result<bool, StoreError> {
        if self.has_unwritten() && self.memory.update(id, record.clone(), now).await? {
            return Ok(true);
        }
        self.write(id, Rc::new(record), b"XX").await
    }

    async fn delete(&self, id: &SessionId, now: Millis) -> Result<bool, StoreError> {
        let was_at_home = self.has_unwritten() && self.memory.delete(id, now).await?;
        self.publish_unwritten();
        self.copies.forget(id);
        let outcome = self.end(id).await;
        match was_at_home {
            // Where Redis may have it all the same, its home sees to that until it has not.
            true => Ok(true),
            false => outcome,
        }
    }
}

impl<R: Runtime, P: Peers + 'static, C: SessionCommands> RedisSessions<R, P, C> {
    /// An id for a new session, of a node that is connected as long as one is: the id is ours to choose, so while a node of a
    /// cluster is away, new sessions need not wait for it.
    fn mint(&self) -> Result<SessionId, StoreError> {
        if self.client.health() != Health::Up
            && let Some(id) = self.mint_away_from(None)
        {
            return Ok(id);
        }
        SessionId::mint(self.shard)
    }

    /// An id of a connected node other than the one that `origin` stands for. `None` where none was found.
    fn mint_away_from(&self, origin: Option<Origin>) -> Option<SessionId> {
        (0..MINT_TRIES).find_map(|_| {
            let id = SessionId::mint(self.shard).ok()?;
            let found = self.client.origin(&key::session(&id));
            (found.is_some() && found != origin).then_some(id)
        })
    }

    /// Opens a session at another node than the one that has just failed, if there is one; tried once.
    async fn create_elsewhere(&self, failed: Option<Origin>, record: Rc<Record>) -> Option<SessionId> {
        let id = self.mint_away_from(failed)?;
        match self.write(&id, record, b"NX").await {
            Ok(true) => Some(id),
            Ok(false) => None,
            Err(error) => {
                if error.retry() != Retry::Safe {
                    self.take_back(id);
                }
                None
            }
        }
    }

    /// What is done with a session that Redis did not take.
    fn keep_or_refuse(
        &self,
        id: SessionId,
        record: Rc<Record>,
        error: StoreError,
    ) -> Result<SessionId, StoreError> {
        if error.is_outage() && self.settings.when_store_down == WhenStoreDown::Keep {
            self.keep_unwritten(id, record, error.retry() != Retry::Safe)?;
            return Ok(id);
        }
        if matches!(error, StoreError::NotReplicated { .. }) {
            self.take_back(id);
        }
        Err(error)
    }

    /// Writes a record and keeps a copy; `false` when the condition did not hold.
    async fn write(&self, id: &SessionId, record: Rc<Record>, condition: &[u8]) -> Result<bool, StoreError> {
        let changing = self.copies.begin_change(id);
        let key = key::session(id);
        let (before, asked) = (self.client.origin(&key), self.runtime.now());
        let outcome = self.set(id, &record, self.settings.ttl_ms, Some(condition)).await;
        let is_current = changing.ended();
        match &outcome {
            Ok(true) if is_current => {
                let vouchers = Vouchers { asked, before, after: self.client.origin(&key) };
                self.copies.keep(*id, record, &vouchers, self.life(asked, self.settings.ttl_ms));
            }
            Ok(true) | Ok(false) => self.copies.forget(id),
            Err(_) => {}
        }
        outcome
    }
}
