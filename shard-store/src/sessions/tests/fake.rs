//! A Redis in memory and a clock that the test moves: owns everything around a session store that a test needs to bring about
//! what it is about. Commands are carried out when they reach the server; each way of a connection can be held up.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io::{self, Cursor};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, Waker};

use futures_util::io::AllowStdIo;
use mcp_protocol::resp::Reply;

use crate::error::Change;
use crate::memory::{Peers, StoreMail};
use crate::record::Directory;
use crate::redis::{Command, Commands, Effect, Events, Health, Origin};
use crate::runtime::{Address, Elapsed, Runtime};
use crate::sessions::{Copies, Parts, RedisSessions, SessionCommands, Settings, WhenStoreDown, key};
use crate::{Binding, Millis, Record, SessionId, SessionStore, StoreError};

pub(super) const TTL: Millis = 16_000;

pub(super) type Store = RedisSessions<Shard, Post, Link>;
/// Values, each with its end.
type Keys = BTreeMap<Vec<u8>, (Vec<u8>, Option<Millis>)>;
type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The test's world: one Redis, the time, and pods of shards.
#[derive(Default)]
pub(super) struct World {
    now: Cell<Millis>,
    tasks: RefCell<Vec<Task>>,
    keys: RefCell<Keys>,
    /// Names of the commands that were carried out.
    pub(super) log: RefCell<Vec<&'static str>>,
    links: RefCell<Vec<Rc<Link>>>,
    mail: RefCell<VecDeque<(usize, usize, StoreMail)>>,
    stores: RefCell<Vec<Vec<Rc<Store>>>>,
    /// Replicas that acknowledge.
    pub(super) replicas: Cell<u32>,
}

/// A pod: its shards' stores, and the connection of each.
pub(super) struct Pod {
    pub(super) shards: Vec<Rc<Store>>,
    pub(super) links: Vec<Rc<Link>>,
    pub(super) copies: Vec<Rc<Copies>>,
    pub(super) unwritten: Arc<AtomicU64>,
}

pub(super) fn settings() -> Settings {
    Settings {
        ttl_ms: TTL,
        replicas: 0,
        replicas_timeout_ms: 100,
        when_store_down: WhenStoreDown::Keep,
        max_unwritten: 200,
    }
}

pub(super) fn directory() -> Rc<Directory> {
    Rc::new(Directory::new(vec!["files".into()]))
}

pub(super) fn record() -> Record {
    Record {
        revision: Some("2025-06-18".into()),
        upstreams: [Binding {
            server: 0,
            endpoint: "http://a/mcp".into(),
            session: Some(b"upstream"[..].into()),
            owner: None,
        }]
        .into(),
        ..Record::default()
    }
}

impl World {
    pub(super) fn new() -> Rc<Self> {
        Rc::default()
    }

    pub(super) fn pod(self: &Rc<Self>, shards: usize, settings: &Settings) -> Pod {
        let number = self.stores.borrow().len();
        let unwritten = Arc::new(AtomicU64::new(0));
        let mut pod =
            Pod { shards: Vec::new(), links: Vec::new(), copies: Vec::new(), unwritten: unwritten.clone() };
        for shard in 0..shards {
            let copies = Rc::new(Copies::new());
            let link = Link::new(self.clone(), copies.clone());
            self.links.borrow_mut().push(link.clone());
            let parts = Parts {
                runtime: Shard(self.clone()),
                client: link.clone(),
                copies: copies.clone(),
                directory: directory(),
                peers: Post { world: self.clone(), pod: number, count: shards },
                unwritten: unwritten.clone(),
            };
            pod.shards.push(RedisSessions::new(shard as u16, settings.clone(), parts));
            pod.links.push(link);
            pod.copies.push(copies);
        }
        self.stores.borrow_mut().push(pod.shards.clone());
        pod
    }

    pub(super) fn now(&self) -> Millis {
        self.now.get()
    }

    /// One turn of every shard: all tasks are polled, all mail is read.
    pub(super) fn turn(&self) {
        while let Some((pod, shard, mail)) = { self.mail.borrow_mut().pop_front() } {
            let store = self.stores.borrow()[pod][shard].clone();
            store.on_mail(mail, self.now());
        }
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        let mut cx = Context::from_waker(Waker::noop());
        let left: Vec<_> = tasks
            .into_iter()
            .filter_map(|mut task| task.as_mut().poll(&mut cx).is_pending().then_some(task))
            .collect();
        self.tasks.borrow_mut().extend(left);
    }

    /// Has a task run beside the test.
    pub(super) fn start(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.borrow_mut().push(Box::pin(task));
    }

    pub(super) fn tasks(&self) -> usize {
        self.tasks.borrow().len()
    }

    /// Lets time pass, with housekeeping once a second.
    pub(super) fn pass(&self, ms: Millis) {
        for _ in 0..ms.div_ceil(10) {
            self.now.set(self.now() + 10);
            self.turn();
            if self.now().is_multiple_of(1_000) {
                let stores = self.stores.borrow().clone();
                stores.iter().flatten().for_each(|store| store.expire(self.now()));
            }
        }
    }

