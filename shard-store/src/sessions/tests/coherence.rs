//! When a copy is believed: every way in which one could be out of date.

use std::pin::pin;
use std::task::Poll;

use super::fake::{TTL, World, directory, poll, record, settings};
use crate::record::encode;
use crate::redis::Events;
use crate::sessions::{FALLBACK_TTL_MS, key};
use crate::{Record, SessionId, SessionStore, StoreError};

#[test]
fn a_session_in_use_costs_no_command_and_a_deletion_is_known_at_once() {
    let world = World::new();
    let (here, there) = (world.pod(2, &settings()), world.pod(1, &settings()));
    let id = world.create(&here.shards[0]).unwrap();
    let all = [&here.shards[0], &here.shards[1], &there.shards[0]];
    for store in all {
        assert_eq!(world.get(store, &id), Ok(Some(record())));
    }
    let before = world.log.borrow().len();
    for _ in 0..100 {
        for store in all {
            assert_eq!(world.get(store, &id), Ok(Some(record())));
        }
    }
    assert_eq!(world.log.borrow().len(), before);
    assert_eq!(world.delete(&there.shards[0], &id), Ok(true));
    for store in all {
        assert_eq!(world.get(store, &id), Ok(None));
    }
    assert_eq!(here.shards[1].stats().lookups[..2], [("hit", 100), ("miss", 2)]);
}

#[test]
fn a_copy_is_not_believed_over_another_connection() {
    let world = World::new();
    let (here, there) = (world.pod(1, &settings()), world.pod(1, &settings()));
    let id = world.create(&here.shards[0]).unwrap();
    here.links[0].reconnect();
    world.put(
        &key::session(&id),
        &encode(&Record { revision: None, ..record() }, &directory()).unwrap(),
        None,
    );
    assert_eq!(world.get(&here.shards[0], &id).unwrap().unwrap().revision, None);
    let asked = world.commands("get");
    here.copies[0].invalidated(None);
    assert!(world.get(&here.shards[0], &id).unwrap().is_some());
    assert_eq!(world.commands("get"), asked + 1, "all copies lost their credit");
    // Keys of others are nothing to it.
    here.copies[0].invalidated(Some(&[b"mcp:{x}:session", b"else"]));
    assert!(world.get(&here.shards[0], &id).unwrap().is_some());
    assert_eq!((world.commands("get"), there.copies[0].len()), (asked + 1, 0));
}

#[test]
fn what_changes_while_the_answer_is_on_its_way_is_asked_for_again() {
    let world = World::new();
    let (here, there) = (world.pod(1, &settings()), world.pod(1, &settings()));
    for is_lost in [false, true] {
        let id = world.create(&there.shards[0]).unwrap();
        here.links[0].holds_replies.set(true);
        let mut get = pin!(here.shards[0].get(&id, world.now()));
        assert!(poll(get.as_mut()).is_pending());
        match is_lost {
            false => assert_eq!(world.delete(&there.shards[0], &id), Ok(true)),
            true => here.copies[0].invalidated(None),
        }
        here.links[0].holds_replies.set(false);
        assert!(matches!(poll(get.as_mut()), Poll::Ready(Ok(Some(_)))), "it was there when Redis answered");
        let asked = world.commands("get");
        assert_eq!(world.get(&here.shards[0], &id).unwrap().is_some(), is_lost);
        assert_eq!(world.commands("get"), asked + 1);
    }
}

#[test]
fn an_answer_that_saw_the_connection_change_is_not_believed() {
    let world = World::new();
    let (here, there) = (world.pod(1, &settings()), world.pod(1, &settings()));
    let id = world.create(&there.shards[0]).unwrap();
    here.links[0].stop_following();
    here.links[0].holds_replies.set(true);
    let mut get = pin!(here.shards[0].get(&id, world.now()));
    assert!(poll(get.as_mut()).is_pending());
    here.links[0].reconnect();
    assert!(matches!(poll(get.as_mut()), Poll::Ready(Err(StoreError::Lost(_)))));
    here.links[0].holds_replies.set(false);
    assert!(world.get(&here.shards[0], &id).unwrap().is_some());
}

