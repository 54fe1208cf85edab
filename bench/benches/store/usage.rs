//! CPU time: owns what a round is charged. All threads of the process count, and the kernel's work for it.

use std::time::{Duration, Instant};

/// What a round cost.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) commands: usize,
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
}

impl Sample {
    /// Commands per second of CPU time.
    pub(crate) fn per_cpu_second(&self) -> f64 {
        self.commands as f64 / self.cpu.as_secs_f64()
    }

    /// Commands per second.
    pub(crate) fn per_second(&self) -> f64 {
        self.commands as f64 / self.wall.as_secs_f64()
    }
}

/// A moment before work.
pub(crate) struct Usage {
    who: libc::c_int,
    cpu: Duration,
    at: Instant,
}

impl Usage {
    /// Of this process.
    pub(crate) fn own() -> Self {
        Self::of(libc::RUSAGE_SELF)
    }

    /// Of its children that have ended.
    pub(crate) fn children() -> Self {
        Self::of(libc::RUSAGE_CHILDREN)
    }

    /// What was used since.
    pub(crate) fn sample(&self, commands: usize) -> Sample {
        Sample { commands, cpu: cpu_of(self.who) - self.cpu, wall: self.at.elapsed() }
    }

    fn of(who: libc::c_int) -> Self {
        Usage { who, cpu: cpu_of(who), at: Instant::now() }
    }
}

fn cpu_of(who: libc::c_int) -> Duration {
    // SAFETY: all zeros is a value of this structure, which the call fills in.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a structure of this function.
    let failed = unsafe { libc::getrusage(who, &mut usage) };
    assert_eq!(failed, 0, "the system keeps accounts");
    let micros = |time: libc::timeval| Duration::from_micros((time.tv_sec * 1_000_000 + time.tv_usec) as u64);
    micros(usage.ru_utime) + micros(usage.ru_stime)
}
