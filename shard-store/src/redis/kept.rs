//! Commands that cannot be sent yet: owns the queues in which they wait for a first table or master, for a moved slot to be
//! in order, or for a pause to be over, and the task that ends their wait. Never a decision where a command goes.
//!
//! Why slots are held: when a slot moves, commands for it that the old node has not answered yet are going to be sent to
//! the new one, each as its redirect arrives. A command that came later must not overtake them. So it waits until the old
//! node has answered everything that was in flight there when the move was learned: about one round trip.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};

use super::bell::Bell;
use super::client::Client;
use super::pause::pause;
use super::waiters::WaiterId;
use crate::error::Change;
use crate::runtime::Runtime;
use crate::{Millis, StoreError};

/// How often it is looked whether somebody's wait is over, while anybody waits.
const TICK_MS: Millis = 16;

/// What has to be over before a held slot is free.
pub(super) trait Fence {
    /// Whether it is.
    fn is_past(&self) -> bool;
}

/// Everything that waits at one client.
pub(super) struct Kept<F> {
    /// Most commands that wait, and how many do.
    limit: usize,
    count: usize,
    arrivals: VecDeque<WaiterId>,
    paused: Vec<(Millis, WaiterId)>,
    holds: HashMap<u16, Hold<F>>,
}

struct Hold<F> {
    fences: Vec<F>,
    /// Then everything that was in flight has been answered or given up.
    until: Millis,
    queue: VecDeque<WaiterId>,
}

impl<F: Fence> Kept<F> {
    /// At most `limit` commands wait.
    pub(super) fn new(limit: usize) -> Self {
        Kept { limit, count: 0, arrivals: VecDeque::new(), paused: Vec::new(), holds: HashMap::new() }
    }

    /// Whether nothing waits and nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0 && self.holds.is_empty()
    }

    /// Keeps a command until it is known where anything goes.
    ///
    /// # Errors
    /// [`StoreError::Busy`].
    pub(super) fn arrive(&mut self, id: WaiterId) -> Result<(), StoreError> {
        self.admit()?;
        self.arrivals.push_back(id);
        Ok(())
    }

    /// Keeps a command until `due`.
    ///
    /// # Errors
    /// [`StoreError::Busy`].
    pub(super) fn pause(&mut self, id: WaiterId, due: Millis) -> Result<(), StoreError> {
        self.admit()?;
        self.paused.push((due, id));
        Ok(())
    }

    /// Holds new commands for a slot until these fences are past, or the time is. A slot that is held already waits for
    /// them as well.
    pub(super) fn hold(&mut self, slot: u16, fences: impl IntoIterator<Item = F>, until: Millis) {
        let mut fences = fences.into_iter().peekable();
        if fences.peek().is_none() {
            return;
        }
        let hold =
            self.holds.entry(slot).or_insert(Hold { fences: Vec::new(), until, queue: VecDeque::new() });
        hold.fences.retain(|fence| !fence.is_past());
        hold.fences.extend(fences);
        hold.until = until;
    }

    /// Keeps a command for a slot where that is held.
    ///
    /// # Errors
    /// [`StoreError::Busy`].
    pub(super) fn keep_if_held(&mut self, slot: u16, id: WaiterId) -> Result<bool, StoreError> {
        if self.holds.is_empty() || !self.holds.contains_key(&slot) {
            return Ok(false);
        }
        self.admit()?;
        self.holds.entry(slot).and_modify(|hold| hold.queue.push_back(id));
        Ok(true)
    }

    /// Takes what has waited for a first table or master, in order.
    pub(super) fn take_arrivals(&mut self) -> VecDeque<WaiterId> {
        self.count -= self.arrivals.len();
        std::mem::take(&mut self.arrivals)
    }

    /// Takes the commands whose wait is over at `now`; those of one slot in order. Whoever takes them must send them
    /// before anything else is routed.
    pub(super) fn take_free(&mut self, now: Millis) -> Vec<WaiterId> {
        let mut free = Vec::new();
        self.paused.retain(|(due, id)| {
            if *due <= now {
                free.push(*id);
            }
            *due > now
        });
        self.holds.retain(|_, hold| {
            hold.fences.retain(|fence| !fence.is_past());
            let held = !hold.fences.is_empty() && now < hold.until;
            if !held {
                free.extend(hold.queue.drain(..));
            }
            held
        });
        self.count -= free.len();
        free
    }

    /// Forgets the commands that are not to be kept; `keeps` is asked for each.
    pub(super) fn retain(&mut self, mut keeps: impl FnMut(WaiterId) -> bool) {
        self.arrivals.retain(|id| keeps(*id));
        self.paused.retain(|(_, id)| keeps(*id));
        self.holds.values_mut().for_each(|hold| hold.queue.retain(|id| keeps(*id)));
        let held: usize = self.holds.values().map(|hold| hold.queue.len()).sum();
        self.count = self.arrivals.len() + self.paused.len() + held;
    }

    fn admit(&mut self) -> Result<(), StoreError> {
        if self.count >= self.limit {
            return Err(StoreError::Busy);
        }
        self.count += 1;
        Ok(())
    }
}

/// What waits at one client, and whoever sees to it.
pub(super) struct Tended<F> {
    kept: RefCell<Kept<F>>,
    bell: Bell,
    closed: Cell<bool>,
}

