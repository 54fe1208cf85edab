//! Which charts a report has, from its numbers. Pure.

use super::axis::{Scale, Unit, short};
use super::chart::{AxisKind, BarChart, Line, LineChart};
use crate::report::{CurvePoint, Latency, Report, SamplePoint, Server, ratio};

/// Bars for threads; the others together are one more.
const MAX_BARS: usize = 24;

/// Draws all charts that the report has numbers for.
pub(super) fn push_charts(out: &mut String, report: &Report) {
    latency_by_percentile(report).render(out);
    latency_over_time(report).render(out);
    calls_over_time(report).render(out);
    memory_by_connections(report).render(out);
    memory_over_time(report).render(out);
    cores_over_time(report).render(out);
    if let Some(server) = &report.server {
        cpu_by_thread(server).render(out);
    }
}

fn latency_by_percentile(report: &Report) -> LineChart {
    // The slowest call stands where it would if one more had been as slow.
    let last = 1.0 - ratio(1.0, report.calls.measured as f64);
    let curve = |latency: &Latency| -> Vec<_> {
        let point = |p: &CurvePoint| (p.quantile.min(last.max(0.0)), p.us);
        latency.curve.iter().map(point).collect()
    };
    LineChart {
        id: "chart-percentiles",
        title: "Latency by percentile",
        note: "Share of the measured calls that took at most so long; each step to the right leaves a tenth of the calls.",
        x: AxisKind("share of calls", Unit::Share, Scale::Percentile),
        y: AxisKind("latency", Unit::Microseconds, Scale::Log),
        lines: vec![
            Line { name: "from the intended time", colour: 0, points: curve(&report.latency) },
            Line { name: "from sending", colour: 1, points: curve(&report.from_send) },
        ],
        shaded: None,
    }
}

fn latency_over_time(report: &Report) -> LineChart {
    let line = |name, colour, us: fn(&crate::report::LatencyPoint) -> f64| {
        let middle = |p: &crate::report::LatencyPoint| (f64::midpoint(p.from_s, p.to_s), us(p));
        Line { name, colour, points: report.series.latency.iter().map(middle).collect() }
    };
    LineChart {
        id: "chart-latency",
        title: "Latency over time",
        note: "By the time of the answer, measured calls only.",
        x: TIME,
        y: AxisKind("latency", Unit::Microseconds, Scale::Log),
        lines: vec![
            line("p50", 0, |p| p.p50_us),
            line("p99", 1, |p| p.p99_us),
            line("slowest", 4, |p| p.max_us),
        ],
        shaded: unmeasured(report),
    }
}

fn calls_over_time(report: &Report) -> LineChart {
    let rate = |count: u64, p: &SamplePoint| Some(ratio(count as f64, p.length_s));
    LineChart {
        id: "chart-calls",
        title: "Calls and failures over time",
        note: "Shaded: set-up and warm-up.",
        x: TIME,
        y: AxisKind("per second", Unit::PerSecond, Scale::Linear),
        lines: vec![
            over_time(report, "right answers", 0, |p| rate(p.right_calls, p)),
            over_time(report, "failures", 3, |p| rate(p.failures, p)),
        ],
        shaded: unmeasured(report),
    }
}

