//! `mcp-bench handshake` makes short connections, counts their handshakes as full or resumed, makes its calls on each,
//! and ends every session and connection properly.

mod common;

use common::{Upstream, report, tls_front};

fn handshake(url: &str, more: &[&str]) -> (i32, serde_json::Value) {
    let mut args = vec!["handshake", "--url", url, "--concurrency", "8", "--settle", "100ms"];
    args.extend_from_slice(more);
    report(&args)
}

fn assert_clean(code: i32, report: &serde_json::Value) {
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["failures"]["total"], 0, "{report:#}");
    assert_eq!(report["handshake"]["reset_at_close"], 0, "{report:#}");
}

#[test]
fn bare_handshakes_are_full_unless_told_otherwise() {
    let upstream = Upstream::start(&[]);
    let (port, _) = tls_front(upstream.address());
    let url = format!("https://127.0.0.1:{port}/mcp");
    let (code, report) = handshake(&url, &["--insecure", "--total", "40"]);
    assert_clean(code, &report);
    let section = &report["handshake"];
    assert_eq!(section["full"], 40, "{report:#}");
    assert_eq!((&section["resumed"], &section["plain"]), (&0.into(), &0.into()));
    assert_eq!(report["calls"]["ok"], 0);
    assert_eq!(report["connections"]["opened"], 40);
    assert!(section["latency"]["p50_us"].as_f64().unwrap() > 0.0, "{report:#}");
}

#[test]
fn sessions_of_tls_are_resumed_after_the_first_ones() {
    let upstream = Upstream::start(&["--sessions"]);
    let (port, _) = tls_front(upstream.address());
    let url = format!("https://127.0.0.1:{port}/mcp");
    for calls in ["0", "1"] {
        let (code, report) = handshake(&url, &["--insecure", "--total", "40", "--resume", "--calls", calls]);
        assert_clean(code, &report);
        let count = |kind: &str| report["handshake"][kind].as_u64().unwrap();
        // Only the first connection of each slot may find no ticket yet.
        assert!(count("full") <= 8, "{report:#}");
        assert_eq!(count("full") + count("resumed"), 40);
    }
}

#[test]
fn each_connection_calls_and_ends_its_session() {
    let upstream = Upstream::start(&["--sessions"]);
    for (revision, sessions) in [("2025-11-25", 100), ("2026-07-28", 0)] {
        let pid = upstream.pid().to_string();
        let more = ["--total", "100", "--calls", "3", "--threads", "2", "--revision", revision];
        let more = [&more[..], &["--expect", "\"hi\"", "--server-pid", &pid]].concat();
        let (code, report) = handshake(&upstream.url, &more);
        assert_clean(code, &report);
        assert_eq!(report["calls"]["ok"], 300, "{report:#}");
        assert_eq!(report["handshake"]["plain"], 100);
        assert_eq!(report["connections"]["sessions_ended"], sessions, "{report:#}");
        let memory = &report["handshake"]["memory"];
        for size in ["before_bytes", "end_bytes", "settled_bytes"] {
            assert!(memory[size].as_u64().unwrap() > 0, "{report:#}");
        }
    }
}

#[test]
fn an_open_loop_begins_each_connection_of_its_schedule() {
    let upstream = Upstream::start(&[]);
    let (code, report) = handshake(&upstream.url, &["--rate", "200/s", "--duration", "500ms"]);
    assert_clean(code, &report);
    assert_eq!(report["connections"]["wanted"], 100, "{report:#}");
    assert_eq!(report["handshake"]["handshakes"], 100);
}

#[test]
fn wrong_answers_and_dead_targets_are_failures() {
    let upstream = Upstream::start(&[]);
    let (code, report) = handshake(&upstream.url, &["--total", "10", "--calls", "1", "--expect", "other"]);
    assert_eq!((code, &report["failures"]["by_kind"]["wrong_answer"]), (1, &10.into()), "{report:#}");
    let url = upstream.url.clone();
    drop(upstream);
    let (code, report) = handshake(&url, &["--total", "10"]);
    assert_eq!((code, &report["failures"]["by_kind"]["connect"]), (1, &10.into()), "{report:#}");
}
