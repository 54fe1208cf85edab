//! A connection's commands in order: owns the bytes that are to leave and who waits for which reply. Pure; never IO.
//!
//! Invariant: replies come in the order of the entries, whatever became of those who wait for them.

use std::collections::VecDeque;
use std::rc::Rc;

use super::replicated::WaitGroup;
use super::waiters::WaiterId;
use crate::Millis;

/// Bytes for which an empty buffer keeps its memory.
const KEEP_BYTES: usize = 64 << 10;

/// What a reply is for.
#[derive(Clone)]
pub(crate) enum For {
    /// A caller.
    Waiter(WaiterId),
    /// Nobody: `ASKING`.
    Nobody,
    /// The `WAIT` of a turn's writes.
    Group(Rc<WaitGroup>),
    /// The connection itself: is the node still there?
    Heartbeat,
}

pub(crate) struct Entry {
    pub(crate) reply_for: For,
    pub(crate) deadline: Millis,
    /// Where its bytes begin in the stream.
    start: u64,
}

pub(crate) struct Pipeline {
    out: Vec<u8>,
    /// Bytes of `out` that the stream has taken.
    taken: usize,
    /// Position in the stream at which `out` begins.
    base: u64,
    entries: VecDeque<Entry>,
    /// No deadline of anybody who has not been told is earlier.
    due: Millis,
    /// Entries since the last write.
    gathered: u64,
    /// Replies that have come in all.
    answered: u64,
}

impl Default for Pipeline {
    fn default() -> Self {
        Pipeline {
            out: Vec::new(),
            taken: 0,
            base: 0,
            entries: VecDeque::new(),
            due: Millis::MAX,
            gathered: 0,
            answered: 0,
        }
    }
}

impl Pipeline {
    /// Appends a command.
    pub(crate) fn push(&mut self, bytes: &[u8], reply_for: For, deadline: Millis) {
        let start = self.base + self.out.len() as u64;
        self.out.extend_from_slice(bytes);
        self.entries.push_back(Entry { reply_for, deadline, start });
        self.due = self.due.min(deadline);
        self.gathered += 1;
    }

    /// What the stream is to take next.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.out[self.taken..]
    }

    /// The stream took `count` bytes.
    pub(crate) fn took(&mut self, count: usize) {
        self.taken += count;
        if self.taken == self.out.len() {
            self.base += self.taken as u64;
            self.taken = 0;
            self.out.clear();
            if self.out.capacity() > KEEP_BYTES {
                self.out = Vec::new();
            }
        }
    }

    /// How many commands were gathered for the write that begins now.
    pub(crate) fn take_gathered(&mut self) -> u64 {
        std::mem::take(&mut self.gathered)
    }

    /// A reply came: who it is for. `None` where nothing was asked.
    pub(crate) fn answered(&mut self) -> Option<For> {
        let entry = self.entries.pop_front()?;
        self.answered += 1;
        if self.entries.is_empty() {
            self.due = Millis::MAX;
        }
        Some(entry.reply_for)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Marks the present end of the pipeline; see [`Pipeline::is_past`].
    pub(crate) fn mark(&self) -> u64 {
        self.answered + self.entries.len() as u64
    }

    /// Whether everything before a mark has been answered.
    pub(crate) fn is_past(&self, mark: u64) -> bool {
        self.answered >= mark
    }

    /// When to look for those whose time is over: not later than the first of them is due.
    pub(crate) fn deadline(&self) -> Option<Millis> {
        (self.due != Millis::MAX).then_some(self.due)
    }

    /// Those whose time is over at `now` and who have not been told; whether any byte of theirs was taken is said as well.
    /// The replies are still awaited.
    pub(crate) fn take_expired(&mut self, now: Millis) -> Vec<(For, bool)> {
        let taken = self.base + self.taken as u64;
        let mut expired = Vec::new();
        self.due = Millis::MAX;
        for entry in &mut self.entries {
            if entry.deadline > now {
                self.due = self.due.min(entry.deadline);
                continue;
            }
            let reply_for = std::mem::replace(&mut entry.reply_for, For::Nobody);
            if !matches!(reply_for, For::Nobody) {
                expired.push((reply_for, entry.start < taken));
            }
            // It only holds its place from now on.
            entry.deadline = Millis::MAX;
        }
        expired
    }

    /// The connection broke: everybody in order, and whether any byte of theirs was taken by the stream.
    pub(crate) fn fail(&mut self) -> Vec<(For, bool)> {
        let taken = self.base + self.taken as u64;
        let failed = self.entries.drain(..).map(|entry| (entry.reply_for, entry.start < taken)).collect();
        *self = Pipeline { answered: self.answered, ..Pipeline::default() };
        failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_nobody(reply_for: &For) -> bool {
        matches!(reply_for, For::Nobody)
    }

    #[test]
    fn what_the_stream_took_in_part_counts_as_sent() {
        let mut pipeline = Pipeline::default();
        pipeline.push(b"12345", For::Heartbeat, 10);
        pipeline.push(b"678", For::Heartbeat, 20);
        assert_eq!(pipeline.unsent(), b"12345678");
        pipeline.took(6);
        assert_eq!(pipeline.unsent(), b"78");
        pipeline.push(b"9", For::Heartbeat, 30);
        let failed: Vec<_> = pipeline.fail().iter().map(|(_, sent)| *sent).collect();
        assert_eq!(failed, [true, true, false]);
        assert_eq!((pipeline.len(), pipeline.unsent()), (0, &b""[..]));
    }

    #[test]
    fn whoever_is_late_is_told_once_and_its_reply_still_has_a_place() {
        let mut pipeline = Pipeline::default();
        pipeline.push(b"a", For::Heartbeat, 10);
        pipeline.push(b"b", For::Heartbeat, 20);
        assert_eq!(pipeline.deadline(), Some(10));
        assert_eq!(pipeline.take_expired(15).len(), 1);
        assert_eq!(pipeline.take_expired(15).len(), 0);
        // One that has been told does not hide the next.
        assert_eq!(pipeline.deadline(), Some(20));
        assert!(pipeline.answered().is_some_and(|first| is_nobody(&first)));
        assert!(pipeline.answered().is_some_and(|second| !is_nobody(&second)));
        assert!(pipeline.answered().is_none());
        assert_eq!(pipeline.deadline(), None);
    }

    #[test]
    fn a_mark_is_past_when_all_before_it_are_answered() {
        let mut pipeline = Pipeline::default();
        pipeline.push(b"a", For::Nobody, 10);
        pipeline.push(b"b", For::Nobody, 10);
        let mark = pipeline.mark();
        pipeline.push(b"c", For::Nobody, 10);
        pipeline.answered();
        assert!(!pipeline.is_past(mark));
        pipeline.answered();
        assert!(pipeline.is_past(mark));
    }
}