/// While connections come up. Slab and TCP buffers are the host's, as growth from the first sample on.
fn memory_by_connections(report: &Report) -> LineChart {
    let setup: Vec<_> = report
        .series
        .samples
        .iter()
        .filter(|p| p.at_s <= report.series.load_from_s && p.connections > 0)
        .collect();
    let before = report.kernel.as_ref().map(|kernel| kernel.before);
    // What the rest of the host gave back meanwhile is no growth of ours.
    let growth = |now: u64, before: u64| now.saturating_sub(before) as f64;
    let line = |name, colour, bytes: &dyn Fn(&SamplePoint) -> Option<f64>| {
        let points = setup.iter().filter_map(|p| Some((p.connections as f64, bytes(p)?))).collect();
        Line { name, colour, points }
    };
    let mut lines = vec![
        line("resident", 0, &|p| p.resident_bytes.map(|bytes| bytes as f64)),
        line("growth of the host's slab", 1, &|p| Some(growth(p.slab_bytes?, before?.slab_bytes))),
        line("growth of TCP buffers", 2, &|p| Some(growth(p.tcp_bytes?, before?.tcp_bytes))),
    ];
    // One point is no curve, and without a process to measure the host's growth says nothing.
    if setup.len() < 2 || report.server.is_none() {
        lines.clear();
    }
    LineChart {
        id: "chart-memory-by-connections",
        title: "Memory against connections",
        note: "While connections came up. Kernel memory is the whole host's, both ends of each connection included.",
        x: AxisKind("connections up", Unit::Connections, Scale::Linear),
        y: AxisKind("memory", Unit::Bytes, Scale::Linear),
        lines,
        shaded: None,
    }
}

fn memory_over_time(report: &Report) -> LineChart {
    let mut lines = vec![over_time(report, "resident", 0, |p| p.resident_bytes.map(|bytes| bytes as f64))];
    // The group of a limited process is worth a line; that of a whole session would dwarf the process.
    let limited =
        report.server.as_ref().and_then(|s| s.cgroup.as_ref()).is_some_and(|g| g.end.limit_bytes.is_some());
    if limited {
        lines.push(over_time(report, "control group", 4, |p| p.cgroup_bytes.map(|bytes| bytes as f64)));
    }
    LineChart {
        id: "chart-memory",
        title: "Memory over time",
        note: "Resident memory of the measured process, and its control group if that has a limit.",
        x: TIME,
        y: AxisKind("memory", Unit::Bytes, Scale::Linear),
        lines,
        shaded: unmeasured(report),
    }
}

fn cores_over_time(report: &Report) -> LineChart {
    LineChart {
        id: "chart-cores",
        title: "CPU of the measured process over time",
        note: "Cores in use, all threads.",
        x: TIME,
        y: AxisKind("cores", Unit::Cores, Scale::Linear),
        lines: vec![over_time(report, "cores", 0, |p| p.cores)],
        shaded: unmeasured(report),
    }
}

/// By shard where the process has shards, and each other thread by itself.
fn cpu_by_thread(server: &Server) -> BarChart {
    let bar = |name: &str, cores: f64, us: f64| {
        (name.to_owned(), cores, format!("{} cores, {}", short(cores), Unit::Microseconds.text(us)))
    };
    let in_shard = |name: &str| server.shards.iter().any(|shard| shard.name == name);
    let mut bars: Vec<_> = server.shards.iter().map(|s| bar(&s.name, s.cores, s.cpu_us_per_call)).collect();
    let others = server.threads.iter().filter(|thread| !in_shard(&thread.name));
    bars.extend(others.map(|t| bar(&format!("{} ({})", t.name, t.tid), t.cores, t.cpu_us_per_call)));
    if bars.len() > MAX_BARS {
        let rest = bars.split_off(MAX_BARS);
        let cores: f64 = rest.iter().map(|bar| bar.1).sum();
        bars.push((format!("{} others", rest.len()), cores, format!("{} cores", short(cores))));
    }
    BarChart {
        id: "chart-threads",
        title: "CPU by shard and thread",
        note: "Cores in use over the measured time, and CPU per call.",
        bars,
    }
}

const TIME: AxisKind = AxisKind("time since the run's begin", Unit::Seconds, Scale::Linear);

fn over_time(
    report: &Report,
    name: &'static str,
    colour: usize,
    value: impl Fn(&SamplePoint) -> Option<f64>,
) -> Line {
    let points = report.series.samples.iter().filter_map(|p| Some((p.at_s, value(p)?))).collect();
    Line { name, colour, points }
}

fn unmeasured(report: &Report) -> Option<(f64, f64)> {
    Some((0.0, report.series.measured_from_s)).filter(|(_, to)| *to > 0.0)
}
