//! A circuit breaker: owns when an endpoint is asked, when it is left alone, and when it is tried again, as transitions of
//! a few words that all shards change by compare-and-swap. It never reads a clock and never knows what a failure was.
//!
//! The state is one word, so that every transition is one swap:
//!
//! ```text
//!  63      48 47                                    2 1  0
//! +----------+---------------------------------------+----+
//! |generation| Closed: 0                             | 0  |
//! |          | Open: when it ends, in milliseconds   | 1  |
//! |          | HalfOpen: successes << 16 | in flight | 2  |
//! +----------+---------------------------------------+----+
//! ```
//!
//! Invariants: a change of kind makes a new generation, and what was asked in an earlier generation decides nothing, so
//! an old request that fails late cannot open a breaker that has just closed; passing through a closed breaker writes
//! nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mcp_config::CircuitBreaker;

use crate::shard::clock::Millis;

/// Parts of the window: failures count for between 7/8 and all of it. More would not fit the cache line.
const BUCKETS: usize = 8;
/// How soon to ask again where all places of a half-open breaker are taken.
const PROBING_RETRY_MS: u64 = 1_000;

const KIND_BITS: u32 = 2;
const GENERATION_SHIFT: u32 = 48;
const PAYLOAD_MASK: u64 = (1 << (GENERATION_SHIFT - KIND_BITS)) - 1;
const COUNT_MASK: u64 = 0xffff;

/// A word that shards share. The tests' model brings its own, in which every interleaving is gone through.
pub(crate) trait Word {
    fn new(value: u64) -> Self;
    fn get(&self) -> u64;
    /// Replaces `from` by `to`.
    ///
    /// # Errors
    /// What is there instead of `from`.
    fn swap(&self, from: u64, to: u64) -> Result<(), u64>;
}

/// All accesses are of one order, as the model has them; so failures in two buckets at once cannot miss each other. A load
/// costs nothing more for it on x86, and a passing call does nothing but load.
impl Word for AtomicU64 {
    fn new(value: u64) -> Self {
        AtomicU64::new(value)
    }

    fn get(&self) -> u64 {
        self.load(Ordering::SeqCst)
    }

    fn swap(&self, from: u64, to: u64) -> Result<(), u64> {
        self.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).map(|_| ())
    }
}

/// When breakers open and close (`gateway.circuit_breaker`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    failures: u64,
    successes: u64,
    open_ms: u64,
    bucket_ms: u64,
    probes: u64,
}

impl Limits {
    pub(crate) fn new(config: &CircuitBreaker) -> Self {
        let ms = |duration: Duration| duration.as_millis() as u64;
        Limits {
            failures: config.failure_threshold.into(),
            successes: config.success_threshold.into(),
            open_ms: ms(config.open_time).max(1),
            bucket_ms: (ms(config.window) / BUCKETS as u64).max(1),
            probes: config.half_open_max_requests.into(),
        }
    }
}

/// What a breaker does. The numbers are those of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Passing.
    Closed = 0,
    /// Rejecting.
    Open = 1,
    /// Probing.
    HalfOpen = 2,
}

/// Leave to ask. Whoever has it says what came of it, once: [`Breaker::succeed`], [`Breaker::fail`] or
/// [`Breaker::give_back`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    generation: u16,
    /// It holds one of a half-open breaker's places.
    pub(crate) is_probe: bool,
}

/// One endpoint's breaker; 72 bytes.
#[derive(Debug)]
pub(crate) struct Breaker<W = AtomicU64> {
    state: W,
    /// Failures by time, each `generation << 48 | tick << 16 | count`: what is of another generation or too old counts
    /// nothing, so that nobody has to clear it.
    buckets: [W; BUCKETS],
}

/// The state's word, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word64 {
    Closed,
    Open { until: Millis },
    HalfOpen { successes: u64, in_flight: u64 },
}

impl Word64 {
    fn unpack(word: u64) -> (u16, Self) {
        let payload = (word >> KIND_BITS) & PAYLOAD_MASK;
        let state = match word & 3 {
            0 => Word64::Closed,
            1 => Word64::Open { until: payload },
            _ => Word64::HalfOpen { successes: payload >> 16, in_flight: payload & COUNT_MASK },
        };
        ((word >> GENERATION_SHIFT) as u16, state)
    }

