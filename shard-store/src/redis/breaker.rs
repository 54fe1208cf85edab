//! The store's breaker: owns when a shard stops asking Redis, and when it begins again. Pure; one per shard, because a shard
//! has its own connections.
//!
//! Failures in a row open it, where no second node is there to be asked; whatever Redis answers, a refusal too, shows that
//! it is there and ends the row. While it is open only probes pass.

use std::cell::Cell;

use crate::StoreError;
use crate::error::ServerCode;
use crate::stats::BreakerState;

pub(crate) struct Breaker {
    failure_threshold: u32,
    success_threshold: u32,
    state: Cell<BreakerState>,
    /// Failures in a row while closed, successes in a row while half-open.
    row: Cell<u32>,
}

/// What a change of state asks of the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    /// It opened: probe until it closes.
    Opened,
    /// It closed.
    Closed,
}

impl Breaker {
    pub(crate) fn new(failure_threshold: u32, success_threshold: u32) -> Self {
        Breaker {
            failure_threshold: failure_threshold.max(1),
            success_threshold: success_threshold.max(1),
            state: Cell::default(),
            row: Cell::default(),
        }
    }

    pub(crate) fn state(&self) -> BreakerState {
        self.state.get()
    }

    /// A caller's command ended.
    pub(crate) fn on_outcome(&self, failed: bool) -> Option<Turned> {
        if self.state.get() != BreakerState::Closed {
            return None;
        }
        let row = if failed { self.row.get() + 1 } else { 0 };
        self.row.set(row);
        (row >= self.failure_threshold).then(|| self.turn(BreakerState::Open, Turned::Opened))
    }

    /// A probe ended.
    pub(crate) fn on_probe(&self, failed: bool) -> Option<Turned> {
        match (self.state.get(), failed) {
            (BreakerState::Closed, _) => None,
            (_, true) => {
                self.turn(BreakerState::Open, Turned::Opened);
                None
            }
            (_, false) => {
                self.state.set(BreakerState::HalfOpen);
                let row = self.row.get() + 1;
                self.row.set(row);
                (row >= self.success_threshold).then(|| self.turn(BreakerState::Closed, Turned::Closed))
            }
        }
    }

    fn turn(&self, state: BreakerState, turned: Turned) -> Turned {
        self.state.set(state);
        self.row.set(0);
        turned
    }
}

/// Whether an error shows that the store cannot serve, rather than that it will not do this.
pub(crate) fn is_failure(error: &StoreError) -> bool {
    match error {
        StoreError::Unreachable | StoreError::Timeout(_) | StoreError::Lost(_) | StoreError::Malformed(_) => {
            true
        }
        StoreError::Refused { code, .. } => matches!(
            code,
            ServerCode::ClusterDown | ServerCode::Loading | ServerCode::MasterDown | ServerCode::Auth
        ),
        StoreError::Full { .. }
        | StoreError::Busy
        | StoreError::NoRandom
        | StoreError::NotReplicated { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every sequence of eight outcomes and probes: the breaker opens exactly after so many failures in a row, and closes
    /// exactly after so many successful probes.
    #[test]
    fn every_sequence_of_eight() {
        const STEPS: u32 = 8;
        for failures in 1..=3 {
            for successes in 1..=3 {
                for sequence in 0..1u32 << (2 * STEPS) {
                    check(failures, successes, (0..STEPS).map(|step| sequence >> (2 * step) & 3));
                }
            }
        }
    }

    fn check(failures: u32, successes: u32, steps: impl Iterator<Item = u32>) {
        let breaker = Breaker::new(failures, successes);
        let (mut open, mut row) = (false, 0);
        for step in steps {
            let (is_probe, failed) = (step & 2 != 0, step & 1 != 0);
            let turned = if is_probe { breaker.on_probe(failed) } else { breaker.on_outcome(failed) };
            let expected = if open != is_probe {
                None
            } else {
                row = if failed == open { 0 } else { row + 1 };
                let wanted = if open { successes } else { failures };
                (row == wanted).then(|| {
                    row = 0;
                    open = !open;
                    if open { Turned::Opened } else { Turned::Closed }
                })
            };
            assert_eq!(turned, expected);
            assert_eq!(breaker.state() == BreakerState::Closed, !open);
        }
    }
}
