//! The limiter in virtual time, on a Redis in memory that counts by the same arithmetic as the script. What the script itself
//! does is tested on a real server.

mod bound;
mod fake;
mod outage;
mod sharing;

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use self::fake::Fake;
use super::*;

type Pod = Limiter<Fake>;

const ALLOWED: Decision = Decision::Allowed;

/// The result of a call that has nothing to wait for.
fn now_or_never<T>(call: impl Future<Output = T>) -> T {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the call waits"),
    }
}

fn poll<T>(call: &mut Pin<Box<impl Future<Output = T>>>) -> Option<T> {
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

fn take(pod: &Pod, redis: &Fake) -> Decision {
    now_or_never(pod.take(b"key", redis.now()))
}

fn is_limited(decision: Decision) -> bool {
    matches!(decision, Decision::Limited { .. })
}

#[test]
fn a_rare_key_takes_one_token_at_a_time() {
    let redis = Fake::default();
    let pod = Limiter::new(redis.clone(), Limit { per_second: 100, burst: 800 });
    for asked in 1..=20 {
        assert_eq!(take(&pod, &redis), ALLOWED);
        assert_eq!((redis.asked(), redis.charged()), (asked, u64::from(asked)));
        redis.advance_ms(1_500);
    }
}

#[test]
fn a_hot_key_asks_seldom_and_never_for_more_than_an_eighth_of_the_burst() {
    let redis = Fake::default();
    let pod = Limiter::new(redis.clone(), Limit { per_second: 10_000, burst: 8_000 });
    for _ in 0..40_000 {
        assert_eq!(take(&pod, &redis), ALLOWED);
        assert!(redis.last_wanted() <= 1_000);
        redis.advance_us(100);
    }
    assert!(redis.asked() <= 60, "{} questions for 40,000 tokens", redis.asked());
}

#[test]
fn what_is_left_of_a_lease_lapses_and_the_next_one_is_smaller() {
    let redis = Fake::default();
    let pod = Limiter::new(redis.clone(), Limit { per_second: 1_000, burst: 8_000 });
    // 1, 2, 4, 8, and one of the 16 that follow.
    for _ in 0..16 {
        assert_eq!(take(&pod, &redis), ALLOWED);
    }
    assert_eq!((redis.asked(), redis.last_wanted()), (5, 16));
    redis.advance_ms(999);
    assert_eq!(take(&pod, &redis), ALLOWED);
    assert_eq!(redis.asked(), 5, "a lease lives for a second");
    redis.advance_ms(1);
    assert_eq!(take(&pod, &redis), ALLOWED);
    assert_eq!((redis.asked(), redis.last_wanted()), (6, 2), "two of sixteen were of use");
}

#[test]
fn a_denied_key_costs_no_question_until_it_may_have_a_token() {
    let redis = Fake::default();
    let pod = Limiter::new(redis.clone(), Limit { per_second: 2, burst: 3 });
    for _ in 0..3 {
        assert_eq!(take(&pod, &redis), ALLOWED);
    }
    let asked = redis.asked();
    for left in (1..=500).rev() {
        assert_eq!(take(&pod, &redis), Decision::Limited { retry_after_ms: left });
        redis.advance_ms(1);
    }
    assert_eq!(redis.asked(), asked);
    assert_eq!(take(&pod, &redis), ALLOWED);
    assert!(is_limited(take(&pod, &redis)));
    assert_eq!(now_or_never(pod.take(b"other", redis.now())), ALLOWED, "another key has its own tokens");
}

#[test]
fn a_flood_of_a_fast_key_gets_its_rate_for_few_questions() {
    let redis = Fake::default();
    let pod = Limiter::new(redis.clone(), Limit { per_second: 1_000, burst: 1_000 });
    let mut allowed = 0;
    for _ in 0..100_000 {
        allowed += u32::from(take(&pod, &redis) == ALLOWED);
        redis.advance_us(100);
    }
    assert!((10_900..=11_000).contains(&allowed), "{allowed} of 1,000 and 10 seconds' 10,000");
    assert!(redis.asked() <= 1_050, "{} questions in 10 s", redis.asked());
}

#[test]
fn without_redis_a_shard_counts_by_itself() {
    let pod = Pod::local(Limit { per_second: 3, burst: 10 });
    for _ in 0..10 {
        assert_eq!(now_or_never(pod.take(b"key", 5_000)), ALLOWED);
    }
    assert_eq!(now_or_never(pod.take(b"key", 5_000)), Decision::Limited { retry_after_ms: 334 });
    assert!(is_limited(now_or_never(pod.take(b"key", 5_333))));
    assert_eq!(now_or_never(pod.take(b"key", 5_334)), ALLOWED);
    assert!(pod.stats().fallbacks.is_empty());
}

#[test]
fn a_limit_out_of_range_is_brought_into_it() {
    let pod = Pod::local(Limit { per_second: 0, burst: 0 });
    assert_eq!(now_or_never(pod.take(b"key", 0)), ALLOWED);
    assert_eq!(now_or_never(pod.take(b"key", 0)), Decision::Limited { retry_after_ms: 1_000 });
}

#[test]
fn the_keys_of_a_shard_are_bounded_and_forgotten() {
    let pod = Pod::local(Limit { per_second: 1_000, burst: 1 });
    assert_eq!(now_or_never(pod.take(b"hot", 0)), ALLOWED);
    for n in 0..3 * table::MAX_KEYS {
        now_or_never(pod.take(&n.to_be_bytes(), 0));
        // One key in use among many that are seen once is not the one that goes.
        assert!(is_limited(now_or_never(pod.take(b"hot", 0))));
    }
    assert_eq!(pod.keys(), table::MAX_KEYS);
    pod.expire(0);
    assert_eq!(pod.keys(), table::MAX_KEYS, "none of them is idle yet");
    for _ in 0..table::MAX_KEYS / 4_096 {
        pod.expire(1);
    }
    assert_eq!(pod.keys(), 0);
}
