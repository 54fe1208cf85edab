//! The result of a run: as numbers (JSON) and as a table. Pure but for formatting.
//!
//! Units stand last in the names. Latencies count from the intended time; `from_send` counts from the sending, which in
//! an open loop hides what a stalled server did to the calls behind.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::driver::Times;
use super::stats::ThreadStats;
use super::{Plan, Scenario};
use crate::sys::ProcessSample;

/// Limits (µs) over which calls are counted.
const OVER_US: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];
/// Points of the memory series; a longer run drops every second point and goes on.
const MAX_RESIDENT_POINTS: usize = 1024;

/// The measured process at the run's turns.
#[derive(Debug, Default)]
pub(super) struct ServerSamples {
    /// Before the first connection.
    pub(super) before: Option<ProcessSample>,
    /// With all connections up.
    pub(super) up: Option<ProcessSample>,
    /// At the begin and the end of the measured time.
    pub(super) from: Option<ProcessSample>,
    pub(super) to: Option<ProcessSample>,
    resident: Vec<ResidentPoint>,
}

impl ServerSamples {
    pub(super) fn push_resident(&mut self, at: Duration, up: u64, sample: &ProcessSample) {
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

/// The whole result.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `run` or `hold`.
    pub scenario: &'static str,
    /// The URL's host and path.
    pub target: String,
    /// `open` (calls at a rate, latency from the intended time) or `closed`.
    pub loop_kind: &'static str,
    /// Calls per second asked for.
    pub rate_wanted_per_s: Option<f64>,
    /// Client threads.
    pub threads: usize,
    /// Measured time, without warm-up.
    pub duration_s: f64,
    /// Connections.
    pub connections: Connections,
    /// Calls.
    pub calls: Calls,
    /// From the intended time to the checked answer; right answers of the measured time.
    pub latency: Latency,
    /// The same calls, from the time of sending.
    pub from_send: Latency,
    /// Failures of calls and connections, warm-up and set-up included.
    pub failures: Failures,
    /// On the wire, TLS included.
    pub bytes: Bytes,
    /// What the client itself cost; beyond one core per thread it is the bottleneck.
    pub client: Client,
    /// The process named by `--server-pid`.
    pub server: Option<Server>,
}

/// Connections of a run.
#[derive(Debug, Serialize)]
pub struct Connections {
    /// Asked for.
    pub wanted: usize,
    /// Set up, with their session.
    pub opened: u64,
    /// Ended without our doing.
    pub lost: u64,
    /// Made again.
    pub reopened: u64,
    /// Alive at the end.
    pub up_at_end: u64,
    /// Time until all were up or given up.
    pub setup_s: f64,
}

/// Calls of a run.
#[derive(Debug, Serialize)]
pub struct Calls {
    /// Answered rightly, warm-up included.
    pub ok: u64,
    /// Right answers that are in the latencies.
    pub measured: u64,
    /// Right answers per second of the measured time.
    pub rate_per_s: f64,
}

/// A distribution of times.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// Half of the calls were faster.
    pub p50_us: f64,
    /// 90 %.
    pub p90_us: f64,
    /// 99 %.
    pub p99_us: f64,
    /// 99.9 %.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
    /// The mean.
    pub mean_us: f64,
    /// How many calls took longer than each limit.
    pub over: Vec<Over>,
}

/// Calls that took longer than a limit.
#[derive(Debug, Serialize)]
pub struct Over {
    /// The limit.
    pub over_us: u64,
    /// The calls.
    pub calls: u64,
}

/// Failures of a run.
#[derive(Debug, Serialize)]
pub struct Failures {
    /// All.
    pub total: u64,
    /// By kind.
    pub by_kind: BTreeMap<&'static str, u64>,
    /// Each with its detail.
    pub details: Vec<FailureDetail>,
}

/// One failure and how often it was seen.
#[derive(Debug, Serialize)]
pub struct FailureDetail {
    /// Its kind.
    pub kind: &'static str,
    /// What is special about it.
    pub detail: String,
    /// How often.
    pub count: u64,
}

/// Bytes on the wire.
#[derive(Debug, Serialize)]
pub struct Bytes {
    /// By the client.
    pub sent: u64,
    /// By the client.
    pub received: u64,
}

