//! What the whole-system tests share: processes that never outlive their test, the gateway and its configuration, the real
//! peers (MCP servers and clients of the official SDKs, the conformance suite), a client that sends any bytes over TLS, and
//! the reading of metrics. The tests themselves are in `tests/`, one file per property.
//!
//! Never used by the product. It panics where a test must fail, with what the processes printed; a test never sleeps for a
//! time that it hopes is enough, but polls with [`eventually`].

pub mod boxes;
pub mod cert;
pub mod confine;
pub mod conformance;
pub mod connect;
pub mod dir;
pub mod dns;
pub mod faults;
pub mod fixtures;
pub mod gateway;
pub mod generate;
pub mod h2;
pub mod http;
pub mod ingress;
pub mod load;
pub mod mcp;
pub mod mcpb;
pub mod metrics;
pub mod peers;
pub mod port;
pub mod process;
pub mod redis;
pub mod resources;
pub mod sse;
pub mod tls;
pub mod upstream;
pub mod upstream_h2;
pub mod ws;
pub mod ws_server;

use std::time::{Duration, Instant};

pub use cert::TestCert;
pub use dir::TempDir;
pub use gateway::{Gateway, GatewayConfig};
pub use http::{Connection, Response};
pub use metrics::Metrics;
pub use process::Process;

/// The pause between two looks of [`eventually`].
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How many looks in a row must see nothing move until a sender counts as held up.
const STILL_LOOKS: u32 = 50;

/// Looks again and again until `look` gives something, and returns that.
///
/// # Panics
/// When nothing came within `limit`; the message names `what` was awaited.
pub fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits until a sender is held up: it has sent something, and `sent` has not moved for many looks. How far it came.
///
/// # Panics
/// When it is not held up within `limit`.
pub fn held_up_at(limit: Duration, sent: impl Fn() -> u64) -> u64 {
    let (mut last, mut still) = (0, 0);
    eventually("the sender is held up", limit, || {
        let now = sent();
        still = if now == last && now > 0 { still + 1 } else { 0 };
        last = now;
        (still == STILL_LOOKS).then_some(now)
    })
}
