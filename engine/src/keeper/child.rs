//! One process of a server: owns its start, with a session, group and environment of its own, and the steps of its end.
//! Never a message of its.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::wire::Spec;

/// What every process gets of the gateway's environment: what programs need to be found, to find their user's files and to
/// write for its place. Anything else may be a secret, and is passed on only where `env` names it.
const PASSED_ON: [&str; 10] =
    ["HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER"];

/// How long a process may take to end when its input is closed, and then when it has got SIGTERM.
const AFTER_INPUT: Duration = Duration::from_secs(2);
const AFTER_TERM: Duration = Duration::from_secs(2);
/// The latter when the gateway itself is gone.
const AFTER_TERM_AT_END: Duration = Duration::from_secs(1);

/// A process that runs; its group has its number.
pub(super) struct Child {
    /// Whose it is: place of the shard's link, and the shard's number for it.
    pub(super) link: usize,
    pub(super) process: u64,
    group: Pid,
    /// What comes next, and when.
    next: Option<(Instant, Step)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Term,
    Kill,
}

impl Child {
    pub(super) fn start(spec: &Spec, streams: Vec<OwnedFd>, link: usize, process: u64) -> io::Result<Self> {
        let [input, output, errors] =
            <[OwnedFd; 3]>::try_from(streams).map_err(|_| io::ErrorKind::InvalidInput)?;
        let (program, arguments) = spec.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().stdin(Stdio::from(input)).stdout(Stdio::from(output));
        command.stderr(Stdio::from(errors));
        let named = spec.env.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        for (name, value) in PASSED_ON.iter().map(|name| (*name, None)).chain(named) {
            match value {
                Some(value) => drop(command.env(name, value)),
                None => drop(std::env::var_os(name).map(|value| command.env(name, value))),
            }
        }
        if let Some(cwd) = &spec.cwd {
            command.current_dir(cwd);
        }
        // SAFETY: all three calls are async-signal-safe and touch no memory of the parent's; this process has one thread.
        unsafe {
            command.pre_exec(|| {
                // A session of its own is a group of its own without a terminal.
                if libc::setsid() < 0 {
                    return Err(io::Error::last_os_error());
                }
                // Should the keeper itself be killed, its processes go with it.
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
                    return Err(io::Error::last_os_error());
                }
                let mut none = std::mem::MaybeUninit::uninit();
                libc::sigemptyset(none.as_mut_ptr());
                libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
                Ok(())
            });
        }
        let started = command.spawn()?;
        let group = i32::try_from(started.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::Other)?;
        Ok(Child { link, process, group, next: None })
    }

    pub(super) fn pid(&self) -> Pid {
        self.group
    }

    /// Its input is closed: it is to go by itself first.
    pub(super) fn end(&mut self, now: Instant) {
        self.next.get_or_insert((now + AFTER_INPUT, Step::Term));
    }

    /// The gateway is gone: less time for all.
    pub(super) fn end_soon(&mut self, now: Instant) {
        self.signal(Signal::TERM);
        self.next = Some((now + AFTER_TERM_AT_END, Step::Kill));
    }

    /// When it has to be looked at again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.next.map(|(due, _)| due)
    }

    /// Takes the step that is due.
    pub(super) fn look(&mut self, now: Instant) {
        let Some((_, step)) = self.next.filter(|(due, _)| *due <= now) else { return };
        match step {
            Step::Term => {
                self.signal(Signal::TERM);
                self.next = Some((now + AFTER_TERM, Step::Kill));
            }
            Step::Kill => {
                self.kill_group();
                self.next = None;
            }
        }
    }

    /// Ends what is left of the group.
    pub(super) fn kill_group(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // A group without members is what is wanted.
        let _ = kill_process_group(self.group, signal);
    }
}
