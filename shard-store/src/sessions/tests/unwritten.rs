//! Sessions that were opened while Redis was away: that each is written, once, as what it is by then, or not at all.

use std::sync::atomic::Ordering;

use super::fake::{Mood, Pod, TTL, World, record, settings};
use crate::sessions::{Settings, key};
use crate::{Record, SessionStore, StoreError};

fn waiting(pod: &Pod) -> u64 {
    pod.unwritten.load(Ordering::SeqCst)
}

#[test]
fn all_shards_know_it_meanwhile_and_all_pods_when_redis_is_back() {
    let world = World::new();
    let (here, there) = (world.pod(3, &settings()), world.pod(1, &settings()));
    here.links.iter().for_each(|link| link.set(Mood::Down));
    let ids: Vec<_> = (0..100).map(|_| world.create(&here.shards[1]).unwrap()).collect();
    assert_eq!(waiting(&here), 100);
    for (store, id) in here.shards.iter().zip(&ids) {
        assert_eq!(world.get(store, id), Ok(Some(record())));
    }
    assert_eq!(world.get(&there.shards[0], &ids[0]), Ok(None));
    world.pass(3_000);
    assert_eq!(waiting(&here), 100);
    here.links.iter().for_each(|link| link.set(Mood::Works));
    // The longest pause.
    world.pass(600);
    assert_eq!((waiting(&here), world.tasks()), (0, 0));
    assert_eq!(world.commands("set"), 100);
    for id in &ids {
        assert_eq!(world.get(&there.shards[0], id), Ok(Some(record())));
        assert_eq!(world.get(&here.shards[2], id), Ok(Some(record())));
    }
}

#[test]
fn a_write_that_was_made_without_our_knowing_is_the_same_session() {
    let world = World::new();
    let (here, there) = (world.pod(1, &settings()), world.pod(1, &settings()));
    here.links[0].set(Mood::Silent { carries_out: true });
    let id = world.create(&here.shards[0]).unwrap();
    let newer = Record { revision: None, ..record() };
    assert_eq!(world.run(there.shards[0].update(&id, newer.clone(), world.now())), Ok(true));
    here.links[0].set(Mood::Works);
    world.pass(600);
    assert_eq!(waiting(&here), 0);
    assert_eq!(world.get(&here.shards[0], &id), Ok(Some(newer)), "the newer record of another pod stays");
}

#[test]
fn what_another_pod_has_ended_does_not_come_back() {
    let world = World::new();
    let (here, there) = (world.pod(2, &settings()), world.pod(1, &settings()));
    here.links.iter().for_each(|link| link.set(Mood::Silent { carries_out: true }));
    let id = world.create(&here.shards[0]).unwrap();
    here.links.iter().for_each(|link| link.set(Mood::Down));
    assert_eq!(world.delete(&there.shards[0], &id), Ok(true));
    world.pass(5_000);
    here.links.iter().for_each(|link| link.set(Mood::Works));
    world.pass(600);
    assert_eq!((waiting(&here), world.at_redis(&id)), (0, None));
    for store in [&here.shards[0], &here.shards[1], &there.shards[0]] {
        assert_eq!(world.get(store, &id), Ok(None));
    }
    world.pass(60_000);
    assert_eq!(world.value(&key::ended(&id)), None, "the mark goes by itself");
}

#[test]
fn what_ends_before_it_is_written_never_is() {
    let world = World::new();
    let here = world.pod(2, &settings());
    here.links.iter().for_each(|link| link.set(Mood::Down));
    let ended = world.create(&here.shards[0]).unwrap();
    let expires = world.create(&here.shards[0]).unwrap();
    assert_eq!(world.delete(&here.shards[1], &ended), Ok(true));
    assert_eq!((waiting(&here), world.get(&here.shards[1], &ended)), (1, Err(StoreError::Unreachable)));
    world.pass(TTL + 1_000);
    assert_eq!(waiting(&here), 0);
    here.links.iter().for_each(|link| link.set(Mood::Works));
    world.pass(600);
    assert_eq!((world.at_redis(&ended), world.at_redis(&expires)), (None, None));
    assert_eq!((world.commands("set"), world.tasks()), (0, 0));
}

#[test]
fn a_deletion_wins_over_a_write_under_way() {
    for is_executed in [false, true] {
        let world = World::new();
        let here = world.pod(2, &settings());
        here.links.iter().for_each(|link| link.set(Mood::Down));
        let id = world.create(&here.shards[0]).unwrap();
        here.links.iter().for_each(|link| link.set(Mood::Works));
        let holds = if is_executed { &here.links[0].holds_replies } else { &here.links[0].holds_commands };
        holds.set(true);
        world.pass(600);
        assert_eq!(world.at_redis(&id).is_some(), is_executed);
        assert_eq!(world.delete(&here.shards[1], &id), Ok(true));
        holds.set(false);
        world.pass(600);
        assert_eq!((world.at_redis(&id), waiting(&here), world.tasks()), (None, 0, 0));
    }
}

#[test]
fn a_deletion_of_what_may_have_been_written_is_made_good_later() {
    let world = World::new();
    let (here, there) = (world.pod(1, &settings()), world.pod(1, &settings()));
    here.links[0].set(Mood::Silent { carries_out: true });
    let id = world.create(&here.shards[0]).unwrap();
    here.links[0].set(Mood::Down);
    assert_eq!(world.delete(&here.shards[0], &id), Ok(true));
    world.pass(2_000);
    assert_eq!(here.shards[0].stats().unwritten, 1);
    assert!(world.get(&there.shards[0], &id).unwrap().is_some());
    here.links[0].set(Mood::Works);
    world.pass(600);
    assert_eq!((world.get(&there.shards[0], &id), world.tasks()), (Ok(None), 0));
}

#[test]
fn an_update_before_or_under_a_write_is_what_is_written() {
    for is_underway in [false, true] {
        let world = World::new();
        let (here, there) = (world.pod(2, &settings()), world.pod(1, &settings()));
        here.links.iter().for_each(|link| link.set(Mood::Silent { carries_out: true }));
        let id = world.create(&here.shards[0]).unwrap();
        let newer = Record { revision: None, ..record() };
        if is_underway {
            here.links.iter().for_each(|link| link.set(Mood::Works));
            here.links[0].holds_replies.set(true);
            world.pass(600);
        }
        assert_eq!(world.run(here.shards[1].update(&id, newer.clone(), world.now())), Ok(true));
        assert_eq!(world.get(&here.shards[0], &id), Ok(Some(newer.clone())));
        here.links.iter().for_each(|link| link.set(Mood::Works));
        here.links[0].holds_replies.set(false);
        world.pass(1_200);
        assert_eq!((waiting(&here), world.tasks()), (0, 0));
        assert_eq!(world.get(&there.shards[0], &id), Ok(Some(newer)));
    }
}

#[test]
fn so_many_may_wait_and_those_that_have_ended_make_room() {
    let world = World::new();
    let here = world.pod(1, &Settings { max_unwritten: 3, ..settings() });
    let store = &here.shards[0];
    here.links[0].set(Mood::Down);
    let ids: Vec<_> = (0..3).map(|_| world.create(store).unwrap()).collect();
    assert_eq!(world.create(store), Err(StoreError::Full { limit: 3 }));
    assert_eq!(world.delete(store, &ids[0]), Ok(true));
    world.pass(1_000);
    world.create(store).unwrap();
    assert_eq!(world.create(store), Err(StoreError::Full { limit: 3 }));
    assert!(store.needs_housekeeping());
}
