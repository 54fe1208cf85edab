//! The task that writes sessions which were opened while Redis was away: owns when it tries, and what it makes of what has
//! happened to a session in the meantime. It ends when nothing waits any more.

use std::future::pending;
use std::rc::Rc;

use futures_util::future::join_all;
use mcp_protocol::resp::Reply;

use super::{RedisSessions, SessionCommands, key};
use crate::error::Retry;
use crate::memory::Peers;
use crate::redis::{Command, Health};
use crate::runtime::Runtime;
use crate::{Record, SessionId, StoreError};

/// Sessions written at the same time: their records leave in one write of some 32 KiB.
const BATCH: usize = 64;
/// First and longest pause between two tries, before jitter takes up to half of it. The longest is part of how long other
/// pods do not know a session after Redis is back.
const PAUSE_MS: (u64, u64) = (50, 500);

impl<R: Runtime, P: Peers + 'static, C: SessionCommands> RedisSessions<R, P, C> {
    /// Keeps a session that Redis did not take; `in_doubt` where it may have.
    ///
    /// # Errors
    /// [`StoreError::Full`].
    pub(super) fn keep_unwritten(
        &self,
        id: SessionId,
        record: Rc<Record>,
        in_doubt: bool,
    ) -> Result<(), StoreError> {
        self.unwritten.borrow().check_room()?;
        self.memory.keep(id, record.clone(), self.runtime.now())?;
        self.unwritten.borrow_mut().push(id, record, in_doubt);
        self.publish_unwritten();
        self.start_writer();
        Ok(())
    }

    fn start_writer(&self) {
        if std::mem::replace(&mut self.unwritten.borrow_mut().has_writer, true) {
            return;
        }
        if let Some(me) = self.me.upgrade() {
            self.runtime.spawn(Box::pin(async move { me.write_all().await }));
        }
    }

    async fn write_all(&self) {
        let (first, longest) = PAUSE_MS;
        let mut pause_ms = first;
        loop {
            self.pause(pause_ms).await;
            while self.client.health() != Health::Down {
                let batch = self.unwritten.borrow_mut().take(BATCH);
                if batch.is_empty() {
                    self.unwritten.borrow_mut().has_writer = false;
                    return;
                }
                if !self.write_batch(batch).await {
                    break;
                }
                pause_ms = first;
            }
            pause_ms = longest.min(pause_ms * 2);
        }
    }

    async fn pause(&self, pause_ms: u64) {
        let pause_ms = pause_ms - self.random() % (pause_ms / 2);
        let _ = self.runtime.deadline(self.runtime.now() + pause_ms, pending::<()>()).await;
    }

    /// Does some jobs; whether Redis did all it was asked.
    async fn write_batch(&self, batch: Vec<SessionId>) -> bool {
        let outcomes = join_all(batch.iter().map(|id| self.write_back(id))).await;
        let mut all_done = true;
        for (id, outcome) in batch.into_iter().zip(outcomes) {
            match outcome {
                Ok(true) => self.unwritten.borrow_mut().finish(&id),
                Ok(false) => self.unwritten.borrow_mut().put_back(id),
                Err(_) => {
                    all_done = false;
                    self.unwritten.borrow_mut().put_back(id);
                }
            }
        }
        all_done
    }

    /// Brings Redis up to what has become of a session; `false` when it has become something else in the meantime.
    async fn write_back(&self, id: &SessionId) -> Result<bool, StoreError> {
        let now = self.runtime.now();
        let kept = self.memory.kept(id, now);
        let Some(job) = self.unwritten.borrow_mut().begin(id) else { return Ok(true) };
        let Some((record, expires)) = kept else {
            // It was ended, or its life is over.
            if job.was_in_doubt {
                is_ended(self.end(id).await)?;
            }
            return Ok(true);
        };
        let is_as_opened = Rc::ptr_eq(&record, &job.opened);
        let written = self.set(id, &record, expires - now, is_as_opened.then_some(b"NX")).await;
        let is_new = match written {
            Ok(is_new) => is_new,
            Err(error) => {
                if error.retry() == Retry::Safe && !job.was_in_doubt {
                    self.unwritten.borrow_mut().undo_doubt(id);
                }
                return Err(error);
            }
        };
        if job.was_in_doubt && self.was_ended(id).await? {
            // An earlier write was carried out after all, and another pod has ended the session since.
            self.forget_unwritten(id);
            is_ended(self.del(id).await)?;
            return Ok(true);
        }
        let is_current = matches!(
            self.memory.kept(id, self.runtime.now()),
            Some((current, _)) if Rc::ptr_eq(&current, &record)
        );
        if is_current {
            self.forget_unwritten(id);
            if !is_new {
                self.touch(id);
            }
        }
        Ok(is_current)
    }

    fn forget_unwritten(&self, id: &SessionId) {
        self.memory.forget(id);
        self.publish_unwritten();
    }

    /// Whether a pod has ended the session of late.
    async fn was_ended(&self, id: &SessionId) -> Result<bool, StoreError> {
        let key = key::ended(id);
        match self.client.call(&Command::read("exists", &key, &[b"EXISTS", &key])).await? {
            Reply::Integer(there) => Ok(there > 0),
            _ => Err(StoreError::Malformed("no number for EXISTS")),
        }
    }
}

/// A deletion that too few replicas have was made all the same, and is not made again until they do.
fn is_ended(outcome: Result<bool, StoreError>) -> Result<(), StoreError> {
    match outcome {
        Ok(_) | Err(StoreError::NotReplicated { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