#[test]
fn without_invalidations_a_copy_is_believed_for_a_moment() {
    let world = World::new();
    let (here, there) = (world.pod(1, &settings()), world.pod(1, &settings()));
    here.links[0].stop_following();
    let id = world.create(&there.shards[0]).unwrap();
    assert!(world.get(&here.shards[0], &id).unwrap().is_some());
    assert_eq!(world.delete(&there.shards[0], &id), Ok(true));
    assert!(world.get(&here.shards[0], &id).unwrap().is_some());
    world.pass(FALLBACK_TTL_MS);
    assert_eq!(world.get(&here.shards[0], &id), Ok(None));
}

#[test]
fn those_who_ask_for_the_same_at_the_same_time_share_a_question() {
    let world = World::new();
    let (here, there) = (world.pod(1, &settings()), world.pod(1, &settings()));
    let id = world.create(&there.shards[0]).unwrap();
    here.links[0].holds_replies.set(true);
    let store = &here.shards[0];
    let mut gets: Vec<_> = (0..5).map(|_| Box::pin(store.get(&id, world.now()))).collect();
    assert!(gets.iter_mut().all(|get| poll(get.as_mut()).is_pending()));
    assert_eq!(world.commands("get"), 1);
    // Whoever asked goes away: one of the others asks anew.
    drop(gets.remove(0));
    assert!(gets.iter_mut().all(|get| poll(get.as_mut()).is_pending()));
    assert_eq!(world.commands("get"), 2);
    here.links[0].holds_replies.set(false);
    for get in &mut gets {
        let Poll::Ready(Ok(Some(found))) = poll(get.as_mut()) else { panic!("no answer") };
        assert_eq!(*found, record());
    }
    assert_eq!(world.commands("get"), 2);
}

#[test]
fn an_own_change_overtakes_questions_under_way() {
    let world = World::new();
    let here = world.pod(1, &settings());
    let store = &here.shards[0];
    let id = world.create(store).unwrap();
    here.links[0].reconnect();
    here.links[0].holds_replies.set(true);
    let mut get = pin!(store.get(&id, world.now()));
    assert!(poll(get.as_mut()).is_pending());
    let newer = Record { revision: None, ..record() };
    let mut update = pin!(store.update(&id, newer.clone(), world.now()));
    assert!(poll(update.as_mut()).is_pending());
    // A question that is asked now does not join the one from before the change.
    let mut later = pin!(store.get(&id, world.now()));
    assert!(poll(later.as_mut()).is_pending());
    here.links[0].holds_replies.set(false);
    assert_eq!(poll(update.as_mut()), Poll::Ready(Ok(true)));
    assert!(matches!(poll(get.as_mut()), Poll::Ready(Ok(Some(_)))));
    let Poll::Ready(Ok(Some(found))) = poll(later.as_mut()) else { panic!("no answer") };
    assert_eq!(*found, newer);
    let asked = world.commands("get");
    assert_eq!((world.get(store, &id), world.commands("get")), (Ok(Some(newer)), asked));
}

#[test]
fn of_two_changes_at_the_same_time_the_later_one_is_believed() {
    let world = World::new();
    let here = world.pod(1, &settings());
    let store = &here.shards[0];
    let id = world.create(store).unwrap();
    here.links[0].holds_replies.set(true);
    let newer = Record { revision: None, ..record() };
    let mut first = pin!(store.update(&id, record(), world.now()));
    let mut second = pin!(store.update(&id, newer.clone(), world.now()));
    assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
    here.links[0].holds_replies.set(false);
    assert_eq!(poll(second.as_mut()), Poll::Ready(Ok(true)));
    assert_eq!(poll(first.as_mut()), Poll::Ready(Ok(true)));
    assert_eq!(world.get(store, &id), Ok(Some(newer)));
}

