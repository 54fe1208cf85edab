//! When a crowd has gone: owns the judgement that enough connections have left for their memory to be sought out, and the
//! call that hands it to the system. It never frees anything itself.
//!
//! The allocator gives back by itself only what lies at the end of its memory; one connection that stays holds all that
//! lies before it.

/// Connections that must have left before it is worth looking: at some 4 KiB each, 1 MiB.
const LEAST_LEFT: u64 = 256;
/// The leaving is over when a second saw less than one in so many of all that left. Where connections come and go all the
/// time, that is about once a minute.
const LAST_STRAGGLERS: u64 = 64;

/// What is known of connections that have left.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    /// Closed since the process started, at the last look.
    closed: u64,
    /// Closed when memory was given back last.
    given_back: u64,
}

/// What a look showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Hardly any have left, or more stayed than left.
    Here,
    /// More have left than stayed, and others follow: look again.
    Leaving,
    /// They have left: this is the moment.
    Gone,
}

impl Crowd {
    /// A look, about once a second: `closed` connections in all up to now, `open` ones still there.
    pub(crate) fn look(&mut self, closed: u64, open: usize) -> Look {
        let lately = closed - std::mem::replace(&mut self.closed, closed);
        let left = closed - self.given_back;
        if left < LEAST_LEFT.max(open as u64) {
            return Look::Here;
        }
        if lately > left / LAST_STRAGGLERS {
            return Look::Leaving;
        }
        self.given_back = closed;
        Look::Gone
    }
}

/// Hands free memory to the system, wherever it lies. Takes time in proportion to it, and other shards' allocations may wait
/// meanwhile: for the moment when a crowd has gone, never for a call.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back() {
    // SAFETY: the function takes the allocator's own locks and touches free memory only.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries' allocators give back as they see fit.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_has_gone_when_no_more_follow() {
        let mut crowd = Crowd::default();
        assert_eq!(crowd.look(0, 10_000), Look::Here);
        assert_eq!(crowd.look(4_000, 6_000), Look::Here);
        assert_eq!(crowd.look(9_000, 1_000), Look::Leaving);
        assert_eq!(crowd.look(9_900, 100), Look::Leaving);
        assert_eq!(crowd.look(9_950, 50), Look::Gone);
        assert_eq!(crowd.look(9_950, 50), Look::Here);
    }

    #[test]
    fn where_they_come_and_go_all_the_time_it_is_a_matter_of_minutes() {
        let mut crowd = Crowd::default();
        let gone = (1..=600).filter(|second| crowd.look(second * 1_000, 64) == Look::Gone).count();
        assert!((5..=10).contains(&gone), "{gone} in ten minutes");
    }

    #[test]
    fn a_few_are_no_crowd() {
        let mut crowd = Crowd::default();
        assert!((1..LEAST_LEFT).all(|closed| crowd.look(closed, 0) == Look::Here));
    }
}
