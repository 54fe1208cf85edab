//! The gateway's side of its keeper: owns its start before there is any shard, the shards' sockets to it, and what it is told
//! of servers. Never a process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mcp_config::{Config, EnvVar, Transport};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, socketpair};

use super::wire::{Spec, Specs, Update, send_specs, send_update};
use crate::setup::Server;

/// How long the end of the gateway waits for its processes to be gone.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A keeper at work.
pub(crate) struct Keeper {
    control: UnixStream,
    links: Vec<OwnedFd>,
    child: Mutex<Child>,
}

/// A process that counts as long as this lives.
pub(crate) struct ProcessPermit(Arc<AtomicU32>);

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
        Ok(Some(Keeper { control, links, child: Mutex::new(child) }))
    }

    /// A shard's socket to the keeper: one number in every shard's file table.
    pub(crate) fn link(&self, shard: usize) -> BorrowedFd<'_> {
        self.links[shard].as_fd()
    }

    /// Has the processes of this server started so from now on. A shard that asks for one afterwards gets such a one.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn know(&self, server: u16, transport: &Transport) -> io::Result<()> {
        match spec(transport) {
            Some(spec) => send_update(&self.control, &Update { server, spec }),
            None => Ok(()),
        }
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
    pub(crate) fn take(server: &Server, stdio: &mcp_config::Stdio) -> Option<Self> {
        let more = |now: u32| (now < stdio.max_processes).then_some(now + 1);
        server.processes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(ProcessPermit(server.processes.clone()))
    }
}

impl Drop for ProcessPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