#[test]
fn a_change_that_is_given_up_leaves_nothing_behind() {
    let world = World::new();
    let here = world.pod(1, &settings());
    let store = &here.shards[0];
    let id = world.create(store).unwrap();
    here.links[0].holds_commands.set(true);
    {
        let mut update = pin!(store.update(&id, record(), world.now()));
        let mut get = pin!(store.get(&id, world.now()));
        assert!(poll(update.as_mut()).is_pending() && poll(get.as_mut()).is_pending());
    }
    assert_eq!(here.copies[0].underway(), (0, 0));
    here.links[0].holds_commands.set(false);
    assert_eq!(world.get(store, &id), Ok(Some(record())));
}

#[test]
fn use_anywhere_keeps_a_session_alive_at_little_cost() {
    let world = World::new();
    let (here, there) = (world.pod(2, &settings()), world.pod(1, &settings()));
    let all = [&here.shards[0], &here.shards[1], &there.shards[0]];
    let id = world.create(all[0]).unwrap();
    for _ in 0..4 * TTL / 100 {
        for store in all {
            assert!(world.get(store, &id).unwrap().is_some());
        }
        world.pass(100);
    }
    // One in an eighth to a sixteenth of its life, some of them by two shards at the same time; and an answer for each of
    // the others. Without the random part there would be 174.
    let (touches, reads) = (world.commands("pexpire"), world.commands("get"));
    assert!((4 * 7..=4 * 32).contains(&touches), "{touches}");
    assert!(reads <= 3 * touches + 4, "{reads}");
    world.pass(TTL + 20);
    assert_eq!(all.map(|store| world.get(store, &id)), [Ok(None), Ok(None), Ok(None)]);
}

#[test]
fn the_first_use_in_a_young_process_saves_a_session_that_is_about_to_end() {
    let world = World::new();
    let here = world.pod(1, &settings());
    let id = SessionId::mint(0).unwrap();
    world.put(&key::session(&id), &encode(&record(), &directory()).unwrap(), Some(50));
    assert!(world.get(&here.shards[0], &id).unwrap().is_some());
    world.pass(TTL - 100);
    assert!(world.get(&here.shards[0], &id).unwrap().is_some());
}

#[test]
fn a_touch_that_finds_no_session_ends_its_copy() {
    let world = World::new();
    let here = world.pod(1, &settings());
    let id = world.create(&here.shards[0]).unwrap();
    world.pass(TTL / 2);
    here.links[0].holds_commands.set(true);
    assert!(world.get(&here.shards[0], &id).unwrap().is_some());
    world.pass(TTL / 2);
    here.links[0].holds_commands.set(false);
    world.turn();
    assert_eq!((here.copies[0].len(), world.tasks()), (0, 0));
}

#[test]
fn what_cannot_be_read_is_an_error_and_what_is_not_known_here_is_no_session() {
    let world = World::new();
    let here = world.pod(1, &settings());
    let store = &here.shards[0];
    let id = SessionId::mint(0).unwrap();
    for text in ["", "nonsense", r#"{"v":2,"principal":""}"#] {
        world.put(&key::session(&id), text.as_bytes(), Some(TTL));
        assert!(matches!(world.get(store, &id), Err(StoreError::Malformed(_))), "{text}");
    }
    let text = encode(&record(), &directory()).unwrap();
    let elsewhere = String::from_utf8(text).unwrap().replace("files", "others");
    world.put(&key::session(&id), elsewhere.as_bytes(), Some(TTL));
    assert_eq!(world.get(store, &id), Ok(None));
    assert_eq!(store.stats().lookups[4], ("malformed", 3));
}

#[test]
fn a_key_that_lost_its_end_gets_one_again() {
    let world = World::new();
    let here = world.pod(1, &settings());
    let id = SessionId::mint(0).unwrap();
    world.put(&key::session(&id), &encode(&record(), &directory()).unwrap(), None);
    assert!(world.get(&here.shards[0], &id).unwrap().is_some());
    world.turn();
    assert_eq!(world.commands("pexpire"), 1);
    world.pass(TTL + 20);
    assert_eq!(world.at_redis(&id), None);
}
