//! The measured process: what it cost per call and per connection. Made from samples of `/proc`; it never samples.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::ratio;
use crate::sys::ProcessSample;

/// Points of the memory series; a longer run drops every second point and goes on.
const MAX_RESIDENT_POINTS: usize = 1024;

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
    resident: Vec<ResidentPoint>,
}

impl ServerSamples {
    pub(crate) fn push_resident(&mut self, at: Duration, up: u64, sample: &ProcessSample) {
        if self.resident.len() == MAX_RESIDENT_POINTS {
            let mut keep = false;
            self.resident.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.resident.push(ResidentPoint {
            at_s: at.as_secs_f64(),
            connections: up,
            resident_bytes: sample.resident_bytes,
        });
    }
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
    /// Resident memory before the first connection.
    pub resident_before_bytes: u64,
    /// With all connections up, before the first call.
    pub resident_up_bytes: u64,
    /// At the end of the measured time.
    pub resident_end_bytes: u64,
    /// Growth per connection until all were up.
    pub bytes_per_connection: f64,
    /// Over time, about one point per second.
    pub resident: Vec<ResidentPoint>,
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

/// Resident memory at one moment.
#[derive(Debug, Serialize)]
pub struct ResidentPoint {
    /// Since the run's begin.
    pub at_s: f64,
    /// Connections up.
    pub connections: u64,
    /// Resident memory.
    pub resident_bytes: u64,
}

impl Server {
    /// The measured process over `calls` calls in the time `measured`, after `opened` connections came up; `None` when
    /// it was not sampled at every turn.
    pub(crate) fn of(samples: ServerSamples, measured: Duration, calls: u64, opened: u64) -> Option<Self> {
        let ServerSamples { before: Some(before), up: Some(up), from: Some(from), to: Some(to), resident } =
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
        Some(Self {
            cpu_us_per_call: per_call(busy),
            user_us_per_call: per_call(to.cpu.user.saturating_sub(from.cpu.user)),
            system_us_per_call: per_call(to.cpu.system.saturating_sub(from.cpu.system)),
            cores: cores(busy),
            threads: threads
                .into_iter()
                .map(|(tid, name, cpu)| ServerThread {
                    tid,
                    name,
                    cpu_us_per_call: per_call(cpu),
                    cores: cores(cpu),
                })
                .collect(),
            resident_before_bytes: before.resident_bytes,
            resident_up_bytes: up.resident_bytes,
            resident_end_bytes: to.resident_bytes,
            bytes_per_connection: ratio(
                up.resident_bytes as f64 - before.resident_bytes as f64,
                opened as f64,
            ),
            resident,
        })
    }
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
        let mib = |bytes: u64| bytes as f64 / 1048576.0;
        writeln!(
            f,
            "  server RSS   {:.1} MiB before, {:.1} MiB with all connections, {:.1} MiB at the end ({:.0} bytes per connection)",
            mib(self.resident_before_bytes),
            mib(self.resident_up_bytes),
            mib(self.resident_end_bytes),
            self.bytes_per_connection
        )
    }
}
