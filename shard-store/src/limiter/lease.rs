//! One shard's tokens of one key: owns how many are asked for, how long they live, and how long a denial holds. A pure
//! function of its inputs.

use super::script::Grant;
use super::{Decision, Limit};
use crate::Millis;

/// The longest life of a lease, in milliseconds.
const LEASE_MS: Millis = 1_000;
/// A lease is at most this share of the burst, so that no shard holds most of it.
const LEASE_SHARE: u32 = 8;
/// A denied key is not asked for again for so long, in milliseconds, where its tokens come faster: they come as one lease.
const DRY_MS: Millis = 10;

/// The limit and what follows from it.
pub(super) struct Rules {
    pub(super) limit: Limit,
    /// The largest lease that is asked for in advance, in tokens.
    max_lease: u32,
    /// The life of a lease, in milliseconds.
    lease_ms: Millis,
    /// The shortest time for which a denial is remembered, in milliseconds.
    dry_ms: Millis,
}

impl Rules {
    pub(super) fn new(limit: Limit) -> Self {
        let refill_ms = u64::from(limit.burst) * 1_000 / u64::from(limit.per_second);
        let lease_ms = refill_ms.min(LEASE_MS);
        Rules {
            limit,
            max_lease: if lease_ms == 0 { 1 } else { (limit.burst / LEASE_SHARE).max(1) },
            lease_ms,
            // No longer than it takes for a whole lease to come together: more would be left lying.
            dry_ms: (refill_ms / u64::from(LEASE_SHARE)).min(DRY_MS),
        }
    }
}

/// The lease of one key, and what its last question taught.
#[derive(Default)]
pub(super) struct Lease {
    /// Tokens left.
    tokens: u32,
    /// Tokens that it began with.
    granted: u32,
    /// Tokens to ask for in advance, as found last time.
    size: u32,
    lapses_at: Millis,
    /// Until then there is no use in asking.
    dry_until: Millis,
    asked_at: Millis,
}

impl Lease {
    /// What can be said without Redis.
    pub(super) fn take(&mut self, now: Millis) -> Option<Decision> {
        if now >= self.lapses_at { self.denied(now) } else { self.take_granted(now) }
    }

    /// As [`Lease::take`], for those who waited for the grant: to them it does not lapse.
    pub(super) fn take_granted(&mut self, now: Millis) -> Option<Decision> {
        match self.tokens.checked_sub(1) {
            Some(rest) => {
                self.tokens = rest;
                Some(Decision::Allowed)
            }
            None => self.denied(now),
        }
    }

    /// How many tokens to ask for, when `callers` wait for one each.
    pub(super) fn next_size(&mut self, rules: &Rules, callers: u32, now: Millis) -> u32 {
        let since = now.saturating_sub(self.asked_at);
        self.size = if self.tokens > 0 {
            self.granted - self.tokens
        } else if since <= rules.lease_ms / 2 {
            self.size.saturating_mul(2)
        } else if since > rules.lease_ms {
            1
        } else {
            self.size
        }
        .clamp(1, rules.max_lease);
        self.size.max(callers).min(rules.limit.burst)
    }

    /// Takes what Redis granted to a question of the time `asked_at`.
    pub(super) fn on_grant(&mut self, rules: &Rules, grant: Grant, asked_at: Millis) {
        self.tokens = grant.tokens;
        self.granted = grant.tokens;
        self.lapses_at = asked_at + rules.lease_ms;
        self.asked_at = asked_at;
        self.dry_until = match grant.next_us {
            0 => 0,
            next_us => asked_at.saturating_add(next_us.div_ceil(1_000).max(rules.dry_ms)),
        };
    }

    /// Whether a new lease would serve as well.
    pub(super) fn is_idle(&self, now: Millis) -> bool {
        now >= self.lapses_at && now >= self.dry_until
    }

    fn denied(&self, now: Millis) -> Option<Decision> {
        let retry_after_ms = self.dry_until.checked_sub(now).filter(|left| *left > 0)?;
        Some(Decision::Limited { retry_after_ms })
    }
}
