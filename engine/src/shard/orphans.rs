//! Orphans: exchanges that go on although their client is gone, because a broken connection is no cancellation to a legacy
//! server. Owns how many there may be and for how long. Never what they do: [`crate::exchange`] decides which stay, and
//! throws away what comes.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::Shard;
use super::clock::Millis;
use super::tasks::{Left, TaskId};
use crate::metrics::OrphanResult;

/// Orphans per shard; a further exchange ends with its client. Each holds its task, its request, a connection to its server
/// with a buffer of at most 64 KiB, and until its server says more what its door had for it (some 40 KiB for HTTP/2): 32 MiB
/// at the very most.
const MAX_ORPHANS: usize = 256;
/// Names of orphans, those that have ended among them, before the latter are sought out.
const MAX_NAMES: usize = 2 * MAX_ORPHANS;

/// The orphans by when their time is over, the next first.
#[derive(Default)]
pub(crate) struct Orphans(RefCell<VecDeque<(TaskId, Millis)>>);

impl Shard {
    /// The client of an exchange is gone: it ends, or becomes an orphan.
    pub(crate) fn leave(&self, exchange: TaskId) {
        match self.core.tasks.leave(exchange, self.core.tasks.left() < MAX_ORPHANS) {
            Left::Gone => {}
            Left::NoRoom => self.metrics.orphan_ended(OrphanResult::NoRoom),
            Left::Stays => {
                let until = self.core.clock.after(self.setup().config.session.orphan_timeout);
                let names = &mut *self.orphans.0.borrow_mut();
                if names.len() >= MAX_NAMES {
                    names.retain(|(orphan, _)| self.core.tasks.is_live(*orphan));
                }
                names.push_back((exchange, until));
                self.want_housekeeping();
            }
        }
    }

    /// Ends the orphans whose time is over; says whether there are more.
    pub(super) fn end_orphans(&self) -> bool {
        loop {
            let late = {
                let names = &mut *self.orphans.0.borrow_mut();
                let is_late = names.front().is_some_and(|(_, until)| *until <= self.core.clock.now());
                if is_late { names.pop_front() } else { None }
            };
            let Some((orphan, _)) = late else { break };
            if self.core.tasks.is_live(orphan) {
                self.metrics.orphan_ended(OrphanResult::TimedOut);
                self.core.tasks.cancel(orphan);
            }
        }
        !self.orphans.0.borrow().is_empty()
    }
}
