//! How long to wait before the next try: owns back-off and jitter, a pure function of what came before and of chance.
//! Never a timer.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(100);
/// The longest: a gateway that is back is found within this.
const LONGEST: Duration = Duration::from_secs(5);

/// Pauses between tries: each twice as long as the one before, less up to half of it by chance, so that the clients of a
/// gateway that restarts do not come back at one moment.
pub(crate) struct Pace {
    whole: Duration,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Pace { whole: FIRST }
    }

    /// The next pause.
    pub(crate) fn next(&mut self) -> Duration {
        // Where the system gives no random number, the pause is whole.
        self.next_by(getrandom::u64().unwrap_or_default())
    }

    fn next_by(&mut self, chance: u64) -> Duration {
        let whole = self.whole;
        self.whole = (whole * 2).min(LONGEST);
        whole - Duration::from_millis(chance % (whole.as_millis() as u64 / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_chance_takes_less_than_half() {
        for chance in [0, 49, u64::MAX] {
            let mut pace = Pace::new();
            let mut whole = FIRST;
            for _ in 0..10 {
                let pause = pace.next_by(chance);
                assert!(pause <= whole && pause > whole / 2, "{chance}: {pause:?} of {whole:?}");
                whole = (whole * 2).min(LONGEST);
            }
        }
    }
}
