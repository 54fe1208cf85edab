//! Redis away, back, and without the script.

use super::*;
use crate::StoreError;
use crate::error::Change;

const LIMIT: Limit = Limit { per_second: 2, burst: 10 };

#[test]
fn a_shard_goes_on_by_itself_and_comes_back_by_itself() {
    let redis = Fake::default();
    let pod = Limiter::new(redis.clone(), LIMIT);
    for _ in 0..4 {
        assert_eq!(take(&pod, &redis), ALLOWED);
    }
    redis.set_down(Some(StoreError::Unreachable));
    for _ in 0..6 {
        assert_eq!(take(&pod, &redis), ALLOWED);
    }
    assert!(is_limited(take(&pod, &redis)), "what passed before the outage counts");
    assert_eq!(pod.stats().fallbacks, [("unreachable", 7)]);
    redis.set_down(Some(StoreError::Timeout(Change::Unknown)));
    redis.advance_ms(500);
    assert_eq!(take(&pod, &redis), ALLOWED);
    assert_eq!(pod.stats().fallbacks, [("unreachable", 7), ("timeout", 1)]);
    redis.set_down(None);
    let asked = redis.asked();
    assert_eq!(take(&pod, &redis), ALLOWED, "Redis knows of four");
    assert_eq!(redis.asked(), asked + 1);
    assert_eq!(pod.stats().fallbacks, [("unreachable", 7), ("timeout", 1)]);
}

#[test]
fn any_refusal_is_an_outage_for_the_limiter() {
    let redis = Fake::default();
    let pod = Limiter::new(redis.clone(), LIMIT);
    for text in ["WRONGTYPE Operation against a key", "OOM command not allowed", "READONLY You can't write"] {
        redis.set_down(Some(StoreError::refused(text)));
        assert_eq!(take(&pod, &redis), ALLOWED);
    }
    assert_eq!(pod.stats().fallbacks, [("refused", 3)]);
}

#[test]
fn a_node_is_told_the_script_once() {
    let redis = Fake::default();
    let pod = Limiter::new(redis.clone(), LIMIT);
    assert_eq!(take(&pod, &redis), ALLOWED);
    assert_eq!(take(&pod, &redis), ALLOWED);
    assert_eq!(redis.evals(), 1);
    redis.forget_script();
    assert_eq!(take(&pod, &redis), ALLOWED);
    assert_eq!(take(&pod, &redis), ALLOWED);
    assert_eq!((redis.evals(), redis.charged()), (2, 4));
    assert!(pod.stats().fallbacks.is_empty());
}
