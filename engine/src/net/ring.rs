//! The io_uring driver: owns a shard's ring. Stream sockets receive by multishot into provided buffers, everything else
//! is polled. It never sends (see `docs/performance.md`, "Connection drivers") and never looks into what was received.
//!
//! Invariants: the ring is made on the thread that uses it (`SINGLE_ISSUER`); what was asked for reaches the kernel with
//! the next wait; a request keeps its socket open, so whoever closes a descriptor cancels what it asked for.

use std::cell::RefCell;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode};
use rustix::io::Errno;

use super::buffers::{Buffers, GROUP};
use super::event::{EVENTS_PER_WAIT, Event, Outcome, Ready, Received, What};
use super::token::{Kind, Token};

/// Requests that wait for the next enter; a turn that makes more enters in between.
const SUBMISSIONS: u32 = 256;
/// Completions that fit; the kernel keeps more than these aside (`IORING_FEAT_NODROP`).
const COMPLETIONS: u32 = 4096;
/// Set in the user data of a poll for output: a token's kind leaves it free.
const OUTPUT: u64 = 1 << 63;
/// User data of requests whose answer interests nobody.
const NOBODY: u64 = 0;

pub(crate) struct Ring {
    uring: RefCell<IoUring>,
    buffers: Rc<Buffers>,
    levels: RefCell<Vec<Level>>,
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
    /// The kernel's: it has no io_uring, forbids it, or is too old for the flags (6.0 and 6.1).
    pub(crate) fn new() -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .build(SUBMISSIONS)?;
        let buffers = Buffers::register(&uring.submitter())?;
        Ok(Ring { uring: RefCell::new(uring), buffers, levels: RefCell::default() })
    }

    /// Hands in what was asked for and takes what is complete; with `block`, waits until something is.
    pub(super) fn wait(&self, block: bool, events: &mut Vec<Event>) -> io::Result<()> {
        self.arm_levels();
        let uring = &mut *self.uring.borrow_mut();
        let want = usize::from(block && uring.completion().is_empty());
        let (idle, overflow) = {
            let submissions = uring.submission();
            (submissions.is_empty() && !submissions.taskrun(), submissions.cq_overflow())
        };
        if want > 0 || !idle || overflow {
            match uring.submitter().submit_and_wait(want) {
                Ok(_) => {}
                // A signal; or the kernel wants completions taken first, which happens now.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
                Err(error) => return Err(error),
            }
        }
        for completion in uring.completion().take(EVENTS_PER_WAIT) {
            let event = self.event(&completion);
            events.extend(event);
        }
        Ok(())
    }

    fn event(&self, completion: &cqueue::Entry) -> Option<Event> {
        let (bits, result) = (completion.user_data(), completion.result());
        let piece = cqueue::buffer_select(completion.flags())
            .map(|id| self.buffers.piece(id, usize::try_from(result).unwrap_or(0)));
        let token = Token::unpack(bits & !OUTPUT)?;
        if bits & OUTPUT != 0 {
            let what = What::Ready(Ready { output: true, ..Ready::default() });
            return Some(Event { token, what });
        }
        if !matches!(token.kind, Kind::Conn | Kind::Socket) {
            if let Some(level) = self.levels.borrow_mut().iter_mut().find(|level| level.token == token) {
                level.armed = false;
            }
            let what = What::Ready(Ready { input: true, ..Ready::default() });
            return (result >= 0).then_some(Event { token, what });
        }
        let outcome = match (piece, result) {
            (Some(piece), 1..) => Outcome::Piece(piece),
            (_, 0..) => Outcome::Ended,
            (_, error) => match Errno::from_raw_os_error(-error) {
                Errno::NOBUFS | Errno::CANCELED | Errno::INTR | Errno::AGAIN => Outcome::Stopped,
                errno => Outcome::Failed(errno),
            },
        };
        let more = cqueue::more(completion.flags());
        Some(Event { token, what: What::Received(Received { outcome, more }) })
    }

    /// Starts receiving; goes on until a [`Received`] without `more`.
    pub(super) fn receive(&self, descriptor: RawFd, token: Token) -> io::Result<()> {
        self.push(&opcode::RecvMulti::new(Fd(descriptor), GROUP).build().user_data(token.pack()))
    }

    /// Has one event made when the socket takes output again.
    pub(super) fn poll_output(&self, descriptor: RawFd, token: Token) -> io::Result<()> {
        let poll = opcode::PollAdd::new(Fd(descriptor), libc::POLLOUT as u32).build();
        self.push(&poll.user_data(token.pack() | OUTPUT))
    }

    pub(super) fn cancel_receive(&self, token: Token) -> io::Result<()> {
        self.cancel(token.pack())
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
            // SAFETY: the entries refer to no memory but the registered buffers, which stay for ever.
            if unsafe { uring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            uring.submit()?;
        }
    }
}

