//! From a run's counts and samples to its report. It measures nothing.

use super::driver::Times;
use super::sampler::Sampler;
use super::stats::ThreadStats;
use super::{Plan, Scenario};
use crate::report::{
    About, Bytes, Calls, Client, Connections, FailureDetail, Failures, HandshakeReport, Kernel, Latency,
    Memory, Report, Series, Server, ServerSamples, StreamReport, ratio,
};

/// Puts the report together.
pub(super) fn build(plan: &Plan, stats: ThreadStats, times: Times, sampler: Sampler) -> Report {
    let handshake = handshake(plan, &stats, times, &sampler.server);
    let stream = stream(plan, &stats, times);
    let history = stats.intervals.finish();
    let client_cpu = times.client_cpu.user + times.client_cpu.system;
    Report {
        handshake,
        stream,
        scenario: match plan.scenario {
            Scenario::Run => "run",
            Scenario::Hold => "hold",
            Scenario::Handshake(_) => "handshake",
            Scenario::Stream(_) => "stream",
        },
        target: format!("{}{}", plan.target.authority, plan.target.path),
        loop_kind: if plan.rate_per_s.is_some() { "open" } else { "closed" },
        rate_wanted_per_s: plan.rate_per_s,
        threads: plan.threads,
        duration_s: times.measured.as_secs_f64(),
        connections: Connections {
            wanted: match plan.scenario {
                Scenario::Handshake(_) => stats.handshakes.begun as usize,
                _ => plan.connections,
            },
            opened: stats.opened,
            lost: stats.lost,
            reopened: stats.reopened,
            up_at_end: stats.up,
            sessions_ended: stats.sessions_ended,
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

fn handshake(
    plan: &Plan,
    stats: &ThreadStats,
    times: Times,
    samples: &ServerSamples,
) -> Option<HandshakeReport> {
    let Scenario::Handshake(handshakes) = plan.scenario else { return None };
    let counts = &stats.handshakes;
    let per_handshake = |cpu: std::time::Duration| ratio(cpu.as_secs_f64() * 1e6, times.units as f64);
    let memory = samples.before.as_ref().zip(samples.to.as_ref()).zip(times.settled);
    Some(HandshakeReport {
        handshakes: counts.total(),
        per_s: ratio(counts.in_window as f64, times.measured.min(plan.duration).as_secs_f64()),
        full: counts.full + counts.retried,
        retried: counts.retried,
        resumed: counts.resumed,
        plain: counts.plain,
        reset_at_close: counts.reset_at_close,
        calls_per_connection: handshakes.calls,
        latency: Latency::of(&counts.latency),
        client_cpu_us: per_handshake(times.client_cpu.user + times.client_cpu.system),
        server_cpu_us: times.server_cpu.map(per_handshake),
        memory: memory.map(|((before, end), (settled_bytes, settled))| Memory {
            before_bytes: before.resident_bytes,
            end_bytes: end.resident_bytes,
            settled_bytes,
            settled_s: settled.as_secs_f64(),
            settled_ratio: ratio(settled_bytes as f64, before.resident_bytes as f64),
        }),
    })
}

fn stream(plan: &Plan, stats: &ThreadStats, times: Times) -> Option<StreamReport> {
    let Scenario::Stream(streams) = plan.scenario else { return None };
    let per_event = |cpu: std::time::Duration| ratio(cpu.as_secs_f64() * 1e6, times.units as f64);
    Some(StreamReport {
        streams: stats.events.streams,
        events_per_stream: streams.events,
        events: stats.events.total,
        per_s: ratio(stats.events.in_window as f64, times.measured.min(plan.duration).as_secs_f64()),
        latency: Latency::of(&stats.events.latency),
        client_cpu_us: per_event(times.client_cpu.user + times.client_cpu.system),
        server_cpu_us: times.server_cpu.map(per_event),
    })
}