/// The client's own cost in the measured time.
#[derive(Debug, Serialize)]
pub struct Client {
    /// CPU per call.
    pub cpu_us_per_call: f64,
    /// Cores in use.
    pub cores: f64,
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

pub(super) fn build(plan: &Plan, stats: ThreadStats, times: Times, samples: ServerSamples) -> Report {
    let client_cpu = times.client_cpu.user + times.client_cpu.system;
    Report {
        scenario: match plan.scenario {
            Scenario::Run => "run",
            Scenario::Hold => "hold",
        },
        target: format!("{}{}", plan.target.authority, plan.target.path),
        loop_kind: if plan.rate_per_s.is_some() { "open" } else { "closed" },
        rate_wanted_per_s: plan.rate_per_s,
        threads: plan.threads,
        duration_s: times.measured.as_secs_f64(),
        connections: Connections {
            wanted: plan.connections,
            opened: stats.opened,
            lost: stats.lost,
            reopened: stats.reopened,
            up_at_end: stats.up,
            setup_s: times.setup.as_secs_f64(),
        },
        calls: Calls {
            ok: stats.ok,
            measured: stats.latency.len(),
            rate_per_s: ratio(stats.ok_in_window as f64, times.measured.min(plan.duration).as_secs_f64()),
        },
        latency: latency(&stats.latency),
        from_send: latency(&stats.from_send),
        failures: Failures {
            total: stats.failures.total(),
            by_kind: stats.failures.by_kind(),
            details: stats
                .failures
                .details()
                .map(|(kind, detail, count)| FailureDetail {
                    kind: kind.name(),
                    detail: detail.to_owned(),
                    count,
                })
                .collect(),
        },
        bytes: Bytes { sent: stats.sent_bytes, received: stats.received_bytes },
        client: Client {
            cpu_us_per_call: per_call(client_cpu, times),
            cores: ratio(client_cpu.as_secs_f64(), times.measured.as_secs_f64()),
        },
        server: server(samples, times, stats.opened),
    }
}

fn server(samples: ServerSamples, times: Times, opened: u64) -> Option<Server> {
    let ServerSamples { before: Some(before), up: Some(up), from: Some(from), to: Some(to), resident } =
        samples
    else {
        return None;
    };
    let measured_s = times.measured.as_secs_f64();
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
    Some(Server {
        cpu_us_per_call: per_call(busy, times),
        user_us_per_call: per_call(to.cpu.user.saturating_sub(from.cpu.user), times),
        system_us_per_call: per_call(to.cpu.system.saturating_sub(from.cpu.system), times),
        cores: ratio(busy.as_secs_f64(), measured_s),
        threads: threads
            .into_iter()
            .map(|(tid, name, cpu)| ServerThread {
                tid,
                name,
                cpu_us_per_call: per_call(cpu, times),
                cores: ratio(cpu.as_secs_f64(), measured_s),
            })
            .collect(),
        resident_before_bytes: before.resident_bytes,
        resident_up_bytes: up.resident_bytes,
        resident_end_bytes: to.resident_bytes,
        bytes_per_connection: ratio(up.resident_bytes as f64 - before.resident_bytes as f64, opened as f64),
        resident,
    })
}

fn latency(histogram: &Histogram<u64>) -> Latency {
    let us = |ns: u64| ns as f64 / 1e3;
    let at = |quantile: f64| us(histogram.value_at_quantile(quantile));
    let over = |limit_us: u64| Over {
        over_us: limit_us,
        calls: histogram.len() - histogram.count_between(0, limit_us * 1000),
    };
    Latency {
        p50_us: at(0.5),
        p90_us: at(0.9),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: us(histogram.max()),
        mean_us: if histogram.is_empty() { 0.0 } else { histogram.mean() / 1e3 },
        over: OVER_US.into_iter().map(over).filter(|o| o.calls > 0).collect(),
    }
}

fn per_call(cpu: Duration, times: Times) -> f64 {
    ratio(cpu.as_secs_f64() * 1e6, times.calls as f64)
}

/// A quotient, and 0 where there is nothing to divide by: JSON has no NaN.
fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.connections;
        let wanted = self.rate_wanted_per_s.map_or(String::new(), |r| format!(" at {r}/s"));
        writeln!(
            f,
            "{} {} ({} loop{wanted}), {} threads",
            self.scenario, self.target, self.loop_kind, self.threads
        )?;
        writeln!(
            f,
            "  connections  {} of {} opened in {:.2} s, {} lost, {} reopened, {} up at the end",
            c.opened, c.wanted, c.setup_s, c.lost, c.reopened, c.up_at_end
        )?;
        writeln!(
            f,
            "  calls        {} right ({} measured over {:.1} s, {:.0}/s), {} failures",
            self.calls.ok, self.calls.measured, self.duration_s, self.calls.rate_per_s, self.failures.total
        )?;
        write!(f, "\n                  p50       p90       p99     p99.9       max   (us)\n  latency   ")?;
        self.latency.row(f)?;
        write!(f, "  from send ")?;
        self.from_send.row(f)?;
        writeln!(
            f,
            "\n  bytes        {} sent, {} received\n  client CPU   {:.1} us per call, {:.2} cores",
            self.bytes.sent, self.bytes.received, self.client.cpu_us_per_call, self.client.cores
        )?;
        if let Some(server) = &self.server {
            write!(f, "{server}")?;
        }
        if !self.failures.details.is_empty() {
            writeln!(f, "  failures")?;
        }
        for failure in &self.failures.details {
            writeln!(f, "    {:<14} {:>9}  {}", failure.kind, failure.count, failure.detail)?;
        }
        Ok(())
    }
}

impl Latency {
    fn row(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for us in [self.p50_us, self.p90_us, self.p99_us, self.p999_us, self.max_us] {
            write!(f, "{us:>10.1}")?;
        }
        writeln!(f)
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
