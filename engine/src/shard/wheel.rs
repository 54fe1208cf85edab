//! The shard's one timer wheel: owns which owner is to be looked at in which tick, never why. Coarse (one tick is
//! [`TICK_MS`]) and lazy: an owner that moved its deadline later is simply put back when its old entry comes up, so a
//! deadline that is renewed with each call costs a store, not an insertion.
//!
//! Invariant: an owner has at most one live entry, the one whose tick it remembers in its [`Timer`]; older ones are
//! recognised and dropped when they come up.

use std::cell::Cell;

use super::clock::{Millis, NEVER};

/// Length of a tick in milliseconds: deadlines fire up to this much late.
pub(crate) const TICK_MS: u64 = 64;
/// Buckets; 1,024 × 64 ms = 65.5 s of horizon. Later deadlines are looked at once per horizon and put back.
const BUCKETS: usize = 1024;
const UNARMED: u64 = u64::MAX;

/// An owner's deadline and the tick of its live entry.
#[derive(Debug)]
pub(crate) struct Timer {
    deadline: Cell<Millis>,
    armed: Cell<u64>,
}

impl Default for Timer {
    fn default() -> Self {
        Timer { deadline: Cell::new(NEVER), armed: Cell::new(UNARMED) }
    }
}

impl Timer {
    pub(crate) fn deadline(&self) -> Millis {
        self.deadline.get()
    }
}

#[derive(Clone, Copy)]
struct Entry {
    owner: u64,
    tick: u64,
}

pub(crate) struct Wheel {
    buckets: Vec<Vec<Entry>>,
    /// The next tick to look at.
    next: u64,
    entries: usize,
}

impl Wheel {
    pub(crate) fn new(now: Millis) -> Self {
        Wheel { buckets: vec![Vec::new(); BUCKETS], next: now / TICK_MS + 1, entries: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Sets `owner`'s deadline; inserts an entry only when the live one would come up too late.
    pub(crate) fn set(&mut self, timer: &Timer, owner: u64, deadline: Millis) {
        timer.deadline.set(deadline);
        if deadline == NEVER {
            return;
        }
        let tick = (deadline / TICK_MS + 1).clamp(self.next, self.next + BUCKETS as u64 - 1);
        if timer.armed.get() <= tick {
            return;
        }
        timer.armed.set(tick);
        self.buckets[tick as usize % BUCKETS].push(Entry { owner, tick });
        self.entries += 1;
    }

    /// When an entry that came up turns out to be the live one: `Some(true)` if the deadline has passed, `Some(false)`
    /// if the owner must be [`Wheel::set`] again. `None` for an entry that has been replaced.
    pub(crate) fn visit(timer: &Timer, tick: u64, now: Millis) -> Option<bool> {
        if timer.armed.get() != tick {
            return None;
        }
        timer.armed.set(UNARMED);
        Some(timer.deadline.get() <= now)
    }

    /// Moves every entry up to `now` into `due`, as (owner, tick).
    pub(crate) fn advance(&mut self, now: Millis, due: &mut Vec<(u64, u64)>) {
        let current = now / TICK_MS;
        if self.entries == 0 {
            self.next = self.next.max(current + 1);
            return;
        }
        while self.next <= current {
            let tick = self.next;
            self.next += 1;
            let bucket = &mut self.buckets[tick as usize % BUCKETS];
            self.entries -= bucket.len();
            due.extend(bucket.drain(..).map(|entry| (entry.owner, entry.tick)));
            // A burst's bucket gives its memory back.
            if bucket.capacity() > 1024 {
                *bucket = Vec::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advance(wheel: &mut Wheel, now: Millis) -> Vec<(u64, u64)> {
        let mut due = Vec::new();
        wheel.advance(now, &mut due);
        due
    }

    #[test]
    fn a_deadline_comes_up_after_it_has_passed_and_never_before() {
        let mut wheel = Wheel::new(0);
        let timer = Timer::default();
        wheel.set(&timer, 7, 1_000);
        assert!(advance(&mut wheel, 999).is_empty());
        let due = advance(&mut wheel, 1_000 + TICK_MS);
        assert_eq!(due.len(), 1);
        assert_eq!(Wheel::visit(&timer, due[0].1, 1_000 + TICK_MS), Some(true));
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_later_deadline_adds_no_entry_and_is_put_back() {
        let mut wheel = Wheel::new(0);
        let timer = Timer::default();
        wheel.set(&timer, 7, 1_000);
        for deadline in 1_001..5_000 {
            wheel.set(&timer, 7, deadline);
        }
        assert_eq!(wheel.entries, 1);
        let due = advance(&mut wheel, 1_100);
        assert_eq!(Wheel::visit(&timer, due[0].1, 1_100), Some(false));
        wheel.set(&timer, 7, timer.deadline());
        let due = advance(&mut wheel, 5_100);
        assert_eq!(Wheel::visit(&timer, due[0].1, 5_100), Some(true));
    }

    #[test]
    fn an_earlier_deadline_replaces_the_entry() {
        let mut wheel = Wheel::new(0);
        let timer = Timer::default();
        wheel.set(&timer, 7, 60_000);
        wheel.set(&timer, 7, 200);
        let due = advance(&mut wheel, 300);
        assert_eq!(Wheel::visit(&timer, due[0].1, 300), Some(true));
        let stale = advance(&mut wheel, 61_000);
        assert_eq!(stale.len(), 1);
        assert_eq!(Wheel::visit(&timer, stale[0].1, 61_000), None);
    }

    #[test]
    fn beyond_the_horizon_is_looked_at_once_per_horizon() {
        let mut wheel = Wheel::new(0);
        let timer = Timer::default();
        let hour = 3_600_000;
        wheel.set(&timer, 7, hour);
        let mut visits = 0;
        let mut now = 0;
        loop {
            now += TICK_MS;
            let mut fired = false;
            for (_, tick) in advance(&mut wheel, now) {
                visits += 1;
                match Wheel::visit(&timer, tick, now) {
                    Some(true) => fired = true,
                    Some(false) => wheel.set(&timer, 7, timer.deadline()),
                    None => panic!("no entry was replaced"),
                }
            }
            if fired {
                break;
            }
            assert!(now <= hour + 2 * TICK_MS);
        }
        assert!(now >= hour && visits < 60, "{now} {visits}");
    }
}
