//! Sessions that Redis does not have yet: owns the jobs of one shard, and in which order they are done. It never talks to
//! Redis, and does not hold the sessions: they are at home in the shard's memory store.
//!
//! Invariants: a job is either in the queue or being done, never both and never twice, so that nobody takes a session that
//! was written and handed over for one that was ended.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::id::IdMap;
use crate::{Record, SessionId, StoreError};

/// The jobs of a shard.
pub(super) struct Unwritten {
    limit: usize,
    jobs: IdMap<Job>,
    queue: VecDeque<SessionId>,
    /// The task that does the jobs is there.
    pub(super) has_writer: bool,
}

struct Job {
    /// What was to be written when the session was opened: while that is what it still is, a record that Redis has under
    /// this id is the same or a later one.
    opened: Rc<Record>,
    /// A write may have been carried out.
    in_doubt: bool,
    is_underway: bool,
}

/// A job as it was when it was begun.
pub(super) struct Begun {
    pub(super) opened: Rc<Record>,
    pub(super) was_in_doubt: bool,
}

impl Unwritten {
    pub(super) fn new(limit: usize) -> Self {
        Unwritten { limit, jobs: IdMap::default(), queue: VecDeque::new(), has_writer: false }
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn check_room(&self) -> Result<(), StoreError> {
        match self.jobs.len() < self.limit {
            true => Ok(()),
            false => Err(StoreError::Full { limit: self.limit }),
        }
    }

    pub(super) fn push(&mut self, id: SessionId, opened: Rc<Record>, in_doubt: bool) {
        self.jobs.insert(id, Job { opened, in_doubt, is_underway: false });
        self.queue.push_back(id);
    }

    /// Takes up to `count` jobs out of the queue.
    pub(super) fn take(&mut self, count: usize) -> Vec<SessionId> {
        let mut taken = Vec::new();
        while taken.len() < count
            && let Some(id) = self.queue.pop_front()
        {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.is_underway = true;
                taken.push(id);
            }
        }
        taken
    }

    /// A write is about to be sent: from now on it may have been carried out.
    pub(super) fn begin(&mut self, id: &SessionId) -> Option<Begun> {
        let job = self.jobs.get_mut(id)?;
        Some(Begun { opened: job.opened.clone(), was_in_doubt: std::mem::replace(&mut job.in_doubt, true) })
    }

    /// The write that was begun was certainly not carried out.
    pub(super) fn undo_doubt(&mut self, id: &SessionId) {
        if let Some(job) = self.jobs.get_mut(id) {
            job.in_doubt = false;
        }
    }

    /// There is more to do for this one.
    pub(super) fn put_back(&mut self, id: SessionId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.is_underway = false;
            self.queue.push_back(id);
        }
    }

    pub(super) fn finish(&mut self, id: &SessionId) {
        self.jobs.remove(id);
    }

    /// Drops the jobs of sessions that ended before anything of them can have reached Redis, and memory that most have left.
    pub(super) fn sweep(&mut self, is_kept: impl Fn(&SessionId) -> bool) {
        self.jobs.retain(|id, job| job.in_doubt || job.is_underway || is_kept(id));
        self.queue.retain(|id| self.jobs.contains_key(id));
        if self.jobs.is_empty() {
            self.jobs.shrink_to_fit();
            self.queue.shrink_to_fit();
        }
    }
}
