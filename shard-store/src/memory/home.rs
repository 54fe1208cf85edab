//! The sessions of one partition: owns their table and the order in which they are to be looked at for expiry. It knows
//! neither other shards nor the store's interface.
//!
//! A session that ends leaves nothing behind: it is taken out of the order as well as out of the table, both in constant
//! time, so memory follows the sessions that live and not those that ever did.
//!
//! Invariants: `slots` maps exactly the ids in `sessions`, each to its place there; `older` and `newer` link all of them
//! into one list, by `due`.

use std::rc::Rc;

use crate::id::IdMap;
use crate::{Millis, Record, SessionId};

/// No neighbour: the end of the list.
const NONE: u32 = u32::MAX;
/// Places that are kept whatever happens: some 90 KiB.
const KEPT_PLACES: usize = 1024;
/// Memory is given back when less than one place in so many is used; twice what is used is kept, so that neither the next
/// session makes the table grow nor the next end makes it shrink again.
const SHRINK_BELOW: usize = 4;

#[derive(Default)]
pub(super) struct Home {
    slots: IdMap<u32>,
    sessions: Vec<Kept>,
    ends: Ends,
}

/// The two ends of the list.
struct Ends {
    oldest: u32,
    newest: u32,
}

impl Default for Ends {
    fn default() -> Self {
        Ends { oldest: NONE, newest: NONE }
    }
}

struct Kept {
    id: SessionId,
    older: u32,
    newer: u32,
    record: Rc<Record>,
    expires: Millis,
    /// `expires` as it was when the session was last put at the end of the list.
    due: Millis,
}

impl Home {
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Keeps a new session. Calls with ever later `expires` keep the list in order.
    pub(super) fn insert(&mut self, id: SessionId, record: Rc<Record>, expires: Millis) {
        // A partition's bound is far below 2^32 sessions.
        let place = self.sessions.len() as u32;
        self.sessions.push(Kept { id, older: NONE, newer: NONE, record, expires, due: expires });
        self.slots.insert(id, place);
        self.link_newest(place);
    }

    /// A session that lives at `now`; its life is extended to `expires`.
    pub(super) fn touch(&mut self, id: &SessionId, now: Millis, expires: Millis) -> Option<&mut Rc<Record>> {
        let place = *self.slots.get(id)?;
        let kept = &mut self.sessions[place as usize];
        if kept.expires <= now {
            return None;
        }
        kept.expires = expires;
        Some(&mut kept.record)
    }

    /// A session that lives at `now`, and when it ends; its life is as it was.
    pub(super) fn peek(&self, id: &SessionId, now: Millis) -> Option<(Rc<Record>, Millis)> {
        let kept = &self.sessions[*self.slots.get(id)? as usize];
        (kept.expires > now).then(|| (kept.record.clone(), kept.expires))
    }

    /// Ends a session; `false` when there is none.
    pub(super) fn remove(&mut self, id: &SessionId) -> bool {
        let Some(place) = self.slots.remove(id) else { return false };
        self.unlink(place);
        self.sessions.swap_remove(place as usize);
        if let Some(moved) = self.sessions.get(place as usize) {
            let (id, older, newer) = (moved.id, moved.older, moved.newer);
            self.slots.insert(id, place);
            *self.newer_of(older) = place;
            *self.older_of(newer) = place;
        }
        true
    }

    /// Takes out a session whose life has ended, looking at no more than `looks` of them, which it counts down.
    pub(super) fn take_expired(&mut self, now: Millis, looks: &mut usize) -> Option<SessionId> {
        while *looks > 0 {
            let place = self.ends.oldest;
            let kept = self.sessions.get_mut(place as usize).filter(|kept| kept.due <= now)?;
            *looks -= 1;
            if kept.expires <= now {
                let id = kept.id;
                self.remove(&id);
                return Some(id);
            }
            kept.due = kept.expires;
            self.unlink(place);
            self.link_newest(place);
        }
        None
    }

    /// Gives memory back that most sessions have left. Takes time in proportion to the sessions that are there.
    pub(super) fn shrink(&mut self) {
        let used = self.sessions.len();
        let keep = KEPT_PLACES.max(2 * used);
        if used < self.sessions.capacity() / SHRINK_BELOW {
            self.sessions.shrink_to(keep);
        }
        if used < self.slots.capacity() / SHRINK_BELOW {
            self.slots.shrink_to(keep);
        }
    }

