//! What the host's kernel held for the connections: slab and TCP buffers. No process's resident memory has it in it.

use std::fmt;

use serde::Serialize;

use super::{mib, ratio};
use crate::sys::KernelMemory;

/// Samples at the run's turns.
#[derive(Debug, Default)]
pub(crate) struct KernelSamples {
    /// Before the first connection.
    pub(crate) before: Option<KernelMemory>,
    /// With all connections up.
    pub(crate) up: Option<KernelMemory>,
    /// At the end of the measured time.
    pub(crate) end: Option<KernelMemory>,
}

/// Kernel memory of the whole host. Over loopback both ends of a connection are in it, and the upstream's as well.
#[derive(Debug, Serialize)]
pub struct Kernel {
    /// Before the first connection.
    pub before: KernelMemory,
    /// With all connections up, before the first call.
    pub up: KernelMemory,
    /// At the end of the measured time.
    pub end: KernelMemory,
    /// Growth of slab per connection until all were up.
    pub slab_bytes_per_connection: f64,
}

impl Kernel {
    /// The section, after `opened` connections came up; `None` when it was not sampled at every turn.
    pub(crate) fn of(samples: &KernelSamples, opened: u64) -> Option<Self> {
        let (before, up, end) = (samples.before?, samples.up?, samples.end?);
        let growth = up.slab_bytes as f64 - before.slab_bytes as f64;
        Some(Self { before, up, end, slab_bytes_per_connection: ratio(growth, opened as f64) })
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { before, up, end, .. } = self;
        writeln!(
            f,
            "  host slab    {:.1} MiB before, {:.1} MiB with all connections, {:.1} MiB at the end ({:.0} bytes per connection, both ends)",
            mib(before.slab_bytes),
            mib(up.slab_bytes),
            mib(end.slab_bytes),
            self.slab_bytes_per_connection
        )?;
        writeln!(
            f,
            "  host TCP     {:.1} MiB of buffers before, {:.1} MiB, {:.1} MiB; {} sockets before, {}, {}; {} in TIME_WAIT at the end",
            mib(before.tcp_bytes),
            mib(up.tcp_bytes),
            mib(end.tcp_bytes),
            before.tcp_in_use,
            up.tcp_in_use,
            end.tcp_in_use,
            end.tcp_time_wait
        )
    }
}
