//! Readiness: owns the shard's connection driver and what is known of each registered socket that tasks wait on. It begins
//! no send: it only has the ring go on with one that was taken in part.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::task::Waker;

use rustix::io::Errno;
use slab::Slab;

use super::epoll::Epoll;
use super::event::{Event, Ready, Sent, What};
use super::ring::{Ring, SendId};
use super::token::{Kind, Token};

/// What has been seen of a socket that a task uses.
pub(super) struct Known {
    pub(super) descriptor: OwnedFd,
    generation: u32,
    /// Since it last said "would block".
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer hung up or the socket failed: reading never blocks again.
    pub(super) hangup: bool,
    /// The ring could not send.
    pub(super) failed: Option<Errno>,
    /// The ring polls for input.
    polling_input: bool,
    /// A poll for output is under way (while connecting).
    polling_output: bool,
    /// What the ring is sending.
    pub(super) sending: Option<SendId>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

/// Which driver a reactor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DriverKind {
    Ring,
    Epoll,
}

enum Driver {
    Ring(Box<Ring>),
    Epoll(Epoll),
}

pub(crate) struct Reactor {
    driver: Driver,
    pub(super) sockets: RefCell<Slab<Known>>,
    generation: Cell<u32>,
}

impl Reactor {
    /// Makes the driver on the thread that uses it.
    pub(crate) fn new(kind: DriverKind) -> io::Result<Self> {
        let driver = match kind {
            DriverKind::Ring => Driver::Ring(Box::new(Ring::new()?)),
            DriverKind::Epoll => Driver::Epoll(Epoll::new()?),
        };
        Ok(Reactor { driver, sockets: RefCell::default(), generation: Cell::new(0) })
    }

    /// Appends what happened; with `block`, waits until something does.
    pub(crate) fn wait(&self, block: bool, events: &mut Vec<Event>) -> io::Result<()> {
        match &self.driver {
            Driver::Ring(ring) => ring.wait(block, events),
            Driver::Epoll(epoll) => epoll.wait(block, events),
        }
    }

    /// The ring, where it is the driver: sends are then handed to it.
    pub(crate) fn ring(&self) -> Option<&Ring> {
        match &self.driver {
            Driver::Ring(ring) => Some(ring),
            Driver::Epoll(_) => None,
        }
    }

    /// Registers a descriptor for input, level triggered.
    pub(crate) fn add_level(&self, descriptor: impl AsFd, token: Token) -> io::Result<()> {
        match &self.driver {
            Driver::Ring(ring) => {
                ring.add_level(descriptor.as_fd().as_raw_fd(), token);
                Ok(())
            }
            Driver::Epoll(epoll) => epoll.add_level(descriptor, token),
        }
    }

    /// Pauses or resumes a level-triggered descriptor. One that is to be closed must be paused first.
    pub(crate) fn set_level(&self, descriptor: impl AsFd, token: Token, on: bool) -> io::Result<()> {
        match &self.driver {
            Driver::Ring(ring) => ring.set_level(token, on),
            Driver::Epoll(epoll) => epoll.set_level(descriptor, token, on),
        }
    }

    /// Registers a stream socket: under epoll once for everything, under the ring for input until the
    /// [`last`](Ready::last) event.
    pub(crate) fn add_stream(&self, descriptor: impl AsFd, token: Token) -> io::Result<()> {
        match &self.driver {
            Driver::Ring(ring) => ring.poll_input(descriptor.as_fd().as_raw_fd(), token),
            Driver::Epoll(epoll) => epoll.add_stream(descriptor, token),
        }
    }

    /// Closes a stream and takes back what was asked for it.
    pub(crate) fn close_stream(
        &self,
        descriptor: OwnedFd,
        token: Token,
        polling: bool,
        sending: Option<SendId>,
    ) {
        match &self.driver {
            Driver::Ring(ring) => ring.close(descriptor, token, polling, sending),
            Driver::Epoll(_) => drop(descriptor),
        }
    }

    /// Takes a socket that tasks will wait on.
    pub(super) fn register(&self, descriptor: OwnedFd) -> io::Result<usize> {
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let mut sockets = self.sockets.borrow_mut();
        let entry = sockets.vacant_entry();
        let index = entry.key();
        let mut known = Known::new(descriptor, generation);
        match &self.driver {
            Driver::Ring(_) => self.poll_input_for(index, &mut known)?,
            Driver::Epoll(epoll) => epoll.add_stream(&known.descriptor, known.token(index))?,
        }
        entry.insert(known);
        Ok(index)
    }

