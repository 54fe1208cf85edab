//! The probe of a shard's queue: owns an event descriptor that is made ready now and then and takes its place behind
//! everything that is ready already. The time until its own event is handled is what any other socket waits. It never
//! decides what a delay means.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, eventfd};

use super::reactor::Reactor;
use super::token::{Kind, Token};

/// Least time between two probes of a busy shard: two system calls and one event per 10 ms are a few hundredths of a
/// percent of a core.
const INTERVAL_US: u64 = 10_000;

pub(crate) struct Probe {
    descriptor: OwnedFd,
    /// When the probe under way was sent.
    sent_us: Cell<Option<u64>>,
    next_us: Cell<u64>,
}

impl Probe {
    /// # Errors
    /// The system's, when there is no descriptor left.
    pub(crate) fn new(reactor: &Reactor) -> io::Result<Self> {
        let descriptor = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        reactor.add_level(&descriptor, Token::plain(Kind::Probe, 0))?;
        Ok(Probe { descriptor, sent_us: Cell::new(None), next_us: Cell::new(0) })
    }

    /// After a turn in which the shard was busy: sends a probe when one is due. Says how long the one under way has been
    /// waiting.
    pub(crate) fn on_turn(&self, now_us: u64) -> Option<u64> {
        if let Some(sent) = self.sent_us.get() {
            return Some(now_us.saturating_sub(sent));
        }
        if now_us >= self.next_us.get() && rustix::io::write(&self.descriptor, &1u64.to_ne_bytes()).is_ok() {
            self.sent_us.set(Some(now_us));
            self.next_us.set(now_us + INTERVAL_US);
        }
        None
    }

    /// The probe's event is handled: how long it waited; `None` for one that nobody sent.
    pub(crate) fn on_event(&self, now_us: u64) -> Option<u64> {
        let mut count = [0u8; 8];
        // EAGAIN only says that it was read before.
        let _ = rustix::io::read(&self.descriptor, &mut count);
        self.sent_us.take().map(|sent| now_us.saturating_sub(sent))
    }
}

#[cfg(test)]
mod tests {
    use super::super::reactor::of_each_driver;
    use super::*;

    fn events(reactor: &Reactor) -> usize {
        let mut events = Vec::new();
        reactor.wait(false, &mut events).unwrap();
        events.len()
    }

    #[test]
    fn each_probe_is_one_event_and_one_is_under_way_at_a_time() {
        of_each_driver().for_each(|reactor| check(&reactor));
    }

    fn check(reactor: &Reactor) {
        let probe = Probe::new(reactor).unwrap();
        assert_eq!((events(reactor), probe.on_event(5)), (0, None));
        for start in [10, 10 + INTERVAL_US, 10 + 2 * INTERVAL_US] {
            assert_eq!(probe.on_turn(start), None);
            assert_eq!(probe.on_turn(start + 3), Some(3));
            assert_eq!((events(reactor), probe.on_event(start + 7)), (1, Some(7)));
            assert_eq!((probe.on_turn(start + 8), events(reactor)), (None, 0));
        }
    }
}
