//! Spare parts of a shard: owns values that one exchange has done with and the next one takes over, so that a call needs no
//! memory of the allocator's. Never more than a fixed number of each kind is kept, and what a crowd needed goes when it has
//! gone.

use std::cell::{Cell, RefCell};

/// A bounded stack of used values; the last one given back is the first one taken, since it is still in the CPU's cache.
pub(crate) struct Spare<T, const LIMIT: usize> {
    kept: RefCell<Vec<T>>,
    /// The fewest that lay here since the last [`Spare::release`]: so many were not needed.
    unneeded: Cell<usize>,
}

/// How many of those that nobody needed are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    Half,
    All,
}

impl<T, const LIMIT: usize> Default for Spare<T, LIMIT> {
    fn default() -> Self {
        Spare { kept: RefCell::default(), unneeded: Cell::default() }
    }
}

impl<T, const LIMIT: usize> Spare<T, LIMIT> {
    /// A used value, if there is one.
    pub(crate) fn take(&self) -> Option<T> {
        let mut kept = self.kept.borrow_mut();
        let value = kept.pop();
        self.unneeded.set(self.unneeded.get().min(kept.len()));
        value
    }

    /// Keeps a value for later, or drops it where enough are kept.
    pub(crate) fn give(&self, value: T) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() < LIMIT {
            kept.push(value);
        }
    }

    /// Drops some of those that nobody needed since the last call; says whether any are left. Called once a second with
    /// [`Release::Half`], it empties a full stack in some ten seconds of rest, and takes nothing from one that is in use.
    pub(crate) fn release(&self, rate: Release) -> bool {
        let mut kept = self.kept.borrow_mut();
        let dropped = match rate {
            Release::Half => self.unneeded.get().div_ceil(2),
            Release::All => self.unneeded.get(),
        };
        // The oldest lie at the bottom.
        kept.drain(..dropped);
        self.unneeded.set(kept.len());
        !kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_given_is_taken_first_and_one_too_many_is_dropped() {
        let spare = Spare::<_, 2>::default();
        [1, 2, 3].into_iter().for_each(|value| spare.give(value));
        assert_eq!([spare.take(), spare.take(), spare.take()], [Some(2), Some(1), None]);
    }

    #[test]
    fn what_is_in_use_stays_and_what_is_not_goes() {
        let spare = Spare::<_, 100>::default();
        (0..100).for_each(|value| spare.give(value));
        assert!(spare.release(Release::Half), "they were only just given");
        for _ in 0..20 {
            let taken: Vec<_> = (0..10).filter_map(|_| spare.take()).collect();
            assert_eq!(taken.len(), 10);
            taken.into_iter().for_each(|value| spare.give(value));
            assert!(spare.release(Release::Half));
        }
        assert_eq!(spare.kept.borrow().len(), 10);
        let seconds = (0..).take_while(|_| spare.release(Release::Half)).count();
        assert!(seconds <= 5, "{seconds}");
        assert_eq!(spare.take(), None);
        assert!(!spare.release(Release::Half));
    }
}
