//! Signals: own which are waited for, and by whom. They are blocked in every thread and taken by one, so that no handler
//! ever runs on a shard. Never decides what a signal means.

use std::mem::MaybeUninit;

/// The set of signals that ask the process to end.
pub(crate) struct EndSignals(libc::sigset_t);

impl EndSignals {
    /// Blocks SIGTERM and SIGINT in this thread and in all that it starts from here on; call it first.
    pub(crate) fn block() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set it is given; the other calls get that set and valid signal numbers.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            let mut set = set.assume_init();
            libc::sigaddset(&mut set, libc::SIGTERM);
            libc::sigaddset(&mut set, libc::SIGINT);
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            EndSignals(set)
        }
    }

    /// Waits for the next of them; says which.
    pub(crate) fn wait(&self) -> i32 {
        let mut signal = 0;
        loop {
            // SAFETY: both pointers are to live values of the right types.
            if unsafe { libc::sigwait(&self.0, &mut signal) } == 0 {
                return signal;
            }
        }
    }
}
