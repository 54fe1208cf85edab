//! Two pods of two shards each, whose connections fail in every way at any moment, while sessions are opened, changed, looked
//! up and ended, also at the same time. Claim: a session that a client was told of is never unknown to the pod that opened it;
//! when the storm is over, all pods know it with its last change, and one whose end was confirmed is known to nobody.

use std::cell::RefCell;
use std::rc::Rc;

use super::fake::{Mood, Pod, World, record, settings};
use crate::sessions::Settings;
use crate::{Millis, Record, SessionId, SessionStore};

const SEEDS: u64 = 200;
const STEPS: usize = 400;
const SESSIONS: usize = 12;
/// Nothing ends by itself during a storm.
const LONG: Millis = 10_000_000;

/// What a client knows of its session.
struct Known {
    id: SessionId,
    /// The pod that opened it.
    pod: usize,
    tried: u32,
    confirmed: u32,
    is_updating: bool,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    NotAsked,
    Asked,
    Confirmed,
}

type Sessions = Rc<RefCell<Vec<Known>>>;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

fn version(number: u32) -> Record {
    Record { created_unix_ms: number.into(), ..record() }
}

#[test]
fn no_session_is_lost_and_none_comes_back() {
    for seed in 1..=SEEDS {
        eprintln!("seed {seed}");
        storm(&mut Random(seed));
    }
}

fn storm(random: &mut Random) {
    let world = World::new();
    world.replicas.set(1);
    let settings = Settings { ttl_ms: LONG, replicas: random.below(2) as u32, ..settings() };
    let pods = Rc::new([world.pod(2, &settings), world.pod(2, &settings)]);
    if random.below(4) == 0 {
        pods[random.below(2)].links[random.below(2)].stop_following();
    }
    let sessions = Sessions::default();
    for _ in 0..STEPS {
        let shard = random.below(2);
        match random.below(12) {
            0..3 => weather(&world, &pods[random.below(2)], random),
            3..5 => open(&world, &pods, random.below(2), shard, &sessions),
            step => {
                let place = random.below(SESSIONS);
                if place < sessions.borrow().len() {
                    match step {
                        5 => end(&world, &pods, random.below(2), shard, place, &sessions),
                        6..8 => update(&world, &pods, shard, place, &sessions),
                        _ => look_up(&world, &pods, shard, place, &sessions),
                    }
                }
            }
        }
        world.pass(10 * random.below(8) as u64);
    }
    pods.iter().flat_map(|pod| &pod.links).for_each(|link| {
        link.set(Mood::Works);
        link.holds_commands.set(false);
        link.holds_replies.set(false);
    });
    world.replicas.set(1);
    world.pass(3_000);
    assert_eq!(world.tasks(), 0, "something never ends");
    for known in sessions.borrow().iter() {
        for store in pods.iter().flat_map(|pod| &pod.shards) {
            let found = world.get(store, &known.id).expect("Redis is there");
            let seen = found.map(|found| found.created_unix_ms as u32);
            let range = known.confirmed..=known.tried;
            match known.end {
                End::NotAsked => {
                    assert!(seen.is_some_and(|seen| range.contains(&seen)), "{seen:?} of {range:?}")
                }
                End::Asked => {}
                End::Confirmed => assert_eq!(seen, None),
            }
        }
    }
}

/// Something happens to a connection of a pod, or to the replicas.
fn weather(world: &World, pod: &Pod, random: &mut Random) {
    let link = &pod.links[random.below(2)];
    match random.below(10) {
        0..4 => link.set(Mood::Works),
        4 => link.set(Mood::Down),
        5 => link.set(Mood::Silent { carries_out: random.below(2) == 0 }),
        6 => link.set(Mood::Refuses("READONLY")),
        7 => link.holds_commands.set(!link.holds_commands.get()),
        8 => link.holds_replies.set(!link.holds_replies.get()),
        _ => {
            link.reconnect();
            world.replicas.set(random.below(2) as u32);
        }
    }
}

fn open(world: &Rc<World>, pods: &Rc<[Pod; 2]>, pod: usize, shard: usize, sessions: &Sessions) {
    let (pods, sessions, now) = (pods.clone(), sessions.clone(), world.now());
    world.start(async move {
        if let Ok(id) = pods[pod].shards[shard].create(version(0), now).await {
            let known = Known { id, pod, tried: 0, confirmed: 0, is_updating: false, end: End::NotAsked };
            sessions.borrow_mut().push(known);
        }
    });
}

fn update(world: &Rc<World>, pods: &Rc<[Pod; 2]>, shard: usize, place: usize, sessions: &Sessions) {
    let known = &mut sessions.borrow_mut()[place];
    if std::mem::replace(&mut known.is_updating, true) {
        return;
    }
    known.tried += 1;
    let (id, pod, number) = (known.id, known.pod, known.tried);
    let (pods, sessions, now) = (pods.clone(), sessions.clone(), world.now());
    world.start(async move {
        let outcome = pods[pod].shards[shard].update(&id, version(number), now).await;
        let known = &mut sessions.borrow_mut()[place];
        known.is_updating = false;
        match outcome {
            Ok(true) => known.confirmed = number,
            Ok(false) => assert_ne!(known.end, End::NotAsked, "unknown to its own pod"),
            Err(error) => assert!(error.is_outage(), "{error}"),
        }
    });
}

fn look_up(world: &Rc<World>, pods: &Rc<[Pod; 2]>, shard: usize, place: usize, sessions: &Sessions) {
    let (id, pod) = {
        let known = &sessions.borrow()[place];
        (known.id, known.pod)
    };
    let (pods, sessions, now) = (pods.clone(), sessions.clone(), world.now());
    world.start(async move {
        match pods[pod].shards[shard].get(&id, now).await {
            Ok(Some(_)) => {}
            Ok(None) => assert_ne!(sessions.borrow()[place].end, End::NotAsked, "unknown to its own pod"),
            Err(error) => assert!(error.is_outage(), "{error}"),
        }
    });
}

fn end(world: &Rc<World>, pods: &Rc<[Pod; 2]>, pod: usize, shard: usize, place: usize, sessions: &Sessions) {
    let id = {
        let known = &mut sessions.borrow_mut()[place];
        if known.end == End::NotAsked {
            known.end = End::Asked;
        }
        known.id
    };
    let (pods, sessions, now) = (pods.clone(), sessions.clone(), world.now());
    world.start(async move {
        match pods[pod].shards[shard].delete(&id, now).await {
            Ok(true) => sessions.borrow_mut()[place].end = End::Confirmed,
            Ok(false) => {}
            Err(error) => assert!(error.is_outage(), "{error}"),
        }
    });
}
