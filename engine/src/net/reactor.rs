//! Readiness and receipts: owns the shard's connection driver and what is known of each registered socket that tasks
//! wait on. It never sends.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::task::Waker;

use rustix::io::Errno;
use slab::Slab;

use super::epoll::Epoll;
use super::event::{Event, Outcome, Ready, Received, What};
use super::inbox::{INBOX_HIGH_BYTES, Inbox};
use super::ring::Ring;
use super::token::{Kind, Token};

/// What has been seen of a socket that a task uses.
#[derive(Default)]
pub(super) struct Known {
    descriptor: RawFd,
    generation: u32,
    /// Since it last said "would block": there may be something to read (epoll only).
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer hung up or the socket failed: reading never blocks again.
    pub(super) hangup: bool,
    /// What the ring received.
    pub(super) inbox: Inbox,
    /// How receiving ended, after the inbox; `None` in the error's place is the end of file.
    pub(super) ended: Option<Option<Errno>>,
    /// The kernel is receiving.
    receiving: bool,
    /// A poll for output is under way.
    polling_output: bool,
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
    /// Sockets whose inbox got something in this turn.
    touched: RefCell<Vec<Token>>,
}

impl Reactor {
    /// Makes the driver on the thread that uses it.
    pub(crate) fn new(kind: DriverKind) -> io::Result<Self> {
        let driver = match kind {
            DriverKind::Ring => Driver::Ring(Box::new(Ring::new()?)),
            DriverKind::Epoll => Driver::Epoll(Epoll::new()?),
        };
        Ok(Reactor {
            driver,
            sockets: RefCell::default(),
            generation: Cell::new(0),
            touched: RefCell::default(),
        })
    }

    /// Appends what happened; with `block`, waits until something does.
    pub(crate) fn wait(&self, block: bool, events: &mut Vec<Event>) -> io::Result<()> {
        match &self.driver {
            Driver::Ring(ring) => ring.wait(block, events),
            Driver::Epoll(epoll) => epoll.wait(block, events),
        }
    }

    /// Whether streams are received for, instead of being told readable.
    pub(crate) fn receives(&self) -> bool {
        matches!(self.driver, Driver::Ring(_))
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

    /// Registers a connected stream socket: under epoll once for everything, under the ring it starts receiving.
    pub(crate) fn add_stream(&self, descriptor: impl AsFd, token: Token) -> io::Result<()> {
        match &self.driver {
            Driver::Ring(ring) => ring.receive(descriptor.as_fd().as_raw_fd(), token),
            Driver::Epoll(epoll) => epoll.add_stream(descriptor, token),
        }
    }

    /// Goes on receiving for a stream whose receiving had stopped.
    pub(crate) fn receive(&self, descriptor: impl AsFd, token: Token) -> io::Result<()> {
        match &self.driver {
            Driver::Ring(ring) => ring.receive(descriptor.as_fd().as_raw_fd(), token),
            Driver::Epoll(_) => Ok(()),
        }
    }

    /// Asks for receiving to stop; what had been received still comes.
    pub(crate) fn stop_receiving(&self, token: Token) {
        if let Driver::Ring(ring) = &self.driver
            && let Err(error) = ring.cancel_receive(token)
        {
            tracing::warn!(%error, "receiving could not be stopped");
        }
    }

    /// Has one event made when the stream takes output again. Under epoll it comes by itself.
    pub(crate) fn poll_output(&self, descriptor: impl AsFd, token: Token) -> io::Result<()> {
        match &self.driver {
            Driver::Ring(ring) => ring.poll_output(descriptor.as_fd().as_raw_fd(), token),
            Driver::Epoll(_) => Ok(()),
        }
    }

    /// Takes back what was asked for a stream that is being closed.
    pub(crate) fn forget_stream(&self, token: Token, receiving: bool, polling_output: bool) {
        let Driver::Ring(ring) = &self.driver else { return };
        let receive = if receiving { ring.cancel_receive(token) } else { Ok(()) };
        let output = if polling_output { ring.cancel_output(token) } else { Ok(()) };
        if let Err(error) = receive.and(output) {
            tracing::warn!(%error, "a closed socket's requests could not be cancelled");
        }
    }

    /// Takes a socket that tasks will wait on. Under the ring, receiving starts with the first read.
    pub(super) fn register(&self, descriptor: impl AsFd) -> io::Result<usize> {
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let raw = descriptor.as_fd().as_raw_fd();
        let mut sockets = self.sockets.borrow_mut();
        let index = sockets.insert(Known { descriptor: raw, generation, ..Known::default() });
        if let Driver::Epoll(epoll) = &self.driver
            && let Err(error) = epoll.add_stream(descriptor, Token::new(Kind::Socket, generation, index))
        {
            sockets.remove(index);
            return Err(error);
        }
        Ok(index)
    }

    pub(super) fn forget(&self, index: usize) {
        let known = self.sockets.borrow_mut().remove(index);
        let token = Token::new(Kind::Socket, known.generation, index);
        self.forget_stream(token, known.receiving, known.polling_output);
    }

    /// Has the ring receive for a socket unless it does already.
    pub(super) fn receive_for(&self, index: usize, known: &mut Known) -> io::Result<()> {
        if let Driver::Ring(ring) = &self.driver
            && !known.receiving
            && known.ended.is_none()
        {
            ring.receive(known.descriptor, Token::new(Kind::Socket, known.generation, index))?;
            known.receiving = true;
        }
        Ok(())
    }

    /// Has the writer woken when the socket takes output.
    pub(super) fn poll_output_for(&self, index: usize, known: &mut Known) -> io::Result<()> {
        if let Driver::Ring(ring) = &self.driver
            && !known.polling_output
        {
            ring.poll_output(known.descriptor, Token::new(Kind::Socket, known.generation, index))?;
            known.polling_output = true;
        }
        Ok(())
    }

    /// Notes an event of a registered socket and wakes who waits for it.
    pub(crate) fn on_event(&self, token: Token, what: What) {
        let mut sockets = self.sockets.borrow_mut();
        let index = token.index as usize;
        let Some(known) = sockets.get_mut(index) else { return };
        if Token::new(Kind::Socket, known.generation, index) != token {
            return;
        }
        match what {
            What::Ready(ready) => known.on_ready(ready),
            What::Received(received) => {
                known.on_received(received);
                self.touched.borrow_mut().push(token);
                if known.receiving && known.inbox.len() >= INBOX_HIGH_BYTES {
                    self.stop_receiving(token);
                }
            }
        }
    }

    /// End of a turn: no socket keeps the kernel's buffers, and those that wait for more get it.
    pub(crate) fn settle(&self) {
        let mut touched = self.touched.borrow_mut();
        if touched.is_empty() {
            return;
        }
        let mut sockets = self.sockets.borrow_mut();
        for token in touched.drain(..) {
            let index = token.index as usize;
            let Some(known) = sockets.get_mut(index) else { continue };
            known.inbox.spill();
            if known.inbox.is_empty()
                && let Err(error) = self.receive_for(index, known)
            {
                tracing::warn!(%error, "receiving could not be resumed");
            }
        }
    }
}

impl Known {
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

    fn on_received(&mut self, received: Received) {
        self.receiving = received.more;
        match received.outcome {
            Outcome::Piece(piece) => self.inbox.push(piece),
            Outcome::Ended => self.ended = Some(None),
            Outcome::Failed(errno) => self.ended = Some(Some(errno)),
            Outcome::Stopped => return,
        }
        self.reader.take().into_iter().for_each(Waker::wake);
    }
}
