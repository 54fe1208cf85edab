//! What a shard stands on: owns its reactor, clock, tasks and timers, and how tasks wait. It knows neither connections nor
//! messages, so that it can drive the store's client alone as well.
//!
//! Invariant: no `RefCell` borrow is held while a task runs.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::clock::{Clock, Millis, NEVER};
use super::mailbox::Mailbox;
use super::tasks::Tasks;
use super::wheel::{Timer, Wheel};
use crate::net::reactor::Reactor;
use crate::net::token::{Kind, Token};

/// A task's time is over.
#[derive(Debug)]
pub(crate) struct Elapsed;

pub(crate) struct Core {
    pub(crate) reactor: Rc<Reactor>,
    pub(crate) clock: Clock,
    pub(crate) tasks: Tasks,
    wheel: RefCell<Wheel>,
    timer: OwnedFd,
    /// When the timer descriptor goes off; [`NEVER`] where it does not.
    timer_due: Cell<Millis>,
}

impl Core {
    /// Registers the mailbox and the timer with the driver, which was made on this thread.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn new(start: Instant, reactor: Reactor, mailbox: &Mailbox) -> io::Result<Rc<Self>> {
        let reactor = Rc::new(reactor);
        let clock = Clock::new(start);
        reactor.add_level(mailbox.descriptor(), Token::plain(Kind::Mailbox, 0))?;
        let timer = rustix::time::timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        reactor.add_level(&timer, Token::plain(Kind::Clock, 0))?;
        let wheel = RefCell::new(Wheel::new(clock.now()));
        Ok(Rc::new(Core {
            reactor,
            clock,
            tasks: Tasks::default(),
            wheel,
            timer,
            timer_due: Cell::new(NEVER),
        }))
    }

    /// Reads the clock: a turn begins.
    pub(crate) fn begin_turn(&self) {
        self.clock.refresh();
        self.wheel.borrow_mut().catch_up(self.clock.now());
    }

    /// Sets an owner's deadline on the wheel.
    pub(crate) fn arm(&self, timer: &Timer, owner: Token, deadline: Millis) {
        self.wheel.borrow_mut().set(timer, owner.pack(), deadline);
    }

    /// An owner of a deadline is gone.
    pub(crate) fn disarm(&self, timer: &Timer) {
        self.wheel.borrow_mut().forget(timer);
    }

    /// Bounds the time of a task's step. Must be awaited by the task itself; steps are bounded one at a time.
    pub(crate) async fn deadline<T>(
        &self,
        deadline: Millis,
        step: impl Future<Output = T>,
    ) -> Result<T, Elapsed> {
        let mut step = pin!(step);
        let mut armed = None;
        let outcome = poll_fn(|cx| {
            if let Poll::Ready(value) = step.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            if self.clock.now() >= deadline {
                return Poll::Ready(Err(Elapsed));
            }
            if armed.is_none()
                && let Some(task) = self.tasks.current()
            {
                armed = Some(task.slot());
                self.set_task_deadline(task.slot(), deadline);
            }
            Poll::Pending
        })
        .await;
        if let Some(slot) = armed {
            self.set_task_deadline(slot, NEVER);
        }
        outcome
    }

    fn set_task_deadline(&self, slot: usize, deadline: Millis) {
        self.tasks.with_timer(slot, |timer| self.arm(timer, Token::plain(Kind::Task, slot), deadline));
    }

    /// The timer descriptor went off: tasks whose time has come are woken, everybody else's entries go to `others` with
    /// their tick.
    pub(crate) fn on_clock(&self, mut others: impl FnMut(Token, u64)) {
        let mut expirations = [0u8; 8];
        // EAGAIN only says that it was read before.
        let _ = rustix::io::read(&self.timer, &mut expirations);
        self.timer_due.set(NEVER);
        let mut due = Vec::new();
        self.wheel.borrow_mut().advance(self.clock.now(), &mut due);
        for (bits, tick) in due {
            match Token::unpack(bits) {
                Some(token) if token.kind == Kind::Task => {
                    let slot = token.index as usize;
                    let over = self.tasks.with_timer(slot, |timer| self.came_up(timer, token, tick));
                    if over == Some(true) {
                        self.tasks.wake_slot(slot);
                    }
                }
                Some(token) => others(token, tick),
                None => {}
            }
        }
    }

    /// Whether a timer's deadline has passed; puts it back on the wheel when it moved.
    pub(crate) fn came_up(&self, timer: &Timer, token: Token, tick: u64) -> bool {
        match Wheel::visit(timer, tick, self.clock.now()) {
            Some(true) => true,
            Some(false) => {
                self.arm(timer, token, timer.deadline());
                false
            }
            None => false,
        }
    }

    /// Sets the timer descriptor for the next tick that has something to look at. One that is set for a tick which nobody
    /// needs any more is left: it costs one turn, and setting it again costs a system call for each connection.
    pub(crate) fn keep_timer(&self) {
        let Some(due) = self.wheel.borrow_mut().next_due() else { return };
        if self.timer_due.get() <= due {
            return;
        }
        let wait_ms = due.saturating_sub(self.clock.now()).max(1);
        let once = Timespec { tv_sec: (wait_ms / 1000) as i64, tv_nsec: (wait_ms % 1000) as i64 * 1_000_000 };
        let setting = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: once };
        match rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting) {
            Ok(_) => self.timer_due.set(due),
            Err(error) => crate::fatal::end(&format!("timerfd_settime failed: {error}")),
        }
    }
}
