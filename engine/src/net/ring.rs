//! The io_uring driver: owns a shard's ring and the buffers that are being sent. What a turn sends is handed in together
//! with the next wait; everything else is polled, streams by multishot. It never reads, and never looks into the bytes.
//!
//! Invariants: the ring is made on the thread that uses it (`SINGLE_ISSUER`); what was asked for reaches the kernel with
//! the next wait, and no stream's descriptor is closed before that, so that a request never meets another socket under
//! the same number; a request keeps its socket open, so closing cancels what is under way.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{OwnedFd, RawFd};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::Fd;
use io_uring::{IoUring, Probe, cqueue, opcode};
use rustix::io::Errno;
use slab::Slab;

use super::event::{EVENTS_PER_WAIT, Event, Ready, Sent, What};
use super::token::{Kind, Token};
use crate::shard::spare::{Release, Spare};

/// Requests that wait for the next enter; a turn that makes more enters in between.
const SUBMISSIONS: u32 = 512;
/// Completions that fit; the kernel keeps more than these aside (`IORING_FEAT_NODROP`).
const COMPLETIONS: u32 = 4096;
/// Set in the user data of a poll for output: a token's kind leaves it free.
const OUTPUT: u64 = 1 << 63;
/// Set in the user data of a send. The rest is its place among the sends under way (32 bits) and above that its generation
/// (30 bits), so that a cancellation that comes too late never meets the next send in the same place.
const SEND: u64 = 1 << 62;
const GENERATION_SHIFT: u32 = 32;
const GENERATION_MASK: u32 = (1 << 30) - 1;
/// Buffers kept for the next sends, and how large each may be (64 KiB of plaintext and its records' heads fit):
/// 128 × 96 KiB = 12 MiB per shard at the very most.
const SPARE_BUFFERS: usize = 128;
const SPARE_BUFFER_BYTES: usize = 96 << 10;
/// User data of requests whose answer interests nobody.
const NOBODY: u64 = 0;
/// The operations that are asked for. A kernel that knows the ring's flags has them; what stands in for a kernel may not.
const OPERATIONS: [(u8, &str); 3] = [
    (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD"),
    (opcode::Send::CODE, "IORING_OP_SEND"),
    (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL"),
];

pub(crate) struct Ring {
    uring: RefCell<IoUring>,
    levels: RefCell<Vec<Level>>,
    sends: RefCell<Slab<Send>>,
    /// Of the last send.
    generation: Cell<u32>,
    spare: Spare<Vec<u8>, SPARE_BUFFERS>,
    /// Descriptors to be closed when everything asked for so far has reached the kernel.
    closing: RefCell<Vec<OwnedFd>>,
}

/// A send under way. The kernel reads the buffer until the send completes, whatever becomes of its socket.
struct Send {
    token: Token,
    buffer: Vec<u8>,
    from: usize,
}

/// Names a send under way, by its user data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendId(u64);

impl SendId {
    fn new(generation: u32, index: usize) -> Self {
        SendId(SEND | u64::from(generation & GENERATION_MASK) << GENERATION_SHIFT | index as u64)
    }

    fn index(bits: u64) -> usize {
        (bits & u64::from(u32::MAX)) as usize
    }
}

/// A descriptor that is polled for input again after each event, as long as it is on.
struct Level {
    descriptor: RawFd,
    token: Token,
    on: bool,
    armed: bool,
}

impl Ring {
    /// Makes a ring for this thread.
    ///
    /// # Errors
    /// The kernel's: it has no io_uring, forbids it, or is older than 6.1 and does not know the flags (`EINVAL`).
    pub(crate) fn new() -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .build(SUBMISSIONS)?;
        Ok(Ring {
            uring: RefCell::new(uring),
            levels: RefCell::default(),
            sends: RefCell::default(),
            generation: Cell::new(0),
            spare: Spare::default(),
            closing: RefCell::default(),
        })
    }

    /// Tries on this thread what a ring needs of the kernel: to be made, asked what it can do, and entered. A filter of
    /// system calls may refuse each of them alone.
    ///
    /// # Errors
    /// The kernel's; without an errno where it lacks an operation.
    pub(crate) fn try_out() -> io::Result<()> {
        let ring = Ring::new()?;
        ring.push(&opcode::Nop::new().build().user_data(NOBODY))?;
        let uring = ring.uring.borrow();
        let mut operations = Probe::new();
        uring.submitter().register_probe(&mut operations)?;
        if let Some((_, name)) = OPERATIONS.into_iter().find(|(code, _)| !operations.is_supported(*code)) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, format!("there is no {name}")));
        }
        uring.submit_and_wait(1)?;
        Ok(())
    }

    /// Hands in what was asked for and takes what is complete; with `block`, waits until something is.
    pub(super) fn wait(&self, block: bool, events: &mut Vec<Event>) -> io::Result<()> {
        self.arm_levels();
        let uring = &mut *self.uring.borrow_mut();
        if !self.closing.borrow().is_empty() {
            enter(uring, 0)?;
            self.closing.borrow_mut().clear();
        }
        let want = usize::from(block && uring.completion().is_empty());
        enter(uring, want)?;
        for completion in uring.completion().take(EVENTS_PER_WAIT) {
            events.extend(self.event(&completion));
        }
        Ok(())
    }

    fn event(&self, completion: &cqueue::Entry) -> Option<Event> {
        let (bits, result) = (completion.user_data(), completion.result());
        if bits & SEND != 0 && bits & OUTPUT == 0 {
            return self.sent(SendId::index(bits), result);
        }
        let token = Token::unpack(bits & !OUTPUT)?;
        if bits & OUTPUT != 0 {
            let what = What::Ready(Ready { output: true, ..Ready::default() });
            return Some(Event { token, what });
        }
        if !matches!(token.kind, Kind::Conn | Kind::Socket)
            && let Some(level) = self.levels.borrow_mut().iter_mut().find(|level| level.token == token)
        {
            level.armed = false;
            if result < 0 && level.on {
                tracing::error!(?token, result, "a descriptor cannot be polled");
                level.on = false;
            }
        }
        let found = |mask: i16| result & i32::from(mask) != 0;
        let ready = Ready {
            input: found(libc::POLLIN),
            output: false,
            hangup: found(libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR),
            last: !cqueue::more(completion.flags()),
        };
        // A negative result is a poll that was cancelled.
        (result >= 0).then_some(Event { token, what: What::Ready(ready) })
    }

    fn sent(&self, index: usize, result: i32) -> Option<Event> {
        let Send { token, buffer, from } = self.sends.borrow_mut().try_remove(index)?;
        let result = match result {
            error @ ..0 => Err(Errno::from_raw_os_error(-error)),
            sent => Ok(sent as usize),
        };
        Some(Event { token, what: What::Sent(Sent { buffer, from, result }) })
    }

    /// Sends `buffer` from `from` on; one event tells what became of it. Only one send of a socket may be under way.
    ///
    /// # Errors
    /// The kernel does not take requests; the buffer is lost.
    pub(crate) fn send(
        &self,
        descriptor: RawFd,
        token: Token,
        buffer: Vec<u8>,
        from: usize,
    ) -> io::Result<SendId> {
        let unsent = &buffer[from..];
        let (start, length) = (unsent.as_ptr(), u32::try_from(unsent.len()).unwrap_or(u32::MAX));
        let index = self.sends.borrow_mut().insert(Send { token, buffer, from });
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let id = SendId::new(generation, index);
        let send = opcode::Send::new(Fd(descriptor), start, length).flags(libc::MSG_NOSIGNAL).build();
        match self.push(&send.user_data(id.0)) {
            Ok(()) => Ok(id),
            Err(error) => {
                self.sends.borrow_mut().remove(index);
                Err(error)
            }
        }
    }

    /// An empty buffer for a send; it comes back with [`Sent`].
    pub(crate) fn take_spare(&self) -> Vec<u8> {
        self.spare.take().unwrap_or_default()
    }

    pub(crate) fn give_spare(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= SPARE_BUFFER_BYTES {
            buffer.clear();
            self.spare.give(buffer);
        }
    }

    /// Gives back buffers that no send needed lately; says whether some are left.
    pub(crate) fn release_spare(&self, rate: Release) -> bool {
        self.spare.release(rate)
    }

    /// Cancels what is under way for a stream and closes it.
    pub(super) fn close(&self, descriptor: OwnedFd, token: Token, polling: bool, sending: Option<SendId>) {
        let poll = if polling { self.cancel(token.pack()) } else { Ok(()) };
        let send = sending.map_or(Ok(()), |SendId(bits)| self.cancel(bits));
        if let Err(error) = poll.and(send) {
            tracing::warn!(%error, "a closed socket's requests could not be cancelled");
        }
        self.closing.borrow_mut().push(descriptor);
    }

    /// Has an event made whenever input arrives, until one that is the [`last`](Ready::last).
    pub(super) fn poll_input(&self, descriptor: RawFd, token: Token) -> io::Result<()> {
        let poll = opcode::PollAdd::new(Fd(descriptor), (libc::POLLIN | libc::POLLRDHUP) as u32).multi(true);
        self.push(&poll.build().user_data(token.pack()))
    }

    /// Has one event made when the socket takes output again.
    pub(super) fn poll_output(&self, descriptor: RawFd, token: Token) -> io::Result<()> {
        let poll = opcode::PollAdd::new(Fd(descriptor), libc::POLLOUT as u32).build();
        self.push(&poll.user_data(token.pack() | OUTPUT))
    }

    pub(super) fn cancel_output(&self, token: Token) -> io::Result<()> {
        self.cancel(token.pack() | OUTPUT)
    }

    pub(super) fn add_level(&self, descriptor: RawFd, token: Token) {
        self.levels.borrow_mut().push(Level { descriptor, token, on: true, armed: false });
    }

    pub(super) fn set_level(&self, token: Token, on: bool) -> io::Result<()> {
        let mut levels = self.levels.borrow_mut();
        let Some(level) = levels.iter_mut().find(|level| level.token == token) else { return Ok(()) };
        level.on = on;
        if !on && level.armed { self.cancel(token.pack()) } else { Ok(()) }
    }

    fn arm_levels(&self) {
        for level in self.levels.borrow_mut().iter_mut().filter(|level| level.on && !level.armed) {
            let poll = opcode::PollAdd::new(Fd(level.descriptor), libc::POLLIN as u32).build();
            level.armed = self.push(&poll.user_data(level.token.pack())).is_ok();
        }
    }

    fn cancel(&self, bits: u64) -> io::Result<()> {
        let cancel = opcode::AsyncCancel::new(bits).build();
        self.push(&cancel.user_data(NOBODY).flags(Flags::SKIP_SUCCESS))
    }

    fn push(&self, entry: &Entry) -> io::Result<()> {
        let mut uring = self.uring.borrow_mut();
        loop {
            // SAFETY: the only memory that entries refer to are the buffers in `sends`, whose heap memory stays where it
            // is until their completion is taken.
            if unsafe { uring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            uring.submit()?;
        }
    }
}

impl Drop for Ring {
    /// The kernel may still read these buffers while it winds the ring up: they are never given back to the allocator.
    fn drop(&mut self) {
        std::mem::forget(self.sends.take());
    }
}

/// Enters the kernel if there is something to hand in, to have done, or (`want`) to wait for.
fn enter(uring: &mut IoUring, want: usize) -> io::Result<()> {
    let submissions = uring.submission();
    if want == 0 && submissions.is_empty() && !submissions.taskrun() && !submissions.cq_overflow() {
        return Ok(());
    }
    drop(submissions);
    match uring.submitter().submit_and_wait(want) {
        // Besides a signal: the kernel wants completions taken first, which the caller does now.
        Err(error) if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {
            Err(error)
        }
        _ => Ok(()),
    }
}
