//! The shard's one timer wheel: owns which owner is to be looked at in which tick, never why. Coarse (one tick is
//! [`TICK_MS`]) and lazy: an owner that moved its deadline later is simply put back when its old entry comes up, so a
//! deadline that is renewed with each call costs a store, not an insertion.
//!
//! Invariants: an owner has at most one live entry, the one whose tick it remembers in its [`Timer`]; older ones are
//! recognised and dropped when they come up. A bucket counts its live entries, and is emptied when the last of them is
//! forgotten: owners that come and go leave neither memory behind nor a tick to wake up for.

use std::cell::Cell;

use super::clock::{Millis, NEVER};

/// Length of a tick in milliseconds: deadlines fire up to this much late.
const TICK_MS: u64 = 64;
/// Buckets; 1,024 × 64 ms = 65.5 s of horizon. Later deadlines are looked at once per horizon and put back.
const BUCKETS: usize = 1024;
/// Entries for which an emptied bucket keeps its memory: 4 × 16 bytes × [`BUCKETS`] are 64 KiB per shard.
const KEPT_ENTRIES: usize = 4;
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

#[derive(Clone, Default)]
struct Bucket {
    entries: Vec<Entry>,
    live: usize,
}

impl Bucket {
    fn clear(&mut self) {
        self.live = 0;
        self.entries.clear();
        if self.entries.capacity() > KEPT_ENTRIES {
            self.entries = Vec::new();
        }
    }
}

pub(crate) struct Wheel {
    buckets: Vec<Bucket>,
    /// The next tick to look at.
    next: u64,
    /// No bucket before this tick holds anything.
    earliest: u64,
    /// Buckets that hold anything.
    occupied: usize,
}

impl Wheel {
    pub(crate) fn new(now: Millis) -> Self {
        let next = now / TICK_MS + 1;
        Wheel { buckets: vec![Bucket::default(); BUCKETS], next, earliest: next, occupied: 0 }
    }

    /// Notes the time, so that what is set from now on has the whole horizon before it. What is overdue stays so.
    pub(crate) fn catch_up(&mut self, now: Millis) {
        let current = now / TICK_MS + 1;
        let next = if self.occupied == 0 { current } else { current.min(self.earliest) };
        self.next = self.next.max(next);
        self.earliest = self.earliest.max(self.next);
    }

    /// When there is something to look at; `None` while the wheel is empty.
    pub(crate) fn next_due(&mut self) -> Option<Millis> {
        if self.occupied == 0 {
            return None;
        }
        while self.buckets[self.earliest as usize % BUCKETS].entries.is_empty() {
            self.earliest += 1;
        }
        Some(self.earliest * TICK_MS)
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
        self.disarm(timer);
        timer.armed.set(tick);
        let bucket = &mut self.buckets[tick as usize % BUCKETS];
        self.occupied += usize::from(bucket.entries.is_empty());
        bucket.entries.push(Entry { owner, tick });
        bucket.live += 1;
        self.earliest = self.earliest.min(tick);
    }

    /// The owner is gone.
    pub(crate) fn forget(&mut self, timer: &Timer) {
        timer.deadline.set(NEVER);
        self.disarm(timer);
    }

    /// Gives up the live entry, if there is one that has not come up yet.
    fn disarm(&mut self, timer: &Timer) {
        let tick = timer.armed.replace(UNARMED);
        if tick == UNARMED || tick < self.next {
            return;
        }
        let bucket = &mut self.buckets[tick as usize % BUCKETS];
        bucket.live -= 1;
        if bucket.live == 0 {
            bucket.clear();
            self.occupied -= 1;
        }
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
        while let Some(tick) = self.next_due().map(|due| due / TICK_MS).filter(|tick| *tick <= current) {
            let bucket = &mut self.buckets[tick as usize % BUCKETS];
            due.extend(bucket.entries.iter().map(|entry| (entry.owner, entry.tick)));
            bucket.clear();
            self.occupied -= 1;
        }
        self.next = self.next.max(current + 1);
        self.earliest = self.earliest.max(self.next);
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
        assert_eq!(wheel.next_due(), None);
    }

    #[test]
    fn a_later_deadline_adds_no_entry_and_is_put_back() {
        let mut wheel = Wheel::new(0);
        let timer = Timer::default();
        wheel.set(&timer, 7, 1_000);
        for deadline in 1_001..5_000 {
            wheel.set(&timer, 7, deadline);
        }
        assert_eq!(wheel.buckets.iter().map(|bucket| bucket.entries.len()).sum::<usize>(), 1);
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
        let other = Timer::default();
        wheel.set(&timer, 7, 60_000);
        wheel.set(&other, 8, 60_000);
        wheel.set(&timer, 7, 200);
        let due = advance(&mut wheel, 300);
        assert_eq!(Wheel::visit(&timer, due[0].1, 300), Some(true));
        let [stale, live] = advance(&mut wheel, 61_000)[..] else { panic!("two entries") };
        assert_eq!(Wheel::visit(&timer, stale.1, 61_000), None);
        assert_eq!(Wheel::visit(&other, live.1, 61_000), Some(true));
    }

    #[test]
    fn owners_that_come_and_go_leave_neither_memory_nor_a_tick() {
        let mut wheel = Wheel::new(0);
        let stays = Timer::default();
        wheel.set(&stays, 1, 40_000);
        for now in 0..20_000 {
            wheel.catch_up(now);
            let timers: Vec<_> = (0..20).map(|_| Timer::default()).collect();
            timers.iter().for_each(|timer| wheel.set(timer, 7, now + 10_000));
            timers.iter().for_each(|timer| wheel.set(timer, 7, now + 5_000));
            timers.iter().for_each(|timer| wheel.forget(timer));
        }
        assert_eq!(wheel.next_due(), Some((40_000 / TICK_MS + 1) * TICK_MS));
        assert_eq!(wheel.occupied, 1);
        assert!(wheel.buckets.iter().all(|bucket| bucket.entries.capacity() <= KEPT_ENTRIES));
        wheel.forget(&stays);
        assert_eq!(wheel.next_due(), None);
    }

    #[test]
    fn an_owner_that_goes_after_its_entry_came_up_is_not_counted_twice() {
        let mut wheel = Wheel::new(0);
        let (first, second) = (Timer::default(), Timer::default());
        wheel.set(&first, 1, 100);
        wheel.set(&second, 2, 100);
        let due = advance(&mut wheel, 200);
        wheel.forget(&second);
        assert_eq!(Wheel::visit(&second, due[1].1, 200), None);
        assert_eq!(Wheel::visit(&first, due[0].1, 200), Some(true));
        assert_eq!(wheel.next_due(), None);
    }

    #[test]
    fn after_a_pause_a_deadline_is_not_looked_at_early() {
        let mut wheel = Wheel::new(0);
        let timer = Timer::default();
        let now = 10 * BUCKETS as u64 * TICK_MS;
        wheel.catch_up(now);
        wheel.set(&timer, 7, now + 1_000);
        assert!(wheel.next_due().is_some_and(|due| due > now + 1_000 && due <= now + 1_000 + TICK_MS));
        // Nor is what is overdue overlooked.
        wheel.catch_up(now + 60_000);
        assert_eq!(advance(&mut wheel, now + 60_000).len(), 1);
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
