//! The memory group of the measured process: what a pod's limit would count.

use std::fmt;

use serde::Serialize;

use super::{mib, ratio};
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
    /// Growth per connection until all were up: the process's memory and the kernel's for its end.
    pub bytes_per_connection: f64,
}

impl Cgroup {
    /// The section, after `opened` connections came up; `None` when it was not sampled at every turn.
    pub(crate) fn of(samples: CgroupSamples, opened: u64) -> Option<Self> {
        let CgroupSamples { directory, version, before, up, end, highest_bytes } = samples;
        let (before, up, end) = (before?, up?, end?);
        let bytes_per_connection =
            ratio(up.current_bytes as f64 - before.current_bytes as f64, opened as f64);
        Some(Self { directory, version, before, up, end, highest_bytes, bytes_per_connection })
    }
}

impl fmt::Display for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { before, up, end, .. } = self;
        write!(
            f,
            "  server group {:.1} MiB before, {:.1} MiB with all connections, {:.1} MiB at the end ({:.0} bytes per connection), {:.1} MiB highest",
            mib(before.current_bytes),
            mib(up.current_bytes),
            mib(end.current_bytes),
            self.bytes_per_connection,
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
                write!(f, ", {name} {:.1} MiB", mib(bytes))?;
            }
        }
        writeln!(f)
    }
}
