//! The end of a process that cannot go on: owns the last line and the exit code. A shard that panics ends the process
//! whole, so that a pod restarts, and never leaves half of the listeners answering.

use std::cell::Cell;
use std::io::Write;

/// Exit code after a panic or a failed executor (`EX_SOFTWARE` of sysexits.h).
pub const EXIT_SOFTWARE: i32 = 70;

thread_local! {
    static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Notes which shard this thread is, for the last line.
pub fn name_shard(index: usize) {
    SHARD.set(Some(index));
}

/// Makes any panic, on any thread, end the process with one clear last line.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|at| format!("{}:{}", at.file(), at.line())).unwrap_or_default();
        let what = info
            .payload()
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| info.payload().downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "unknown panic".to_owned());
        let who = SHARD.get().map_or_else(|| "a thread".to_owned(), |index| format!("shard {index}"));
        end(&format!("{who} panicked at {place}: {what}"));
    }));
}

/// Writes the last line and ends the process at once; nothing is unwound.
pub fn end(message: &str) -> ! {
    // One line, whatever the message holds: it is the last that an operator sees of a pod.
    let message = message.replace('\n', " ");
    let line = format!("mcp-gateway: fatal: {message}; the process ends\n");
    // Nothing can be done about a standard error that is gone.
    let _ = std::io::stderr().write_all(line.as_bytes());
    // SAFETY: _exit(2) takes no pointer and never returns.
    unsafe { libc::_exit(EXIT_SOFTWARE) }
}
