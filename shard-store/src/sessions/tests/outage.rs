//! What is said to whom while Redis is away.

use super::fake::{Mood, TTL, World, record, settings};
use crate::error::{Change, Retry};
use crate::sessions::{Settings, WhenStoreDown};
use crate::{Record, SessionId, SessionStore, StoreError};

const OUTAGES: [Mood; 6] = [
    Mood::Down,
    Mood::Silent { carries_out: false },
    Mood::Refuses("READONLY You can't write against a read only replica."),
    Mood::Refuses("OOM command not allowed when used memory > 'maxmemory'."),
    Mood::Refuses("NOAUTH Authentication required."),
    Mood::Refuses("CLUSTERDOWN Hash slot not served"),
];

#[test]
fn an_established_session_goes_on_until_its_own_end_and_an_unknown_one_is_no_404() {
    for mood in OUTAGES {
        let world = World::new();
        let here = world.pod(2, &settings());
        let (knows, does_not) = (&here.shards[0], &here.shards[1]);
        let id = world.create(knows).unwrap();
        here.links.iter().for_each(|link| link.set(mood.clone()));
        for _ in 0..3 {
            assert_eq!(world.get(knows, &id), Ok(Some(record())));
        }
        assert_eq!(knows.stats().lookups[2], ("stale", 3));
        let error = world.get(does_not, &id).unwrap_err();
        assert!(error.is_outage() && error.retry() == Retry::Safe, "{error}");
        world.pass(TTL);
        assert!(world.get(knows, &id).unwrap_err().is_outage());
    }
}

#[test]
fn a_deletion_that_fails_is_said_and_the_session_is_not_served_meanwhile() {
    let world = World::new();
    let here = world.pod(1, &settings());
    let store = &here.shards[0];
    let id = world.create(store).unwrap();
    here.links[0].set(Mood::Down);
    assert_eq!(world.delete(store, &id), Err(StoreError::Unreachable));
    assert_eq!(world.get(store, &id), Err(StoreError::Unreachable));
    here.links[0].set(Mood::Works);
    assert_eq!(world.get(store, &id), Ok(Some(record())), "nothing was deleted");
    here.links[0].set(Mood::Silent { carries_out: true });
    assert_eq!(world.delete(store, &id), Err(StoreError::Timeout(Change::Unknown)));
    here.links[0].set(Mood::Works);
    assert!(world.at_redis(&id).is_some(), "the mark came first, and its failure ended it");
    assert_eq!(world.delete(store, &id), Ok(true));
}

#[test]
fn an_update_that_fails_is_said_and_the_older_record_serves() {
    let world = World::new();
    let here = world.pod(1, &settings());
    let store = &here.shards[0];
    let id = world.create(store).unwrap();
    let newer = Record { revision: None, ..record() };
    here.links[0].set(Mood::Silent { carries_out: true });
    assert_eq!(
        world.run(store.update(&id, newer.clone(), world.now())),
        Err(StoreError::Timeout(Change::Unknown))
    );
    here.links[0].set(Mood::Down);
    assert_eq!(world.get(store, &id), Ok(Some(record())));
    here.links[0].set(Mood::Works);
    assert_eq!(world.get(store, &id), Ok(Some(newer)));
}

#[test]
fn a_new_session_is_refused_where_the_configuration_says_so() {
    for mood in OUTAGES {
        let world = World::new();
        let here = world.pod(1, &Settings { when_store_down: WhenStoreDown::Refuse, ..settings() });
        here.links[0].set(mood);
        assert!(world.create(&here.shards[0]).unwrap_err().is_outage());
        assert_eq!((here.shards[0].stats().unwritten, world.tasks()), (0, 0));
    }
}

#[test]
fn a_new_session_is_kept_in_every_outage_and_only_then() {
    for mood in OUTAGES {
        let world = World::new();
        let here = world.pod(1, &settings());
        here.links[0].set(mood);
        let id = world.create(&here.shards[0]).unwrap();
        assert_eq!(world.get(&here.shards[0], &id), Ok(Some(record())));
        assert_eq!(here.shards[0].stats().unwritten, 1);
    }
    let world = World::new();
    let here = world.pod(1, &settings());
    here.links[0].set(Mood::Refuses("ERR unknown command"));
    assert!(!world.create(&here.shards[0]).unwrap_err().is_outage());
}

#[test]
fn a_new_session_is_opened_at_a_node_that_is_there() {
    // Known to be away, and not known yet.
    for mood in [Mood::Down, Mood::Silent { carries_out: false }, Mood::Silent { carries_out: true }] {
        let world = World::new();
        let here = world.pod(2, &Settings { when_store_down: WhenStoreDown::Refuse, ..settings() });
        here.links.iter().for_each(|link| link.set_second(mood.clone()));
        let is_known = matches!(mood, Mood::Down);
        let opened: Vec<_> = (0..50).map(|_| world.create(&here.shards[0]).unwrap()).collect();
        assert!(opened.iter().all(|id| world.get(&here.shards[1], id) == Ok(Some(record()))));
        let written = world.commands("set");
        assert!(if is_known { written == 50 } else { written >= 50 }, "{written} writes");
        assert_eq!(here.shards[0].stats().unwritten, 0);
    }
}

#[test]
fn too_few_replicas_keep_the_session_waiting_or_refuse_it() {
    let world = World::new();
    let demanding = Settings { replicas: 1, ..settings() };
    let keeps = world.pod(1, &demanding);
    let refuses = world.pod(1, &Settings { when_store_down: WhenStoreDown::Refuse, ..demanding });
    let id = world.create(&keeps.shards[0]).unwrap();
    assert!(world.at_redis(&id).is_some());
    world.pass(2_000);
    assert_eq!(keeps.shards[0].stats().unwritten, 1, "until they acknowledge");

    let error = world.create(&refuses.shards[0]).unwrap_err();
    assert_eq!(error, StoreError::NotReplicated { acknowledged: 0, wanted: 1 });
    world.turn();
    assert_eq!(world.commands("del"), 1);

    world.replicas.set(1);
    world.pass(1_000);
    assert_eq!(keeps.shards[0].stats().unwritten, 0);
    assert_eq!(world.get(&refuses.shards[0], &id), Ok(Some(record())));
    let second = world.create(&refuses.shards[0]).unwrap();
    assert_eq!(world.delete(&keeps.shards[0], &second), Ok(true));
}

#[test]
fn an_id_of_nobody_is_an_error_while_redis_cannot_be_asked() {
    let world = World::new();
    let here = world.pod(2, &settings());
    here.links.iter().for_each(|link| link.set(Mood::Down));
    world.create(&here.shards[0]).unwrap();
    for partition in [0, 1, 9] {
        let id = SessionId::mint(partition).unwrap();
        assert_eq!(world.get(&here.shards[0], &id), Err(StoreError::Unreachable));
        assert_eq!(world.delete(&here.shards[1], &id), Err(StoreError::Unreachable));
        assert_eq!(
            world.run(here.shards[1].update(&id, record(), world.now())),
            Err(StoreError::Unreachable)
        );
    }
}
