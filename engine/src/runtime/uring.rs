//! Shards on glommio. Owns the one place that knows glommio: the executor pool and its settings. It never does a shard's
//! IO: the shard has a ring of its own (`net/ring.rs`), because glommio's rings lack the flags that make it cheap.
//!
//! Invariant: a shard's turn blocks its executor's thread in the shard's own ring. Whatever must wake a shard comes in
//! there; a future that waits for glommio's own IO or timers would wait until the shard next yields.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use glommio::{LocalExecutorPoolBuilder, PoolPlacement, PoolThreadHandles};

use super::{Drive, Executor, Plan, StartError, Turn};

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

/// Asks the kernel whether it allows the rings that the shards need.
pub(super) fn probe() -> io::Result<()> {
    crate::net::ring::Ring::new().map(drop)
}

pub(super) fn start<D, F>(plan: &Plan, make: Arc<F>) -> Result<Handles, StartError>
where
    D: Drive + 'static,
    F: Fn(usize, Executor) -> D + Send + Sync + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let pin = plan.pin;
    LocalExecutorPoolBuilder::new(PoolPlacement::Unbound(plan.shards.get()))
        .name("shard")
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_DEPTH)
        .on_all_shards(move || {
            let index = next.fetch_add(1, Ordering::Relaxed);
            super::enter(index, pin);
            crate::fatal::name_shard(index);
            async move { drive(make(index, Executor::IoUring)).await }
        })
        .map(Handles)
        .map_err(|error| StartError::Executor(error.to_string()))
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
