//! The session store against a Redis in memory, on a clock of the test's own: each row of the table in the module's docs.

mod coherence;
mod fake;
mod outage;
mod storm;
mod unwritten;

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use self::fake::{TTL, World, settings};
use crate::Millis;
use crate::contract::{self, Stage};

struct Sim(Rc<World>);

impl Stage for Sim {
    fn now(&self) -> Millis {
        self.0.now()
    }

    async fn pass(&self, ms: Millis) {
        self.0.pass(ms);
        let yielded = Cell::new(false);
        poll_fn(|_| if yielded.replace(true) { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

#[test]
fn two_shards_and_two_pods_keep_what_every_store_promises() {
    let world = World::new();
    let (here, there) = (world.pod(2, &settings()), world.pod(1, &settings()));
    for other in [&here.shards[1], &there.shards[0]] {
        world.run(contract::check(&*here.shards[0], &**other, TTL, &Sim(world.clone())));
    }
}

#[test]
fn without_invalidations_they_keep_it_too() {
    let world = World::new();
    let (here, there) = (world.pod(1, &settings()), world.pod(1, &settings()));
    [&here, &there].iter().for_each(|pod| pod.links[0].stop_following());
    world.run(contract::check(&*here.shards[0], &*there.shards[0], TTL, &Sim(world.clone())));
}
