//! The memory group of the measured process: what a pod's limit would count.

use std::fmt;

use serde::Serialize;

use super::mib;
use crate::sys::CgroupMemory;

/// Samples at the run's turns.
#[derive(Debug, Default)]
pub(crate) struct CgroupSamples {
    pub(crate) directory: String,
    pub(crate) version: u8,
    /// Before the first connection.
    pub(crate) before: Option<CgroupMemory>,
    /// With all connections up.
    pub(crate) up: Option<CgroupMemory>,
    /// At the end of the measured time.
    pub(crate) end: Option<CgroupMemory>,
    /// The highest of all readings.
    pub(crate) highest_bytes: u64,
}

/// Memory charged to the measured process's control group: its own, the page cache's and the kernel's.
#[derive(Debug, Serialize)]
pub struct Cgroup {
    /// Its directory.
    pub directory: String,
    /// Of control groups: 1 or 2.
    pub version: u8,
    /// Before the first connection.
    pub before: CgroupMemory,
    /// With all connections up, before the first call.
    pub up: CgroupMemory,
    /// At the end of the measured time; its peak is the group's since it was made.
    pub end: CgroupMemory,
    /// The highest reading of this run.
    pub highest_bytes: u64,
}

impl Cgroup {
    /// The section; `None` when it was not sampled at every turn.
    pub(crate) fn of(samples: CgroupSamples) -> Option<Self> {
        let CgroupSamples { directory, version, before, up, end, highest_bytes } = samples;
        Some(Self { directory, version, before: before?, up: up?, end: end?, highest_bytes })
    }
}

impl fmt::Display for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { before, up, end, .. } = self;
        write!(
            f,
            "  server group {:.1} MiB before, {:.1} MiB with all connections, {:.1} MiB at the end, {:.1} MiB highest",
            mib(before.current_bytes),
            mib(up.current_bytes),
            mib(end.current_bytes),
            mib(self.highest_bytes),
        )?;
        for (name, value) in [
            ("peak ever", end.peak_bytes),
            ("limit", end.limit_bytes),
            ("kernel", end.kernel_bytes),
            ("slab", end.slab_bytes),
            ("sockets", end.socket_bytes),
        ] {
            if let Some(bytes) = value {
                write!(f, ", {name} {:.1}", mib(bytes))?;
            }
        }
        writeln!(f)
    }
}
