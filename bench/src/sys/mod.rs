//! The few operating-system calls the tool needs, each behind a safe function.
//!
//! It owns every `unsafe` block of this crate. It never knows HTTP, TLS or MCP.

mod cgroup;
mod child;
mod epoll;
mod host;
mod kernel;
mod limits;
mod process;
mod signal;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub use cgroup::{CgroupMemory, MemoryCgroup};
pub use child::{Confinement, MAX_CPUS, ask_to_end, confine, keep_to};
pub use epoll::{Epoll, Event, Interest};
pub use host::Host;
pub use kernel::{KernelMemory, sample_kernel_memory};
pub use limits::{open_file_limit, own_file_table};
pub use process::{CpuTime, ProcessSample, own_cpu, sample_process};
pub use signal::{StopSignals, Wake};

/// Reads once from a non-blocking descriptor into `buffer`.
///
/// # Errors
/// As `read(2)`; `WouldBlock` when nothing is there. `Ok(0)` is the peer's end of file.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length describe `buffer`, which outlives the call.
    let n = unsafe { libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Writes once to a non-blocking socket; a closed peer is an error, never a signal.
///
/// # Errors
/// As `send(2)`; `WouldBlock` when the socket's buffer is full.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length describe `bytes`, which outlives the call.
    let n = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Writes what the socket takes now and returns how many bytes that was (0 when it is full).
///
/// # Errors
/// As `send(2)`, `WouldBlock` excepted.
pub fn write_some(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match write(fd, &bytes[sent..]) {
            Ok(n) => sent += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(sent)
}

/// Accepts one connection, non-blocking and close-on-exec.
///
/// # Errors
/// As `accept4(2)`.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: null address pointers are allowed: the peer's address is not asked for.
    let fd = unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `accept4` just returned this descriptor and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets `bind` to an address leave the port open until `connect`, which then chooses among those free towards its target.
///
/// # Errors
/// As `setsockopt(2)`.
pub fn defer_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length describe `on`, which outlives the call.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets the calling thread's timed waits end on time instead of up to 50 µs late. Where the kernel refuses it, waits
/// stay as they were.
pub fn precise_timers() {
    // SAFETY: no pointer is passed; only the calling thread's timer slack changes.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}

/// The clock `CLOCK_MONOTONIC` (ns), which is the same for all processes of a machine.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Fills `bytes` from the kernel's random source.
///
/// # Errors
/// As `getrandom(2)`.
pub fn random(bytes: &mut [u8; 16]) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `bytes`; up to 256 bytes are never returned in part.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if n == bytes.len() as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
}
