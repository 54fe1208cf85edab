//! The gateway's side of its keeper: owns its start before there is any shard, the shards' sockets to it, and how many
//! processes there are. Never a process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mcp_config::{Config, EnvVar, Transport};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, socketpair};

use super::wire::{Spec, Specs, send_specs};

/// How long the end of the gateway waits for its processes to be gone.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A keeper at work.
pub(crate) struct Keeper {
    control: UnixStream,
    links: Vec<OwnedFd>,
    /// Processes per server, over all shards, and how many there may be.
    processes: Vec<(AtomicU32, u32)>,
    child: Mutex<Child>,
}

/// A process that counts as long as this lives.
pub(crate) struct ProcessPermit(std::sync::Arc<crate::process::Process>, u16);

impl Keeper {
    /// Starts the keeper, where a server needs one. To be called before any thread is started, and before the limit of open
    /// files is raised, which its processes would inherit.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn start(config: &Config, shards: usize) -> io::Result<Option<Self>> {
        let servers: Vec<_> = config.upstreams.iter().map(|server| spec(&server.transport)).collect();
        if servers.iter().all(Option::is_none) {
            return Ok(None);
        }
        let processes = config.upstreams.iter().map(|server| match &server.transport {
            Transport::Stdio(stdio) => (AtomicU32::new(0), stdio.max_processes),
            _ => (AtomicU32::new(0), 0),
        });
        let (control, far) = UnixStream::pair()?;
        let child = Command::new("/proc/self/exe")
            .arg0("mcp-gateway")
            .arg(crate::cli::KEEP_PROCESSES)
            .stdin(Stdio::from(OwnedFd::from(far)))
            .stdout(Stdio::null())
            // What the terminal sends to the gateway's group is for the gateway to decide on.
            .process_group(0)
            .spawn()?;
        let (mut links, mut theirs) = (Vec::with_capacity(shards), Vec::with_capacity(shards));
        for _ in 0..shards {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
            links.push(near);
            theirs.push(far);
        }
        send_specs(&control, &Specs { shards, servers }, &theirs)?;
        Ok(Some(Keeper { control, links, processes: processes.collect(), child: Mutex::new(child) }))
    }

    /// A shard's socket to the keeper: one number in every shard's file table.
    pub(crate) fn link(&self, shard: usize) -> BorrowedFd<'_> {
        self.links[shard].as_fd()
    }

    /// Processes per server that may have some, over all shards.
    pub(crate) fn counts(&self) -> Vec<(u16, u32)> {
        let counts = self.processes.iter().enumerate().filter(|(_, (_, limit))| *limit > 0);
        counts.map(|(server, (count, _))| (server as u16, count.load(Ordering::Relaxed))).collect()
    }

    /// Has all processes end, and waits a while until they have.
    pub(crate) fn finish(&self) {
        // A keeper that is gone has nothing left to end.
        let _ = rustix::net::shutdown(&self.control, Shutdown::Both);
        let Ok(mut child) = self.child.lock() else { return };
        let by = Instant::now() + PATIENCE;
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < by {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl ProcessPermit {
    /// Counts one more process of a server; `None` when there are as many as may be.
    pub(crate) fn take(process: &std::sync::Arc<crate::process::Process>, server: u16) -> Option<Self> {
        let (count, limit) = &process.keeper.as_ref()?.processes[usize::from(server)];
        let more = |now: u32| (now < *limit).then_some(now + 1);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(ProcessPermit(process.clone(), server))
    }
}

impl Drop for ProcessPermit {
    fn drop(&mut self) {
        if let Some(keeper) = &self.0.keeper {
            keeper.processes[usize::from(self.1)].0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn spec(transport: &Transport) -> Option<Spec> {
    let Transport::Stdio(stdio) = transport else { return None };
    let env = stdio.env.iter().map(|variable| match variable {
        EnvVar::Set { name, value } => (name.clone(), Some(value.clone())),
        EnvVar::Inherited { name } => (name.clone(), None),
    });
    Some(Spec {
        command: stdio.command.clone(),
        env: env.collect(),
        cwd: stdio.cwd.as_ref().map(|cwd| cwd.to_string_lossy().into_owned()),
    })
}
