//! Spare parts of a shard: owns values that one exchange has done with and the next one takes over, so that a call needs no
//! memory of the allocator's. Never more than a fixed number of each kind is kept.

use std::cell::RefCell;

/// A bounded stack of used values; the last one given back is the first one taken, since it is still in the CPU's cache.
pub(crate) struct Spare<T, const LIMIT: usize>(RefCell<Vec<T>>);

impl<T, const LIMIT: usize> Default for Spare<T, LIMIT> {
    fn default() -> Self {
        Spare(RefCell::default())
    }
}

impl<T, const LIMIT: usize> Spare<T, LIMIT> {
    /// A used value, if there is one.
    pub(crate) fn take(&self) -> Option<T> {
        self.0.borrow_mut().pop()
    }

    /// Keeps a value for later, or drops it where enough are kept.
    pub(crate) fn give(&self, value: T) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < LIMIT {
            kept.push(value);
        }
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
}
