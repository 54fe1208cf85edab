//! Which tools of a server may be called twice, as its own lists said: owns a table of fixed size that any shard writes when
//! a list of tools passes, and reads when a call failed. A name is kept as a number made of it by a key of this process; what
//! finds no room is not known, and so not called twice. Never a lock.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Places per server; more tools than a client can choose among. 512 are 4 KiB, touched only where used.
const PLACES: usize = 512;
/// Places looked at for one name.
const STEPS: usize = 64;

/// Each place holds 0, or 63 bits of a name's number with the lowest bit set where the tool is harmless. That two names of
/// one server share all 63 has a chance of one in 10^13 for 1,000 of them.
#[derive(Debug)]
pub(crate) struct Hints {
    key: RandomState,
    places: Box<[AtomicU64]>,
}

impl Hints {
    pub(crate) fn new() -> Self {
        Hints { key: RandomState::new(), places: (0..PLACES).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Of no tool, and so for ever.
    pub(crate) fn none() -> Self {
        Hints { key: RandomState::new(), places: Box::default() }
    }

    pub(crate) fn learn(&self, tool: &str, harmless: bool) {
        let number = self.number(tool);
        for place in self.places_of(number) {
            let mut word = place.load(Ordering::Relaxed);
            while word == 0 || word & !1 == number {
                match place.compare_exchange(
                    word,
                    number | u64::from(harmless),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => return,
                    Err(found) => word = found,
                }
            }
        }
    }

    pub(crate) fn is_harmless(&self, tool: &str) -> bool {
        let number = self.number(tool);
        let words = self.places_of(number).map(|place| place.load(Ordering::Relaxed));
        words
            .take_while(|&word| word != 0)
            .find(|&word| word & !1 == number)
            .is_some_and(|word| word & 1 == 1)
    }

    /// Even, and never 0.
    fn number(&self, tool: &str) -> u64 {
        (self.key.hash_one(tool) & !1).max(2)
    }

    fn places_of(&self, number: u64) -> impl Iterator<Item = &AtomicU64> {
        let first = (number >> 1) as usize;
        let steps = if self.places.is_empty() { 0 } else { STEPS };
        (0..steps).map(move |step| &self.places[first.wrapping_add(step) % PLACES])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_list_counts_and_what_is_not_known_is_not_harmless() {
        let hints = Hints::new();
        assert!(!hints.is_harmless("read"));
        for (said, expected) in [(true, true), (true, true), (false, false)] {
            hints.learn("read", said);
            assert_eq!(hints.is_harmless("read"), expected);
        }
        assert!(!hints.is_harmless("write"));
    }

    #[test]
    fn without_places_nothing_is_learned() {
        let hints = Hints::none();
        hints.learn("read", true);
        assert!(!hints.is_harmless("read"));
    }

    #[test]
    fn a_full_table_forgets_nothing_and_takes_no_more() {
        let hints = Hints::new();
        let name = |tool: usize| format!("tool-{tool}");
        for tool in 0..200 {
            hints.learn(&name(tool), tool % 2 == 0);
        }
        assert!((0..200).all(|tool| hints.is_harmless(&name(tool)) == (tool % 2 == 0)));
        for tool in 200..5_000 {
            hints.learn(&name(tool), true);
        }
        assert!((0..200).all(|tool| hints.is_harmless(&name(tool)) == (tool % 2 == 0)));
        let known = (200..5_000).filter(|&tool| hints.is_harmless(&name(tool))).count();
        assert!((200..=PLACES).contains(&known), "{known}");
    }
}
