//! `mcp-bench hold` brings its connections up at the ramp, each with a session, and lets the calls go round all of them.

mod common;

use common::{Upstream, report, report_with, tls_front};

#[test]
fn every_connection_is_held_and_called() {
    let upstream = Upstream::start(&["--sessions", "--threads", "2"]);
    let (code, report) = report(&[
        "hold",
        "--url",
        &upstream.url,
        "--connections",
        "600",
        "--threads",
        "2",
        "--ramp",
        "2000/s",
        "--hold",
        "1s",
        "--rate",
        "1200/s",
        "--server-pid",
        &upstream.pid().to_string(),
        "--expect",
        "\"hi\"",
    ]);
    assert_eq!(code, 0, "{report:#}");
    let connections = &report["connections"];
    for (what, expected) in
        [("wanted", 600), ("opened", 600), ("up_at_end", 600), ("lost", 0), ("reopened", 0)]
    {
        assert_eq!(connections[what], expected, "{what}: {report:#}");
    }
    assert_eq!(report["calls"]["ok"], 1200);
    // 600 connections at 2000/s cannot be up before the last one's time.
    assert!(connections["setup_s"].as_f64().unwrap() >= 0.299, "{report:#}");
    assert!(report["server"]["resident_up_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn connections_lost_while_idle_are_counted() {
    let upstream = Upstream::start(&["--sessions"]);
    let url = upstream.url.clone();
    // One call per second at most: nearly all connections are idle when the upstream ends.
    let args = ["hold", "--url", &url, "--connections", "10", "--ramp", "1000/s", "--hold", "4s"];
    let args = [&args[..], &["--rate", "1/s", "--timeout", "1s"]].concat();
    let (code, report) = report_with(&args, |_| drop(upstream));
    assert_eq!(code, 1);
    assert_eq!(report["connections"]["lost"], 10, "{report:#}");
    assert!(report["failures"]["by_kind"]["lost"].as_u64().unwrap() >= 9, "{report:#}");
    // The calls that were due afterwards found no connection.
    assert!(report["failures"]["by_kind"]["timeout"].as_u64().unwrap() >= 1, "{report:#}");
    assert_eq!(report["connections"]["up_at_end"], 0);
}

#[test]
fn sessions_over_tls() {
    let upstream = Upstream::start(&["--sessions"]);
    let (port, _) = tls_front(upstream.address());
    let url = format!("https://127.0.0.1:{port}/mcp");
    let (code, report) = report(&[
        "hold",
        "--url",
        &url,
        "--insecure",
        "--connections",
        "40",
        "--ramp",
        "500/s",
        "--hold",
        "500ms",
        "--rate",
        "200/s",
    ]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["connections"]["up_at_end"], 40);
    assert_eq!(report["calls"]["ok"], 100);
}

#[test]
fn a_flood_is_measured_apart_from_the_steady_calls() {
    let upstream = Upstream::start(&["--sessions"]);
    let hold = ["hold", "--url", &upstream.url, "--connections", "50", "--ramp", "1000/s"];
    let rest = ["--hold", "800ms", "--rate", "500/s", "--flood", "5", "--expect", "\"hi\""];
    let (code, report) = report(&[&hold[..], &rest].concat());
    assert_eq!(code, 0, "{report:#}");
    // The steady calls are those of the schedule, flood or not.
    assert_eq!(report["calls"]["ok"], 400, "{report:#}");
    assert_eq!(report["connections"]["opened"], 50);
    let fairness = &report["fairness"];
    assert_eq!(fairness["flood_connections"], 5);
    assert!(fairness["flood_calls"].as_u64().unwrap() > 400, "{report:#}");
    assert_eq!(fairness["flood_failures"], serde_json::json!({}));
    for latency in ["calm", "flooded", "flood_latency"] {
        assert!(fairness[latency]["p99_us"].as_f64().unwrap() > 0.0, "{latency}: {report:#}");
    }
}
