//! The facts about the machine that decide what a figure measured on it means.
//!
//! It only reads. What cannot be read is empty or absent. The host's name is left out: reports are passed on.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

use super::cgroup::cpu_quota_cores;
use super::kernel::total_memory_bytes;

/// The kernel's settings that bound connections and their memory, as named under `/proc/sys`.
const SYSCTLS: [&str; 9] = [
    "net/core/somaxconn",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/tcp_mem",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_wmem",
    "net/ipv4/tcp_tw_reuse",
    "fs/file-max",
    "kernel/io_uring_disabled",
];

/// The machine, at the run's begin.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Host {
    /// As the processor names itself.
    pub cpu_model: String,
    /// Processors online.
    pub cpus_online: u64,
    /// Processors that this process may use, such as `0-1`.
    pub affinity: String,
    /// Processors that the measured process may use.
    pub server_affinity: Option<String>,
    /// Cores by the CPU quota of this process's control group; absent: no quota.
    pub cpu_quota_cores: Option<f64>,
    /// Cores by the CPU quota of the measured process's control group.
    pub server_cpu_quota_cores: Option<f64>,
    /// How the first processor's frequency is chosen.
    pub governor: Option<String>,
    /// Architecture, such as `x86_64`.
    pub architecture: &'static str,
    /// The kernel's release.
    pub kernel: String,
    /// The distribution's name and version.
    pub distribution: String,
    /// Physical memory.
    pub memory_bytes: u64,
    /// Open files per file table, after this process raised it as far as it may.
    pub open_files_limit: u64,
    /// Load average over 1, 5 and 15 minutes, before the load.
    pub load_average: [f64; 3],
    /// Settings of the kernel, by the names that `sysctl` takes.
    pub sysctls: BTreeMap<String, String>,
}

impl Host {
    /// Reads them; `server_pid` is the measured process.
    pub fn read(open_files_limit: u64, server_pid: Option<u32>) -> Self {
        let server_pid = server_pid.map(|pid| pid.to_string());
        Self {
            cpu_model: cpu_model(),
            cpus_online: cpus_online(),
            affinity: affinity("self").unwrap_or_default(),
            server_affinity: server_pid.as_deref().and_then(affinity),
            cpu_quota_cores: cpu_quota_cores("self"),
            server_cpu_quota_cores: server_pid.as_deref().and_then(cpu_quota_cores),
            governor: line_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            architecture: std::env::consts::ARCH,
            kernel: line_of("/proc/sys/kernel/osrelease").unwrap_or_default(),
            distribution: distribution(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
            memory_bytes: total_memory_bytes(),
            open_files_limit,
            load_average: load_average(&line_of("/proc/loadavg").unwrap_or_default()),
            sysctls: SYSCTLS
                .into_iter()
                .filter_map(|name| Some((name.replace('/', "."), line_of(&format!("/proc/sys/{name}"))?)))
                .collect(),
        }
    }
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // x86 has `model name`; on ARM only the implementer and the part are told.
    let value =
        |name: &str| text.lines().find(|line| line.starts_with(name))?.split_once(':').map(|(_, v)| v.trim());
    match (value("model name"), value("CPU implementer"), value("CPU part")) {
        (Some(model), _, _) => model.to_owned(),
        (None, Some(implementer), Some(part)) => format!("implementer {implementer}, part {part}"),
        _ => String::new(),
    }
}

fn cpus_online() -> u64 {
    // SAFETY: no pointer is passed.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }).unwrap_or(0)
}

fn affinity(pid: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map(|list| list.trim().to_owned())
}

/// A file of one line, its runs of white space made one space.
fn line_of(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
}

fn distribution(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or_default().trim_matches('"').to_owned()
}

fn load_average(text: &str) -> [f64; 3] {
    let mut words = text.split(' ').map(|word| word.parse().unwrap_or(0.0));
    [(); 3].map(|()| words.next().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_facts() {
        let host = Host::read(20, Some(std::process::id()));
        assert!(host.cpus_online > 0 && host.memory_bytes > 0);
        assert!(!host.kernel.is_empty() && !host.affinity.is_empty());
        assert_eq!(host.server_affinity.as_deref(), Some(host.affinity.as_str()));
        assert!(host.sysctls.contains_key("net.core.somaxconn"));
    }

    #[test]
    fn texts_are_understood() {
        assert_eq!(distribution("NAME=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
        assert_eq!(load_average("1.55 0.80 0.89 1/92 10990"), [1.55, 0.8, 0.89]);
        assert_eq!(load_average(""), [0.0; 3]);
    }
}
