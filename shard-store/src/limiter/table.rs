//! What a shard knows of the keys it saw: owns the entries, their bound, and giving their memory back. Never a decision.

use std::collections::{HashMap, VecDeque};

use super::Limit;
use super::bucket::Bucket;
use super::lease::Lease;
use super::script::Digest;
use crate::Millis;

/// Keys per shard; at about 100 bytes each and with a map's slack, 65,536 are 15 MiB.
pub(super) const MAX_KEYS: usize = 65_536;
/// Keys that are passed over, because they were used lately, before one of them goes all the same.
const EVICT_STEPS: usize = 64;
/// Keys looked at per call of [`Table::expire`].
const EXPIRE_BATCH: usize = 4_096;
/// The table gives memory back when less than one place in so many is used, and keeps twice what is used.
const SHRINK_BELOW: usize = 8;
/// Places that it keeps whatever happens.
const KEPT: usize = 1_024;

/// One key. A new one knows nothing: no lease, no denial, no debt.
#[derive(Default)]
pub(super) struct Entry {
    /// What this shard let pass; by it the shard decides while Redis cannot be asked.
    pub(super) bucket: Bucket,
    pub(super) lease: Lease,
    /// Looked up since it was last passed over.
    used: bool,
}

impl Entry {
    /// Whether a new entry would serve as well.
    fn is_idle(&mut self, limit: &Limit, now: Millis) -> bool {
        self.lease.is_idle(now) && self.bucket.is_settled(limit, now)
    }
}

/// The entries, each once in the ring that decides who goes.
#[derive(Default)]
pub(super) struct Table {
    entries: HashMap<Digest, Entry>,
    ring: VecDeque<Digest>,
}

impl Table {
    /// The key's entry; a new one takes the place of one that was not used lately.
    pub(super) fn entry(&mut self, key: &Digest) -> &mut Entry {
        if self.entries.len() >= MAX_KEYS && !self.entries.contains_key(key) {
            self.evict();
        }
        let ring = &mut self.ring;
        let entry = self.entries.entry(*key).or_insert_with(|| {
            ring.push_back(*key);
            Entry::default()
        });
        entry.used = true;
        entry
    }

    /// Forgets idle keys, a bounded number of them at a time.
    pub(super) fn expire(&mut self, limit: &Limit, now: Millis) {
        for _ in 0..EXPIRE_BATCH.min(self.ring.len()) {
            let Some(key) = self.ring.pop_front() else { break };
            if self.entries.get_mut(&key).is_some_and(|entry| entry.is_idle(limit, now)) {
                self.entries.remove(&key);
            } else {
                self.ring.push_back(key);
            }
        }
        if self.entries.len() < self.entries.capacity() / SHRINK_BELOW {
            self.entries.shrink_to(KEPT.max(2 * self.entries.len()));
            self.ring.shrink_to(KEPT.max(2 * self.ring.len()));
        }
    }

    /// Keys known.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn evict(&mut self) {
        for step in 0..EVICT_STEPS {
            let Some(key) = self.ring.pop_front() else { return };
            match self.entries.get_mut(&key) {
                Some(entry) if entry.used && step + 1 < EVICT_STEPS => {
                    entry.used = false;
                    self.ring.push_back(key);
                }
                _ => {
                    self.entries.remove(&key);
                    return;
                }
            }
        }
    }
}
