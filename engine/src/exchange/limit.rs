//! The rate limit: owns by whom requests are counted, and how many each message counts. Counting is the limiter's.

use std::rc::Rc;

use mcp_config::RateKey;
use mcp_shard_store::limiter::Decision;

use super::{Inbound, identify};
use crate::metrics::RateScope;
use crate::respond::Refusal;
use crate::shard::Shard;

/// What the keys of addresses begin with; no principal does.
const ADDRESS: &[u8] = b"address:";

/// Counts a message as `count` requests, where requests are limited.
///
/// # Errors
/// [`Refusal::RateLimited`].
pub(super) async fn check(shard: &Rc<Shard>, inbound: &Inbound, count: usize) -> Result<(), Refusal> {
    let Some(limiter) = shard.kept.limiter() else { return Ok(()) };
    let mut key = shard.take_buffer();
    let scope = write_key(shard, inbound, &mut key);
    let mut decision = Decision::Allowed;
    for _ in 0..count {
        decision = limiter.take(&key, shard.core.clock.now()).await;
        if decision != Decision::Allowed {
            break;
        }
    }
    shard.give_buffer(key);
    shard.want_housekeeping();
    match decision {
        Decision::Allowed => Ok(()),
        Decision::Limited { retry_after_ms } => {
            shard.metrics.rate_limited(scope);
            Err(Refusal::RateLimited { retry_after_ms })
        }
    }
}

/// Writes by what a message is counted: its principal, where it has one that tells it from others, or its address.
fn write_key(shard: &Shard, inbound: &Inbound, key: &mut Vec<u8>) -> RateScope {
    let by = shard.setup().config.rate_limit.key;
    let is_named = by == RateKey::Principal
        && identify::with_principal(shard, &inbound.message, |principal| {
            let is_named = identify::is_somebody(principal);
            if is_named {
                key.extend_from_slice(principal.as_bytes());
            }
            is_named
        });
    if is_named {
        return RateScope::Principal;
    }
    key.extend_from_slice(ADDRESS);
    match inbound.peer {
        std::net::IpAddr::V4(address) => key.extend_from_slice(&address.octets()),
        std::net::IpAddr::V6(address) => key.extend_from_slice(&address.octets()),
    }
    RateScope::Address
}
