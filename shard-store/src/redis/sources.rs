//! Whom to ask who serves what: owns the order of the sentinels, or of a cluster's nodes. Pure.
//!
//! The one that answered last is asked first, the one that failed last is asked last; the configured ones are never
//! forgotten, since the others were learned and may all be gone.

use crate::runtime::Address;

/// Learned sources that are kept: more than the sentinels or the masters of any sensible set-up.
const MAX_LEARNED: usize = 64;

pub(super) struct Sources {
    configured: Vec<Address>,
    order: Vec<Address>,
}

impl Sources {
    pub(super) fn new(configured: Vec<Address>) -> Self {
        Sources { order: configured.clone(), configured }
    }

    /// Whom to ask now. `None` where none was ever configured.
    pub(super) fn first(&self) -> Option<Address> {
        self.order.first().cloned()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// It answered: it is asked first from now on.
    pub(super) fn answered(&mut self, source: &Address) {
        if let Some(place) = self.order.iter().position(|known| known == source) {
            self.order[..=place].rotate_right(1);
        }
    }

    /// It did not answer, or somebody else is to be heard: it is asked last.
    pub(super) fn postpone(&mut self, source: &Address) {
        if let Some(place) = self.order.iter().position(|known| known == source) {
            self.order[place..].rotate_left(1);
        }
    }

    /// These are there besides the configured ones, and no other ones. New ones come last.
    pub(super) fn learned<'a>(&mut self, learned: impl Iterator<Item = &'a Address> + Clone) {
        let configured = &self.configured;
        self.order.retain(|known| configured.contains(known) || learned.clone().any(|one| one == known));
        for one in learned {
            if self.order.len() < self.configured.len() + MAX_LEARNED && !self.order.contains(one) {
                self.order.push(one.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Address {
        Address { host: "10.0.0.1".into(), port }
    }

    fn order(sources: &Sources) -> Vec<u16> {
        sources.order.iter().map(|source| source.port).collect()
    }

    #[test]
    fn who_answered_goes_first_and_who_failed_last() {
        let mut sources = Sources::new(vec![at(1), at(2), at(3)]);
        sources.postpone(&at(1));
        assert_eq!(order(&sources), [2, 3, 1]);
        sources.answered(&at(3));
        assert_eq!(order(&sources), [3, 2, 1]);
        sources.postpone(&at(2));
        assert_eq!(order(&sources), [3, 1, 2]);
        sources.answered(&at(9));
        assert_eq!((order(&sources), sources.first(), sources.len()), (vec![3, 1, 2], Some(at(3)), 3));
    }

    #[test]
    fn the_learned_come_and_go_and_the_configured_stay() {
        let mut sources = Sources::new(vec![at(1), at(2)]);
        sources.learned([at(5), at(2), at(6)].iter());
        assert_eq!(order(&sources), [1, 2, 5, 6]);
        sources.answered(&at(6));
        sources.learned([at(6), at(7)].iter());
        assert_eq!(order(&sources), [6, 1, 2, 7]);
        let many: Vec<_> = (100..300).map(at).collect();
        sources.learned(many.iter());
        assert_eq!(sources.len(), 2 + MAX_LEARNED);
    }
}
