//! What a shard's store has counted: owns the snapshot that leaves the shard for the metrics page. Never a live counter.

/// Upper bounds of the latency buckets, in microseconds.
pub const LATENCY_BOUNDS_US: [u64; 12] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000];

/// How long commands took, by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Commands whose time is at most the bound of the same place, and above the one before; the last has no bound.
    pub counts: [u64; LATENCY_BOUNDS_US.len() + 1],
    /// Sum of all times, in microseconds.
    pub sum_us: u64,
}

impl Latency {
    /// Counts a command that took `us` microseconds.
    pub fn record(&mut self, us: u64) {
        let bucket = LATENCY_BOUNDS_US.iter().position(|bound| us <= *bound);
        self.counts[bucket.unwrap_or(LATENCY_BOUNDS_US.len())] += 1;
        self.sum_us += us;
    }

    /// Commands in all.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The breaker's state; the number is the metric's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum BreakerState {
    /// Everything passes.
    #[default]
    Closed = 0,
    /// Nothing passes.
    Open = 1,
    /// Probes pass.
    HalfOpen = 2,
}

/// One node, as one shard sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// `host:port`.
    pub address: String,
    /// Connected and logged in.
    pub up: bool,
    /// Commands by name and result (`ok`, or [`StoreError::label`](crate::StoreError::label)), since the start.
    pub commands: Vec<(&'static str, &'static str, u64)>,
    /// From a command's call to its reply.
    pub latency: Latency,
    /// Commands that wait for their reply.
    pub in_flight: u64,
    /// Most commands that left in one write since the last snapshot.
    pub pipeline_depth: u64,
    /// Connections made beyond the first.
    pub reconnects: u64,
    /// Redirects by kind (`moved`, `ask`, `tryagain`) that this node answered with.
    pub redirects: Vec<(&'static str, u64)>,
    /// Keys that this node said have changed.
    pub invalidations: u64,
}

/// The client of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Every node that it has talked to and still knows, by address.
    pub nodes: Vec<NodeStats>,
    /// Commands that reached no node, by name and result, since the start.
    pub nowhere: Vec<(&'static str, &'static str, u64)>,
    /// The breaker.
    pub breaker: BreakerState,
}

/// The sessions of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// Look-ups by what served them: `hit`, `miss` (Redis was asked), `stale` (Redis could not be asked), `local` (a session
    /// that waits to be written); and `malformed`: of the misses, those whose record could not be read.
    pub lookups: Vec<(&'static str, u64)>,
    /// Copies in the cache.
    pub cached: u64,
    /// Sessions that wait to be written to Redis, or to be ended there.
    pub unwritten: u64,
}

/// The limiter of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimiterStats {
    /// Decisions that were taken without Redis, by reason ([`StoreError::label`](crate::StoreError::label)).
    pub fallbacks: Vec<(&'static str, u64)>,
}
