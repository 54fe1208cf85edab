//! The main thread of a load run: starts the client threads, gives the start, shows progress, samples the measured
//! process, and puts the report together. It sends no call itself.

use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;

use super::build::build;
use super::churn::Churn;
use super::overload::Phase;
use super::sampler::Sampler;
use super::stats::{Progress, ThreadStats};
use super::tls::TrustError;
use super::worker::{Share, Worker, as_ns, nanos};
use super::{Handshakes, Overload, Plan, Scenario};
use crate::report::{Report, interval_for};
use crate::sys::{CpuTime, StopSignals, open_file_limit, own_cpu, own_file_table, precise_timers};

/// Start time that says: nobody starts.
const ABORTED: u64 = u64::MAX;
/// Descriptors that a thread needs besides its connections (copied ones, epoll, `/proc`).
const SPARE_DESCRIPTORS: u64 = 64;
/// From giving the start to the start, so that every thread has seen it.
const START_DELAY: Duration = Duration::from_millis(20);
/// Time between two progress lines.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Memory that has not fallen for so long falls no more.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// What a run of a number of connections is taken to last, to choose the intervals of its series.
const TOTAL_LENGTH: Duration = Duration::from_secs(60);
/// From the end of the probe to the overload, so that the probe's last calls are answered.
const PROBE_PAUSE: Duration = Duration::from_millis(100);
/// Longest sleep of the main thread between two looks at the others.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the threads share.
#[derive(Debug)]
pub(super) struct Shared {
    /// All times count from here.
    pub(super) base: Instant,
    /// When the load starts (ns); 0: not yet known.
    start_ns: AtomicU64,
    /// End early.
    pub(super) stop: AtomicBool,
    /// The measured process was sampled for the last time: connections may end.
    pub(super) sampled: AtomicBool,
    /// Threads whose connections are all up or given up.
    pub(super) settled_threads: AtomicUsize,
    /// The session of all, with `--shared-session`; `None` inside: the target gives no sessions.
    pub(super) session: OnceLock<Option<Arc<str>>>,
    /// The overload and the time after it, once the sustainable rate is known.
    pub(super) phases: OnceLock<[Phase; 2]>,
    /// Short connections begun so far.
    pub(super) begun: AtomicU64,
    /// One per thread.
    pub(super) progress: Vec<Progress>,
}

/// When the load starts, as a thread sees it.
pub(super) enum Start {
    NotYet,
    /// It never will.
    CalledOff,
    /// At this time (ns).
    At(u64),
}

impl Shared {
    /// Looks whether the start is given.
    pub(super) fn start(&self) -> Start {
        match self.start_ns.load(Ordering::Acquire) {
            0 => Start::NotYet,
            ABORTED => Start::CalledOff,
            start_ns => Start::At(start_ns),
        }
    }
}

/// Why a run cannot be done at all. Failures of calls are in the [`Report`].
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// More connections per thread than descriptors.
    #[error(
        "{wanted} connections per thread, but the limit of open files is {limit}: use more --threads, or raise it (ulimit -n)"
    )]
    OpenFiles {
        /// Connections per thread.
        wanted: u64,
        /// The hard limit.
        limit: u64,
    },
    /// The process to measure cannot be read.
    #[error("--server-pid {pid}: {source}")]
    ServerPid {
        /// Its id.
        pid: u32,
        /// The system's words.
        source: io::Error,
    },
    /// The host cannot be checked against a certificate.
    #[error(transparent)]
    Host(#[from] TrustError),
    /// A system call of ours failed.
    #[error("client: {0}")]
    Io(#[from] io::Error),
    /// A client thread panicked.
    #[error("a client thread panicked")]
    Panicked,
}

/// Runs the plan to its end (or SIGINT, SIGTERM) and reports.
///
/// # Errors
/// [`RunError`].
pub fn run(plan: &Plan) -> Result<Report, RunError> {
    let signals = StopSignals::block()?;
    let limit = open_file_limit()?;
    let wanted = plan.connections.div_ceil(plan.threads) as u64;
    if wanted + SPARE_DESCRIPTORS > limit {
        return Err(RunError::OpenFiles { wanted, limit });
    }
    let name = plan.tls.as_ref().map(|_| ServerName::try_from(plan.target.host.clone())).transpose();
    let name = name.map_err(TrustError::from)?;
    let sampler = Sampler::try_new(plan.server_pid, limit, interval_for(planned_length(plan)))?;
    let shared = Shared {
        base: Instant::now(),
        start_ns: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        sampled: AtomicBool::new(false),
        settled_threads: AtomicUsize::new(0),
        session: OnceLock::new(),
        phases: OnceLock::new(),
        begun: AtomicU64::new(0),
        progress: std::iter::repeat_with(Progress::default).take(shares(plan).count()).collect(),
    };
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for share in shares(plan) {
            let (shared, name) = (&shared, name.clone());
            let main = move || run_thread(plan, shared, share, name);
            threads.push(
                thread::Builder::new().name(format!("client-{}", share.thread)).spawn_scoped(scope, main)?,
            );
        }
        let mut monitor = Monitor::new(plan, &shared, &signals, sampler);
        let mut times = monitor.watch(&threads);
        let mut stats = ThreadStats::new();
        for (joined, thread) in threads.into_iter().enumerate() {
            let counted = thread.join().map_err(|_| RunError::Panicked)??;
            if joined < plan.threads {
                stats.merge(counted);
            } else {
                stats.flood = Some(Box::new(counted));
            }
        }
        if let Scenario::Handshake(handshakes) = plan.scenario {
            times.settled = monitor.settle(handshakes.settle);
        }
        Ok(build(plan, stats, times, monitor.sampler))
    })
}

