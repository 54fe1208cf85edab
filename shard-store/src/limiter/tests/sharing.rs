//! Callers of one key at the same time: one question for all, and what happens when callers go.

use super::*;
use crate::StoreError;

const LIMIT: Limit = Limit { per_second: 1, burst: 5 };

#[test]
fn callers_that_come_during_a_question_share_the_next_one() {
    let redis = Fake::default();
    let pod = Limiter::new(redis.clone(), LIMIT);
    assert_eq!(take(&pod, &redis), ALLOWED);
    redis.advance_ms(5_000);
    redis.hold();
    let mut calls: Vec<_> = (0..8).map(|_| Box::pin(pod.take(b"key", redis.now()))).collect();
    assert!(calls.iter_mut().all(|call| poll(call).is_none()));
    redis.release();
    assert_eq!(poll(&mut calls[0]), Some(ALLOWED));
    assert_eq!((redis.asked(), redis.last_wanted()), (2, 1));
    assert!(calls[1..].iter_mut().all(|call| poll(call).is_none()));
    redis.release();
    assert_eq!(poll(&mut calls[1]), Some(ALLOWED));
    assert_eq!((redis.asked(), redis.last_wanted()), (3, 5), "as many as wait, and no more than a burst");
    let rest: Vec<_> = calls[2..].iter_mut().map(|call| poll(call).unwrap()).collect();
    assert!(rest[..3].iter().all(|decision| *decision == ALLOWED));
    assert!(rest[3..].iter().all(|decision| is_limited(*decision)));
    assert_eq!(redis.asked(), 3);
}

#[test]
fn an_asker_that_goes_leaves_the_question_to_the_next() {
    let redis = Fake::default();
    let pod = Limiter::new(redis.clone(), LIMIT);
    redis.hold();
    let mut calls: Vec<_> = (0..5).map(|_| Box::pin(pod.take(b"key", redis.now()))).collect();
    assert!(calls.iter_mut().all(|call| poll(call).is_none()));
    // The asker goes; so does the next before it is polled, and one that only waits.
    drop(calls.remove(0));
    drop(calls.remove(0));
    drop(calls.remove(1));
    assert!(calls.iter_mut().all(|call| poll(call).is_none()));
    // The node does not know the script: two commands.
    redis.release();
    redis.release();
    assert_eq!(poll(&mut calls[0]), Some(ALLOWED));
    assert_eq!(poll(&mut calls[1]), Some(ALLOWED));
    assert_eq!((redis.asked(), redis.last_wanted()), (1, 2), "for those two that were left");
    // Nobody is left behind as an asker that is not there.
    redis.release();
    assert_eq!(take(&pod, &redis), ALLOWED);
}

#[test]
fn all_who_wait_learn_of_an_outage_at_once() {
    let redis = Fake::default();
    let pod = Limiter::new(redis.clone(), LIMIT);
    redis.hold();
    redis.set_down(Some(StoreError::Unreachable));
    let mut calls: Vec<_> = (0..7).map(|_| Box::pin(pod.take(b"key", redis.now()))).collect();
    assert!(calls.iter_mut().all(|call| poll(call).is_none()));
    redis.release();
    let decisions: Vec<_> = calls.iter_mut().map(|call| poll(call).unwrap()).collect();
    assert!(decisions[..5].iter().all(|decision| *decision == ALLOWED));
    assert!(decisions[5..].iter().all(|decision| is_limited(*decision)));
    assert_eq!(pod.stats().fallbacks, [("unreachable", 7)]);
}

#[test]
fn keys_beyond_those_that_may_be_asked_for_are_decided_here() {
    let redis = Fake::default();
    let pod = Limiter::new(redis.clone(), LIMIT);
    redis.hold();
    let mut calls: Vec<_> = (0..waiters::MAX_KEYS)
        .map(|n| {
            let (pod, now) = (&pod, redis.now());
            Box::pin(async move { pod.take(&n.to_be_bytes(), now).await })
        })
        .collect();
    assert!(calls.iter_mut().all(|call| poll(call).is_none()));
    assert_eq!(take(&pod, &redis), ALLOWED);
    assert_eq!(pod.stats().fallbacks, [("busy", 1)]);
    drop(calls);
    redis.release();
    redis.release();
    assert_eq!(take(&pod, &redis), ALLOWED);
    assert_eq!(redis.asked(), 1);
}
