//! The sessions of the upstream: minted ids, and which of them were ended. Shared by all threads, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::http::RequestHead;

/// Sessions whose end is remembered (512 KiB); later ones stay known for ever.
const MAX_REMEMBERED: u64 = 4 * 1024 * 1024;

/// What a session id means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// No id was sent.
    Missing,
    /// Not ours, or ended.
    Unknown,
    /// Minted here and not ended.
    Alive,
}

#[derive(Debug)]
pub(super) struct Sessions {
    /// Begins every id, so that an id of another process is not taken for one of ours.
    nonce: String,
    minted: AtomicU64,
    /// One bit per session.
    ended: Box<[AtomicU64]>,
}

impl Sessions {
    pub(super) fn new(nonce: u128) -> Self {
        Self {
            nonce: format!("{nonce:032x}-"),
            minted: AtomicU64::new(0),
            ended: (0..MAX_REMEMBERED / 64).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub(super) fn mint(&self) -> String {
        let number = self.minted.fetch_add(1, Ordering::Relaxed);
        format!("{}{number:x}", self.nonce)
    }

    pub(super) fn standing(&self, head: &RequestHead<'_>) -> Standing {
        match head.session.map(|id| self.number(id)) {
            None => Standing::Missing,
            Some(Some(number)) if !self.is_ended(number) => Standing::Alive,
            Some(_) => Standing::Unknown,
        }
    }

    /// Ends the session that `head` names. False when there is none of that name.
    pub(super) fn end(&self, head: &RequestHead<'_>) -> bool {
        let Some(number) = head.session.and_then(|id| self.number(id)) else { return false };
        match self.ended.get((number / 64) as usize) {
            Some(word) => {
                let bit = 1 << (number % 64);
                word.fetch_or(bit, Ordering::Relaxed) & bit == 0
            }
            None => true,
        }
    }

    fn number(&self, id: &[u8]) -> Option<u64> {
        let digits = std::str::from_utf8(id.strip_prefix(self.nonce.as_bytes())?).ok()?;
        let number = u64::from_str_radix(digits, 16).ok()?;
        (number < self.minted.load(Ordering::Relaxed)).then_some(number)
    }

    fn is_ended(&self, number: u64) -> bool {
        let word = self.ended.get((number / 64) as usize).map_or(0, |word| word.load(Ordering::Relaxed));
        word & 1 << (number % 64) != 0
    }
}
