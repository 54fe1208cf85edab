//! The epoll driver: owns a shard's epoll descriptor. Stream sockets are registered once, edge triggered; the rest is
//! level triggered. It never reads or writes a socket.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::Timespec;

use super::event::{EVENTS_PER_WAIT, Event, Ready, What};
use super::token::Token;

pub(crate) struct Epoll {
    descriptor: OwnedFd,
    found: RefCell<Vec<epoll::Event>>,
}

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Epoll {
            descriptor: epoll::create(CreateFlags::CLOEXEC)?,
            found: RefCell::new(Vec::with_capacity(EVENTS_PER_WAIT)),
        })
    }

    pub(super) fn wait(&self, block: bool, events: &mut Vec<Event>) -> io::Result<()> {
        let found = &mut *self.found.borrow_mut();
        found.clear();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = if block { None } else { Some(&at_once) };
        match epoll::wait(&self.descriptor, rustix::buffer::spare_capacity(found), timeout) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        events.extend(found.iter().filter_map(|event| {
            let (bits, flags) = (event.data.u64(), event.flags);
            let ready = Ready {
                input: flags.contains(EventFlags::IN),
                output: flags.contains(EventFlags::OUT),
                hangup: flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR),
                last: false,
            };
            Some(Event { token: Token::unpack(bits)?, what: What::Ready(ready) })
        }));
        Ok(())
    }

    pub(super) fn add_level(&self, descriptor: impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.descriptor, descriptor, EventData::new_u64(token.pack()), EventFlags::IN)?)
    }

    pub(super) fn set_level(&self, descriptor: impl AsFd, token: Token, on: bool) -> io::Result<()> {
        let flags = if on { EventFlags::IN } else { EventFlags::empty() };
        Ok(epoll::modify(&self.descriptor, descriptor, EventData::new_u64(token.pack()), flags)?)
    }

    pub(super) fn add_stream(&self, descriptor: impl AsFd, token: Token) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.descriptor, descriptor, EventData::new_u64(token.pack()), flags)?)
    }
}
