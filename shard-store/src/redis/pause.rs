//! Letting time pass between two tries: owns the pause and its jitter. Never what is tried.

use std::future::pending;

use crate::Millis;
use crate::runtime::Runtime;

/// Between half of `ms`, which is at least 2, and all of it, so that the shards of all pods do not come at once.
pub(super) fn jittered(ms: Millis) -> Millis {
    ms - getrandom::u64().unwrap_or_default() % (ms / 2)
}

/// Lets time pass.
pub(super) async fn pause<R: Runtime>(runtime: &R, ms: Millis) {
    // A deadline on what never ends.
    let _ = runtime.deadline(runtime.now() + ms, pending::<()>()).await;
}
