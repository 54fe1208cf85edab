//! Shards on plain threads that block in `epoll_wait`: for kernels and containers that refuse io_uring. Owns the
//! threads; never does a shard's IO.

use std::sync::Arc;
use std::thread::JoinHandle;

use super::{Drive, Executor, Plan, StartError, Turn};

pub(super) struct Handles(Vec<JoinHandle<()>>);

impl Handles {
    pub(super) fn join(self) {
        for handle in self.0 {
            if handle.join().is_err() {
                crate::fatal::end("a shard panicked");
            }
        }
    }
}

pub(super) fn start<D, F>(plan: &Plan, make: Arc<F>) -> Result<Handles, StartError>
where
    D: Drive + 'static,
    F: Fn(usize, Executor) -> D + Send + Sync + 'static,
{
    let mut handles = Vec::with_capacity(plan.shards.get());
    for index in 0..plan.shards.get() {
        let make = make.clone();
        let pin = plan.pin;
        let handle = std::thread::Builder::new()
            .name(format!("shard-{index}"))
            .spawn(move || {
                super::enter(index, pin);
                crate::fatal::name_shard(index);
                let shard = make(index, Executor::Epoll);
                while shard.turn() != Turn::Finished {}
            })
            .map_err(|error| StartError::Executor(error.to_string()))?;
        handles.push(handle);
    }
    Ok(Handles(handles))
}
