//! From a run's counts and samples to its report. It measures nothing.

use super::driver::Times;
use super::sampler::Sampler;
use super::stats::ThreadStats;
use super::{Plan, Scenario};
use crate::report::{
    About, Bytes, Calls, Client, Connections, FailureDetail, Failures, Kernel, Latency, Report, Series,
    Server, ratio,
};

/// Puts the report together.
pub(super) fn build(plan: &Plan, stats: ThreadStats, times: Times, sampler: Sampler) -> Report {
    let history = stats.intervals.finish();
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
        latency: Latency::of(&stats.latency),
        from_send: Latency::of(&stats.from_send),
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
            cpu_us_per_call: ratio(client_cpu.as_secs_f64() * 1e6, times.calls as f64),
            cores: ratio(client_cpu.as_secs_f64(), times.measured.as_secs_f64()),
        },
        server: Server::of(sampler.server, times.measured, times.calls, stats.opened),
        kernel: Kernel::of(&sampler.kernel, stats.opened),
        series: Series {
            load_from_s: times.load_from.as_secs_f64(),
            measured_from_s: times.measured_from.as_secs_f64(),
            measured_to_s: (times.measured_from + times.measured).as_secs_f64(),
            samples: sampler.readings.points(),
            latency: history.points(times.load_from),
        },
        host: sampler.host,
        about: About::new(sampler.started, std::env::args()),
        history,
        load_started: sampler.started + times.load_from,
    }
}
