//! The keeper's own loop: owns the processes and what is told of them to the shards. It ends when the gateway does, and all
//! of its processes with it.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitOptions, set_child_subreaper, waitpid};

use super::child::Child;
use super::descendants;
use super::wire::{Reply, Request, Specs, Update, receive_request, receive_specs, send_reply, take_update};

/// Exit code where it was not a gateway that started it.
const EXIT_USAGE: u8 = 2;

/// Keeps processes until the gateway is gone.
pub(crate) fn main() -> ExitCode {
    match Keeping::begin() {
        Ok(mut keeping) => {
            let ended = keeping.run();
            keeping.end();
            match ended {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error, ExitCode::FAILURE),
            }
        }
        Err(error) => fail(&error, ExitCode::from(EXIT_USAGE)),
    }
}

fn fail(error: &io::Error, code: ExitCode) -> ExitCode {
    use std::io::Write;
    // Nothing can be done about a standard error that is gone.
    let _ = writeln!(io::stderr(), "mcp-gateway: the keeper of stdio processes ends: {error}");
    code
}

struct Keeping {
    control: UnixStream,
    /// What the gateway has begun to say.
    come: Vec<u8>,
    specs: Specs,
    links: Vec<OwnedFd>,
    /// Tells that a child has ended.
    bell: OwnedFd,
    children: Vec<Child>,
}

impl Keeping {
    /// Reads what the gateway says on standard input.
    fn begin() -> io::Result<Self> {
        let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let (specs, links) = receive_specs(&control)?;
        set_child_subreaper(Some(rustix::process::getpid()))?;
        control.set_nonblocking(true)?;
        Ok(Keeping { control, come: Vec::new(), specs, links, bell: child_bell()?, children: Vec::new() })
    }

    /// Until the gateway is gone.
    fn run(&mut self) -> io::Result<()> {
        loop {
            let ready = self.wait()?;
            let now = Instant::now();
            self.bury();
            if ready.control && !self.listen()? {
                return Ok(());
            }
            for link in ready.links {
                self.serve(link, now)?;
            }
            self.children.iter_mut().for_each(|child| child.look(now));
        }
    }

    /// Takes what the gateway says of servers; says whether it is still there.
    fn listen(&mut self) -> io::Result<bool> {
        let mut piece = [0; 4096];
        loop {
            match (&self.control).read(&mut piece) {
                Ok(0) => return Ok(false),
                Ok(read) => self.come.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A reset is an end, too.
                Err(_) => return Ok(false),
            }
            while let Some(Update { server, spec }) = take_update(&mut self.come)? {
                let server = usize::from(server);
                let specs = &mut self.specs.servers;
                specs.resize(specs.len().max(server + 1), None);
                specs[server] = Some(spec);
            }
        }
    }

    /// Ends everything that is left.
    fn end(&mut self) {
        let now = Instant::now();
        self.children.iter_mut().for_each(|child| child.end_soon(now));
        while !self.children.is_empty() && self.wait_for_children().is_ok() {
            self.bury();
            let now = Instant::now();
            if self.children.iter().any(|child| child.due().is_none_or(|due| due <= now)) {
                break;
            }
        }
        descendants::kill_all();
    }

    fn serve(&mut self, link: usize, now: Instant) -> io::Result<()> {
        loop {
            let (request, streams) = match receive_request(&self.links[link]) {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(()),
                // The gateway's end, which its other socket says, too.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            };
            match request {
                Request::Spawn { process, server } => {
                    // What was said of the server before this request is here by now.
                    self.listen()?;
                    self.spawn(link, process, server, streams);
                }
                Request::End { process } => {
                    let mut children = self.children.iter_mut();
                    if let Some(child) = children.find(|child| child.link == link && child.process == process)
                    {
                        child.end(now);
                    }
                }
            }
        }
    }

    fn spawn(&mut self, link: usize, process: u64, server: u16, streams: Vec<OwnedFd>) {
        let spec = self.specs.servers.get(usize::from(server)).cloned().flatten();
        let started = match &spec {
            Some(spec) => Child::start(spec, streams, link, process),
            None => Err(io::ErrorKind::InvalidInput.into()),
        };
        match started {
            Ok(child) => self.children.push(child),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
                self.tell(link, Reply::NotStarted { process, errno });
            }
        }
    }

    /// Buries the dead, and what their groups have left behind.
    fn bury(&mut self) {
        self.silence_bell();
        while let Some(pid) = dead_child() {
            let found = self.children.iter().position(|child| child.pid() == pid);
            if let Some(found) = found {
                // While it is not buried, its number cannot be another group's.
                self.children[found].kill_group();
            }
            let buried = waitpid(Some(pid), WaitOptions::NOHANG);
            if let Some(found) = found {
                let child = self.children.swap_remove(found);
                let status = buried.ok().flatten().map_or(0, |(_, status)| status.as_raw());
                self.tell(child.link, Reply::Ended { process: child.process, status });
            }
        }
    }

    fn tell(&self, link: usize, reply: Reply) {
        // A shard reads its replies in every turn; one that is gone needs none.
        let _ = send_reply(&self.links[link], reply);
    }

    fn wait(&self) -> io::Result<Woken> {
        let mut polled =
            vec![PollFd::new(&self.control, PollFlags::IN), PollFd::new(&self.bell, PollFlags::IN)];
        polled.extend(self.links.iter().map(|link| PollFd::new(link, PollFlags::IN)));
        self.poll(&mut polled)?;
        let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        let links = ready.iter().skip(2).enumerate().filter(|(_, ready)| **ready);
        Ok(Woken { control: ready[0], links: links.map(|(link, _)| link).collect() })
    }

    fn wait_for_children(&self) -> io::Result<()> {
        self.poll(&mut [PollFd::new(&self.bell, PollFlags::IN)])
    }

    fn poll(&self, polled: &mut [PollFd<'_>]) -> io::Result<()> {
        let due = self.children.iter().filter_map(Child::due).min();
        let wait = due.map(|due| due.saturating_duration_since(Instant::now()));
        let wait = wait.map(|wait| Timespec {
            tv_sec: wait.as_secs() as i64,
            // Not a moment too early, or it would be polled in vain.
            tv_nsec: i64::from(wait.subsec_nanos().saturating_add(1_000_000).min(999_999_999)),
        });
        match poll(polled, wait.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn silence_bell(&self) {
        let mut signal = [0u8; size_of::<libc::signalfd_siginfo>()];
        while rustix::io::read(&self.bell, &mut signal).is_ok_and(|read| read > 0) {}
    }
}

struct Woken {
    control: bool,
    links: Vec<usize>,
}

/// A child that has ended and is not buried yet.
fn dead_child() -> Option<Pid> {
    // SAFETY: a zeroed siginfo_t is a valid one; waitid writes no other memory, and has set the fields of a child's end, or
    // none, when it returns 0.
    let pid = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        if libc::waitid(libc::P_ALL, 0, &mut info, options) == 0 { info.si_pid() } else { 0 }
    };
    Pid::from_raw(pid)
}

/// A descriptor that is readable when a child has ended: SIGCHLD, which is blocked for that.
fn child_bell() -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set it is given; the other calls get that set, a valid signal number and no old
    // descriptor; a descriptor that signalfd gives is nobody else's.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        let mut set = set.assume_init();
        libc::sigaddset(&mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        match libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) {
            descriptor if descriptor < 0 => Err(io::Error::last_os_error()),
            descriptor => Ok(OwnedFd::from_raw_fd(descriptor)),
        }
    }
}
