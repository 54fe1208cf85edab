//! Which executor hosts a shard: owns the choice between glommio (io_uring) and a plain epoll loop, the threads,
//! their pinning and their own file tables. It never looks into a shard: a shard is whatever implements [`Drive`].
//!
//! Invariants: all shards are made at once; every shard unshares its file table before it opens a descriptor
//! (see `ARCHITECTURE.md`, "Own file table"); none is made unless each has its connection driver; no other module names an
//! executor.

mod epoll;
mod muster;
mod refusal;
mod uring;

use std::num::NonZeroUsize;
use std::sync::Arc;

use mcp_config::Driver;
pub use refusal::Refusal;

use crate::net::reactor::Reactor;

/// What comes after a turn of a shard's loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The next turn.
    More,
    /// The shard has drained: its thread ends.
    Finished,
}

/// A shard as the executor sees it: turns to take, one after the other, on the thread that made it.
pub trait Drive {
    /// Waits until there is something to do, and does it. The wait is the thread's own: nothing else runs meanwhile.
    fn turn(&self) -> Turn;
}

/// How many shards, on which CPUs, by which executor.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Number of shard threads.
    pub shards: NonZeroUsize,
    /// Pin each shard to a CPU, round robin over those that the process may use.
    pub pin: bool,
    /// The configured choice of executor.
    pub driver: Driver,
}

/// The executor that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executor {
    /// Shards in glommio's executors, each with an io_uring of its own.
    IoUring,
    /// A plain thread that blocks in `epoll_wait`.
    Epoll,
}

impl Executor {
    /// The name used in the configuration and the log.
    pub fn name(self) -> &'static str {
        match self {
            Executor::IoUring => "io_uring",
            Executor::Epoll => "epoll",
        }
    }
}

/// The connection driver of one shard, made on the shard's own thread.
pub struct ShardDriver(pub(crate) Reactor);

/// Why shards could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel refuses io_uring and the configuration insists on it.
    #[error("io_uring is refused: {0}, or set gateway.runtime.driver to \"auto\" or \"epoll\"")]
    IoUringRefused(Refusal),
    /// The threads or what they need could not be made.
    #[error("the shards could not be started: {0}")]
    Threads(String),
}

/// Running shard threads.
pub struct Running {
    handles: Handles,
    /// The executor they run on.
    pub executor: Executor,
}

enum Handles {
    Uring(uring::Handles),
    Epoll(epoll::Handles),
}

impl Running {
    /// Waits until every shard has finished.
    pub fn join(self) {
        match self.handles {
            Handles::Uring(handles) => handles.join(),
            Handles::Epoll(handles) => handles.join(),
        }
    }
}

/// Starts all shards, or none; `make(index, driver)` runs on the shard's own thread, with its own file table, and builds it.
/// One line of the log says which driver it is, and why.
///
/// # Errors
/// [`StartError`] when the executor cannot start. A shard that panics ends the process, see [`crate::fatal`].
pub fn run<D, F>(plan: &Plan, make: F) -> Result<Running, StartError>
where
    D: Drive + 'static,
    F: Fn(usize, ShardDriver) -> D + Send + Sync + 'static,
{
    let make = Arc::new(make);
    if plan.driver != Driver::Epoll {
        match uring::start(plan, &make) {
            Ok(handles) => {
                tracing::info!(driver = "io_uring", "the shards run on io_uring: the kernel allows it");
                return Ok(Running { handles: Handles::Uring(handles), executor: Executor::IoUring });
            }
            Err(refusal) if plan.driver == Driver::IoUring => {
                return Err(StartError::IoUringRefused(refusal));
            }
            Err(Refusal { cause, remedy }) => tracing::warn!(
                driver = "epoll",
                cause,
                remedy,
                "the shards run on epoll: io_uring is refused"
            ),
        }
    } else {
        tracing::info!(driver = "epoll", "the shards run on epoll: the configuration says so");
    }
    let handles = Handles::Epoll(epoll::start(plan, &make)?);
    Ok(Running { handles, executor: Executor::Epoll })
}

/// First statement of every shard thread: own file table, then its name and CPU.
fn enter(index: usize, pin: bool) {
    crate::fatal::name_shard(index);
    // SAFETY: the thread holds no descriptor that another thread expects it to open or close for it; everything
    // that all shards share (the mailboxes' eventfds) exists already and keeps its number in the copied table.
    let own_table = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FILES) };
    // Container runtimes' seccomp profiles refuse it to every shard alike, so one line is enough.
    if let Err(cause) = own_table
        && index == 0
    {
        tracing::info!(%cause, "unshare(CLONE_FILES) is refused: the shards share one file table and its limit");
    }
    // glommio numbers its threads from 1; the thread's name and the `shard` label should say the same.
    if let Ok(name) = std::ffi::CString::new(format!("shard-{index}"))
        && let Err(cause) = rustix::thread::set_name(&name)
    {
        tracing::debug!(%cause, shard = index, "the thread keeps its old name");
    }
    if pin && let Some(cpus) = core_affinity::get_core_ids().filter(|cpus| !cpus.is_empty()) {
        core_affinity::set_for_current(cpus[index % cpus.len()]);
    }
}
