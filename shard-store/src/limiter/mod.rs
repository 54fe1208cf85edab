//! The rate limiter: owns whether a key may do one thing more. Keys are whatever bytes the caller gives; the limit is one for
//! all. Counts in Redis where there is one, so that it holds across shards and pods, else in this shard. Never a status code.
//!
//! **Leases.** A shard takes a batch of a key's tokens from Redis in one round trip and gives them out by itself. How many
//! depends on how soon the last ones were gone: a rare key takes one at a time, a hot one up to an eighth of the burst.
//! What is left of a lease lapses after a second, or after the time in which a burst flows back where that is shorter.
//! Callers that come while Redis is being asked wait for that answer; a denial is remembered until there is a token again.
//!
//! **The bound.** Let *rate* be tokens per second and *burst* tokens. Within any *T* seconds of Redis' clock Redis charges
//! at most *rate* × *T* + *burst*. A lease lives for at most *burst* / *rate* seconds, counted from before it was asked for,
//! so whatever all shards of all pods together let pass within *T* was charged within *T* + *burst* / *rate*: at most
//! *rate* × *T* + 2 × *burst*, whatever their number. (A caller that waits for an answer counts as let pass when it is
//! charged.) A Redis that fails over may have forgotten what it charged last, or have another clock: up to one burst more.
//! Below the limit, what lapses unused is lost to its key: at most half of what the shard used of it just before.
//!
//! **Without Redis** each shard decides by what it let pass itself, at once, counted by reason; so the limit then holds per
//! shard. Every call asks Redis again, which costs nothing while the client's breaker is open.

mod bucket;
mod lease;
mod script;
mod table;
#[cfg(test)]
mod tests;
mod waiters;

use std::cell::RefCell;

pub use self::bucket::Limit;
use self::lease::{Lease, Rules};
use self::script::{Digest, Script};
use self::table::Table;
use self::waiters::{Asking, Joined, Outcome};
use crate::Millis;
use crate::redis::Commands;
use crate::stats::LimiterStats;

/// What became of a request for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It was taken.
    Allowed,
    /// There is none.
    Limited {
        /// Until there may be one, in milliseconds; at least 1.
        retry_after_ms: Millis,
    },
}

/// One shard's limiter.
pub struct Limiter<C> {
    commands: Option<C>,
    rules: Rules,
    script: Script,
    table: RefCell<Table>,
    asking: Asking,
    fallbacks: RefCell<Vec<(&'static str, u64)>>,
}

impl<C: Commands> Limiter<C> {
    /// Counts in Redis. Numbers of `limit` that are out of range are brought into it.
    pub fn new(commands: C, limit: Limit) -> Self {
        Self::with(Some(commands), limit)
    }

    /// Counts in this shard only.
    pub fn local(limit: Limit) -> Self {
        Self::with(None, limit)
    }

    fn with(commands: Option<C>, limit: Limit) -> Self {
        let limit = limit.in_range();
        Limiter {
            commands,
            rules: Rules::new(limit),
            script: Script::new(&limit),
            table: RefCell::default(),
            asking: Asking::default(),
            fallbacks: RefCell::default(),
        }
    }

    /// Takes one token of `key`. It ends after two questions to Redis at most, which [`Client::call`] bounds; a node that does
    /// not know the script is asked twice. Whoever drops it loses at most a token.
    ///
    /// [`Client::call`]: crate::redis::Client::call
    pub async fn take(&self, key: &[u8], now: Millis) -> Decision {
        let key = Digest::of(key);
        let Some(commands) = &self.commands else { return self.take_here(&key, now) };
        if let Some(decision) = self.take_leased(&key, now, Lease::take) {
            return decision;
        }
        let lead = match self.asking.join(key) {
            Joined::Full => return self.fall_back(&key, "busy", now),
            Joined::Wait(wait) => match wait.await {
                Outcome::Decided(decision) => return decision,
                Outcome::Lead(lead) => lead,
            },
            Joined::Lead(lead) => lead,
        };
        let wanted = {
            let callers = u32::try_from(lead.waiting()).unwrap_or(u32::MAX).saturating_add(1);
            self.table.borrow_mut().entry(&key).lease.next_size(&self.rules, callers, now)
        };
        match self.script.run(commands, &key, wanted).await {
            Ok(grant) => {
                self.table.borrow_mut().entry(&key).lease.on_grant(&self.rules, grant, now);
                let decision = self.take_leased(&key, now, Lease::take_granted);
                lead.finish(|| self.take_leased(&key, now, Lease::take_granted));
                // A grant is tokens or a time to wait: the first to be served gets one or the other.
                decision.unwrap_or(Decision::Limited { retry_after_ms: 1 })
            }
            Err(error) => {
                let decision = self.fall_back(&key, error.label(), now);
                lead.finish(|| Some(self.fall_back(&key, error.label(), now)));
                decision
            }
        }
    }

    /// What has been counted.
    pub fn stats(&self) -> LimiterStats {
        LimiterStats { fallbacks: self.fallbacks.borrow().clone() }
    }

    /// Keys that this shard knows of.
    pub fn keys(&self) -> usize {
        self.table.borrow().len()
    }

    /// Forgets keys that need no memory, a bounded number of them at a time.
    pub fn expire(&self, now: Millis) {
        self.table.borrow_mut().expire(&self.rules.limit, now);
        self.asking.shrink();
    }

    fn take_leased(
        &self,
        key: &Digest,
        now: Millis,
        take: impl Fn(&mut Lease, Millis) -> Option<Decision>,
    ) -> Option<Decision> {
        let mut table = self.table.borrow_mut();
        let entry = table.entry(key);
        let decision = take(&mut entry.lease, now);
        if decision == Some(Decision::Allowed) {
            entry.bucket.charge(&self.rules.limit, now);
        }
        decision
    }

    fn take_here(&self, key: &Digest, now: Millis) -> Decision {
        match self.table.borrow_mut().entry(key).bucket.take(&self.rules.limit, now) {
            Ok(()) => Decision::Allowed,
            Err(retry_after_ms) => Decision::Limited { retry_after_ms },
        }
    }

    fn fall_back(&self, key: &Digest, reason: &'static str, now: Millis) -> Decision {
        let mut fallbacks = self.fallbacks.borrow_mut();
        match fallbacks.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => fallbacks.push((reason, 1)),
        }
        drop(fallbacks);
        self.take_here(key, now)
    }
}
