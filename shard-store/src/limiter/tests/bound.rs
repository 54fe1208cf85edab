//! The bound across pods: several limiters with clocks of their own on one Redis, driven at random. A seed that fails is
//! printed.

use super::*;

/// A small generator of numbers that are random enough to find schedules with.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The most that was ever let pass within some span of time, less what the rate allows in it.
struct Excess {
    rate: u64,
    level: u64,
    at_us: u64,
    most: u64,
}

impl Excess {
    fn new(rate: u32) -> Self {
        Excess { rate: rate.into(), level: 0, at_us: 0, most: 0 }
    }

    fn let_pass(&mut self, now_us: u64) {
        self.level = self.level.saturating_sub((now_us - self.at_us) * self.rate) + 1_000_000;
        self.at_us = now_us;
        self.most = self.most.max(self.level);
    }

    /// In whole tokens.
    fn tokens(&self) -> u64 {
        self.most.div_ceil(1_000_000)
    }
}

#[test]
fn pods_together_exceed_the_rate_by_at_most_two_bursts() {
    for seed in 1..=400 {
        let mut random = Random(seed);
        let per_second = [1, 3, 7, 50, 333, 1_000, 20_000][random.below(7) as usize];
        let burst = [1, 2, 9, 64, 500, 3_000][random.below(6) as usize];
        let redis = Fake::default();
        let pods: Vec<_> = (0..1 + random.below(24))
            .map(|_| (Limiter::new(redis.clone(), Limit { per_second, burst }), random.below(1 << 40)))
            .collect();
        let mut excess = Excess::new(per_second);
        for _ in 0..2_000 {
            match random.below(40) {
                0 => redis.advance_ms(random.below(3_000)),
                1 => redis.advance_us(random.below(1_000_000 * u64::from(burst) / u64::from(per_second) + 1)),
                _ => redis.advance_us(random.below(3_000_000 / u64::from(per_second) + 2)),
            }
            let (pod, clock_ms) = &pods[random.below(pods.len() as u64) as usize];
            for _ in 0..=random.below(8) {
                if now_or_never(pod.take(b"key", clock_ms + redis.now())) == ALLOWED {
                    excess.let_pass(redis.now_us());
                }
            }
        }
        let most = excess.tokens();
        assert!(
            most <= 2 * u64::from(burst),
            "seed {seed}: {most} tokens beyond {per_second}/s, burst {burst}, {} pods",
            pods.len()
        );
    }
}

#[test]
fn pods_under_a_flood_get_the_rate_together() {
    for (count, per_second, burst) in [(1, 100, 100), (4, 100, 100), (4, 1_000, 200), (8, 5_000, 5_000)] {
        let redis = Fake::default();
        let pods: Vec<_> =
            (0..count).map(|_| Limiter::new(redis.clone(), Limit { per_second, burst })).collect();
        let mut allowed = 0;
        for turn in 0..100_000 {
            allowed += u32::from(take(&pods[turn % count], &redis) == ALLOWED);
            redis.advance_us(100);
        }
        let fair = burst + 10 * per_second;
        assert!((fair * 95 / 100..=fair).contains(&allowed), "{allowed} of {fair} with {count} pods");
    }
}

#[test]
fn alone_and_without_leases_a_key_gets_exactly_its_limit() {
    for seed in 1..=200 {
        let mut random = Random(seed);
        let per_second = 1 + random.below(1_000) as u32;
        let burst = 1 + random.below(15) as u32;
        let pod = Pod::local(Limit { per_second, burst });
        // The reference: tokens in millionths, filled by the millisecond.
        let (mut tokens, mut now) = (u64::from(burst) * 1_000_000, 0);
        for _ in 0..500 {
            let pause = random.below(3_000 / u64::from(per_second) + 2);
            now += pause;
            tokens = (u64::from(burst) * 1_000_000).min(tokens + pause * 1_000 * u64::from(per_second));
            let decision = now_or_never(pod.take(b"key", now));
            if tokens >= 1_000_000 {
                tokens -= 1_000_000;
                assert_eq!(decision, ALLOWED, "seed {seed} at {now}");
            } else {
                let retry_after_ms = (1_000_000 - tokens).div_ceil(u64::from(per_second) * 1_000);
                assert_eq!(decision, Decision::Limited { retry_after_ms }, "seed {seed} at {now}");
            }
        }
    }
}
