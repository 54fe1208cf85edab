//! The table of open files: its limit, and a table of its own per thread.
//!
//! It never opens a descriptor. A thread calls [`own_file_table`] before it opens its first one, so that the limit
//! counts per thread and no descriptor number is shared with a thread that could close it.

use std::io;

/// Gives the calling thread a file table of its own, a copy of the process's at this moment.
///
/// Not done, and no error, where the kernel or a seccomp filter refuses it: the limit then counts per process.
/// Returns whether it was done.
pub fn own_file_table() -> bool {
    // SAFETY: no pointer is passed; only the calling thread's file table changes.
    unsafe { libc::unshare(libc::CLONE_FILES) == 0 }
}

/// Raises the soft limit of open files to the hard one and returns it (descriptors per file table).
///
/// # Errors
/// As `getrlimit(2)` and `setrlimit(2)`.
pub fn open_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a valid value to read.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}
