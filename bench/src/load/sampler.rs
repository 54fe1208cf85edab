//! Reads the measured process, its control group and the kernel: at the run's turns, and at short intervals for the
//! series over time. It starts and stops nothing.

use std::time::{Duration, SystemTime};

use super::driver::RunError;
use crate::report::{CgroupSamples, KernelSamples, Reading, Readings, ServerSamples};
use crate::sys::{Host, MemoryCgroup, ProcessSample, sample_kernel_memory, sample_process};

/// All that was read.
#[derive(Debug)]
pub(super) struct Sampler {
    pid: Option<u32>,
    group: Option<MemoryCgroup>,
    /// The run's begin.
    pub(super) started: SystemTime,
    pub(super) host: Host,
    pub(super) server: ServerSamples,
    pub(super) kernel: KernelSamples,
    pub(super) readings: Readings,
    resident_bytes: Option<u64>,
}

impl Sampler {
    /// Reads where things stand before the first connection; then a reading is due `every` so often.
    ///
    /// # Errors
    /// [`RunError::ServerPid`].
    pub(super) fn try_new(
        pid: Option<u32>,
        open_files_limit: u64,
        every: Duration,
    ) -> Result<Self, RunError> {
        let before = pid.map(|pid| sample_process(pid).map_err(|source| RunError::ServerPid { pid, source }));
        let before = before.transpose()?;
        let group = pid.and_then(MemoryCgroup::of_process);
        let mut sampler = Self {
            pid,
            started: SystemTime::now(),
            host: Host::read(open_files_limit, pid),
            server: ServerSamples::default(),
            kernel: KernelSamples { before: sample_kernel_memory().ok(), ..KernelSamples::default() },
            readings: Readings::new(every, Reading::default()),
            resident_bytes: before.as_ref().map(|sample| sample.resident_bytes),
            group,
        };
        sampler.server.cgroup = sampler.group.as_ref().map(|group| CgroupSamples {
            directory: group.directory().display().to_string(),
            version: group.version(),
            before: group.sample().ok(),
            ..CgroupSamples::default()
        });
        let busy = before.as_ref().map(ProcessSample::busy);
        sampler.server.before = before;
        sampler.readings = Readings::new(every, Reading { busy, ..Reading::default() });
        Ok(sampler)
    }

    /// All connections are up or given up.
    pub(super) fn on_up(&mut self) {
        self.server.up = self.process();
        self.kernel.up = sample_kernel_memory().ok();
        if let (Some(group), Some(samples)) = (&self.group, &mut self.server.cgroup) {
            samples.up = group.sample().ok();
        }
    }

    /// The measured time begins.
    pub(super) fn on_measure(&mut self) {
        self.server.from = self.process();
    }

    /// The measured time is over.
    pub(super) fn on_end(&mut self) {
        self.server.to = self.process();
        self.kernel.end = sample_kernel_memory().ok();
        if let (Some(group), Some(samples)) = (&self.group, &mut self.server.cgroup) {
            samples.end = group.sample().ok();
        }
    }

    /// Makes a reading; the moment and the client's counts are given.
    pub(super) fn read(&mut self, at: Duration, connections: u64, right_calls: u64, failures: u64) {
        let (process, kernel) = (self.process(), sample_kernel_memory().ok());
        let group = self.group.as_ref().and_then(|group| group.sample().ok());
        if let (Some(now), Some(samples)) = (&group, &mut self.server.cgroup) {
            samples.highest_bytes = samples.highest_bytes.max(now.current_bytes);
        }
        self.resident_bytes = process.as_ref().map(|sample| sample.resident_bytes);
        self.readings.push(Reading {
            at,
            connections,
            right_calls,
            failures,
            resident_bytes: self.resident_bytes,
            busy: process.as_ref().map(ProcessSample::busy),
            cgroup_bytes: group.map(|group| group.current_bytes),
            slab_bytes: kernel.map(|kernel| kernel.slab_bytes),
            tcp_bytes: kernel.map(|kernel| kernel.tcp_bytes),
        });
    }

    /// Resident memory of the measured process at the last reading.
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        self.resident_bytes
    }

    /// CPU of the measured process in the measured time, all threads.
    pub(super) fn measured_cpu(&self) -> Option<Duration> {
        let (from, to) = self.server.from.as_ref().zip(self.server.to.as_ref())?;
        Some(to.busy().saturating_sub(from.busy()))
    }

    /// Resident memory of the measured process now.
    pub(super) fn resident_now(&self) -> Option<u64> {
        self.process().map(|sample| sample.resident_bytes)
    }

    fn process(&self) -> Option<ProcessSample> {
        sample_process(self.pid?).ok()
    }
}
