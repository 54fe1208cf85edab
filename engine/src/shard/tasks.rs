//! The shard's tasks: owns the futures of exchanges in flight, their wakers and their timers. It never does IO and
//! knows nothing of what a task is for. A task lives while an exchange is in flight; an idle connection has none.
//!
//! A task that is left, because whoever it works for is gone, is dropped, unless it has said that it stays.
//!
//! Invariants: a task is polled only from [`Tasks::run`]; a waker names its task by slot and generation, so a late wake
//! of a finished task is ignored; a timer belongs to the slot, not to the task, so that short tasks with long deadlines
//! do not fill the wheel.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use super::spare::{Release, Spare};
use super::wheel::Timer;

/// Finished tasks whose memory is kept for the next ones: 256 of some 5 KiB are 1.3 MiB per shard.
const SPARE_TASKS: usize = 256;

/// Polls per call of [`Tasks::run`], so that tasks that wake each other cannot starve the sockets: two for each event that
/// a turn may bring.
const POLLS_PER_TURN: usize = 1024;

/// Tasks that spawn others when they are dropped, and those others again, are followed so far.
const CANCEL_ROUNDS: usize = 8;

thread_local! {
    static READY: RefCell<VecDeque<TaskId>> = const { RefCell::new(VecDeque::new()) };
    /// Whether the task that runs has been left.
    static IS_LEFT: Cell<bool> = const { Cell::new(false) };
}

/// Whether the task that runs goes on without whom it works for.
#[inline]
pub(crate) fn is_left() -> bool {
    IS_LEFT.get()
}

/// Whether a task goes on when it is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stay {
    No,
    /// From [`Tasks::sent`] on.
    OnceSent,
    Yes,
}

/// What became of a task that was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It goes on, and has been woken to learn that it is alone.
    Stays,
    /// It would have, but there was no room for it: dropped.
    NoRoom,
    /// It was dropped, or had ended before.
    Gone,
}

/// Names a task: slot and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskId(u64);

impl TaskId {
    fn new(slot: usize, generation: u32) -> Self {
        TaskId((u64::from(generation) << 32) | slot as u64)
    }

    pub(crate) fn slot(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn waker(self) -> Waker {
        // SAFETY: the data pointer is an integer in disguise and is never dereferenced; the vtable's functions only
        // copy it and touch a thread-local queue. A wake on another thread lands in that thread's queue and is lost,
        // which no shard code causes: nothing in a shard is sent away.
        unsafe { Waker::from_raw(raw_waker(self.0 as *const ())) }
    }
}

fn raw_waker(data: *const ()) -> RawWaker {
    RawWaker::new(data, &VTABLE)
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(raw_waker, wake, wake, |_| {});

fn wake(data: *const ()) {
    READY.with_borrow_mut(|ready| ready.push_back(TaskId(data as u64)));
}

/// The memory of a task, whatever its future's type: it outlives the future.
trait Task: Any {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Drops the future.
    fn clear(&mut self);
}

struct Typed<F>(Pin<Box<Option<F>>>);

impl<F: Future<Output = ()> + 'static> Task for Typed<F> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().as_pin_mut().map_or(Poll::Ready(()), |future| future.poll(cx))
    }

    fn clear(&mut self) {
        self.0.set(None);
    }
}

struct Slot {
    generation: u32,
    state: State,
    stay: Stay,
    left: bool,
}

enum State {
    Free,
    Waiting(Box<dyn Task>),
    Running,
    /// Cancelled while it ran: dropped when its poll returns.
    Cancelled,
}

#[derive(Default)]
pub(crate) struct Tasks {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
    timers: RefCell<Vec<Timer>>,
    spare: Spare<Box<dyn Task>, SPARE_TASKS>,
    current: Cell<Option<TaskId>>,
    live: Cell<usize>,
    /// Those among them that were left and stay.
    left: Cell<usize>,
}

