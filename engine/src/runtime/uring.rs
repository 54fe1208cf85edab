//! Shards on glommio. Owns the one place that knows glommio: the executor pool and its settings. It never does a shard's
//! IO: the shard has a ring of its own (`net/ring.rs`), because glommio's rings lack the flags that make it cheap.
//!
//! Invariant: a shard's turn blocks its executor's thread in the shard's own ring. Whatever must wake a shard comes in
//! there; a future that waits for glommio's own IO or timers would wait until the shard next yields.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use glommio::{LocalExecutorPoolBuilder, PoolPlacement, PoolThreadHandles};
use rustix::process::{Resource, getrlimit, setrlimit};

use super::muster::{Missing, Muster};
use super::refusal::{LOCKED_BYTES, Refusal};
use super::{Drive, Plan, ShardDriver, Turn};
use crate::net::reactor::{DriverKind, Reactor};
use crate::net::ring::Ring;

/// Entries of each of glommio's rings, which the gateway does not use: a ring's size costs kernel memory for every shard.
const RING_DEPTH: usize = 128;
/// Bytes of registered memory for glommio's own file IO, which the gateway does not use (the default is 10 MiB).
const IO_MEMORY_BYTES: usize = 64 << 10;
/// Turns after which glommio may look at its own queues.
const TURNS_BEFORE_YIELD: usize = 64;

pub(super) struct Handles(PoolThreadHandles<()>);

impl Handles {
    pub(super) fn join(self) {
        for result in self.0.join_all() {
            if let Err(error) = result {
                crate::fatal::end(&format!("a shard's executor failed: {error}"));
            }
        }
    }
}

/// Starts all shards, or none.
///
/// # Errors
/// The kernel's answer to one ring is known before glommio is asked for anything; a shard that is refused its own later
/// (for want of memory, say) has all of them end.
pub(super) fn start<D, F>(plan: &Plan, make: &Arc<F>) -> Result<Handles, Refusal>
where
    D: Drive + 'static,
    F: Fn(usize, ShardDriver) -> D + Send + Sync + 'static,
{
    Ring::try_out().map_err(|error| Refusal::by_kernel(&error))?;
    raise_locked_memory();
    let (muster, place) = Muster::new(plan.shards);
    let next = Arc::new(AtomicUsize::new(0));
    let (pin, make) = (plan.pin, make.clone());
    let handles = LocalExecutorPoolBuilder::new(PoolPlacement::Unbound(plan.shards.get()))
        .name("shard")
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_DEPTH)
        .on_all_shards(move || {
            let index = next.fetch_add(1, Ordering::Relaxed);
            super::enter(index, pin);
            let reactor = place.take(|| Reactor::new(DriverKind::Ring));
            async move {
                if let Some(reactor) = reactor {
                    drive(make(index, ShardDriver(reactor))).await;
                }
            }
        })
        .map_err(|error| Refusal::by_executor(&error.to_string()))?;
    match muster.start() {
        Ok(()) => Ok(Handles(handles)),
        Err(missing) => {
            // They have ended, or are about to.
            let failed = handles.join_all().into_iter().find_map(Result::err);
            Err(match missing {
                Missing::Refused(error) => Refusal::by_kernel(&error),
                Missing::Absent => {
                    Refusal::by_executor(&failed.map_or_else(String::new, |error| error.to_string()))
                }
            })
        }
    }
}

/// glommio looks at the limit that counts now, not at the one to which it may be raised.
fn raise_locked_memory() {
    let mut limit = getrlimit(Resource::Memlock);
    if limit.current.is_some_and(|bytes| bytes < LOCKED_BYTES) {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Memlock, limit) {
            tracing::debug!(%error, "the limit of locked memory stays");
        }
    }
}

async fn drive<D: Drive>(shard: D) {
    let mut turns = 0;
    while shard.turn() != Turn::Finished {
        turns += 1;
        if turns % TURNS_BEFORE_YIELD == 0 {
            glommio::yield_if_needed().await;
        }
    }
}
