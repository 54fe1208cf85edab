//! Shards on glommio. Owns the one place that knows glommio: the executor pool, its settings, and the wait for a
//! foreign descriptor. It never does a shard's IO: that is the shard's epoll descriptor's business.
//!
//! Invariant: glommio is pinned to 0.9.0, because [`readable`] leans on how that version polls. A test holds it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use glommio::{LocalExecutorPoolBuilder, PoolPlacement, PoolThreadHandles};

use super::{Drive, Executor, Plan, StartError, Turn};

/// Entries of each ring. A shard has one poll in flight (its epoll descriptor), so the smallest ring that glommio is
/// comfortable with is enough; a ring's size costs kernel memory for every shard.
const RING_DEPTH: usize = 128;
/// Bytes of registered memory for glommio's own file IO, which the gateway does not use (the default is 10 MiB).
const IO_MEMORY_BYTES: usize = 64 << 10;
/// Turns that a busy shard takes before it lets glommio look at its own queues.
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
    while shard.turn(true) != Turn::Finished {
        turns += 1;
        if turns % TURNS_BEFORE_YIELD == 0 {
            glommio::yield_if_needed().await;
        }
    }
}
