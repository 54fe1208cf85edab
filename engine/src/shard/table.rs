//! The one table that all shards write: owns cache-padded atomics for connection counts, in all and per address; and what a
//! server's rows are. It never holds a lock and never grows.

pub(crate) mod endpoints;
pub(crate) mod eras;
pub(crate) mod hints;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use mcp_config::Server;

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
    max_connections: AtomicU32,
    /// 0: no limit.
    max_per_address: AtomicU32,
    rows: [Box<[AtomicU32]>; 2],
    hashers: [RandomState; 2],
}

impl Table {
    pub(crate) fn new(server: &Server) -> Self {
        let row = || (0..ADDRESS_SLOTS).map(|_| AtomicU32::new(0)).collect();
        let table = Table {
            connections: Padded(AtomicU32::new(0)),
            max_connections: AtomicU32::default(),
            max_per_address: AtomicU32::default(),
            rows: [row(), row()],
            hashers: [RandomState::new(), RandomState::new()],
        };
        table.limit(server);
        table
    }

    /// Sets the limits. Who is in stays.
    pub(crate) fn limit(&self, server: &Server) {
        self.max_connections.store(server.max_connections, Ordering::Relaxed);
        self.max_per_address.store(server.max_connections_per_ip.unwrap_or(0), Ordering::Relaxed);
    }

    /// Counts a connection in, or says which limit it meets.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<(), Full> {
        if self.connections.0.fetch_add(1, Ordering::Relaxed) >= self.max_connections.load(Ordering::Relaxed)
        {
            self.connections.0.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Process);
        }
        // Counted whether there is a limit or not: one that comes later finds the counts right.
        let counts = self.slots(address).map(|slot| slot.fetch_add(1, Ordering::Relaxed));
        let limit = self.max_per_address.load(Ordering::Relaxed);
        if limit > 0 && counts[0].min(counts[1]) >= limit {
            self.leave(address);
            return Err(Full::Address);
        }
        Ok(())
    }

    /// Counts a connection out.
    pub(crate) fn leave(&self, address: IpAddr) {
        self.connections.0.fetch_sub(1, Ordering::Relaxed);
        for slot in self.slots(address) {
            slot.fetch_sub(1, Ordering::Relaxed);
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
        Table::new(&Server { max_connections, max_connections_per_ip, ..Server::default() })
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

    #[test]
    fn other_limits_count_who_is_in() {
        let table = table(2, None);
        let a: IpAddr = [127, 0, 0, 1].into();
        assert_eq!([table.enter(a), table.enter(a), table.enter(a)], [Ok(()), Ok(()), Err(Full::Process)]);
        table.limit(&Server { max_connections: 9, max_connections_per_ip: Some(3), ..Server::default() });
        assert_eq!([table.enter(a), table.enter(a)], [Ok(()), Err(Full::Address)]);
        table.limit(&Server { max_connections: 9, max_connections_per_ip: None, ..Server::default() });
        assert_eq!(table.enter(a), Ok(()));
        table.limit(&Server { max_connections: 1, max_connections_per_ip: None, ..Server::default() });
        (0..4).for_each(|_| table.leave(a));
        assert_eq!([table.enter(a), table.enter(a)], [Ok(()), Err(Full::Process)]);
    }
}
