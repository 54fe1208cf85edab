//! The memory store between shards, without threads: mail is carried by the test, in order, so every interleaving that
//! matters is written down.

use std::collections::VecDeque;
use std::pin::pin;
use std::task::{Context, Waker};

use super::*;
use crate::Binding;

const TTL: Millis = 1_000;

type Posted = Rc<RefCell<VecDeque<(usize, StoreMail)>>>;

struct Post {
    count: usize,
    posted: Posted,
    capacity: usize,
}

impl Peers for Post {
    fn count(&self) -> usize {
        self.count
    }

    fn send(&self, shard: usize, mail: StoreMail) -> bool {
        let mut posted = self.posted.borrow_mut();
        let room = posted.len() < self.capacity;
        if room {
            posted.push_back((shard, mail));
        }
        room
    }
}

struct Process {
    shards: Vec<MemoryStore<Post>>,
    posted: Posted,
}

impl Process {
    fn new(count: usize, capacity: usize) -> Self {
        let posted = Posted::default();
        let shards = (0..count)
            .map(|shard| {
                MemoryStore::new(shard as u16, TTL, 100, Post { count, posted: posted.clone(), capacity })
            })
            .collect();
        Process { shards, posted }
    }

    fn deliver(&self, now: Millis) {
        loop {
            let Some((shard, mail)) = self.posted.borrow_mut().pop_front() else { return };
            self.shards[shard].on_mail(mail, now);
        }
    }

    /// Drives a store call to its end, carrying mail in between.
    fn run<T>(&self, now: Millis, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..10 {
            if let Poll::Ready(value) = call.as_mut().poll(&mut cx) {
                return value;
            }
            self.deliver(now);
        }
        panic!("the call never ends");
    }
}