    pub(super) fn forget(&self, index: usize) {
        let known = self.sockets.borrow_mut().remove(index);
        let token = known.token(index);
        if let Driver::Ring(ring) = &self.driver
            && known.polling_output
            && let Err(error) = ring.cancel_output(token)
        {
            tracing::warn!(%error, "a closed socket's poll could not be cancelled");
        }
        self.close_stream(known.descriptor, token, known.polling_input, known.sending);
    }

    fn poll_input_for(&self, index: usize, known: &mut Known) -> io::Result<()> {
        if let Driver::Ring(ring) = &self.driver {
            ring.poll_input(known.descriptor.as_raw_fd(), known.token(index))?;
            known.polling_input = true;
        }
        Ok(())
    }

    /// Has the writer woken when the socket takes output.
    pub(super) fn poll_output_for(&self, index: usize, known: &mut Known) -> io::Result<()> {
        if let Driver::Ring(ring) = &self.driver
            && !known.polling_output
        {
            ring.poll_output(known.descriptor.as_raw_fd(), known.token(index))?;
            known.polling_output = true;
        }
        Ok(())
    }

    /// Notes an event of a registered socket and wakes who waits for it.
    pub(crate) fn on_event(&self, token: Token, what: What) {
        let mut sockets = self.sockets.borrow_mut();
        let index = token.index as usize;
        let Some(known) = sockets.get_mut(index) else { return };
        if known.token(index) != token {
            return;
        }
        match what {
            What::Ready(ready) => {
                known.on_ready(ready);
                if ready.last && !ready.output {
                    known.polling_input = false;
                    if !ready.hangup && self.poll_input_for(index, known).is_err() {
                        known.fail(Errno::IO);
                    }
                }
            }
            What::Sent(sent) => self.on_sent(index, known, sent),
        }
    }

    fn on_sent(&self, index: usize, known: &mut Known, sent: Sent) {
        let Driver::Ring(ring) = &self.driver else { return };
        known.sending = None;
        let from = match sent.result {
            Ok(count) => sent.from + count,
            Err(Errno::INTR | Errno::AGAIN) => sent.from,
            Err(errno) => {
                known.fail(errno);
                return;
            }
        };
        if from < sent.buffer.len() {
            match ring.send(known.descriptor.as_raw_fd(), known.token(index), sent.buffer, from) {
                Ok(id) => known.sending = Some(id),
                Err(_) => known.fail(Errno::IO),
            }
            return;
        }
        ring.give_spare(sent.buffer);
        known.writer.take().into_iter().for_each(Waker::wake);
    }
}

impl Known {
    fn new(descriptor: OwnedFd, generation: u32) -> Self {
        Known {
            descriptor,
            generation,
            readable: false,
            writable: false,
            hangup: false,
            failed: None,
            polling_input: false,
            polling_output: false,
            sending: None,
            reader: None,
            writer: None,
        }
    }

    pub(super) fn token(&self, index: usize) -> Token {
        Token::new(Kind::Socket, self.generation, index)
    }

    /// Sending failed: whoever reads or writes learns of it.
    fn fail(&mut self, errno: Errno) {
        self.failed = Some(errno);
        self.reader.take().into_iter().for_each(Waker::wake);
        self.writer.take().into_iter().for_each(Waker::wake);
    }

    fn on_ready(&mut self, ready: Ready) {
        self.hangup |= ready.hangup;
        if ready.hangup || ready.input {
            self.readable = true;
            self.reader.take().into_iter().for_each(Waker::wake);
        }
        if ready.hangup || ready.output {
            self.writable = true;
            self.polling_output = false;
            self.writer.take().into_iter().for_each(Waker::wake);
        }
    }
}

/// A reactor of each driver, or of epoll alone where the kernel refuses the ring.
#[cfg(test)]
pub(super) fn of_each_driver() -> impl Iterator<Item = Reactor> {
    let epoll = Reactor::new(DriverKind::Epoll).unwrap();
    std::iter::once(epoll).chain(Reactor::new(DriverKind::Ring))
}

/// Polls `future` and the reactor until it is done.
#[cfg(test)]
pub(super) fn drive<T>(reactor: &Reactor, future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return value;
        }
        let mut events = Vec::new();
        reactor.wait(true, &mut events).unwrap();
        for event in events {
            reactor.on_event(event.token, event.what);
        }
    }
}
