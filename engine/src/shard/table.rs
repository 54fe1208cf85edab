//! The one table that all shards write: owns cache-padded atomics for connection counts, in all and per address, and for
//! the upstream servers' endpoints. It never holds a lock and never grows.

pub(crate) mod endpoints;
pub(crate) mod eras;
pub(crate) mod hints;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use mcp_config::Config;

use endpoints::Endpoints;

/// Counters per row for per-address counts: 2 rows × 65,536 × 4 bytes = 512 KiB, touched only where used. An address
/// counts in one slot of each row and is judged by the smaller, so two busy addresses must collide in both rows (a chance
/// of 1 in 4 billion for a pair) to be counted together.
const ADDRESS_SLOTS: usize = 1 << 16;

#[repr(align(128))]
struct Padded(AtomicU32);

/// Why a connection is turned away at accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// `gateway.server.max_connections` of the process.
    Process,
    /// `gateway.server.max_connections_per_ip`.
    Address,
}

pub(crate) struct Table {
    connections: Padded,
    max_connections: u32,
    max_per_address: Option<u32>,
    rows: [Box<[AtomicU32]>; 2],
    hashers: [RandomState; 2],
    pub(crate) endpoints: Endpoints,
}

impl Table {
    pub(crate) fn new(config: &Config) -> Self {
        let server = &config.server;
        let row = || (0..ADDRESS_SLOTS).map(|_| AtomicU32::new(0)).collect();
        Table {
            connections: Padded(AtomicU32::new(0)),
            max_connections: server.max_connections,
            max_per_address: server.max_connections_per_ip,
            rows: [row(), row()],
            hashers: [RandomState::new(), RandomState::new()],
            endpoints: Endpoints::new(&config.circuit_breaker, config.upstreams.len()),
        }
    }

    /// Counts a connection in, or says which limit it meets.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<(), Full> {
        if self.connections.0.fetch_add(1, Ordering::Relaxed) >= self.max_connections {
            self.connections.0.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Process);
        }
        if let Some(limit) = self.max_per_address {
            let counts = self.slots(address).map(|slot| slot.fetch_add(1, Ordering::Relaxed));
            if counts[0].min(counts[1]) >= limit {
                self.leave(address);
                return Err(Full::Address);
            }
        }
        Ok(())
    }

    /// Counts a connection out.
    pub(crate) fn leave(&self, address: IpAddr) {
        self.connections.0.fetch_sub(1, Ordering::Relaxed);
        if self.max_per_address.is_some() {
            for slot in self.slots(address) {
                slot.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Connections of the process, over all shards.
    pub(crate) fn connections(&self) -> u32 {
        self.connections.0.load(Ordering::Relaxed)
    }

    fn slots(&self, address: IpAddr) -> [&AtomicU32; 2] {
        [0, 1].map(|row| &self.rows[row][self.hashers[row].hash_one(address) as usize % ADDRESS_SLOTS])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(max_connections: u32, max_connections_per_ip: Option<u32>) -> Table {
        let mut config = Config::default();
        config.server.max_connections = max_connections;
        config.server.max_connections_per_ip = max_connections_per_ip;
        Table::new(&config)
    }

    #[test]
    fn both_limits_hold_and_a_place_comes_back() {
        let table = table(3, Some(2));
        let (a, b): (IpAddr, IpAddr) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        assert_eq!(table.enter(a), Ok(()));
        assert_eq!(table.enter(a), Ok(()));
        assert_eq!(table.enter(a), Err(Full::Address));
        assert_eq!(table.enter(b), Ok(()));
        assert_eq!(table.enter(b), Err(Full::Process));
        table.leave(a);
        assert_eq!(table.enter(a), Ok(()));
        assert_eq!(table.connections(), 3);
    }

    #[test]
    fn without_a_limit_per_address_only_the_total_counts() {
        let table = table(2, None);
        let a: IpAddr = [127, 0, 0, 1].into();
        assert_eq!([table.enter(a), table.enter(a), table.enter(a)], [Ok(()), Ok(()), Err(Full::Process)]);
    }
}