fn run_thread(
    plan: &Plan,
    shared: &Shared,
    share: Share,
    name: Option<ServerName<'static>>,
) -> io::Result<ThreadStats> {
    own_file_table();
    precise_timers();
    match plan.scenario {
        Scenario::Handshake(handshakes) => Churn::new(plan, handshakes, shared, share, name)?.run(),
        _ => Worker::new(plan, shared, share, name)?.run(),
    }
}

/// Connections are dealt out evenly; the first threads take the rest. A flood has a thread of its own, the last one.
fn shares(plan: &Plan) -> impl Iterator<Item = Share> {
    let (each, more) = (plan.connections / plan.threads, plan.connections % plan.threads);
    let steady = move |thread| Share {
        thread,
        first: thread * each + thread.min(more),
        connections: each + usize::from(thread < more),
        floods: false,
    };
    let flood =
        Share { thread: plan.threads, first: plan.connections, connections: plan.flood, floods: true };
    (0..plan.threads).map(steady).chain((plan.flood > 0).then_some(flood))
}

/// How long the run will take, if connections come up at the rate asked for.
fn planned_length(plan: &Plan) -> Duration {
    let setup_s = plan.ramp_per_s.map_or(0.0, |rate| plan.connections as f64 / rate);
    let load = match plan.scenario {
        Scenario::Overload(overload) => overload.probe + plan.duration + overload.after,
        // A number of connections ends the run; minutes, even with a million of them.
        Scenario::Handshake(Handshakes { total: Some(_), .. }) => plan.duration.min(TOTAL_LENGTH),
        _ => plan.duration,
    };
    Duration::try_from_secs_f64(setup_s).unwrap_or_default() + plan.rest + plan.warmup + load
}

/// How long the run's parts took, and what they cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    /// Until all connections were up or given up.
    pub(super) setup: Duration,
    /// When the load began, and the measured time, since the run's begin.
    pub(super) load_from: Duration,
    pub(super) measured_from: Duration,
    /// The measured time, as sampled.
    pub(super) measured: Duration,
    /// Calls answered in that time.
    pub(super) calls: u64,
    /// Handshakes or events in that time.
    pub(super) units: u64,
    /// This process's CPU time in it.
    pub(super) client_cpu: CpuTime,
    /// The measured process's CPU time in it.
    pub(super) server_cpu: Option<Duration>,
    /// The measured process's least memory (bytes) after the last connection, and how long that took.
    pub(super) settled: Option<(u64, Duration)>,
}

/// Watches the threads from outside.
struct Monitor<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    signals: &'a StopSignals,
    sampler: Sampler,
    next_line: Duration,
    last_line: Duration,
    last_ok: u64,
    stopped: bool,
}

impl<'a> Monitor<'a> {
    fn new(plan: &'a Plan, shared: &'a Shared, signals: &'a StopSignals, sampler: Sampler) -> Self {
        Self {
            plan,
            shared,
            signals,
            sampler,
            next_line: PROGRESS_EVERY,
            last_line: Duration::ZERO,
            last_ok: 0,
            stopped: false,
        }
    }

