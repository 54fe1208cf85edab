//! What a child process is given between fork and exec: a signal when its parent ends, its CPUs, its memory group.
//!
//! It never starts or waits for a process itself.

use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// CPUs that a set can name; the kernel's own `CPU_SETSIZE`.
pub const MAX_CPUS: usize = libc::CPU_SETSIZE as usize;

/// How a child is tied down before it runs its program.
#[derive(Clone, Debug, Default)]
pub struct Confinement {
    /// The CPUs it may use, each below [`MAX_CPUS`]; empty: those of the parent.
    pub cpus: Vec<usize>,
    /// The `cgroup.procs` file of the group that it enters.
    pub group_file: Option<CString>,
}

/// Makes `command` start its program confined, in a process group of its own (so that an interrupt on the terminal reaches
/// only us), and killed by the kernel when the **thread** that starts it ends.
pub fn confine(command: &mut Command, confinement: Confinement) {
    let parent = std::process::id();
    command.process_group(0);
    // SAFETY: the closure makes only system calls that are async-signal-safe, and all memory it reads was made before the fork.
    unsafe {
        command.pre_exec(move || {
            die_with(parent)?;
            if !confinement.cpus.is_empty() {
                keep_to(&confinement.cpus)?;
            }
            confinement.group_file.as_ref().map_or(Ok(()), enter_group)
        });
    }
}

/// Asks a child that was not waited for yet to end (SIGTERM).
///
/// # Errors
/// As `kill(2)`.
pub fn ask_to_end(pid: u32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: no pointer is passed.
    checked(unsafe { libc::kill(pid, libc::SIGTERM) })
}

fn die_with(parent: u32) -> io::Result<()> {
    // SAFETY: no pointer is passed.
    checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    // SAFETY: no pointer is passed. A parent that ended before the call above sends no signal any more.
    if unsafe { libc::getppid() }.cast_unsigned() == parent {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }
}

/// Lets the calling thread, and the threads and processes that it starts from now on, use these CPUs only.
///
/// # Errors
/// As `sched_setaffinity(2)`: none of them is there, or allowed.
pub fn keep_to(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: a set of all zeroes is a valid, empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in cpus.iter().filter(|cpu| **cpu < MAX_CPUS) {
        // SAFETY: the number is below the size of the set.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    // SAFETY: the size and the pointer describe `set`; 0 is the calling thread.
    checked(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) })
}

fn enter_group(file: &CString) -> io::Result<()> {
    // SAFETY: the path ends with a zero byte.
    let fd = unsafe { libc::open(file.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    checked(fd)?;
    // SAFETY: the pointer and the length describe the literal: 0 is the writing process.
    let written = unsafe { libc::write(fd, c"0".as_ptr().cast(), 1) };
    let result = if written == 1 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: the descriptor is ours.
    unsafe { libc::close(fd) };
    result
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