    /// Drives a question to its end; time passes when nothing else happens.
    pub(super) fn run<T>(&self, question: impl Future<Output = T>) -> T {
        let mut question = pin!(question);
        for round in 0..10_000 {
            if let Poll::Ready(value) = poll(question.as_mut()) {
                return value;
            }
            self.turn();
            if round > 20 {
                self.now.set(self.now() + 10);
            }
        }
        panic!("the question never ends");
    }

    pub(super) fn create(&self, store: &Store) -> Result<SessionId, StoreError> {
        self.run(store.create(record(), self.now()))
    }

    pub(super) fn get(&self, store: &Store, id: &SessionId) -> Result<Option<Record>, StoreError> {
        self.run(store.get(id, self.now())).map(|found| found.map(|record| (*record).clone()))
    }

    pub(super) fn delete(&self, store: &Store, id: &SessionId) -> Result<bool, StoreError> {
        self.run(store.delete(id, self.now()))
    }

    /// The session's record, as it stands at Redis.
    pub(super) fn at_redis(&self, id: &SessionId) -> Option<Vec<u8>> {
        self.value(&key::session(id))
    }

    pub(super) fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.borrow();
        keys.get(key)
            .filter(|(_, end)| end.is_none_or(|end| self.now() < end))
            .map(|(value, _)| value.clone())
    }

    /// Somebody else writes to Redis.
    pub(super) fn put(&self, key: &[u8], value: &[u8], end: Option<Millis>) {
        self.keys.borrow_mut().insert(key.to_vec(), (value.to_vec(), end));
        self.changed(key, None);
    }

    pub(super) fn commands(&self, name: &str) -> usize {
        self.log.borrow().iter().filter(|logged| **logged == name).count()
    }

    fn changed(&self, key: &[u8], by: Option<&Link>) {
        let links = self.links.borrow().clone();
        for link in
            links.iter().filter(|link| link.is_tracking() && !by.is_some_and(|by| std::ptr::eq(by, &***link)))
        {
            link.events.invalidated(Some(&[key]));
        }
    }

    fn carry_out(&self, by: &Link, name: &'static str, args: &[Vec<u8>]) -> Reply {
        self.log.borrow_mut().push(name);
        let key = &args[1];
        let there = self.value(key);
        let number = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().parse::<u64>().unwrap();
        match (&args[0][..], &args[2..]) {
            (b"GET", []) => there.map_or(Reply::Null, |value| Reply::Bulk(value.into())),
            (b"EXISTS", []) => Reply::Integer(there.is_some().into()),
            (b"PTTL", []) => Reply::Integer(match (there, self.keys.borrow().get(key)) {
                (None, _) | (_, None) => -2,
                (_, Some((_, None))) => -1,
                (_, Some((_, Some(end)))) => (end - self.now()) as i64,
            }),
            (b"SET", [value, px, life, condition @ ..]) if px == b"PX" => {
                let holds = match condition {
                    [] => true,
                    [word] if word == b"NX" => there.is_none(),
                    [word] if word == b"XX" => there.is_some(),
                    _ => panic!("SET with {condition:?}"),
                };
                if !holds {
                    return Reply::Null;
                }
                self.keys.borrow_mut().insert(key.clone(), (value.clone(), Some(self.now() + number(life))));
                self.changed(key, Some(by));
                Reply::Ok
            }
            (b"PEXPIRE", [life]) => {
                if let Some((_, end)) = self.keys.borrow_mut().get_mut(key).filter(|_| there.is_some()) {
                    *end = Some(self.now() + number(life));
                }
                if there.is_some() {
                    self.changed(key, Some(by));
                }
                Reply::Integer(there.is_some().into())
            }
            (b"DEL", []) => {
                self.keys.borrow_mut().remove(key);
                if there.is_some() {
                    self.changed(key, Some(by));
                }
                Reply::Integer(there.is_some().into())
            }
            _ => panic!("{name}: not a command of sessions"),
        }
    }
}

pub(super) fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// What a connection does with commands.
#[derive(Clone)]
pub(super) enum Mood {
    Works,
    /// Nothing gets through, and that is known.
    Down,
    /// Nothing comes back; whether anything gets there.
    Silent {
        carries_out: bool,
    },
    /// Everything is refused with this.
    Refuses(&'static str),
}

/// A shard's connection to Redis.
pub(super) struct Link {
    world: Rc<World>,
    events: Rc<dyn Events>,
    mood: RefCell<Mood>,
    follows: Cell<bool>,
    connection: Cell<u64>,
    pub(super) holds_commands: Cell<bool>,
    pub(super) holds_replies: Cell<bool>,
    second: RefCell<Option<Mood>>,
}

impl Link {
    fn new(world: Rc<World>, events: Rc<dyn Events>) -> Rc<Self> {
        Rc::new(Link {
            world,
            events,
            mood: RefCell::new(Mood::Works),
            follows: Cell::new(true),
            connection: Cell::new(1),
            holds_commands: Cell::new(false),
            holds_replies: Cell::new(false),
            second: RefCell::new(None),
        })
    }

