//! Shards on plain threads that block in `epoll_wait`: for kernels and containers that refuse io_uring. Owns the
//! threads; never does a shard's IO.

use std::sync::Arc;
use std::thread::JoinHandle;

use super::muster::{Missing, Muster};
use super::{Drive, Plan, ShardDriver, StartError, Turn};
use crate::net::reactor::{DriverKind, Reactor};

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

pub(super) fn start<D, F>(plan: &Plan, make: &Arc<F>) -> Result<Handles, StartError>
where
    D: Drive + 'static,
    F: Fn(usize, ShardDriver) -> D + Send + Sync + 'static,
{
    let (muster, place) = Muster::new(plan.shards);
    let mut handles = Vec::with_capacity(plan.shards.get());
    for index in 0..plan.shards.get() {
        let (make, place) = (make.clone(), place.clone());
        let pin = plan.pin;
        let handle = std::thread::Builder::new()
            .name(format!("shard-{index}"))
            .spawn(move || {
                super::enter(index, pin);
                let Some(reactor) = place.take(|| Reactor::new(DriverKind::Epoll)) else { return };
                let shard = make(index, ShardDriver(reactor));
                while shard.turn() != Turn::Finished {}
            })
            .map_err(|error| StartError::Threads(error.to_string()))?;
        handles.push(handle);
    }
    drop(place);
    match muster.start() {
        Ok(()) => Ok(Handles(handles)),
        Err(Missing::Refused(error)) => Err(StartError::Threads(format!("no epoll descriptor: {error}"))),
        // A shard that panics ends the process before this.
        Err(Missing::Absent) => Err(StartError::Threads("a thread ended".to_owned())),
    }
}
