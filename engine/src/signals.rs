//! Signals: own which are waited for, and by whom. They are blocked in every thread and taken by one, so that no handler
//! ever runs on a shard. Never decides what a signal means.

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

/// Some signals.
pub(crate) struct Signals(libc::sigset_t);

/// Those that ask the process to end.
const END: [i32; 2] = [libc::SIGTERM, libc::SIGINT];
/// The one that asks for the configuration to be read again.
const RELOAD: [i32; 1] = [libc::SIGHUP];

impl Signals {
    /// SIGTERM and SIGINT; see [`Signals::block`].
    pub(crate) fn of_end() -> Self {
        Self::block(&END)
    }

    /// SIGHUP; see [`Signals::block`].
    pub(crate) fn of_reload() -> Self {
        Self::block(&RELOAD)
    }

    /// Blocks them in this thread and in all that it starts from here on; call it first.
    fn block(signals: &[i32]) -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set it is given; the other calls get that set and valid signal numbers.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            let mut set = set.assume_init();
            for signal in signals {
                libc::sigaddset(&mut set, *signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            Signals(set)
        }
    }

    /// Waits for the next of them for so long at most; says which came, if one did.
    pub(crate) fn wait_for(&self, time: Duration) -> Option<i32> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = libc::timespec {
                tv_sec: left.as_secs() as libc::time_t,
                tv_nsec: left.subsec_nanos() as libc::c_long,
            };
            // SAFETY: both pointers are to live values of the right types; what else is known of the signal is not wanted.
            let signal = unsafe { libc::sigtimedwait(&self.0, std::ptr::null_mut(), &left) };
            match signal {
                -1 if std::io::Error::last_os_error().kind() == ErrorKind::Interrupted => {}
                -1 => return None,
                signal => return Some(signal),
            }
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