    fn watch(&mut self, threads: &[ScopedJoinHandle<'_, io::Result<ThreadStats>>]) -> Times {
        let mut times = Times::default();
        // A thread that failed has ended; the others must not wait for it.
        let broken = || threads.iter().any(ScopedJoinHandle::is_finished);
        while self.shared.settled_threads.load(Ordering::Acquire) < threads.len() {
            self.look("set-up");
            if self.stopped || broken() {
                self.shared.start_ns.store(ABORTED, Ordering::Release);
                return times;
            }
        }
        times.setup = self.shared.base.elapsed();
        self.look_until(times.setup + self.plan.rest, "rest", &broken);
        self.sampler.on_up();
        if self.sum(|p| &p.up) == 0 && !matches!(self.plan.scenario, Scenario::Handshake(_)) {
            self.shared.start_ns.store(ABORTED, Ordering::Release);
            return times;
        }
        let start_ns = nanos(self.shared.base) + as_ns(START_DELAY);
        self.shared.start_ns.store(start_ns, Ordering::Release);
        times.load_from = Duration::from_nanos(start_ns);
        let mut measure_from = Duration::from_nanos(start_ns) + self.plan.warmup;
        self.look_until(measure_from, "warm-up", &broken);
        if let Scenario::Overload(overload) = self.plan.scenario {
            measure_from = self.probe(overload, measure_from, &broken);
            self.look_until(measure_from, "pause", &broken);
        }
        let (from, calls, cpu) = (self.shared.base.elapsed(), self.sum(|p| &p.ok), own_cpu());
        let units = self.sum(|p| &p.units);
        self.sampler.on_measure();
        let end = measure_from + self.plan.duration;
        self.look_until(end, "measure", &broken);
        if broken() && self.shared.base.elapsed() < end {
            self.shared.stop.store(true, Ordering::Relaxed);
        }
        self.sampler.on_end();
        self.read();
        let cpu_after = own_cpu();
        times.calls = self.sum(|p| &p.ok) - calls;
        times.units = self.sum(|p| &p.units) - units;
        times.server_cpu = self.sampler.measured_cpu();
        times.measured_from = from;
        times.measured = self.shared.base.elapsed().saturating_sub(from);
        times.client_cpu = CpuTime { user: cpu_after.user - cpu.user, system: cpu_after.system - cpu.system };
        if let Scenario::Overload(overload) = self.plan.scenario {
            self.look_until(end + overload.after, "after", &broken);
        }
        self.shared.sampled.store(true, Ordering::Release);
        while !threads.iter().all(ScopedJoinHandle::is_finished) {
            self.look("answers");
        }
        self.sampler.readings.amend(self.sum(|p| &p.ok), self.sum(|p| &p.failed));
        times
    }

    /// Measures the sustainable rate, gives out the phases that follow from it, and tells when the first one begins.
    fn probe(&mut self, overload: Overload, from: Duration, broken: &dyn Fn() -> bool) -> Duration {
        let calls = self.sum(|p| &p.ok);
        self.look_until(from + overload.probe, "probe", broken);
        let peak = (self.sum(|p| &p.ok) - calls) as f64
            / self.shared.base.elapsed().saturating_sub(from).as_secs_f64();
        let begin = self.shared.base.elapsed() + PROBE_PAUSE;
        let (end, over) = (begin + self.plan.duration, begin + self.plan.duration + overload.after);
        if peak > 0.0 {
            let phase = |from: Duration, to: Duration, factor: f64| Phase {
                start_ns: as_ns(from),
                end_ns: as_ns(to),
                rate_per_s: peak * factor,
            };
            // Nobody else sets it.
            let _ = self
                .shared
                .phases
                .set([phase(begin, end, overload.factor), phase(end, over, overload.after_factor)]);
        } else {
            self.stopped = true;
            self.shared.stop.store(true, Ordering::Relaxed);
        }
        begin
    }

    fn look_until(&mut self, end: Duration, phase: &str, broken: &dyn Fn() -> bool) {
        while self.shared.base.elapsed() < end && !self.stopped && !broken() {
            self.look(phase);
        }
    }

    /// Waits, up to `longest`, until the measured process's memory falls no more; tells its least size.
    fn settle(&mut self, longest: Duration) -> Option<(u64, Duration)> {
        let begin = self.shared.base.elapsed();
        let mut least = (self.sampler.resident_now()?, Duration::ZERO);
        loop {
            let waited = self.shared.base.elapsed().saturating_sub(begin);
            let bytes = self.sampler.resident_now()?;
            if bytes < least.0 {
                least = (bytes, waited);
            }
            if self.stopped || waited >= longest || waited >= least.1 + SETTLED_AFTER {
                return Some(least);
            }
            self.look("settling");
        }
    }

    /// Sleeps a little, hears signals, and makes the reading and prints the progress line when their time has come.
    fn look(&mut self, phase: &str) {
        let due = self.sampler.readings.next_due().saturating_sub(self.shared.base.elapsed());
        if self.signals.wait(due.min(LOOK_EVERY)) {
            self.stopped = true;
            self.shared.stop.store(true, Ordering::Relaxed);
        }
        let elapsed = self.shared.base.elapsed();
        if elapsed >= self.sampler.readings.next_due() {
            self.read();
        }
        if elapsed < self.next_line {
            return;
        }
        self.next_line += PROGRESS_EVERY;
        let (up, ok) = (self.sum(|p| &p.up), self.sum(|p| &p.ok));
        let failed = self.sum(|p| &p.failed);
        let mut line = format!(
            "{:>5.0} s  {phase:<8} {up:>7} up {:>9.0} calls/s {ok:>11} calls {failed:>7} failed",
            elapsed.as_secs_f64(),
            (ok - self.last_ok) as f64 / (elapsed - self.last_line).as_secs_f64(),
        );
        (self.last_ok, self.last_line) = (ok, elapsed);
        if let Some(bytes) = self.sampler.resident_bytes() {
            line += &format!("  server {:.1} MiB", bytes as f64 / 1_048_576.0);
        }
        eprintln!("{line}");
    }

    fn read(&mut self) {
        let (up, ok, failed) = (self.sum(|p| &p.up), self.sum(|p| &p.ok), self.sum(|p| &p.failed));
        self.sampler.read(self.shared.base.elapsed(), up, ok, failed);
    }

    fn sum(&self, field: impl Fn(&Progress) -> &AtomicU64) -> u64 {
        self.shared.progress.iter().map(|p| field(p).load(Ordering::Relaxed)).sum()
    }
}
