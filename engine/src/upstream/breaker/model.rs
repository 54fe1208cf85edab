//! Every interleaving of what a few shards do with one breaker: owns a memory of words and the search through all orders in
//! which the shards' accesses can happen. A shard's code is run again from its start for each step, with what it read
//! before, so no thread is needed; states that were met before are not gone through again.
//!
//! The breaker's accesses are all sequentially consistent, so an interleaving is all that can happen.

use std::cell::RefCell;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::*;

/// A word of the thread's memory.
struct Modelled(usize);

/// What an access found.
type Seen = Result<u64, u64>;

#[derive(Default)]
struct Memory {
    words: Vec<u64>,
    /// While a shard is run: what its accesses found so far, and how many of them have been gone through again.
    run: Option<(Vec<Seen>, usize)>,
    stepped: bool,
}

/// The step is done; what follows is another step.
struct Suspended;

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

fn access(change: impl FnOnce(&mut Vec<u64>) -> Seen) -> Seen {
    let seen = MEMORY.with_borrow_mut(|memory| {
        let Memory { words, run, stepped } = memory;
        let Some((log, at)) = run else { return Some(change(words)) };
        *at += 1;
        if let Some(seen) = log.get(*at - 1) {
            return Some(*seen);
        }
        if std::mem::replace(stepped, true) {
            return None;
        }
        log.push(change(words));
        log.last().copied()
    });
    seen.unwrap_or_else(|| resume_unwind(Box::new(Suspended)))
}

impl Word for Modelled {
    fn new(value: u64) -> Self {
        MEMORY.with_borrow_mut(|memory| {
            memory.words.push(value);
            Modelled(memory.words.len() - 1)
        })
    }

    fn get(&self) -> u64 {
        access(|words| Ok(words[self.0])).unwrap_or_default()
    }

    fn swap(&self, from: u64, to: u64) -> Result<(), u64> {
        access(|words| {
            let found = words[self.0];
            if found == from {
                words[self.0] = to;
            }
            if found == from { Ok(found) } else { Err(found) }
        })
        .map(|_| ())
    }
}

type Shard<'a> = &'a dyn Fn() -> bool;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Moment {
    words: Vec<u64>,
    /// Per shard: what it has seen, and what it said at its end.
    shards: Vec<(Vec<Seen>, Option<bool>)>,
}