    fn pack(self, generation: u16) -> u64 {
        let (kind, payload) = match self {
            Word64::Closed => (State::Closed, 0),
            Word64::Open { until } => (State::Open, until & PAYLOAD_MASK),
            Word64::HalfOpen { successes, in_flight } => (State::HalfOpen, (successes << 16) | in_flight),
        };
        (u64::from(generation) << GENERATION_SHIFT) | (payload << KIND_BITS) | kind as u64
    }
}

impl<W: Word> Breaker<W> {
    pub(crate) fn new() -> Self {
        Breaker { state: W::new(0), buckets: std::array::from_fn(|_| W::new(0)) }
    }

    pub(crate) fn state(&self) -> State {
        match Word64::unpack(self.state.get()).1 {
            Word64::Closed => State::Closed,
            Word64::Open { .. } => State::Open,
            Word64::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// Asks for leave to ask the endpoint.
    ///
    /// # Errors
    /// The milliseconds after which it may be given.
    pub(crate) fn admit(&self, limits: &Limits, now: Millis) -> Result<Pass, u64> {
        let mut word = self.state.get();
        loop {
            let (generation, state) = Word64::unpack(word);
            let (generation, next) = match state {
                Word64::Closed => return Ok(Pass { generation, is_probe: false }),
                Word64::Open { until } if now < until => return Err(until - now),
                Word64::Open { .. } => {
                    (generation.wrapping_add(1), Word64::HalfOpen { successes: 0, in_flight: 1 })
                }
                Word64::HalfOpen { in_flight, .. } if in_flight >= limits.probes => {
                    return Err(PROBING_RETRY_MS);
                }
                Word64::HalfOpen { successes, in_flight } => {
                    (generation, Word64::HalfOpen { successes, in_flight: in_flight + 1 })
                }
            };
            match self.state.swap(word, next.pack(generation)) {
                Ok(()) => return Ok(Pass { generation, is_probe: true }),
                Err(found) => word = found,
            }
        }
    }

    /// The endpoint answered; says whether that closed the breaker.
    pub(crate) fn succeed(&self, pass: Pass, limits: &Limits) -> bool {
        pass.is_probe
            && self.step(pass, |successes, in_flight| {
                let successes = successes + 1;
                let in_flight = in_flight.saturating_sub(1);
                if successes >= limits.successes {
                    (Word64::Closed, true)
                } else {
                    (Word64::HalfOpen { successes, in_flight }, false)
                }
            })
    }

    /// Nothing came of it that says anything about the endpoint: a probe's place is free again.
    pub(crate) fn give_back(&self, pass: Pass) {
        if pass.is_probe {
            self.step(pass, |successes, in_flight| {
                (Word64::HalfOpen { successes, in_flight: in_flight.saturating_sub(1) }, false)
            });
        }
    }

    /// The endpoint failed; says whether that opened the breaker.
    pub(crate) fn fail(&self, pass: Pass, limits: &Limits, now: Millis) -> bool {
        let open = Word64::Open { until: now.saturating_add(limits.open_ms).min(PAYLOAD_MASK) };
        let mut word = self.state.get();
        let mut counted = false;
        loop {
            let (generation, state) = Word64::unpack(word);
            if generation != pass.generation {
                return false;
            }
            match state {
                Word64::Open { .. } => return false,
                Word64::Closed => {
                    if !counted {
                        self.count(generation, limits, now);
                        counted = true;
                    }
                    if self.failures(generation, limits, now) < limits.failures {
                        return false;
                    }
                }
                Word64::HalfOpen { .. } => {}
            }
            match self.state.swap(word, open.pack(generation.wrapping_add(1))) {
                Ok(()) => return true,
                Err(found) => word = found,
            }
        }
    }

    /// What else is known of the endpoint says that it may be well again: an open breaker tries now.
    pub(crate) fn try_now(&self, now: Millis) {
        let word = self.state.get();
        if let (generation, Word64::Open { until }) = Word64::unpack(word)
            && until > now
        {
            // Whoever changed it in between knew more.
            let _ = self.state.swap(word, Word64::Open { until: now }.pack(generation));
        }
    }

    /// For how long it rejects what comes now; 0 where it may pass.
    pub(crate) fn wait_ms(&self, now: Millis) -> u64 {
        match Word64::unpack(self.state.get()).1 {
            Word64::Open { until } => until.saturating_sub(now),
            Word64::Closed | Word64::HalfOpen { .. } => 0,
        }
    }

    /// Forgets everything: its row is another endpoint's now.
    pub(crate) fn reset(&self) {
        let mut word = self.state.get();
        loop {
            let (generation, _) = Word64::unpack(word);
            match self.state.swap(word, Word64::Closed.pack(generation.wrapping_add(1))) {
                Ok(()) => return,
                Err(found) => word = found,
            }
        }
    }

    /// Changes a half-open state of the pass's generation; says what `next` said of the change.
    fn step(&self, pass: Pass, next: impl Fn(u64, u64) -> (Word64, bool)) -> bool {
        let mut word = self.state.get();
        loop {
            let (generation, state) = Word64::unpack(word);
            let Word64::HalfOpen { successes, in_flight } = state else { return false };
            if generation != pass.generation {
                return false;
            }
            let (state, says) = next(successes, in_flight);
            let generation =
                if matches!(state, Word64::Closed) { generation.wrapping_add(1) } else { generation };
            match self.state.swap(word, state.pack(generation)) {
                Ok(()) => return says,
                Err(found) => word = found,
            }
        }
    }

    /// Counts a failure where its time belongs.
    fn count(&self, generation: u16, limits: &Limits, now: Millis) {
        let tick = now / limits.bucket_ms;
        let bucket = &self.buckets[tick as usize % BUCKETS];
        let mark = mark(generation, tick);
        let mut word = bucket.get();
        loop {
            let count =
                if word >> 16 == mark { (word & COUNT_MASK).saturating_add(1).min(COUNT_MASK) } else { 1 };
            match bucket.swap(word, (mark << 16) | count) {
                Ok(()) => return,
                Err(found) => word = found,
            }
        }
    }

    /// The failures of this generation within the window, as far as another shard's clock may be ahead of this one's.
    fn failures(&self, generation: u16, limits: &Limits, now: Millis) -> u64 {
        let tick = now / limits.bucket_ms;
        let counts = |word: u64| {
            let ago = (tick as u32).wrapping_add(1).wrapping_sub((word >> 16) as u32);
            let is_of_now = word >> GENERATION_SHIFT == u64::from(generation) && ago <= BUCKETS as u32;
            if is_of_now { word & COUNT_MASK } else { 0 }
        };
        self.buckets.iter().map(|bucket| counts(bucket.get())).sum()
    }
}

/// Marks a bucket as of a generation and a time. Of the time it has 32 bits, which the shortest window uses up in 49 days:
/// only failures of that very millisecond, 49 days ago, would count again.
fn mark(generation: u16, tick: u64) -> u64 {
    (u64::from(generation) << 32) | (tick & 0xffff_ffff)
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(failures: u32, successes: u32, probes: u32) -> Limits {
        Limits::new(&CircuitBreaker {
            failure_threshold: failures,
            success_threshold: successes,
            open_time: Duration::from_millis(500),
            window: Duration::from_millis(800),
            half_open_max_requests: probes,
        })
    }

    fn breaker() -> Breaker {
        Breaker::new()
    }

    fn fail_once(breaker: &Breaker, limits: &Limits, now: Millis) -> bool {
        breaker.admit(limits, now).is_ok_and(|pass| breaker.fail(pass, limits, now))
    }

    #[test]
    fn as_many_failures_as_the_threshold_within_the_window_open_it() {
        let (limits, breaker) = (limits(3, 1, 1), breaker());
        assert!(!fail_once(&breaker, &limits, 0));
        assert!(!fail_once(&breaker, &limits, 700));
        // The first has slid out of the window: these two and the next are three.
        assert!(!fail_once(&breaker, &limits, 800));
        assert_eq!(breaker.state(), State::Closed);
        assert!(fail_once(&breaker, &limits, 850));
        assert_eq!(breaker.state(), State::Open);
        assert_eq!(breaker.admit(&limits, 900), Err(450));
    }

    #[test]
    fn failures_that_are_spread_never_open_it_and_successes_write_nothing() {
        let (limits, breaker) = (limits(2, 1, 1), breaker());
        for round in 0..1000 {
            let now = round * 900;
            assert!(!fail_once(&breaker, &limits, now), "round {round}");
            let pass = breaker.admit(&limits, now).unwrap();
            let before = breaker.state.get();
            assert!(!breaker.succeed(pass, &limits));
            assert_eq!(breaker.state.get(), before);
        }
    }

    #[test]
    fn it_probes_after_its_time_and_closes_after_enough_successes() {
        let (limits, breaker) = (limits(1, 2, 1), breaker());
        assert!(fail_once(&breaker, &limits, 10));
        assert_eq!(breaker.admit(&limits, 509), Err(1));
        let probe = breaker.admit(&limits, 510).unwrap();
        assert!(probe.is_probe && breaker.state() == State::HalfOpen);
        assert_eq!(breaker.admit(&limits, 511), Err(PROBING_RETRY_MS));
        assert!(!breaker.succeed(probe, &limits));
        let probe = breaker.admit(&limits, 512).unwrap();
        assert!(breaker.succeed(probe, &limits));
        assert_eq!(breaker.state(), State::Closed);
        // What made it open is forgotten, but not what fails from now on.
        assert!(fail_once(&breaker, &limits, 513));
    }

    #[test]
    fn a_probe_that_fails_opens_it_for_as_long_again() {
        let (limits, breaker) = (limits(1, 2, 2), breaker());
        assert!(fail_once(&breaker, &limits, 0));
        let first = breaker.admit(&limits, 500).unwrap();
        let second = breaker.admit(&limits, 500).unwrap();
        assert!(breaker.fail(first, &limits, 600));
        assert_eq!(breaker.admit(&limits, 601), Err(499));
        // The other probe belongs to what is over.
        assert!(!breaker.succeed(second, &limits));
        assert_eq!(breaker.state(), State::Open);
    }

    #[test]
    fn a_probe_that_is_given_back_frees_its_place() {
        let (limits, breaker) = (limits(1, 1, 1), breaker());
        assert!(fail_once(&breaker, &limits, 0));
        for _ in 0..100 {
            let probe = breaker.admit(&limits, 500).unwrap();
            assert!(breaker.admit(&limits, 500).is_err());
            breaker.give_back(probe);
        }
        assert_eq!(breaker.state(), State::HalfOpen);
    }

    #[test]
    fn what_was_asked_before_it_opened_cannot_open_it_again() {
        let (limits, breaker) = (limits(1, 1, 1), breaker());
        let slow = breaker.admit(&limits, 0).unwrap();
        assert!(fail_once(&breaker, &limits, 0));
        assert!(!breaker.fail(slow, &limits, 1), "while it is open");
        let probe = breaker.admit(&limits, 500).unwrap();
        assert!(!breaker.fail(slow, &limits, 500), "while it probes");
        assert!(breaker.succeed(probe, &limits));
        assert!(!breaker.fail(slow, &limits, 501), "after it closed");
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn its_wait_can_be_ended() {
        let (limits, breaker) = (limits(1, 1, 1), breaker());
        assert_eq!(breaker.wait_ms(0), 0);
        assert!(fail_once(&breaker, &limits, 0));
        assert_eq!((breaker.wait_ms(499), breaker.wait_ms(500)), (1, 0));
        breaker.try_now(100);
        assert_eq!(breaker.wait_ms(100), 0);
        assert!(
            breaker.admit(&limits, 100).is_ok_and(|pass| pass.is_probe && breaker.succeed(pass, &limits))
        );
        breaker.try_now(100);
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn another_endpoint_begins_anew() {
        let (limits, breaker) = (limits(2, 1, 1), breaker());
        let slow = breaker.admit(&limits, 0).unwrap();
        assert!(!fail_once(&breaker, &limits, 0));
        breaker.reset();
        // Neither what failed before nor what fails late is the newcomer's.
        assert!(!breaker.fail(slow, &limits, 0) && !fail_once(&breaker, &limits, 0));
        assert!(fail_once(&breaker, &limits, 0));
        breaker.reset();
        assert_eq!((breaker.state(), breaker.wait_ms(0)), (State::Closed, 0));
    }

    #[test]
    fn the_generation_wraps_and_counts_stay_in_their_bits() {
        let (limits, breaker) = (limits(1, 1, 10_000), breaker());
        for round in 0..70_000u64 {
            let now = round * 1_000;
            assert!(fail_once(&breaker, &limits, now));
            let probe = breaker.admit(&limits, now + 500).unwrap();
            assert!(breaker.succeed(probe, &limits), "round {round}");
        }
        let extreme = Word64::HalfOpen { successes: 10_000, in_flight: 10_000 };
        assert_eq!(Word64::unpack(extreme.pack(u16::MAX)), (u16::MAX, extreme));
        let extreme = Word64::Open { until: PAYLOAD_MASK };
        assert_eq!(Word64::unpack(extreme.pack(7)), (7, extreme));
    }
}
