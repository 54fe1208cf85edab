//! Readiness: owns the shard's epoll descriptor and what is known of each registered socket that tasks wait on. It
//! never reads or writes a socket.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::Waker;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use slab::Slab;

use super::token::{Kind, Token};

/// Events taken per `epoll_wait`.
pub(crate) const EVENTS_PER_WAIT: usize = 512;

/// What has been seen of a socket since it last said "would block".
#[derive(Default)]
pub(super) struct Readiness {
    generation: u32,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer hung up or the socket failed: reading never blocks again.
    pub(super) hangup: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

pub(crate) struct Reactor {
    epoll: OwnedFd,
    pub(super) sockets: RefCell<Slab<Readiness>>,
    generation: std::cell::Cell<u32>,
}

impl Reactor {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Reactor {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            sockets: RefCell::default(),
            generation: std::cell::Cell::new(0),
        })
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Registers a descriptor for input, level triggered.
    pub(crate) fn add_level(&self, descriptor: impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, descriptor, EventData::new_u64(token.pack()), EventFlags::IN)?)
    }

    /// Pauses or resumes a level-triggered descriptor.
    pub(crate) fn set_level(&self, descriptor: impl AsFd, token: Token, on: bool) -> io::Result<()> {
        let flags = if on { EventFlags::IN } else { EventFlags::empty() };
        Ok(epoll::modify(&self.epoll, descriptor, EventData::new_u64(token.pack()), flags)?)
    }

    /// Registers a stream socket once, edge triggered, for everything.
    pub(crate) fn add_edge(&self, descriptor: impl AsFd, token: Token) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.epoll, descriptor, EventData::new_u64(token.pack()), flags)?)
    }

    pub(super) fn register(&self, descriptor: impl AsFd) -> io::Result<usize> {
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let mut sockets = self.sockets.borrow_mut();
        let index = sockets.insert(Readiness { generation, ..Readiness::default() });
        if let Err(error) = self.add_edge(descriptor, Token::new(Kind::Socket, generation, index)) {
            sockets.remove(index);
            return Err(error);
        }
        Ok(index)
    }

    pub(super) fn forget(&self, index: usize) {
        self.sockets.borrow_mut().remove(index);
    }

    /// Notes an event of a registered socket and wakes who waits for it.
    pub(crate) fn on_event(&self, token: Token, flags: EventFlags) {
        let mut sockets = self.sockets.borrow_mut();
        let Some(socket) = sockets.get_mut(token.index as usize) else { return };
        if Token::new(Kind::Socket, socket.generation, token.index as usize) != token {
            return;
        }
        let failed = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        if failed {
            socket.hangup = true;
        }
        if failed || flags.contains(EventFlags::IN) {
            socket.readable = true;
            if let Some(waker) = socket.reader.take() {
                waker.wake();
            }
        }
        if failed || flags.contains(EventFlags::OUT) {
            socket.writable = true;
            if let Some(waker) = socket.writer.take() {
                waker.wake();
            }
        }
    }
}