impl<F: Fence> Tended<F> {
    pub(super) fn new(limit: usize) -> Self {
        Tended { kept: RefCell::new(Kept::new(limit)), bell: Bell::default(), closed: Cell::new(false) }
    }

    /// Changes what waits; the task learns of it.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Kept<F>) -> T) -> T {
        let mut kept = self.kept.borrow_mut();
        let changed = change(&mut kept);
        if !kept.is_empty() {
            self.bell.ring();
        }
        changed
    }

    /// Keeps a command for a slot where that is held; see [`Kept::keep_if_held`].
    ///
    /// # Errors
    /// [`StoreError::Busy`].
    pub(super) fn keep_if_held(&self, slot: u16, id: WaiterId) -> Result<bool, StoreError> {
        self.kept.borrow_mut().keep_if_held(slot, id)
    }

    /// Has everything sent again that waited for a first table or master.
    pub(super) fn release_arrivals<R: Runtime>(&self, client: &Client<R>) {
        let arrivals = self.kept.borrow_mut().take_arrivals();
        arrivals.into_iter().for_each(|id| client.send(id));
    }

    /// Has everything sent whose wait is over.
    pub(super) fn release_free<R: Runtime>(&self, client: &Client<R>) {
        if self.kept.borrow().is_empty() {
            return;
        }
        let free = self.kept.borrow_mut().take_free(client.runtime.now());
        free.into_iter().for_each(|id| client.send(id));
    }

    /// Ends the task.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.bell.ring();
    }

    /// Tells those whose time is over before they were sent, and forgets those whose callers have gone.
    fn expire<R: Runtime>(&self, client: &Client<R>) {
        let now = client.runtime.now();
        let mut expired = Vec::new();
        self.kept.borrow_mut().retain(|id| match client.deadline_of(id) {
            Some(deadline) if deadline <= now => {
                expired.push(id);
                false
            }
            waiting => waiting.is_some(),
        });
        expired.into_iter().for_each(|id| client.fail(id, StoreError::Timeout(Change::None)));
    }
}

/// Sees to what waits, until it is closed or the client is gone.
pub(super) async fn tend<R: Runtime, F: Fence>(runtime: R, tended: Rc<Tended<F>>, client: Weak<Client<R>>) {
    while !tended.closed.get() {
        tended.bell.rung().await;
        while !tended.closed.get() && !tended.kept.borrow().is_empty() {
            let Some(client) = client.upgrade() else { return };
            tended.release_free(&client);
            tended.expire(&client);
            drop(client);
            pause(&runtime, TICK_MS).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    #[derive(Clone, Default)]
    struct Gate(Rc<Cell<bool>>);

    impl Fence for Gate {
        fn is_past(&self) -> bool {
            self.0.get()
        }
    }

    fn id(number: u32) -> WaiterId {
        WaiterId::for_test(number)
    }

    #[test]
    fn a_held_slot_gives_its_commands_out_in_order_when_all_fences_are_past() {
        let mut kept = Kept::new(10);
        let (first, second) = (Gate::default(), Gate::default());
        assert_eq!(kept.keep_if_held(7, id(0)), Ok(false));
        kept.hold(7, [first.clone()], 100);
        assert_eq!((kept.keep_if_held(7, id(1)), kept.keep_if_held(8, id(2))), (Ok(true), Ok(false)));
        kept.hold(7, [second.clone()], 100);
        assert_eq!(kept.keep_if_held(7, id(3)), Ok(true));
        first.0.set(true);
        assert_eq!(kept.take_free(0), []);
        second.0.set(true);
        assert_eq!(kept.take_free(0), [id(1), id(3)]);
        assert!(kept.is_empty());
    }

    #[test]
    fn a_fence_that_never_passes_holds_for_a_commands_time_only() {
        let mut kept = Kept::new(10);
        kept.hold(7, [Gate::default()], 100);
        kept.keep_if_held(7, id(1)).unwrap();
        assert_eq!((kept.take_free(99), kept.take_free(100)), (vec![], vec![id(1)]));
        kept.hold(8, [], 100);
        assert_eq!(kept.keep_if_held(8, id(2)), Ok(false), "nothing was in flight");
    }

    #[test]
    fn pauses_end_at_their_time_and_arrivals_when_taken() {
        let mut kept = Kept::<Gate>::new(10);
        kept.pause(id(1), 20).unwrap();
        kept.pause(id(2), 10).unwrap();
        kept.arrive(id(3)).unwrap();
        assert_eq!((kept.take_free(10), kept.take_free(19)), (vec![id(2)], vec![]));
        assert_eq!((kept.take_arrivals(), kept.is_empty()), ([id(3)].into(), false));
        assert_eq!((kept.take_free(20), kept.is_empty()), (vec![id(1)], true));
    }

    #[test]
    fn no_more_wait_than_may() {
        let mut kept = Kept::new(3);
        kept.hold(7, [Gate::default()], 100);
        kept.arrive(id(1)).unwrap();
        kept.pause(id(2), 10).unwrap();
        kept.keep_if_held(7, id(3)).unwrap();
        let full = [kept.arrive(id(4)), kept.pause(id(4), 10), kept.keep_if_held(7, id(4)).map(drop)];
        assert_eq!(full, [const { Err(StoreError::Busy) }; 3]);
        kept.retain(|one| one != id(3));
        assert_eq!(kept.keep_if_held(7, id(4)), Ok(true));
        assert_eq!(kept.take_free(100), [id(2), id(4)]);
    }
}
