//! A bounded map by session id: owns which copy goes when there are too many, and giving memory back. It knows nothing of
//! what it keeps, nor of when that is out of date.

use crate::SessionId;
use crate::id::IdMap;

/// Copies per shard; at about 250 bytes each, 65,536 are 16 MiB.
pub(crate) const CACHE_ENTRIES: usize = 65_536;
/// Memory is given back when less than one place in so many is used, and twice what is used is kept.
const SHRINK_BELOW: usize = 8;
/// Places that are kept whatever happens: some 60 KiB.
const KEPT_PLACES: usize = 1024;

pub(crate) struct IdCache<T> {
    limit: usize,
    entries: IdMap<T>,
}

impl<T> IdCache<T> {
    /// At most `limit` entries; 0 keeps none.
    pub(crate) fn new(limit: usize) -> Self {
        IdCache { limit, entries: IdMap::default() }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get_mut(&mut self, id: &SessionId) -> Option<&mut T> {
        self.entries.get_mut(id)
    }

    pub(crate) fn remove(&mut self, id: &SessionId) -> Option<T> {
        self.entries.remove(id)
    }

    /// Keeps a copy, in place of any other one where there are too many.
    pub(crate) fn insert(&mut self, id: SessionId, entry: T) {
        if self.limit == 0 {
            return;
        }
        if self.entries.len() >= self.limit
            && !self.entries.contains_key(&id)
            && let Some(&victim) = self.entries.keys().next()
        {
            self.entries.remove(&victim);
        }
        self.entries.insert(id, entry);
    }

    /// Drops what is not worth keeping. Takes time in proportion to what is there.
    pub(crate) fn retain(&mut self, mut is_kept: impl FnMut(&T) -> bool) {
        self.entries.retain(|_, entry| is_kept(entry));
    }

    /// Gives memory back that most copies have left.
    pub(crate) fn shrink(&mut self) {
        if self.entries.len() < self.entries.capacity() / SHRINK_BELOW {
            self.entries.shrink_to(KEPT_PLACES.max(2 * self.entries.len()));
        }
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.entries.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_limit_and_memory_is_given_back() {
        let mut cache = IdCache::new(10_000);
        let ids: Vec<_> = (0..20_000).map(|_| SessionId::mint(0).unwrap()).collect();
        ids.iter().for_each(|id| cache.insert(*id, ()));
        assert_eq!(cache.len(), 10_000);
        cache.insert(ids[19_999], ());
        assert_eq!(cache.len(), 10_000, "an entry that is replaced costs no other");
        assert_eq!(ids.iter().filter(|id| cache.remove(id).is_some()).count(), 10_000);
        cache.shrink();
        assert!(cache.len() == 0 && cache.capacity() <= 2 * KEPT_PLACES, "{}", cache.capacity());
        let mut none = IdCache::new(0);
        none.insert(ids[0], ());
        assert_eq!(none.len(), 0);
    }
}
