//! The range of every number, with its reason.
//!
//! Owns the bounds; messages and checks both come from here. Zero is outside every range but those of retries, where it
//! means none; other keys for which it has a meaning say so where they are read.

/// An inclusive range of integers, bytes or milliseconds.
#[derive(Debug)]
pub(crate) struct Range {
    pub(crate) min: u64,
    pub(crate) max: u64,
    /// Why the range ends where it does.
    pub(crate) why: &'static str,
}

impl Range {
    pub(crate) fn contains(&self, value: u64) -> bool {
        (self.min..=self.max).contains(&value)
    }
}

const HOUR_MS: u64 = 3_600_000;

pub(crate) const PORT: Range = Range { min: 1, max: 65_535, why: "a TCP port" };

/// A connection costs up to 9 KB with its share of kernel memory, so the top is about 9 GB.
pub(crate) const CONNECTIONS: Range =
    Range { min: 1, max: 1_000_000, why: "each connection costs up to 9 KB of memory" };

pub(crate) const SHARDS: Range = Range { min: 1, max: 256, why: "a shard is one pinned thread" };

pub(crate) const TIMEOUT_MS: Range = Range {
    min: 10,
    max: 24 * HOUR_MS,
    why: "shorter fails healthy peers, longer never frees what dead ones hold",
};

pub(crate) const DRAIN_DELAY_MS: Range = Range {
    min: 0,
    max: HOUR_MS,
    why: "load balancers hear within seconds or minutes that a gateway leaves",
};

pub(crate) const SESSION_TTL_MS: Range = Range {
    min: 1000,
    max: 720 * HOUR_MS,
    why: "a session must outlive a pause between messages, and end at last",
};

pub(crate) const BODY_BYTES: Range =
    Range { min: 1 << 10, max: 1 << 30, why: "a message is held in memory while it is checked" };

pub(crate) const HEADER_BYTES: Range =
    Range { min: 1 << 10, max: 1 << 20, why: "a head is held in memory until it is complete" };

pub(crate) const POOL_SIZE: Range =
    Range { min: 1, max: 10_000, why: "connections per shard and endpoint, each with a file descriptor" };

pub(crate) const POOL_WAITING: Range =
    Range { min: 1, max: 100_000, why: "whoever waits holds its message in memory" };

pub(crate) const IN_FLIGHT: Range =
    Range { min: 1, max: 1_000_000, why: "per shard; each request in flight is held in memory" };

pub(crate) const SESSIONS: Range =
    Range { min: 1, max: 10_000_000, why: "each session in memory costs about 400 bytes" };

pub(crate) const REPLICAS: Range =
    Range { min: 1, max: 5, why: "each session waits for as many replicas of its master" };

pub(crate) const UNWRITTEN: Range =
    Range { min: 1, max: 1_000_000, why: "each session in memory costs about 400 bytes" };

pub(crate) const STORE_TIMEOUT_MS: Range = Range {
    min: 10,
    max: 60_000,
    why: "shorter fails a healthy store, longer keeps clients waiting for a dead one",
};

pub(crate) const REQUEST_RATE: Range =
    Range { min: 1, max: 1_000_000, why: "requests of one principal or address" };

pub(crate) const BREAKER_COUNT: Range =
    Range { min: 1, max: 10_000, why: "a breaker that counts further never reacts" };

pub(crate) const RETRY_PERCENT: Range =
    Range { min: 0, max: 100, why: "more than one retry per request is a storm" };

pub(crate) const RETRY_RATE: Range =
    Range { min: 0, max: 10_000, why: "retries per second that no traffic pays for" };

pub(crate) const ATTEMPTS: Range =
    Range { min: 1, max: 10, why: "what failed so often is not well after one more" };

pub(crate) const CHECK_INTERVAL_MS: Range =
    Range { min: 100, max: HOUR_MS, why: "oftener is load, more rarely finds nothing in time" };

pub(crate) const CHECKS: Range = Range { min: 1, max: 100, why: "checks in a row" };

/// Most items in `allowed_origins` and `allowed_hosts`; each is compared with every request's.
pub(crate) const MAX_ALLOWED: usize = 256;

/// Most endpoints of an upstream and nodes of a Redis topology.
pub(crate) const MAX_ADDRESSES: usize = 64;

/// Most words of a command.
pub(crate) const MAX_COMMAND_WORDS: usize = 256;

/// Most variables of a process's environment.
pub(crate) const MAX_ENV: usize = 256;

pub(crate) const PROCESSES: Range =
    Range { min: 1, max: 10_000, why: "each process has three file descriptors here and memory of its own" };

/// Longest path, URL or word, in bytes; Linux' `PATH_MAX`.
pub(crate) const MAX_TEXT_BYTES: usize = 4096;
