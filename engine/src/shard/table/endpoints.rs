//! What all shards know of an upstream server: owns one row per endpoint, a cache line with its breaker and its health, and
//! what was found out about the server. Fixed in size, made and given back with the server; never a lock.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::eras::Eras;
use super::hints::Hints;
use crate::shard::clock::Millis;
use crate::upstream::balance::MAX_ENDPOINTS;
use crate::upstream::breaker::Breaker;

/// Rows of each server: as many endpoints as it may have. At 128 bytes each, 256 servers have 2 MiB.
pub(crate) const ROWS: usize = MAX_ENDPOINTS;

/// One endpoint. Two lines of 64 bytes, because processors fetch them in pairs.
#[repr(align(128))]
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) breaker: Breaker,
    health: AtomicU8,
    /// Whose row it is: 0 for nobody's yet, else a bit above the endpoint's key.
    key: AtomicU64,
}

const _: () = assert!(size_of::<Row>() == 128, "a row is one pair of lines");

/// What health checks say of an endpoint. The numbers are those of the metric, but for what is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Unhealthy = 0,
    Healthy = 1,
    /// It is not checked, or has not been yet.
    Unknown = 2,
}

impl Row {
    fn new() -> Self {
        Row { breaker: Breaker::new(), health: AtomicU8::new(Health::Unknown as u8), key: AtomicU64::new(0) }
    }

    /// A shard has an endpoint of this key here. The first one to have it clears what was another's.
    pub(crate) fn claim(&self, key: u32) {
        let key = u64::from(key) | 1 << 32;
        let before = self.key.swap(key, Ordering::AcqRel);
        if before != key && before != 0 {
            self.breaker.reset();
            self.set_health(Health::Unknown);
        }
    }

    pub(crate) fn health(&self) -> Health {
        match self.health.load(Ordering::Relaxed) {
            0 => Health::Unhealthy,
            1 => Health::Healthy,
            _ => Health::Unknown,
        }
    }

    pub(crate) fn set_health(&self, health: Health) {
        self.health.store(health as u8, Ordering::Relaxed);
    }

    /// Whether a request that comes now may go to the endpoint.
    pub(crate) fn may_serve(&self, now: Millis) -> bool {
        self.health() != Health::Unhealthy && self.breaker.wait_ms(now) == 0
    }
}

/// One server.
#[derive(Debug)]
pub(crate) struct ServerRows {
    rows: Box<[Row]>,
    /// Which of its tools may be called twice.
    pub(crate) hints: Hints,
    /// Which eras it speaks.
    pub(crate) eras: Eras,
}

impl ServerRows {
    pub(crate) fn new() -> Self {
        ServerRows { rows: (0..ROWS).map(|_| Row::new()).collect(), hints: Hints::new(), eras: Eras::new() }
    }

    /// Those of a server without endpoints.
    pub(crate) fn none() -> Self {
        ServerRows { rows: Box::default(), hints: Hints::none(), eras: Eras::new() }
    }

    /// Nobody checks the endpoints any more: what was found counts no longer.
    pub(crate) fn forget_health(&self) {
        self.rows.iter().for_each(|row| row.set_health(Health::Unknown));
    }

    /// The row of an endpoint; one beyond the last shares the last one's.
    pub(crate) fn row(&self, number: usize) -> &Row {
        &self.rows[number.min(ROWS - 1)]
    }
}
