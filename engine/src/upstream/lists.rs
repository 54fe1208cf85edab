//! A server's lists as a shard remembers them: owns the kept answers, raw as the server gave them, for whom and how long each
//! may be used, and who is asking at the moment. It never asks, and never decides whom a list is for.
//!
//! Invariants: what was asked for before a change of the list was told is not kept after it, on any shard; bytes and entries
//! are bounded per server and shard.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Poll, Waker};

use crate::shard::clock::Millis;

/// Answers kept per server and shard, and their bytes: with 50 servers and 8 shards that is 1.6 GiB at the very most, and
/// next to nothing where lists are short.
const MAX_ENTRIES: usize = 256;
const MAX_BYTES: usize = 4 << 20;
/// How long a server that gives its list no time to live is believed to do so.
const UNKEPT_MS: Millis = 60_000;

/// Kinds of lists that change on their own: tools, prompts, resources with their templates.
const KINDS: usize = 3;

/// Which lists have changed, of one server, for all shards.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Whether any shard has ever kept a list of the server's: else nobody needs to know.
    matters: AtomicBool,
    counts: [AtomicU64; KINDS],
}

impl Changes {
    /// Looks at what a server said on a stream. Whoever is named where any list is said to have changed counts as changed.
    pub(crate) fn on_said(&self, said: &[u8]) {
        if !self.matters.load(Ordering::Relaxed) || memchr::memmem::find(said, b"list_changed").is_none() {
            return;
        }
        for (name, count) in [&b"tools"[..], b"prompts", b"resources"].iter().zip(&self.counts) {
            if memchr::memmem::find(said, name).is_some() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// How often lists of this kind have changed.
    fn count(&self, kind: u8) -> u64 {
        self.counts.get(usize::from(kind)).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The method's index among all methods.
    pub(crate) method: u8,
    pub(crate) kind: u8,
    pub(crate) modern: bool,
    pub(crate) cursor: Option<Box<str>>,
    /// Whose it is: what the client proves itself by. `None`: everybody's.
    pub(crate) whose: Option<Box<[u8]>>,
}

/// A kept answer.
pub(crate) struct Kept {
    text: Rc<[u8]>,
    id: Range<usize>,
    until: Millis,
    changes: u64,
}

/// One server's lists.
#[derive(Default)]
pub(crate) struct Lists {
    changes: Arc<Changes>,
    kept: RefCell<HashMap<Key, Kept>>,
    bytes: Cell<usize>,
    asking: RefCell<HashMap<Key, Rc<Asking>>>,
    /// Until when a list is not worth looking for, by method and era.
    unkept: RefCell<HashMap<(u8, bool), Millis>>,
}

/// A question that is under way.
#[derive(Default)]
struct Asking {
    is_over: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

/// Whoever holds it asks; the others wait until it is dropped.
pub(crate) struct Turn<'a> {
    lists: &'a Lists,
    key: Key,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(asking) = self.lists.asking.borrow_mut().remove(&self.key) {
            asking.is_over.set(true);
            asking.waiting.take().into_iter().for_each(Waker::wake);
        }
    }
}

impl Lists {
    pub(crate) fn new(changes: &Arc<Changes>) -> Self {
        Lists { changes: changes.clone(), ..Lists::default() }
    }

    pub(crate) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// How often the lists of the key's kind have changed, for [`Lists::keep`]; from now on changes are counted.
    pub(crate) fn begin(&self, key: &Key) -> u64 {
        self.changes.matters.store(true, Ordering::Relaxed);
        self.changes.count(key.kind)
    }

    /// The answer for this key, or for everybody, with the id's place in it.
    pub(crate) fn find(&self, key: &Key, now: Millis) -> Option<(Rc<[u8]>, Range<usize>)> {
        let changes = self.changes.count(key.kind);
        let kept = self.kept.borrow();
        let everybodys = Key { whose: None, ..key.clone() };
        let found = [&everybodys, key].into_iter().filter_map(|key| kept.get(key));
        let mut fresh = found.filter(|kept| kept.until > now && kept.changes == changes);
        fresh.next().map(|kept| (kept.text.clone(), kept.id.clone()))
    }

    /// Whether the server has lately given such a list no time to live.
    pub(crate) fn is_unkept(&self, key: &Key, now: Millis) -> bool {
        self.unkept.borrow().get(&(key.method, key.modern)).is_some_and(|until| *until > now)
    }

    /// The server gives such a list no time to live.
    pub(crate) fn on_unkept(&self, key: &Key, now: Millis) {
        self.unkept.borrow_mut().insert((key.method, key.modern), now + UNKEPT_MS);
    }

    /// The turn to ask; `None` when somebody is asking this already.
    pub(crate) fn turn(&self, key: &Key) -> Option<Turn<'_>> {
        let mut asking = self.asking.borrow_mut();
        if asking.contains_key(key) {
            return None;
        }
        asking.insert(key.clone(), Rc::default());
        Some(Turn { lists: self, key: key.clone() })
    }

    /// Waits until nobody asks this any more.
    pub(crate) async fn asked(&self, key: &Key) {
        let asking = self.asking.borrow().get(key).cloned();
        let Some(asking) = asking else { return };
        poll_fn(|cx| {
            if asking.is_over.get() {
                return Poll::Ready(());
            }
            asking.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Keeps an answer; `changes` is what [`Lists::begin`] said before it was asked for.
    pub(crate) fn keep(
        &self,
        key: Key,
        text: &[u8],
        id: Range<usize>,
        (changes, now, until): (u64, Millis, Millis),
    ) {
        if text.len() > MAX_BYTES / 4 {
            return;
        }
        self.make_room(text.len(), now);
        let entry = Kept { text: text.into(), id, until, changes };
        if let Some(old) = self.kept.borrow_mut().insert(key, entry) {
            self.bytes.set(self.bytes.get() - old.text.len());
        }
        self.bytes.set(self.bytes.get() + text.len());
    }

    /// Drops what is over, and then what ends first.
    fn make_room(&self, bytes: usize, now: Millis) {
        let mut kept = self.kept.borrow_mut();
        let is_full =
            |kept: &HashMap<Key, Kept>, held: usize| kept.len() >= MAX_ENTRIES || held + bytes > MAX_BYTES;
        if is_full(&kept, self.bytes.get()) {
            kept.retain(|_, kept| kept.until > now);
            self.bytes.set(kept.values().map(|kept| kept.text.len()).sum());
        }
        while is_full(&kept, self.bytes.get()) {
            let first = kept.iter().min_by_key(|(_, kept)| kept.until).map(|(key, _)| key.clone());
            let Some(dropped) = first.and_then(|key| kept.remove(&key)) else { return };
            self.bytes.set(self.bytes.get() - dropped.text.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(cursor: usize, whose: Option<&str>) -> Key {
        Key {
            method: 1,
            kind: 0,
            modern: true,
            cursor: Some(cursor.to_string().into()),
            whose: whose.map(|whose| whose.as_bytes().into()),
        }
    }

    #[test]
    fn an_answer_is_whose_it_is_until_it_is_over_or_has_changed() {
        let lists = Lists::default();
        let find = |whose: &str, now| lists.find(&key(1, Some(whose)), now).map(|(text, _)| text);
        let changes = lists.begin(&key(1, None));
        lists.keep(key(1, Some("alice")), b"hers", 0..1, (changes, 0, 100));
        assert_eq!(find("alice", 99).as_deref(), Some(&b"hers"[..]));
        assert_eq!((find("alice", 100), find("bob", 0)), (None, None));
        lists.changes().on_said(br#"data: {"method":"notifications/prompts/list_changed"}"#);
        lists.changes().on_said(br#"data: {"method":"notifications/message","params":"tools"}"#);
        assert!(find("alice", 0).is_some());
        lists.changes().on_said(br#"data: {"method":"notifications\/tools\/list_changed"}"#);
        assert_eq!(find("alice", 0), None);
        // What was asked for before the change does not count after it.
        lists.keep(key(1, None), b"old", 0..1, (changes, 0, 50));
        assert_eq!(find("bob", 0), None);
        lists.keep(key(1, None), b"all", 0..1, (lists.begin(&key(1, None)), 0, 50));
        for whose in ["alice", "bob"] {
            assert_eq!(find(whose, 0).as_deref(), Some(&b"all"[..]));
        }
    }

    #[test]
    fn room_is_bounded_in_entries_and_bytes() {
        let lists = Lists::default();
        for number in 0..2 * MAX_ENTRIES {
            lists.keep(key(number, None), b"x", 0..1, (0, 0, 10 + number as Millis));
        }
        assert!(lists.kept.borrow().len() <= MAX_ENTRIES);
        assert!(lists.find(&key(0, None), 0).is_none());
        assert!(lists.find(&key(2 * MAX_ENTRIES - 1, None), 0).is_some());
        let large = vec![b'x'; MAX_BYTES / 4];
        for number in 0..20 {
            lists.keep(key(number, None), &large, 0..1, (0, 0, 10_000 + number as Millis));
            assert!(lists.bytes.get() <= MAX_BYTES, "{}", lists.bytes.get());
        }
        let held: usize = lists.kept.borrow().values().map(|kept| kept.text.len()).sum();
        assert_eq!(held, lists.bytes.get());
        lists.keep(key(99, None), &[large, vec![0]].concat(), 0..1, (0, 0, 10_000));
        assert!(lists.find(&key(99, None), 0).is_none());
    }

    #[test]
    fn one_asks_at_a_time_and_a_server_that_keeps_nothing_is_remembered() {
        let lists = Lists::default();
        let turn = lists.turn(&key(1, None));
        assert!(turn.is_some() && lists.turn(&key(1, None)).is_none() && lists.turn(&key(2, None)).is_some());
        drop(turn);
        assert!(lists.turn(&key(1, None)).is_some());
        lists.on_unkept(&key(1, None), 5);
        assert!(lists.is_unkept(&key(7, None), 5) && !lists.is_unkept(&key(7, None), 5 + UNKEPT_MS));
    }
}