impl Tasks {
    /// Takes a task; it is polled in the next [`Tasks::run`]. Nearly all tasks are of one type, the exchange's, so that
    /// the memory of a finished one nearly always fits. The future is made in that memory: as an argument it would be copied
    /// there, some 4 KiB, three times.
    #[inline]
    pub(crate) fn spawn<F: Future<Output = ()> + 'static>(&self, future: impl FnOnce() -> F) -> TaskId {
        let task = match self.spare.take() {
            Some(mut used) if (&*used as &dyn Any).is::<Typed<F>>() => {
                if let Some(Typed(memory)) = (&mut *used as &mut dyn Any).downcast_mut() {
                    memory.set(Some(future()));
                }
                used
            }
            _ => Box::new(Typed(Box::pin(Some(future())))),
        };
        let mut slots = self.slots.borrow_mut();
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push(Slot { generation: 0, state: State::Free, stay: Stay::No, left: false });
            self.timers.borrow_mut().push(Timer::default());
            slots.len() - 1
        });
        let slot = &mut slots[index];
        slot.state = State::Waiting(task);
        let id = TaskId::new(index, slot.generation);
        self.live.set(self.live.get() + 1);
        READY.with_borrow_mut(|ready| ready.push_back(id));
        id
    }

    /// Gives back memory of finished tasks that no new one needed lately; says whether some is left.
    pub(crate) fn release_spare(&self, rate: Release) -> bool {
        self.spare.release(rate)
    }

    /// Number of tasks in flight.
    pub(crate) fn live(&self) -> usize {
        self.live.get()
    }

    /// Number of tasks in flight that were left and go on.
    pub(crate) fn left(&self) -> usize {
        self.left.get()
    }

    /// Says whether the running task goes on when it is left.
    pub(crate) fn set_stay(&self, stay: Stay) {
        self.with_current(|slot| slot.stay = stay);
    }

    /// What the running task works on is out of its hands: one that stays [`Stay::OnceSent`] does so now.
    pub(crate) fn sent(&self) {
        self.with_current(|slot| {
            if slot.stay == Stay::OnceSent {
                slot.stay = Stay::Yes;
            }
        });
    }

    fn with_current(&self, work: impl FnOnce(&mut Slot)) {
        if let Some(current) = self.current.get() {
            work(&mut self.slots.borrow_mut()[current.slot()]);
        }
    }

    /// Whoever the task works for is gone: it is dropped unless it stays and `has_room`.
    pub(crate) fn leave(&self, id: TaskId, has_room: bool) -> Left {
        let wants_to_stay = {
            let mut slots = self.slots.borrow_mut();
            match slots.get_mut(id.slot()) {
                Some(slot)
                    if slot.generation == id.generation()
                        && matches!(slot.state, State::Waiting(_) | State::Running) =>
                {
                    let stays = slot.stay == Stay::Yes && !slot.left;
                    slot.left |= stays && has_room;
                    stays
                }
                _ => return Left::Gone,
            }
        };
        if !wants_to_stay || !has_room {
            self.cancel(id);
            return if wants_to_stay { Left::NoRoom } else { Left::Gone };
        }
        self.left.set(self.left.get() + 1);
        if self.current.get() == Some(id) {
            IS_LEFT.set(true);
        } else {
            READY.with_borrow_mut(|ready| ready.push_back(id));
        }
        Left::Stays
    }

    /// Whether a task has not ended.
    pub(crate) fn is_live(&self, id: TaskId) -> bool {
        self.slots.borrow().get(id.slot()).is_some_and(|slot| slot.generation == id.generation())
    }

    /// The task that is being polled.
    pub(crate) fn current(&self) -> Option<TaskId> {
        self.current.get()
    }

    /// Runs `use_timer` on the timer of the slot.
    pub(crate) fn with_timer<T>(&self, slot: usize, use_timer: impl FnOnce(&Timer) -> T) -> Option<T> {
        self.timers.borrow().get(slot).map(use_timer)
    }

    /// Wakes whatever task is in the slot: its timer came up.
    pub(crate) fn wake_slot(&self, slot: usize) {
        if let Some(found) = self.slots.borrow().get(slot) {
            READY.with_borrow_mut(|ready| ready.push_back(TaskId::new(slot, found.generation)));
        }
    }

    /// Wakes every task: something changed that concerns all of them.
    pub(crate) fn wake_all(&self) {
        for slot in 0..self.slots.borrow().len() {
            self.wake_slot(slot);
        }
    }

    /// Drops a task, now or, when it is the one running, as soon as its poll returns.
    pub(crate) fn cancel(&self, id: TaskId) {
        let dropped = {
            let mut slots = self.slots.borrow_mut();
            match slots.get_mut(id.slot()) {
                Some(slot) if slot.generation == id.generation() => match slot.state {
                    State::Waiting(_) => std::mem::replace(&mut slot.state, State::Free),
                    State::Running => {
                        slot.state = State::Cancelled;
                        return;
                    }
                    State::Free | State::Cancelled => return,
                },
                _ => return,
            }
        };
        if let State::Waiting(task) = dropped {
            self.retire(task);
        }
        self.release(id);
    }

    /// Drops every task, and those that they spawn as they go.
    pub(crate) fn cancel_all(&self) {
        for round in 0.. {
            let slots = self.slots.borrow().len();
            for slot in 0..slots {
                let generation = self.slots.borrow()[slot].generation;
                self.cancel(TaskId::new(slot, generation));
            }
            if self.live() == 0 || round == CANCEL_ROUNDS {
                break;
            }
        }
        READY.with_borrow_mut(VecDeque::clear);
    }

    /// Polls what is ready. Returns whether anything was.
    pub(crate) fn run(&self) -> bool {
        let mut polled = 0;
        while polled < POLLS_PER_TURN {
            let Some(id) = READY.with_borrow_mut(VecDeque::pop_front) else { break };
            let task = {
                let mut slots = self.slots.borrow_mut();
                match slots.get_mut(id.slot()) {
                    Some(slot) if slot.generation == id.generation() => {
                        match std::mem::replace(&mut slot.state, State::Running) {
                            State::Waiting(task) => {
                                IS_LEFT.set(slot.left);
                                Some(task)
                            }
                            other => {
                                slot.state = other;
                                None
                            }
                        }
                    }
                    _ => None,
                }
            };
            let Some(mut task) = task else { continue };
            polled += 1;
            self.current.set(Some(id));
            let waker = id.waker();
            let done = task.poll(&mut Context::from_waker(&waker)) == Poll::Ready(());
            self.current.set(None);
            IS_LEFT.set(false);
            if !done {
                let mut slots = self.slots.borrow_mut();
                let slot = &mut slots[id.slot()];
                if matches!(slot.state, State::Running) {
                    slot.state = State::Waiting(task);
                    continue;
                }
            }
            self.retire(task);
            self.release(id);
        }
        polled > 0
    }

    /// Whether a task is waiting to be polled.
    pub(crate) fn any_ready(&self) -> bool {
        READY.with_borrow(|ready| !ready.is_empty())
    }

    /// Drops a task's future and keeps its memory. The future's own destructors may reach into the shard: no borrow may be
    /// held here.
    fn retire(&self, mut task: Box<dyn Task>) {
        task.clear();
        self.spare.give(task);
    }

    fn release(&self, id: TaskId) {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[id.slot()];
        slot.generation = slot.generation.wrapping_add(1);
        slot.state = State::Free;
        slot.stay = Stay::No;
        if std::mem::take(&mut slot.left) {
            self.left.set(self.left.get() - 1);
        }
        self.free.borrow_mut().push(id.slot());
        self.live.set(self.live.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_task_runs_when_it_is_woken_and_its_slot_is_used_again() {
        let tasks = Tasks::default();
        let polls = Rc::new(Cell::new(0));
        let waker: Rc<RefCell<Option<Waker>>> = Rc::default();
        let (seen, kept) = (polls.clone(), waker.clone());
        let first = tasks.spawn(|| {
            poll_fn(move |cx| {
                seen.set(seen.get() + 1);
                *kept.borrow_mut() = Some(cx.waker().clone());
                if seen.get() == 2 { Poll::Ready(()) } else { Poll::Pending }
            })
        });
        assert!(tasks.run());
        assert!(!tasks.run());
        waker.borrow().as_ref().unwrap().wake_by_ref();
        assert!(tasks.run());
        assert_eq!((polls.get(), tasks.live()), (2, 0));
        let second = tasks.spawn(|| async {});
        assert_eq!(first.slot(), second.slot());
        assert_ne!(first, second);
        // A late wake of the first does not poll the second twice, nor anything after it is gone.
        waker.borrow().as_ref().unwrap().wake_by_ref();
        tasks.run();
        assert_eq!(tasks.live(), 0);
    }

    #[test]
    fn a_task_that_is_left_stays_once_sent_and_learns_of_it() {
        let tasks = Rc::new(Tasks::default());
        let (own, seen) = (tasks.clone(), Rc::new(Cell::new((0, false))));
        let polls = seen.clone();
        let start = |stay| {
            let (own, polls) = (own.clone(), polls.clone());
            tasks.spawn(move || {
                poll_fn(move |_| {
                    let (count, _) = polls.get();
                    polls.set((count + 1, is_left()));
                    own.set_stay(stay);
                    Poll::Pending
                })
            })
        };
        for stay in [Stay::No, Stay::OnceSent] {
            let id = start(stay);
            tasks.run();
            assert_eq!(tasks.leave(id, true), Left::Gone, "{stay:?}");
            assert!(!tasks.is_live(id));
        }
        let id = start(Stay::Yes);
        tasks.run();
        assert_eq!((tasks.leave(id, false), tasks.live()), (Left::NoRoom, 0));

        let id = start(Stay::Yes);
        tasks.run();
        assert!(!seen.get().1);
        let polled = seen.get().0;
        assert_eq!((tasks.leave(id, true), tasks.left()), (Left::Stays, 1));
        tasks.run();
        assert_eq!(seen.get(), (polled + 1, true));
        assert!(!is_left(), "nobody but the task itself is left");
        tasks.cancel(id);
        assert_eq!((tasks.left(), tasks.live()), (0, 0));
        assert_eq!(tasks.leave(id, true), Left::Gone);
    }

    #[test]
    fn a_running_task_stays_from_the_moment_it_has_sent() {
        let tasks = Rc::new(Tasks::default());
        let own = tasks.clone();
        let id = tasks.spawn(|| async move {
            own.set_stay(Stay::OnceSent);
            own.sent();
            let id = own.current().expect("a task is running");
            assert_eq!(own.leave(id, true), Left::Stays);
            assert!(is_left());
        });
        tasks.run();
        assert!(!tasks.is_live(id));
        assert_eq!((tasks.left(), tasks.live()), (0, 0));
    }

    #[test]
    fn a_cancelled_task_is_dropped_at_once_or_after_its_poll() {
        let tasks = Rc::new(Tasks::default());
        let alive = Rc::new(());
        let held = alive.clone();
        let id = tasks.spawn(|| async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        tasks.run();
        assert_eq!(Rc::strong_count(&alive), 2);
        tasks.cancel(id);
        assert_eq!((Rc::strong_count(&alive), tasks.live()), (1, 0));

        let (held, own) = (alive.clone(), tasks.clone());
        tasks.spawn(|| async move {
            let _held = held;
            own.cancel(own.current().expect("a task is running"));
            std::future::pending::<()>().await;
        });
        tasks.run();
        assert_eq!((Rc::strong_count(&alive), tasks.live()), (1, 0));
    }
}
