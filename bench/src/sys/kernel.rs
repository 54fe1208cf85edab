//! Memory that the kernel holds for the whole host: slab and socket buffers. No process's resident memory has it in it.
//!
//! It only reads `/proc`. What a file does not say counts as 0: kernels differ.

use std::fs;
use std::io;

use serde::Serialize;

use super::process::page_size;

/// The kernel's memory and sockets at one moment, of the whole host (sockets: of this network namespace).
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct KernelMemory {
    /// Slab of all kinds (`/proc/meminfo`, `Slab`).
    pub slab_bytes: u64,
    /// Of that, what the kernel could give back, such as inodes without a user (`SReclaimable`).
    pub slab_reclaimable_bytes: u64,
    /// Of that, what it could not (`SUnreclaim`).
    pub slab_unreclaimable_bytes: u64,
    /// Buffers of TCP sockets (`/proc/net/sockstat`, `mem`).
    pub tcp_bytes: u64,
    /// TCP sockets over IPv4 in use.
    pub tcp_in_use: u64,
    /// TCP sockets allocated, in any state but `TIME_WAIT`.
    pub tcp_allocated: u64,
    /// Connections in `TIME_WAIT`.
    pub tcp_time_wait: u64,
}

/// Reads `/proc/meminfo` and `/proc/net/sockstat`.
///
/// # Errors
/// When one of them cannot be read.
pub fn sample_kernel_memory() -> io::Result<KernelMemory> {
    let mut sample = KernelMemory::default();
    sample.take_meminfo(&fs::read_to_string("/proc/meminfo")?);
    sample.take_sockstat(&fs::read_to_string("/proc/net/sockstat")?);
    Ok(sample)
}

/// The host's memory in bytes; 0 where it cannot be read.
pub(super) fn total_memory_bytes() -> u64 {
    fs::read_to_string("/proc/meminfo").map_or(0, |text| meminfo(&text, "MemTotal"))
}

impl KernelMemory {
    fn take_meminfo(&mut self, text: &str) {
        self.slab_bytes = meminfo(text, "Slab");
        self.slab_reclaimable_bytes = meminfo(text, "SReclaimable");
        self.slab_unreclaimable_bytes = meminfo(text, "SUnreclaim");
    }

    fn take_sockstat(&mut self, text: &str) {
        let Some(line) = text.lines().find_map(|line| line.strip_prefix("TCP:")) else { return };
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        for pair in words.chunks_exact(2) {
            let Ok(value) = pair[1].parse() else { continue };
            match pair[0] {
                "inuse" => self.tcp_in_use = value,
                "alloc" => self.tcp_allocated = value,
                "tw" => self.tcp_time_wait = value,
                "mem" => self.tcp_bytes = value * page_size(),
                _ => {}
            }
        }
    }
}

/// The value of a line `Name: 123 kB`, in bytes.
fn meminfo(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_are_understood() {
        let mut sample = KernelMemory::default();
        sample.take_meminfo(
            "MemTotal: 9 kB\nKReclaimable: 8 kB\nSlab:  12 kB\nSReclaimable: 5 kB\nSUnreclaim: 7 kB\n",
        );
        sample.take_sockstat(
            "sockets: used 15\nTCP: inuse 1 orphan 2 tw 864 alloc 3 mem 4\nUDP: inuse 9 mem 9\n",
        );
        assert_eq!(sample.slab_bytes, 12 * 1024);
        assert_eq!(sample.slab_reclaimable_bytes, 5 * 1024);
        assert_eq!(sample.slab_unreclaimable_bytes, 7 * 1024);
        assert_eq!((sample.tcp_in_use, sample.tcp_time_wait, sample.tcp_allocated), (1, 864, 3));
        assert_eq!(sample.tcp_bytes, 4 * page_size());
    }

    #[test]
    fn this_host_has_slab() {
        assert!(sample_kernel_memory().unwrap().slab_bytes > 0);
        assert!(total_memory_bytes() > 0);
    }
}
