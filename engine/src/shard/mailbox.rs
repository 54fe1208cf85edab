//! Messages between shards, and from the main thread to a shard: owns one bounded queue per shard and the eventfd that
//! wakes it. It never carries a client's message (that is the owner path, [`crate::peer`]) and never blocks.
//!
//! Invariant: all mailboxes exist before the first shard starts, so that their descriptors have the same number in
//! every shard's file table.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use crossbeam_queue::ArrayQueue;
use mcp_shard_store::memory::StoreMail;
use rustix::event::{EventfdFlags, eventfd};

use crate::metrics::Snapshot;
use crate::store::names::NameMail;

/// Messages that wait in one mailbox: a shard empties it every turn, so this is the burst of one turn. At about 100
/// bytes each, 16,384 are 1.6 MiB per shard.
const CAPACITY: usize = 16_384;

/// What can be said to a shard.
pub(crate) enum Mail {
    /// The memory store's traffic between shards.
    Store(StoreMail),
    /// What a name of one of the store's nodes stands for.
    Name(NameMail),
    /// The admin listener wants this shard's metrics.
    Metrics(SyncSender<Box<Snapshot>>),
    /// The admin listener wants to know whether this shard turns.
    Alive(SyncSender<()>),
    /// Begin what is done without clients: health checks, and finding out the servers' eras.
    Probe,
    /// Another setup is in force.
    Setup,
    /// Find out the era of this server.
    Discover(usize),
    /// Let go of who would ask again on the same connection: the drain is near.
    Part,
    /// Take no connection that is not being made already.
    Leave,
    /// Stop listening, finish what is in flight, end.
    Drain,
}

/// The mailbox is full: the sender reports that to whoever waits, nothing is lost in silence.
#[derive(Debug)]
pub(crate) struct Full;

pub(crate) struct Mailbox {
    queue: ArrayQueue<Mail>,
    event: OwnedFd,
    /// Set while a wake-up is on its way, so that a burst costs one system call.
    signalled: AtomicBool,
}

impl Mailbox {
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Mailbox { queue: ArrayQueue::new(CAPACITY), event, signalled: AtomicBool::new(false) })
    }

    pub(crate) fn send(&self, mail: Mail) -> Result<(), Full> {
        self.queue.push(mail).map_err(|_| Full)?;
        if !self.signalled.swap(true, Ordering::AcqRel) {
            // The counter cannot overflow: it is written at most once per emptying.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
        Ok(())
    }

    /// The descriptor that turns readable when there is mail.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Takes the wake-up back; call before [`Mailbox::take`] so that later mail wakes again.
    pub(crate) fn acknowledge(&self) {
        let mut value = [0u8; 8];
        // EAGAIN only says that somebody emptied it before.
        let _ = rustix::io::read(&self.event, &mut value);
        self.signalled.store(false, Ordering::Release);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn take(&self) -> Option<Mail> {
        self.queue.pop()
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor()
    }
}