    /// From now on half of all keys are at a node of their own, which behaves like this.
    pub(super) fn set_second(&self, mood: Mood) {
        *self.second.borrow_mut() = Some(mood);
    }

    /// How the node of a key behaves, if it is the second one.
    fn second_of(&self, key: &[u8]) -> Option<Mood> {
        let last = key.iter().rev().find(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())?;
        self.second.borrow().clone().filter(|_| last % 2 == 0)
    }

    /// From now on it behaves otherwise. What is in flight is lost, and invalidations may have been.
    pub(super) fn set(&self, mood: Mood) {
        *self.mood.borrow_mut() = mood;
        self.reconnect();
    }

    /// From now on Redis does not say what changes.
    pub(super) fn stop_following(&self) {
        self.follows.set(false);
    }

    /// The connection breaks under what is in flight, and is there again at once.
    pub(super) fn reconnect(&self) {
        self.connection.set(self.connection.get() + 1);
    }

    fn is_tracking(&self) -> bool {
        self.follows.get() && matches!(*self.mood.borrow(), Mood::Works)
    }

    async fn passes(&self, holds: &Cell<bool>, connection: u64) -> bool {
        poll_fn(|cx| match holds.get() && self.connection.get() == connection {
            true => {
                // Looked at again in each turn.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            false => Poll::Ready(self.connection.get() == connection),
        })
        .await
    }
}

impl Commands for Link {
    async fn call(&self, command: &Command<'_>) -> Result<Reply, StoreError> {
        let second = command.key.and_then(|key| self.second_of(key));
        let mood = second.unwrap_or_else(|| self.mood.borrow().clone());
        let args: Vec<Vec<u8>> = command.args.iter().map(|arg| arg.to_vec()).collect();
        let lost = match command.effect {
            Effect::Read => Change::None,
            Effect::Write => Change::Unknown,
        };
        match mood {
            Mood::Down => return Err(StoreError::Unreachable),
            Mood::Refuses(text) => return Err(StoreError::refused(text)),
            Mood::Silent { carries_out } => {
                if carries_out {
                    self.world.carry_out(self, command.name, &args);
                }
                return Err(StoreError::Timeout(lost));
            }
            Mood::Works => {}
        }
        let connection = self.connection.get();
        if !self.passes(&self.holds_commands, connection).await {
            return Err(StoreError::Lost(lost));
        }
        let reply = self.world.carry_out(self, command.name, &args);
        match self.passes(&self.holds_replies, connection).await {
            true => Ok(reply),
            false => Err(StoreError::Lost(lost)),
        }
    }
}

impl SessionCommands for Link {
    async fn call_replicated(
        &self,
        command: &Command<'_>,
        replicas: u32,
        _timeout_ms: u64,
    ) -> Result<Reply, StoreError> {
        let reply = self.call(command).await?;
        let acknowledged = self.world.replicas.get();
        match acknowledged >= replicas {
            true => Ok(reply),
            false => Err(StoreError::NotReplicated { acknowledged, wanted: replicas }),
        }
    }

    fn origin(&self, key: &[u8]) -> Option<Origin> {
        match self.second_of(key) {
            Some(Mood::Down) => None,
            Some(_) => Some(Origin(u64::MAX)),
            None => self.is_tracking().then(|| Origin(self.connection.get())),
        }
    }

    fn health(&self) -> Health {
        match (&*self.mood.borrow(), &*self.second.borrow()) {
            (Mood::Down, _) => Health::Down,
            (_, Some(Mood::Down)) => Health::Impaired,
            _ => Health::Up,
        }
    }
}

/// A shard, as far as a session store needs one.
#[derive(Clone)]
pub(super) struct Shard(Rc<World>);

impl Runtime for Shard {
    type Stream = AllowStdIo<Cursor<Vec<u8>>>;

    fn now(&self) -> Millis {
        self.0.now()
    }

    fn precise_us(&self) -> u64 {
        self.0.now() * 1_000
    }

    fn unix_ms(&self) -> u64 {
        self.0.now()
    }

    fn spawn(&self, task: Task) {
        self.0.tasks.borrow_mut().push(task);
    }

    async fn connect(&self, _address: &Address) -> io::Result<Self::Stream> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn deadline<T>(&self, at: Millis, step: impl Future<Output = T>) -> Result<T, Elapsed> {
        let mut step = pin!(step);
        poll_fn(|cx| match step.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending if self.now() >= at => Poll::Ready(Err(Elapsed)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    fn flush_later(&self) {}
}

/// Mail between the shards of a pod.
pub(super) struct Post {
    world: Rc<World>,
    pod: usize,
    count: usize,
}

impl Peers for Post {
    fn count(&self) -> usize {
        self.count
    }

    fn send(&self, shard: usize, mail: StoreMail) -> bool {
        self.world.mail.borrow_mut().push_back((self.pod, shard, mail));
        true
    }
}
