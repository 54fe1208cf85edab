//! One epoll descriptor: registration, and waiting with nanosecond timeouts.
//!
//! It never owns the descriptors registered with it, and never interprets a token.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Events taken per wait. Bounds the work between two looks at the clock; 256 costs 3 KiB per thread.
const EVENTS_PER_WAIT: usize = 256;

/// How a descriptor is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Level-triggered, readable only (listeners, wake-ups).
    Level,
    /// Edge-triggered, readable, writable and peer's half close (connections).
    Edge,
}

/// What happened to a descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// The token given at registration.
    pub token: u64,
    /// Something can be read, the peer closed its half, or an error waits.
    pub readable: bool,
    /// There is room to write, or an error waits.
    pub writable: bool,
    /// The peer closed its half or the connection is broken: read until the end shows.
    pub closed: bool,
}

/// An epoll instance and the space for its events.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
    raw: Vec<libc::epoll_event>,
}

impl Epoll {
    /// Makes an instance.
    ///
    /// # Errors
    /// As `epoll_create1(2)`.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, raw: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_WAIT] })
    }

    /// Watches `fd`; its events carry `token`. Closing the descriptor ends the registration.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn add(&self, fd: BorrowedFd<'_>, interest: Interest, token: u64) -> io::Result<()> {
        let events = match interest {
            Interest::Level => libc::EPOLLIN,
            Interest::Edge => libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET,
        };
        let mut event = libc::epoll_event { events: events as u32, u64: token };
        self.control(libc::EPOLL_CTL_ADD, fd, &mut event)
    }

    /// Stops watching `fd` without closing it.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, &mut libc::epoll_event { events: 0, u64: 0 })
    }

    /// Waits for events until `timeout` (`None`: for ever). An interruption by a signal yields no event.
    ///
    /// # Errors
    /// As `epoll_pwait2(2)`.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let spec = timeout.map(|t| libc::timespec {
            tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(t.subsec_nanos().cast_signed()),
        });
        let spec_ptr = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: `raw` has room for the number of events named, `spec_ptr` is null or valid, and a null signal
        // mask leaves the mask as it is.
        let n = unsafe {
            libc::epoll_pwait2(
                self.fd.as_raw_fd(),
                self.raw.as_mut_ptr(),
                EVENTS_PER_WAIT as libc::c_int,
                spec_ptr,
                std::ptr::null(),
            )
        };
        match usize::try_from(n) {
            Ok(n) => Ok(n),
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => Ok(0),
                e => Err(e),
            },
        }
    }

    /// The `i`-th event of the last [`Self::wait`].
    pub fn event(&self, i: usize) -> Event {
        let libc::epoll_event { events, u64: token } = self.raw[i];
        let has = |flags: i32| events & flags as u32 != 0;
        let closed = has(libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR);
        Event {
            token,
            readable: closed || has(libc::EPOLLIN),
            writable: has(libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP),
            closed,
        }
    }

    fn control(&self, op: i32, fd: BorrowedFd<'_>, event: &mut libc::epoll_event) -> io::Result<()> {
        // SAFETY: both descriptors are open and `event` outlives the call.
        let rc = unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), op, fd.as_raw_fd(), event) };
        if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