    fn link_newest(&mut self, place: u32) {
        let older = std::mem::replace(&mut self.ends.newest, place);
        *self.newer_of(older) = place;
        let kept = &mut self.sessions[place as usize];
        (kept.older, kept.newer) = (older, NONE);
    }

    fn unlink(&mut self, place: u32) {
        let Kept { older, newer, .. } = self.sessions[place as usize];
        *self.newer_of(older) = newer;
        *self.older_of(newer) = older;
    }

    /// The link from a place to its newer neighbour; from before the list to its oldest.
    fn newer_of(&mut self, place: u32) -> &mut u32 {
        self.sessions.get_mut(place as usize).map_or(&mut self.ends.oldest, |kept| &mut kept.newer)
    }

    /// The link from a place to its older neighbour; from behind the list to its newest.
    fn older_of(&mut self, place: u32) -> &mut u32 {
        self.sessions.get_mut(place as usize).map_or(&mut self.ends.newest, |kept| &mut kept.older)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Rc<Record> {
        Rc::new(Record::default())
    }

    fn filled(count: usize) -> (Home, Vec<SessionId>) {
        let mut home = Home::default();
        let ids: Vec<_> = (0..count).map(|_| SessionId::mint(0).unwrap()).collect();
        for (now, id) in (0..).zip(&ids) {
            home.insert(*id, record(), now + 1000);
        }
        (home, ids)
    }

    fn expired(home: &mut Home, now: Millis) -> Vec<SessionId> {
        let mut looks = usize::MAX;
        std::iter::from_fn(|| home.take_expired(now, &mut looks)).collect()
    }

    #[test]
    fn sessions_end_in_their_order_whatever_was_removed_or_used_in_between() {
        let (mut home, ids) = filled(7);
        for gone in [0, 3, 6] {
            assert!(home.remove(&ids[gone]));
            assert!(!home.remove(&ids[gone]));
        }
        assert!(home.touch(&ids[1], 10, 5000).is_some());
        assert_eq!(expired(&mut home, 999), []);
        assert_eq!(expired(&mut home, 1004), [ids[2], ids[4]]);
        assert!(home.touch(&ids[5], 1005, 9000).is_none(), "its life was over");
        assert_eq!(expired(&mut home, 4999), [ids[5]]);
        assert_eq!(expired(&mut home, 5000), [ids[1]]);
        assert_eq!((home.len(), home.ends.oldest, home.ends.newest), (0, NONE, NONE));
    }

    #[test]
    fn only_so_many_are_looked_at() {
        let (mut home, ids) = filled(3);
        let mut looks = 2;
        assert_eq!(home.take_expired(5000, &mut looks), Some(ids[0]));
        assert_eq!(home.take_expired(5000, &mut looks), Some(ids[1]));
        assert_eq!((home.take_expired(5000, &mut looks), home.len()), (None, 1));
    }

    #[test]
    fn many_short_sessions_leave_no_more_memory_than_few() {
        let mut home = Home::default();
        let stays = SessionId::mint(0).unwrap();
        home.insert(stays, record(), 1000);
        for now in 0..100_000 {
            let id = SessionId::mint(0).unwrap();
            home.insert(id, record(), now + 1000);
            assert!(home.remove(&id));
        }
        assert!(
            home.sessions.capacity() <= 8 && home.slots.capacity() <= 16,
            "without being asked to shrink"
        );
        assert!(home.touch(&stays, 0, 1000).is_some());
    }

    #[test]
    fn what_a_crowd_needed_is_given_back_when_most_have_gone() {
        let (mut home, ids) = filled(50_000);
        let full = home.sessions.capacity();
        ids[..30_000].iter().for_each(|id| assert!(home.remove(id)));
        home.shrink();
        assert_eq!(home.sessions.capacity(), full, "40 % are in use");
        ids[30_000..49_000].iter().for_each(|id| assert!(home.remove(id)));
        home.shrink();
        let (sessions, slots) = (home.sessions.capacity(), home.slots.capacity());
        assert!(sessions <= 2 * KEPT_PLACES && slots <= 4 * KEPT_PLACES, "{sessions} {slots}");
        assert!(ids[49_000..].iter().all(|id| home.touch(id, 0, 60_000).is_some()));
        assert_eq!(home.len(), 1000);
    }
}