fn record() -> Record {
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

#[test]
fn a_session_is_found_from_every_shard_and_ends_for_all() {
    let process = Process::new(3, 100);
    let id = process.run(0, process.shards[1].create(record(), 0)).unwrap();
    for shard in &process.shards {
        assert_eq!(process.run(1, shard.get(&id, 1)).unwrap().as_deref(), Some(&record()));
    }
    // The second look-up on another shard is served from its cache: no mail.
    assert!(process.posted.borrow().is_empty());
    assert!(process.run(2, process.shards[2].get(&id, 2)).unwrap().is_some());
    assert!(process.posted.borrow().is_empty());

    assert_eq!(process.run(3, process.shards[0].delete(&id, 3)), Ok(true));
    process.deliver(3);
    for shard in &process.shards {
        assert_eq!(process.run(4, shard.get(&id, 4)).unwrap(), None);
    }
    assert_eq!(process.run(5, process.shards[0].delete(&id, 5)), Ok(false));
}

#[test]
fn an_update_reaches_cached_copies() {
    let process = Process::new(2, 100);
    let id = process.run(0, process.shards[0].create(record(), 0)).unwrap();
    process.run(0, process.shards[1].get(&id, 0)).unwrap();
    let changed = Record { revision: None, ..record() };
    assert_eq!(process.run(0, process.shards[0].update(&id, changed.clone(), 0)), Ok(true));
    process.deliver(0);
    assert_eq!(process.run(0, process.shards[1].get(&id, 0)).unwrap().as_deref(), Some(&changed));
    assert_eq!(process.run(0, process.shards[1].update(&id, record(), 0)), Ok(true));
    assert_eq!(process.run(0, process.shards[0].get(&id, 0)).unwrap().as_deref(), Some(&record()));
}

#[test]
fn life_slides_with_use_on_any_shard_and_then_ends() {
    let process = Process::new(2, 100);
    let id = process.run(0, process.shards[0].create(record(), 0)).unwrap();
    let mut now = 0;
    for _ in 0..10 {
        now += TTL / 2;
        assert!(process.run(now, process.shards[1].get(&id, now)).unwrap().is_some(), "{now}");
        process.deliver(now);
        process.shards[0].expire(now);
    }
    now += TTL + 1;
    process.shards[0].expire(now);
    process.deliver(now);
    assert_eq!(process.shards[0].sessions(), 0);
    assert_eq!(process.run(now, process.shards[1].get(&id, now)).unwrap(), None);
}

#[test]
fn a_full_partition_and_a_full_mailbox_say_so() {
    let process = Process::new(2, 1);
    let shard = &process.shards[0];
    let ids: Vec<_> = (0..100).map(|_| process.run(0, shard.create(record(), 0)).unwrap()).collect();
    assert_eq!(process.run(0, shard.create(record(), 0)), Err(StoreError::Full { limit: 100 }));
    process.posted.borrow_mut().push_back((1, StoreMail { from: 0, body: Body::Touch(ids[0]) }));
    assert_eq!(process.run(0, process.shards[1].get(&ids[0], 0)), Err(StoreError::Busy));
    assert!(process.shards[1].inner.borrow().questions.is_empty());
}

#[test]
fn an_answer_to_an_asker_that_went_away_reaches_nobody_else() {
    let process = Process::new(2, 100);
    let id = process.run(0, process.shards[0].create(record(), 0)).unwrap();
    let unknown = SessionId::mint(0).unwrap();
    {
        let mut call = pin!(process.shards[1].get(&id, 0));
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert_eq!(process.run(0, process.shards[1].get(&unknown, 0)).unwrap(), None);
    assert!(process.shards[1].inner.borrow().questions.is_empty());
}

#[test]
fn a_copy_that_is_on_its_way_is_invalidated_with_the_rest() {
    let process = Process::new(2, 100);
    let id = process.run(0, process.shards[0].create(record(), 0)).unwrap();
    let mut get = pin!(process.shards[1].get(&id, 0));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(get.as_mut().poll(&mut cx).is_pending());
    let (shard, asked) = process.posted.borrow_mut().pop_front().unwrap();
    process.shards[shard].on_mail(asked, 0);
    assert_eq!(process.run(0, process.shards[0].delete(&id, 0)), Ok(true));
    // The answer and the invalidation arrive before the asker runs again.
    process.deliver(0);
    assert!(matches!(get.as_mut().poll(&mut cx), Poll::Ready(Ok(Some(_)))));
    assert_eq!(process.run(0, process.shards[1].get(&id, 0)).unwrap(), None);
}

#[test]
fn an_id_of_a_partition_that_does_not_exist_is_unknown() {
    let process = Process::new(2, 100);
    let foreign = SessionId::mint(9).unwrap();
    assert_eq!(process.run(0, process.shards[0].get(&foreign, 0)).unwrap(), None);
    assert_eq!(process.run(0, process.shards[0].delete(&foreign, 0)), Ok(false));
}

#[test]
fn a_lost_answer_leaves_nothing_behind() {
    let process = Process::new(2, 100);
    let id = process.run(0, process.shards[0].create(record(), 0)).unwrap();
    for _ in 0..3 {
        let mut get = pin!(process.shards[1].get(&id, 0));
        assert!(get.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        process.posted.borrow_mut().clear();
    }
    assert!(process.shards[1].inner.borrow().questions.is_empty());
    assert!(process.run(0, process.shards[1].get(&id, 0)).unwrap().is_some());
}

#[test]
fn sessions_of_short_connections_leave_nothing_behind_on_any_shard() {
    let process = Process::new(2, 100);
    for _ in 0..20_000 {
        let id = process.run(0, process.shards[0].create(record(), 0)).unwrap();
        assert!(process.run(0, process.shards[1].get(&id, 0)).unwrap().is_some());
        assert_eq!(process.run(0, process.shards[1].delete(&id, 0)), Ok(true));
        process.deliver(0);
    }
    process.shards.iter().for_each(|shard| shard.expire(0));
    let inner = process.shards[1].inner.borrow();
    assert_eq!((inner.cache.len(), inner.questions.len(), process.shards[0].sessions()), (0, 0, 0));
    assert!(inner.cache.capacity() < 16 && inner.questions.capacity() == 0);
}

/// The time, and mail that is delivered whenever it passes.
struct Sim<'a> {
    process: &'a Process,
    now: std::cell::Cell<Millis>,
}

impl crate::contract::Stage for Sim<'_> {
    fn now(&self) -> Millis {
        self.now.get()
    }

    async fn pass(&self, ms: Millis) {
        self.now.set(self.now.get() + ms);
        self.process.deliver(self.now.get());
        self.process.shards.iter().for_each(|shard| shard.expire(self.now.get()));
    }
}

#[test]
fn two_shards_keep_what_every_store_promises() {
    let process = Process::new(2, 100);
    let stage = Sim { process: &process, now: std::cell::Cell::new(0) };
    let (one, other) = (&process.shards[0], &process.shards[1]);
    let mut call = pin!(crate::contract::check(one, other, TTL, &stage));
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..10_000 {
        if call.as_mut().poll(&mut cx).is_ready() {
            return;
        }
        process.deliver(stage.now.get());
    }
    panic!("the body never ends");
}
