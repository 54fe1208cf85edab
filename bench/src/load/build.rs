//! From a run's counts and samples to its report. It measures nothing.

use super::driver::Times;
use super::overload::{PhaseCounts, WINDOW, Window};
use super::sampler::Sampler;
use super::stats::ThreadStats;
use super::{Plan, Scenario};
use crate::report::{
    About, Bytes, Calls, Client, Connections, FailureDetail, Failures, FairnessReport, HandshakeReport,
    Kernel, Latency, Memory, OverloadPhase, OverloadReport, OverloadSecond, Report, Series, Server,
    ServerSamples, StreamReport, ratio,
};

/// Puts the report together.
pub(super) fn build(plan: &Plan, stats: ThreadStats, times: Times, sampler: Sampler) -> Report {
    let handshake = handshake(plan, &stats, times, &sampler.server);
    let stream = stream(plan, &stats, times);
    let fairness = fairness(plan, &stats, times);
    let overload = overload(plan, &stats);
    let loop_is_open = plan.rate_per_s.is_some() || overload.is_some();
    let history = stats.intervals.finish();
    let client_cpu = times.client_cpu.user + times.client_cpu.system;
    Report {
        handshake,
        stream,
        fairness,
        overload,
        scenario: match plan.scenario {
            Scenario::Run => "run",
            Scenario::Hold => "hold",
            Scenario::Handshake(_) => "handshake",
            Scenario::Stream(_) => "stream",
            Scenario::Overload(_) => "overload",
        },
        protocol: plan.target.protocol.name(),
        target: format!("{}{}", plan.target.authority, plan.target.path),
        loop_kind: if loop_is_open { "open" } else { "closed" },
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
    let before = if plan.warmup.is_zero() { &samples.before } else { &samples.from };
    let memory = before.as_ref().zip(samples.to.as_ref()).zip(times.settled);
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

fn fairness(plan: &Plan, stats: &ThreadStats, times: Times) -> Option<FairnessReport> {
    let flood = stats.flood.as_ref()?;
    let (calm, flooded) = (Latency::of(&stats.calm), Latency::of(&stats.flooded));
    Some(FairnessReport {
        flood_connections: plan.flood,
        p99_ratio: ratio(flooded.p99_us, calm.p99_us),
        calm,
        flooded,
        flood_calls: flood.ok,
        flood_per_s: ratio(flood.ok as f64, times.measured.min(plan.duration).as_secs_f64() / 2.0),
        flood_failures: flood.failures.by_kind(),
        flood_latency: Latency::of(&flood.latency),
    })
}

fn overload(plan: &Plan, stats: &ThreadStats) -> Option<OverloadReport> {
    let Scenario::Overload(overload) = plan.scenario else { return None };
    let names = ["probe", "overload", "after"];
    let peak_per_s = stats.overload.phases.first().map_or(0.0, goodput_per_s);
    let (mut phases, mut seconds) = (Vec::new(), Vec::new());
    for (name, counts) in names.into_iter().zip(&stats.overload.phases) {
        let sum = |of: fn(&Window) -> u64| counts.windows.iter().map(of).sum::<u64>();
        phases.push(OverloadPhase {
            name,
            length_s: (counts.end_ns - counts.start_ns) as f64 / 1e9,
            offered_per_s: counts.rate_per_s,
            goodput_per_s: goodput_per_s(counts),
            right: counts.latency.len(),
            shed: sum(|w| w.shed),
            unsent: sum(|w| w.unsent),
            failed: sum(|w| w.failed),
            latency: Latency::of(&counts.latency),
        });
        seconds.extend(by_second(name, counts));
    }
    let goodput = phases.get(1).map_or(0.0, |phase| phase.goodput_per_s);
    let after = stats.overload.phases.get(2);
    Some(OverloadReport {
        peak_per_s,
        goodput_ratio: ratio(goodput, peak_per_s),
        recovery_s: after
            .and_then(|counts| counts.recovery(overload.recovered))
            .map(|time| time.as_secs_f64()),
        recovered_ms: overload.recovered.as_secs_f64() * 1e3,
        phases,
        seconds,
    })
}

fn goodput_per_s(counts: &PhaseCounts) -> f64 {
    let right: u64 = counts.windows.iter().map(|w| w.goodput).sum();
    ratio(right as f64, (counts.end_ns - counts.start_ns) as f64 / 1e9)
}

fn by_second(phase: &'static str, counts: &PhaseCounts) -> impl Iterator<Item = OverloadSecond> {
    let windows_per_second = (1000 / WINDOW.as_millis()) as usize;
    counts.windows.chunks(windows_per_second).enumerate().map(move |(second, windows)| {
        let sum = |of: fn(&Window) -> u64| windows.iter().map(of).sum::<u64>();
        let mut latency = windows[0].latency.clone();
        for window in &windows[1..] {
            latency += &window.latency;
        }
        OverloadSecond {
            phase,
            at_s: second as f64,
            goodput: sum(|w| w.goodput),
            shed: sum(|w| w.shed),
            unsent: sum(|w| w.unsent),
            failed: sum(|w| w.failed),
            p50_us: latency.value_at_quantile(0.5) as f64,
            p99_us: latency.value_at_quantile(0.99) as f64,
        }
    })
}
