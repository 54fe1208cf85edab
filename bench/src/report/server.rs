//! The measured process: what it cost per call and per connection. Made from samples of `/proc`; it never samples.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::{Cgroup, CgroupSamples, mib, ratio};
use crate::sys::ProcessSample;

/// How a shard's threads are named; its number follows.
const SHARD_PREFIX: &str = "shard-";

/// The measured process at the run's turns.
#[derive(Debug, Default)]
pub(crate) struct ServerSamples {
    /// Before the first connection.
    pub(crate) before: Option<ProcessSample>,
    /// With all connections up.
    pub(crate) up: Option<ProcessSample>,
    /// At the begin and the end of the measured time.
    pub(crate) from: Option<ProcessSample>,
    pub(crate) to: Option<ProcessSample>,
    /// Its memory group, if it has one.
    pub(crate) cgroup: Option<CgroupSamples>,
}

/// The measured process.
#[derive(Debug, Serialize)]
pub struct Server {
    /// CPU per call in the measured time, all threads.
    pub cpu_us_per_call: f64,
    /// Of that, in user mode (by clock ticks: rough in short runs).
    pub user_us_per_call: f64,
    /// Of that, in the kernel (by clock ticks).
    pub system_us_per_call: f64,
    /// Cores in use.
    pub cores: f64,
    /// Threads that worked, busiest first.
    pub threads: Vec<ServerThread>,
    /// The same by shard, for a process whose threads are named so.
    pub shards: Vec<Shard>,
    /// Resident memory before the first connection.
    pub resident_before_bytes: u64,
    /// With all connections up, before the first call.
    pub resident_up_bytes: u64,
    /// At the end of the measured time.
    pub resident_end_bytes: u64,
    /// Growth per connection until all were up.
    pub bytes_per_connection: f64,
    /// Its memory group, if it has one.
    pub cgroup: Option<Cgroup>,
}

/// One thread of the measured process.
#[derive(Debug, Serialize)]
pub struct ServerThread {
    /// Its id.
    pub tid: u32,
    /// Its name.
    pub name: String,
    /// CPU per call of the whole run.
    pub cpu_us_per_call: f64,
    /// Share of one core.
    pub cores: f64,
}

/// A shard: the threads of one name.
#[derive(Debug, Serialize)]
pub struct Shard {
    /// Their name, such as `shard-0`.
    pub name: String,
    /// How many worked.
    pub threads: usize,
    /// CPU per call of the whole run.
    pub cpu_us_per_call: f64,
    /// Cores in use.
    pub cores: f64,
}

impl Server {
    /// The measured process over `calls` calls in the time `measured`, after `opened` connections came up; `None` when
    /// it was not sampled at every turn.
    pub(crate) fn of(samples: ServerSamples, measured: Duration, calls: u64, opened: u64) -> Option<Self> {
        let ServerSamples { before: Some(before), up: Some(up), from: Some(from), to: Some(to), cgroup } =
            samples
        else {
            return None;
        };
        let per_call = |cpu: Duration| ratio(cpu.as_secs_f64() * 1e6, calls as f64);
        let cores = |cpu: Duration| ratio(cpu.as_secs_f64(), measured.as_secs_f64());
        let busy = to.busy().saturating_sub(from.busy());
        let mut threads: Vec<_> = to
            .threads
            .iter()
            .map(|(tid, (name, cpu))| {
                let earlier = from.threads.get(tid).map_or(Duration::ZERO, |(_, cpu)| *cpu);
                (*tid, name.clone(), cpu.saturating_sub(earlier))
            })
            .filter(|(_, _, cpu)| !cpu.is_zero())
            .collect();
        threads.sort_by_key(|(_, _, cpu)| std::cmp::Reverse(*cpu));
        let threads: Vec<_> = threads
            .into_iter()
            .map(|(tid, name, cpu)| ServerThread {
                tid,
                name,
                cpu_us_per_call: per_call(cpu),
                cores: cores(cpu),
            })
            .collect();
        Some(Self {
            cpu_us_per_call: per_call(busy),
            user_us_per_call: per_call(to.cpu.user.saturating_sub(from.cpu.user)),
            system_us_per_call: per_call(to.cpu.system.saturating_sub(from.cpu.system)),
            cores: cores(busy),
            shards: shards(&threads),
            threads,
            resident_before_bytes: before.resident_bytes,
            resident_up_bytes: up.resident_bytes,
            resident_end_bytes: to.resident_bytes,
            bytes_per_connection: ratio(
                up.resident_bytes as f64 - before.resident_bytes as f64,
                opened as f64,
            ),
            cgroup: cgroup.and_then(Cgroup::of),
        })
    }
}

/// Adds up the threads of each shard, in the order of their numbers.
fn shards(threads: &[ServerThread]) -> Vec<Shard> {
    let mut by_number: BTreeMap<u32, Shard> = BTreeMap::new();
    for thread in threads {
        let number = thread.name.strip_prefix(SHARD_PREFIX).and_then(|number| number.parse().ok());
        let Some(number) = number else { continue };
        let shard = by_number.entry(number).or_insert_with(|| Shard {
            name: thread.name.clone(),
            threads: 0,
            cpu_us_per_call: 0.0,
            cores: 0.0,
        });
        shard.threads += 1;
        shard.cpu_us_per_call += thread.cpu_us_per_call;
        shard.cores += thread.cores;
    }
    by_number.into_values().collect()
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  server CPU   {:.1} us per call ({:.1} user, {:.1} system by ticks), {:.2} cores",
            self.cpu_us_per_call, self.user_us_per_call, self.system_us_per_call, self.cores
        )?;
        for thread in &self.threads {
            writeln!(
                f,
                "    {:<16} {:>8.1} us per call  {:.2} cores",
                thread.name, thread.cpu_us_per_call, thread.cores
            )?;
        }
        writeln!(
            f,
            "  server RSS   {:.1} MiB before, {:.1} MiB with all connections, {:.1} MiB at the end ({:.0} bytes per connection)",
            mib(self.resident_before_bytes),
            mib(self.resident_up_bytes),
            mib(self.resident_end_bytes),
            self.bytes_per_connection
        )?;
        self.cgroup.as_ref().map_or(Ok(()), |cgroup| write!(f, "{cgroup}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_a_shard_are_added_up() {
        let thread =
            |tid, name: &str| ServerThread { tid, name: name.to_owned(), cpu_us_per_call: 2.0, cores: 0.5 };
        let threads = [thread(1, "shard-10"), thread(2, "shard-2"), thread(3, "main"), thread(4, "shard-2")];
        let shards = shards(&threads);
        let named: Vec<_> = shards.iter().map(|s| (s.name.as_str(), s.threads)).collect();
        assert_eq!(named, [("shard-2", 2), ("shard-10", 1)]);
        assert!((shards[0].cpu_us_per_call - 4.0).abs() < 1e-9);
        assert!((shards[0].cores - 1.0).abs() < 1e-9);
    }
}
