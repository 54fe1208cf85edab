//! The limit's arithmetic: owns a key's debt and what may be taken at a time. A pure function of its inputs.
//!
//! This is GCRA, written as a debt instead of a theoretical arrival time: the debt is that time's distance from now, times
//! the rate. In this form no rate needs rounding. `take.lua` does the same with Redis' clock.

use crate::Millis;

/// Parts of a token that are counted.
const TOKEN: u64 = 1_000_000;

/// How much a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Tokens that flow back per second; 1 to 1,000,000.
    pub per_second: u32,
    /// Tokens that may be taken at once after a pause; at least 1.
    pub burst: u32,
}

impl Limit {
    /// The most tokens per second. At more, a debt would drain by more than a token in the microsecond that it is counted in.
    pub const MAX_PER_SECOND: u32 = 1_000_000;

    /// This limit with both numbers in their range.
    pub(super) fn in_range(self) -> Self {
        Limit { per_second: self.per_second.clamp(1, Self::MAX_PER_SECOND), burst: self.burst.max(1) }
    }
}

/// What a key has taken and has not got back, in millionths of a token, as of a time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    debt: u64,
    at: Millis,
}

impl Bucket {
    /// Takes a token.
    ///
    /// # Errors
    /// How long it is until there is one, in milliseconds.
    pub(super) fn take(&mut self, limit: &Limit, now: Millis) -> Result<(), Millis> {
        self.drain(limit, now);
        let short = (self.debt + TOKEN).saturating_sub(capacity(limit));
        if short > 0 {
            return Err(short.div_ceil(u64::from(limit.per_second) * 1_000));
        }
        self.debt += TOKEN;
        Ok(())
    }

    /// Counts a token that was granted elsewhere.
    pub(super) fn charge(&mut self, limit: &Limit, now: Millis) {
        self.drain(limit, now);
        self.debt = capacity(limit).min(self.debt + TOKEN);
    }

    /// Whether all that was taken has flowed back.
    pub(super) fn is_settled(&mut self, limit: &Limit, now: Millis) -> bool {
        self.drain(limit, now);
        self.debt == 0
    }

    fn drain(&mut self, limit: &Limit, now: Millis) {
        let elapsed_us = now.saturating_sub(self.at).saturating_mul(1_000);
        self.debt = self.debt.saturating_sub(elapsed_us.saturating_mul(u64::from(limit.per_second)));
        self.at = self.at.max(now);
    }
}

fn capacity(limit: &Limit) -> u64 {
    u64::from(limit.burst) * TOKEN
}
