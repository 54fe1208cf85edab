//! Retries: owns how many there may be, as a budget that live traffic fills, how long to wait before one, and which answers
//! of a server ask for one. Pure: the time and chance are given.

use std::cell::Cell;
use std::time::Duration;

use mcp_config::Retry;

use super::answer::Answer;
use crate::shard::clock::Millis;

/// Most retries that traffic can have saved up: what a burst may cost a server at once, whatever came before it.
const MAX_SAVED: u64 = 100;
/// A retry, in the units that a budget counts: so many that a shard's part of the minimum is some in each millisecond.
const RETRY: u64 = 1_000_000_000;
/// The first pause before an endpoint is asked again, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a shard may spend on retries at one server. The share keeps retries from multiplying a server's load when all of it
/// fails; the minimum lets a server with little traffic have some at all.
#[derive(Debug)]
pub(crate) struct Budget {
    per_request: u64,
    per_ms: u64,
    /// The most that time grants: a second's worth, and no less than one retry.
    most: u64,
    max_attempts: u32,
    /// From traffic.
    saved: Cell<u64>,
    /// From time.
    granted: Cell<u64>,
    granted_at: Cell<Millis>,
}

impl Budget {
    /// `shards` share the minimum.
    pub(crate) fn new(config: &Retry, shards: usize) -> Self {
        let per_ms = u64::from(config.min_per_second) * RETRY / 1000 / shards.max(1) as u64;
        let most = if per_ms == 0 { 0 } else { (per_ms * 1000).max(RETRY) };
        Budget {
            per_request: u64::from(config.budget_percent) * RETRY / 100,
            per_ms,
            most,
            max_attempts: config.max_attempts,
            saved: Cell::new(0),
            granted: Cell::new(most),
            granted_at: Cell::new(0),
        }
    }

    /// How often a request may be sent in all.
    pub(crate) fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// A request that is no retry.
    pub(crate) fn on_request(&self) {
        self.saved.set((self.saved.get() + self.per_request).min(MAX_SAVED * RETRY));
    }

    /// Pays for a retry; says whether there was enough.
    pub(crate) fn pay(&self, now: Millis) -> bool {
        let passed = now.saturating_sub(self.granted_at.replace(now));
        let granted = self.granted.get().saturating_add(passed.saturating_mul(self.per_ms));
        self.granted.set(granted.min(self.most));
        let purse = [&self.granted, &self.saved].into_iter().find(|purse| purse.get() >= RETRY);
        purse.is_some_and(|purse| {
            purse.set(purse.get() - RETRY);
            true
        })
    }
}

/// How long to wait before the same endpoint is asked for the `retry`-th time again: about twice as long each time, less up
/// to half of it by chance, so that those who failed together do not come back together.
pub(crate) fn pause(retry: u32, chance: u64) -> Duration {
    let whole = FIRST_PAUSE.saturating_mul(1 << retry.min(16)).min(LONGEST_PAUSE);
    whole - Duration::from_micros(chance % (whole.as_micros() as u64 / 2))
}

/// Whether an answer says that another attempt may go better: a gateway in front of the server failed, or the server has
/// too much to do.
pub(crate) fn asks_for_retry(status: u16) -> bool {
    matches!(status, 502..=504)
}

/// `Retry-After` in seconds; a date is not understood, and taken for nothing said. Only until the answer's body is read.
pub(crate) fn retry_after(answer: &Answer) -> Option<Duration> {
    let mut after = None;
    answer.each_field(|name, value| {
        if name.eq_ignore_ascii_case(b"retry-after") {
            let seconds = std::str::from_utf8(value).ok().and_then(|value| value.trim().parse().ok());
            after = after.or(seconds.map(Duration::from_secs));
        }
    });
    after
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(budget_percent: u32, min_per_second: u32, shards: usize) -> Budget {
        Budget::new(&Retry { budget_percent, min_per_second, max_attempts: 3 }, shards)
    }

    fn paid(budget: &Budget, tries: usize, now: Millis) -> usize {
        (0..tries).filter(|_| budget.pay(now)).count()
    }

    #[test]
    fn a_storm_gets_a_share_of_its_requests_and_the_minimum() {
        let budget = budget(10, 1, 1);
        let mut retries = 0;
        for _ in 0..1000 {
            budget.on_request();
            // Every one fails, twice.
            retries += paid(&budget, 2, 500);
        }
        assert_eq!(retries, 100 + 1);
    }

    #[test]
    fn what_traffic_saved_is_bounded() {
        let budget = budget(100, 0, 1);
        for _ in 0..100_000 {
            budget.on_request();
        }
        assert_eq!(paid(&budget, 1000, 0), MAX_SAVED as usize);
    }

    #[test]
    fn the_minimum_comes_back_with_time_and_is_the_process_s() {
        let alone = budget(0, 10, 1);
        assert_eq!(paid(&alone, 100, 0), 10);
        assert_eq!(paid(&alone, 100, 500), 5);
        assert_eq!(paid(&alone, 100, 60_000), 10);
        let one_of_five = budget(0, 10, 5);
        assert_eq!(paid(&one_of_five, 100, 0), 2);
        // Less than one in a second becomes one after some.
        let one_of_many = budget(0, 1, 4);
        assert_eq!(paid(&one_of_many, 100, 0), 1);
        assert_eq!((paid(&one_of_many, 100, 3_999), paid(&one_of_many, 100, 4_000)), (0, 1));
    }

    #[test]
    fn without_share_and_minimum_there_is_none() {
        let budget = budget(0, 0, 1);
        budget.on_request();
        assert_eq!(paid(&budget, 10, 1_000_000), 0);
    }

    #[test]
    fn pauses_grow_to_the_longest_and_chance_takes_less_than_half() {
        for chance in [0, 12_345, u64::MAX] {
            for retry in 0..20 {
                let whole = FIRST_PAUSE.saturating_mul(1 << retry.min(16)).min(LONGEST_PAUSE);
                let pause = pause(retry, chance);
                assert!(pause <= whole && pause > whole / 2 - Duration::from_micros(1), "{retry}: {pause:?}");
            }
        }
    }
}