/// Goes through all orders of the shards' accesses, and has `check` look at each end: what the shards said, with the words
/// as they are then.
fn explore(shards: &[Shard<'_>], check: impl Fn(&[bool])) -> usize {
    let words = MEMORY.with_borrow(|memory| memory.words.clone());
    let first = Moment { words: words.clone(), shards: vec![(Vec::new(), None); shards.len()] };
    let (mut todo, mut met, mut ends) = (vec![first], HashSet::new(), 0);
    while let Some(moment) = todo.pop() {
        if !met.insert(moment.clone()) {
            continue;
        }
        let said: Option<Vec<bool>> = moment.shards.iter().map(|(_, said)| *said).collect();
        if let Some(said) = said {
            MEMORY.with_borrow_mut(|memory| memory.words.clone_from(&moment.words));
            check(&said);
            ends += 1;
            continue;
        }
        for (index, shard) in shards.iter().enumerate() {
            if moment.shards[index].1.is_none() {
                todo.push(step(&moment, index, shard));
            }
        }
    }
    MEMORY.with_borrow_mut(|memory| memory.words = words);
    ends
}

/// Lets one shard do one access more.
fn step(moment: &Moment, index: usize, shard: &Shard<'_>) -> Moment {
    let mut next = moment.clone();
    MEMORY.with_borrow_mut(|memory| {
        memory.words = std::mem::take(&mut next.words);
        memory.run = Some((std::mem::take(&mut next.shards[index].0), 0));
        memory.stepped = false;
    });
    let said = match catch_unwind(AssertUnwindSafe(shard)) {
        Ok(said) => Some(said),
        Err(payload) if payload.is::<Suspended>() => None,
        Err(payload) => resume_unwind(payload),
    };
    MEMORY.with_borrow_mut(|memory| {
        next.words = std::mem::take(&mut memory.words);
        next.shards[index] = (memory.run.take().map(|(log, _)| log).unwrap_or_default(), said);
    });
    next
}

fn limits(failures: u64, successes: u64, probes: u64) -> Limits {
    Limits { failures, successes, open_ms: 500, bucket_ms: 100, probes }
}

/// A breaker that may probe at 500.
fn open(limits: &Limits) -> Breaker<Modelled> {
    let breaker = Breaker::new();
    let pass = breaker.admit(limits, 0).unwrap();
    assert!(breaker.fail(pass, limits, 0));
    breaker
}

fn in_flight(breaker: &Breaker<Modelled>) -> Option<u64> {
    match Word64::unpack(breaker.state.get()).1 {
        Word64::HalfOpen { in_flight, .. } => Some(in_flight),
        Word64::Closed | Word64::Open { .. } => None,
    }
}

#[test]
fn no_failure_is_lost_and_exactly_one_shard_opens_it() {
    // At the edge between two buckets, too.
    for later in [0, 100] {
        let limits = limits(2, 1, 1);
        let breaker = Breaker::<Modelled>::new();
        let fail = |now| breaker.admit(&limits, now).is_ok_and(|pass| breaker.fail(pass, &limits, now));
        let ends = explore(&[&|| fail(later), &|| fail(0)], |opened| {
            assert!(opened[0] != opened[1], "{opened:?}");
            assert_eq!(breaker.state(), State::Open);
        });
        assert!(ends >= 2, "each may be the one");
    }
}

#[test]
fn too_few_failures_never_open_it() {
    let limits = limits(3, 1, 1);
    let breaker = Breaker::<Modelled>::new();
    let fail = || breaker.admit(&limits, 0).is_ok_and(|pass| breaker.fail(pass, &limits, 0));
    explore(&[&fail, &fail], |_| assert_eq!(breaker.state(), State::Closed));
}

#[test]
fn no_more_probes_than_allowed_are_in_flight() {
    for probes in 1..=3 {
        let limits = limits(1, 3, probes);
        let breaker = open(&limits);
        let admit = || breaker.admit(&limits, 500).is_ok();
        explore(&[&admit, &admit, &admit], |admitted| {
            assert_eq!(admitted.iter().filter(|&&admitted| admitted).count() as u64, probes);
            assert_eq!(in_flight(&breaker), Some(probes));
        });
    }
}

#[test]
fn places_come_back_whatever_becomes_of_the_probes() {
    let limits = limits(1, 3, 3);
    let breaker = open(&limits);
    let probe = |end: &dyn Fn(Pass)| {
        breaker.admit(&limits, 500).is_ok_and(|pass| {
            end(pass);
            pass.is_probe
        })
    };
    let succeed = |pass: Pass| assert!(!breaker.succeed(pass, &limits));
    let give_back = |pass: Pass| breaker.give_back(pass);
    explore(&[&|| probe(&succeed), &|| probe(&give_back), &|| probe(&succeed)], |probed| {
        assert_eq!(probed, [true; 3]);
        assert_eq!(in_flight(&breaker), Some(0));
    });
}

#[test]
fn of_a_failure_and_a_success_the_first_decides() {
    let limits = limits(1, 1, 2);
    let breaker = open(&limits);
    let (bad, good) = (breaker.admit(&limits, 500).unwrap(), breaker.admit(&limits, 500).unwrap());
    let ends = explore(&[&|| breaker.fail(bad, &limits, 500), &|| breaker.succeed(good, &limits)], |said| {
        let expected = match said {
            [true, false] => State::Open,
            [false, true] => State::Closed,
            _ => panic!("both or none decided"),
        };
        assert_eq!(breaker.state(), expected);
    });
    assert!(ends >= 2);
}

#[test]
fn a_late_failure_decides_nothing_however_it_falls() {
    let limits = limits(1, 1, 1);
    let breaker = Breaker::<Modelled>::new();
    let late = breaker.admit(&limits, 0).unwrap();
    let pass = breaker.admit(&limits, 0).unwrap();
    assert!(breaker.fail(pass, &limits, 0));
    let recover = || breaker.admit(&limits, 500).is_ok_and(|probe| breaker.succeed(probe, &limits));
    explore(&[&|| breaker.fail(late, &limits, 500), &recover], |said| {
        assert_eq!(said, [false, true]);
        assert_eq!(breaker.state(), State::Closed);
    });
}

#[test]
fn a_wait_that_is_ended_never_undoes_what_came_before() {
    let limits = limits(1, 1, 1);
    let breaker = open(&limits);
    let wake = || {
        breaker.try_now(400);
        true
    };
    let recover = || breaker.admit(&limits, 500).is_ok_and(|probe| breaker.succeed(probe, &limits));
    explore(&[&wake, &recover], |said| {
        assert_eq!(said, [true, true]);
        assert_eq!(breaker.state(), State::Closed);
    });
}
