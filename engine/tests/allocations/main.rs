//! Claim: in the steady state a call allocates an exact, known number of times on its shard.
//! Set-up: the gateway with one shard, a server over plain HTTP and a client over HTTPS live in this process under a counting
//! allocator; after a warm-up the shard's allocations during many calls are counted, for each kind of answer.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test may block")]

#[path = "../calls/mod.rs"]
mod calls;
mod counter;

use calls::{Caller, Kind, Setup};
use counter::{Counting, allocations_during};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls before counting: tables, buffers and the timer wheel have their size then.
const WARM_UP_CALLS: u64 = 500;
const CALLS: u64 = 1_000;

/// rustls alone allocates, once for each record that it decrypts or encrypts: a request is one record, and so is an answer
/// that came as a whole.
const PER_CALL: u64 = 2;

#[test]
fn a_call_allocates_exactly_so_often() {
    let setup = Setup::new();
    let arguments = ["mcp-gateway".into(), "--config".into(), setup.file.clone().into_os_string()];
    // The gateway ends with the process.
    std::thread::spawn(move || mcp_engine::cli::run(arguments));
    let mut caller = Caller::open(&setup);
    let counted = Kind::ALL.map(|kind| {
        caller.call(kind, WARM_UP_CALLS);
        let counted = allocations_during(|| caller.call(kind, CALLS));
        // Once a second the shard keeps house, which may allocate; that is no call's.
        (kind, (counted + CALLS / 2) / CALLS)
    });
    assert_eq!(counted, Kind::ALL.map(|kind| (kind, PER_CALL)));
}
