//! Which eras a server speaks, as far as any shard has found out: owns one word per server that all shards write and read.
//! It never asks, and never decides what follows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::shard::clock::Millis;

/// For how long a server that refused one era is taken at its word; it may be replaced by one that speaks it. That it speaks
/// one is believed until it shows otherwise.
const REFUSAL_REMEMBERED: Duration = Duration::from_secs(30);

/// ```text
///  63                              4 3      2 1      0
/// +---------------------------------+--------+--------+
/// | when one was refused, in ms     | legacy | modern |
/// +---------------------------------+--------+--------+
/// ```
#[derive(Debug)]
pub(crate) struct Eras(AtomicU64);

/// What is known of a server and an era.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Nothing,
    Speaks,
    Refuses,
    /// It refused, long enough ago to be asked again.
    Refused,
}

/// MCP's two eras.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    /// 2026-07-28: stateless, each request says all.
    Modern = 0,
    /// Up to 2025-11-25: `initialize`, and sessions.
    Legacy = 2,
}

const SPEAKS: u64 = 1;
const REFUSES: u64 = 2;

impl Eras {
    pub(crate) fn new() -> Self {
        Eras(AtomicU64::new(0))
    }

    pub(crate) fn get(&self, era: Era, now: Millis) -> Known {
        let word = self.0.load(Ordering::Relaxed);
        let is_old = now.saturating_sub(word >> 4) >= REFUSAL_REMEMBERED.as_millis() as Millis;
        match (word >> era as u64) & 3 {
            SPEAKS => Known::Speaks,
            REFUSES if is_old => Known::Refused,
            REFUSES => Known::Refuses,
            _ => Known::Nothing,
        }
    }

    /// Notes what a server showed; says whether that is news.
    pub(crate) fn learn(&self, era: Era, speaks: bool, now: Millis) -> bool {
        let (bits, shift) = (if speaks { SPEAKS } else { REFUSES }, era as u64);
        let known = |word: u64| (word >> shift) & 3;
        let noted = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            // The time is that of refusals, so what is spoken as before changes nothing.
            let is_same = speaks && known(word) == bits;
            (!is_same).then_some((now << 4) | (word & 15 & !(3 << shift)) | (bits << shift))
        });
        noted.is_ok_and(|before| known(before) != bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_era_is_known_by_itself_and_a_refusal_for_a_while() {
        let eras = Eras::new();
        assert_eq!(eras.get(Era::Modern, 0), Known::Nothing);
        assert!(eras.learn(Era::Modern, true, 10));
        assert!(!eras.learn(Era::Modern, true, 20));
        assert_eq!(
            (eras.get(Era::Modern, u64::MAX >> 4), eras.get(Era::Legacy, 20)),
            (Known::Speaks, Known::Nothing)
        );
        assert!(eras.learn(Era::Legacy, false, 1_000));
        assert!(!eras.learn(Era::Modern, true, 20_000), "said before, and no refusal is younger for it");
        assert_eq!(eras.get(Era::Legacy, 30_999), Known::Refuses);
        assert_eq!(eras.get(Era::Legacy, 31_000), Known::Refused);
        assert!(eras.learn(Era::Modern, false, 31_000));
        assert_eq!(eras.get(Era::Modern, 31_000), Known::Refuses);
    }
}
