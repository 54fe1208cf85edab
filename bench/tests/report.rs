//! What a report holds besides the table: the run over time, the measured process, the host, and the same as an HDR log.
//! Setup: `mcp-bench run` against `mcp-bench upstream`.

#![allow(clippy::unwrap_used, reason = "a failure in a test is its message")]

mod common;

use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::{Upstream, report};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::Value;

/// A file that is removed at the test's end.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("mcp-bench-{}-{name}", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // The run may have failed before it made the file.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// An open loop of 600 calls, 500 of them measured, with these options besides.
fn run(upstream: &Upstream, options: &[&str]) -> Value {
    let pid = upstream.pid().to_string();
    let mut args =
        vec!["run", "--url", &upstream.url, "--connections", "6", "--threads", "2", "--rate", "1000/s"];
    args.extend(["--duration", "500ms", "--warmup", "100ms", "--server-pid", &pid, "--token", "t0p-secret"]);
    args.extend(options);
    let (code, report) = report(&args);
    assert_eq!(code, 0, "{report:#}");
    report
}

fn sum(points: &Value, field: &str) -> u64 {
    points.as_array().unwrap().iter().map(|point| point[field].as_u64().unwrap()).sum()
}

#[test]
fn every_call_is_in_the_series_once() {
    let report = run(&Upstream::start(&[]), &[]);
    let series = &report["series"];
    assert_eq!(sum(&series["samples"], "right_calls"), 600, "{series:#}");
    assert_eq!(sum(&series["samples"], "failures"), 0);
    assert_eq!(sum(&series["latency"], "calls"), 500);
    let at = |name: &str| series[name].as_f64().unwrap();
    assert!(at("load_from_s") < at("measured_from_s") && at("measured_from_s") < at("measured_to_s"));
    for point in series["latency"].as_array().unwrap() {
        let us = |name: &str| point[name].as_f64().unwrap();
        assert!(us("p50_us") <= us("p99_us") && us("p99_us") <= us("max_us"), "{point}");
        assert!(us("to_s") >= at("measured_from_s"), "{point}");
    }
    let samples = series["samples"].as_array().unwrap();
    assert!(samples.windows(2).all(|w| w[0]["at_s"].as_f64() < w[1]["at_s"].as_f64()));
    assert!(samples.iter().all(|s| s["resident_bytes"].as_u64().unwrap() > 0), "{samples:?}");
    assert!(samples.iter().any(|s| s["connections"] == 6));
    assert!(samples.iter().all(|s| s["cores"].as_f64().is_some()));
}

#[test]
fn failures_are_in_the_series() {
    let upstream = Upstream::start(&[]);
    let pid = upstream.pid().to_string();
    let (code, report) = report(&[
        "run",
        "--url",
        &upstream.url,
        "--tool",
        "absent",
        "--rate",
        "200/s",
        "--duration",
        "300ms",
        "--warmup",
        "0ms",
        "--server-pid",
        &pid,
    ]);
    assert_eq!(code, 1);
    assert_eq!(sum(&report["series"]["samples"], "failures"), 60);
    assert_eq!(report["series"]["latency"].as_array().unwrap().len(), 0);
}

#[test]
fn host_kernel_and_origin_are_told() {
    let report = run(&Upstream::start(&[]), &["--header", "X-Key:t0p-secret"]);
    let host = &report["host"];
    assert!(
        host["cpus_online"].as_u64().unwrap() > 0 && host["memory_bytes"].as_u64().unwrap() > 0,
        "{host:#}"
    );
    for text in ["kernel", "affinity", "server_affinity"] {
        assert!(host[text].as_str().is_some_and(|t| !t.is_empty()), "{text}: {host:#}");
    }
    for sysctl in ["net.core.somaxconn", "net.ipv4.tcp_mem", "net.ipv4.ip_local_port_range"] {
        assert!(host["sysctls"][sysctl].is_string(), "{sysctl}: {host:#}");
    }
    for turn in ["before", "up", "end"] {
        assert!(report["kernel"][turn]["slab_bytes"].as_u64().unwrap() > 0);
    }
    // Six connections have two ends each on this host.
    let sockets = |turn: &str| report["kernel"][turn]["tcp_in_use"].as_u64().unwrap();
    assert!(sockets("up") > 0, "{report:#}");
    let about = &report["about"];
    assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
    assert!(about["started_utc"].as_str().unwrap().ends_with('Z'));
    assert!(about["command"].as_str().unwrap().starts_with("mcp-bench run --url"), "{about}");
    assert!(!report.to_string().contains("t0p-secret"), "{about}");
}

#[test]
fn the_hdr_log_has_every_measured_call() {
    let file = TempFile::new("log.hdr");
    let report = run(&Upstream::start(&[]), &["--hdr", file.path()]);
    let text = file.text();
    let mut all = Histogram::<u64>::new(3).unwrap();
    let mut started = 0;
    for entry in IntervalLogIterator::new(text.as_bytes()) {
        match entry.unwrap() {
            LogEntry::StartTime(_) => started += 1,
            LogEntry::BaseTime(_) => {}
            LogEntry::Interval(interval) => {
                let bytes = BASE64_STANDARD.decode(interval.encoded_histogram()).unwrap();
                let part: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
                assert!((interval.max() * 1e6 - part.max() as f64).abs() < 1e6, "{interval:?}");
                all += part;
            }
        }
    }
    assert_eq!(started, 1);
    assert_eq!(all.len(), 500);
    let p99_us = all.value_at_quantile(0.99) as f64 / 1e3;
    let reported = report["latency"]["p99_us"].as_f64().unwrap();
    assert!((p99_us - reported).abs() < 1e-6, "{p99_us} {reported}");
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let upstream = Upstream::start(&[]);
    let args =
        ["run", "--url", &upstream.url, "--duration", "50ms", "--warmup", "0ms", "--hdr", "/absent/log"];
    let output = common::bench(&args);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/absent/log"));
}
