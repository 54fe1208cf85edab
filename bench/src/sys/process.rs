//! What `/proc` says about a process: resident memory, CPU time, and the CPU time of each thread.
//!
//! It never signals or traces the process. Times come from `schedstat` (nanoseconds) where the kernel has it, else
//! from `stat` (clock ticks of usually 10 ms).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

/// Threads read per process; more than any gateway has shards. Further ones are left out of the per-thread table.
const MAX_THREADS: usize = 1024;

/// User and system time.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    /// Time in user mode.
    pub user: Duration,
    /// Time in the kernel.
    pub system: Duration,
}

/// A process at one moment.
#[derive(Clone, Debug, Default)]
pub struct ProcessSample {
    /// Resident memory, in bytes (`statm`).
    pub resident_bytes: u64,
    /// User and system time of the whole process, dead threads included (`stat`).
    pub cpu: CpuTime,
    /// CPU time by thread id, with the thread's name.
    pub threads: BTreeMap<u32, (String, Duration)>,
}

impl ProcessSample {
    /// CPU time of all living threads together, as exact as the kernel gives it.
    pub fn busy(&self) -> Duration {
        self.threads.values().map(|(_, t)| *t).sum()
    }
}

/// Reads `/proc/<pid>`.
///
/// # Errors
/// When the process does not exist or may not be read.
pub fn sample_process(pid: u32) -> io::Result<ProcessSample> {
    let root = format!("/proc/{pid}");
    let statm = fs::read_to_string(format!("{root}/statm"))?;
    let pages = statm.split_ascii_whitespace().nth(1).and_then(|s| s.parse::<u64>().ok()).unwrap_or(0);
    let mut sample = ProcessSample {
        resident_bytes: pages * page_size(),
        cpu: cpu_of_stat(&fs::read_to_string(format!("{root}/stat"))?),
        threads: BTreeMap::new(),
    };
    for entry in fs::read_dir(format!("{root}/task"))?.take(MAX_THREADS) {
        let Some(tid) = entry?.file_name().to_str().and_then(|s| s.parse::<u32>().ok()) else { continue };
        // A thread may end between the listing and the reading; it is then left out.
        if let Some(thread) = sample_thread(&format!("{root}/task/{tid}")) {
            sample.threads.insert(tid, thread);
        }
    }
    Ok(sample)
}

/// CPU time of this process so far, all threads.
pub fn own_cpu() -> CpuTime {
    fs::read_to_string("/proc/self/stat").map(|s| cpu_of_stat(&s)).unwrap_or_default()
}

fn sample_thread(dir: &str) -> Option<(String, Duration)> {
    let stat = fs::read_to_string(format!("{dir}/stat")).ok()?;
    let name = stat.split_once('(')?.1.rsplit_once(')')?.0.to_owned();
    let exact = fs::read_to_string(format!("{dir}/schedstat"))
        .ok()
        .and_then(|s| s.split_ascii_whitespace().next().and_then(|n| n.parse().ok()))
        .map(Duration::from_nanos);
    let ticks = cpu_of_stat(&stat);
    Some((name, exact.unwrap_or(ticks.user + ticks.system)))
}

/// Fields 14 and 15 of `proc_pid_stat(5)`: user and system time in clock ticks.
fn cpu_of_stat(stat: &str) -> CpuTime {
    // The name in parentheses may hold spaces; the fields are counted behind it.
    let Some((_, rest)) = stat.rsplit_once(')') else { return CpuTime::default() };
    let mut fields = rest.split_ascii_whitespace().skip(11).map(|s| s.parse::<u64>().unwrap_or(0));
    let mut next = || Duration::from_nanos(fields.next().unwrap_or(0) * (1_000_000_000 / clock_ticks()));
    CpuTime { user: next(), system: next() }
}

fn clock_ticks() -> u64 {
    // SAFETY: no pointer is passed.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok().filter(|n| *n > 0).unwrap_or(100)
}

pub(super) fn page_size() -> u64 {
    // SAFETY: no pointer is passed.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_fields_are_found_behind_a_name_with_spaces() {
        let cpu = cpu_of_stat("7 (a) b (c) R 1 2 3 4 5 6 7 8 9 10 250 50 0 0");
        let tick = Duration::from_nanos(1_000_000_000 / clock_ticks());
        assert_eq!(cpu.user, tick * 250);
        assert_eq!(cpu.system, tick * 50);
    }

    #[test]
    fn this_process_can_be_sampled() {
        let sample = sample_process(std::process::id()).unwrap();
        assert!(sample.resident_bytes > 0);
        assert!(!sample.threads.is_empty());
    }

    #[test]
    fn an_absent_process_is_an_error() {
        assert!(sample_process(u32::MAX).is_err());
    }
}
