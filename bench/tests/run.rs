//! `mcp-bench run` against `mcp-bench upstream`: every revision and loop kind, over plain HTTP and TLS, gives right
//! answers and exit code 0.

mod common;

use common::{Upstream, report, tls_front};

fn assert_clean(code: i32, report: &serde_json::Value) {
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["failures"]["total"], 0, "{report:#}");
    for count in ["ok", "measured"] {
        assert!(report["calls"][count].as_u64().is_some_and(|n| n > 0), "{report:#}");
    }
}

#[test]
fn every_revision_closed_loop() {
    let upstream = Upstream::start(&["--sessions"]);
    for revision in ["2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"] {
        let (code, report) = report(&[
            "run",
            "--url",
            &upstream.url,
            "--revision",
            revision,
            "--connections",
            "8",
            "--duration",
            "200ms",
            "--warmup",
            "20ms",
            "--expect",
            "\"text\":\"hi\"",
        ]);
        assert_clean(code, &report);
        assert_eq!(report["loop_kind"], "closed");
        assert_eq!(report["connections"]["up_at_end"], 8);
        assert_eq!(report["connections"]["lost"], 0);
        let sessions = if revision == "2026-07-28" { 0 } else { 8 };
        assert_eq!(report["connections"]["sessions_ended"], sessions, "{report:#}");
    }
}

#[test]
fn open_loop_makes_exactly_the_calls_of_its_schedule() {
    let upstream = Upstream::start(&["--threads", "2"]);
    let (code, report) = report(&[
        "run",
        "--url",
        &upstream.url,
        "--connections",
        "5",
        "--threads",
        "2",
        "--rate",
        "1000/s",
        "--duration",
        "400ms",
        "--warmup",
        "100ms",
    ]);
    assert_clean(code, &report);
    assert_eq!(report["loop_kind"], "open");
    assert_eq!(report["calls"]["ok"], 500);
    assert_eq!(report["calls"]["measured"], 400);
}

#[test]
fn event_streams_count_as_answers() {
    let upstream = Upstream::start(&["--answer", "sse", "--sessions"]);
    for revision in ["2025-06-18", "2026-07-28"] {
        let (code, report) = report(&[
            "run",
            "--url",
            &upstream.url,
            "--revision",
            revision,
            "--connections",
            "4",
            "--duration",
            "150ms",
            "--warmup",
            "10ms",
            "--answer",
            "sse",
            "--expect",
            "\"hi\"",
        ]);
        assert_clean(code, &report);
    }
}

#[test]
fn large_answers_and_delayed_ones() {
    let upstream = Upstream::start(&["--result-bytes", "300000", "--delay", "5ms"]);
    let (code, report) = report(&[
        "run",
        "--url",
        &upstream.url,
        "--tool",
        "fixed",
        "--arguments",
        "{}",
        "--connections",
        "4",
        "--duration",
        "300ms",
        "--warmup",
        "0ms",
    ]);
    assert_clean(code, &report);
    // No answer can come before the delay has passed.
    assert!(report["from_send"]["p50_us"].as_f64().unwrap() >= 5000.0, "{report:#}");
    let received = report["bytes"]["received"].as_u64().unwrap();
    assert!(received > 300_000 * report["calls"]["ok"].as_u64().unwrap());
}

#[test]
fn one_session_for_all_connections_of_all_threads() {
    let upstream = Upstream::start(&["--sessions"]);
    let (code, report) = report(&[
        "run",
        "--url",
        &upstream.url,
        "--connections",
        "6",
        "--threads",
        "3",
        "--shared-session",
        "--duration",
        "150ms",
        "--warmup",
        "0ms",
    ]);
    assert_clean(code, &report);
    assert_eq!(report["connections"]["opened"], 6);
    assert_eq!(report["connections"]["sessions_ended"], 1, "{report:#}");
    // A session that is ours to use is one that the upstream minted: the next one has the number 1.
    let hello = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
    let request = format!("POST /mcp HTTP/1.1\r\nContent-Length: {}\r\n\r\n{hello}", hello.len());
    let mut stream = common::connect(upstream.address());
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let answer = common::read_message(&mut stream, common::response_len).unwrap();
    let head = mcp_bench::http::parse_response_head(&answer).unwrap().unwrap();
    assert!(answer[head.session.unwrap()].ends_with(b"-1"));
}

#[test]
fn tls_with_a_trusted_certificate_and_with_any() {
    let upstream = Upstream::start(&["--sessions", "--result-bytes", "40000"]);
    let (port, pem) = tls_front(upstream.address());
    let file = std::env::temp_dir().join(format!("mcp-bench-test-{}.pem", std::process::id()));
    std::fs::write(&file, pem).unwrap();
    let url = format!("https://127.0.0.1:{port}/mcp");
    for trust in [&["--ca-file", file.to_str().unwrap()][..], &["--insecure"]] {
        let mut args = vec![
            "run",
            "--url",
            &url,
            "--connections",
            "3",
            "--duration",
            "200ms",
            "--warmup",
            "0ms",
            "--tool",
            "fixed",
            "--arguments",
            "{}",
        ];
        args.extend_from_slice(trust);
        let (code, report) = report(&args);
        assert_clean(code, &report);
    }
    std::fs::remove_file(file).unwrap();
}

#[test]
fn the_measured_process_is_reported() {
    let upstream = Upstream::start(&[]);
    let (code, report) = report(&[
        "run",
        "--url",
        &upstream.url,
        "--connections",
        "4",
        "--duration",
        "200ms",
        "--warmup",
        "0ms",
        "--server-pid",
        &upstream.pid().to_string(),
    ]);
    assert_clean(code, &report);
    let server = &report["server"];
    assert!(server["cpu_us_per_call"].as_f64().unwrap() > 0.0, "{report:#}");
    assert!(server["resident_end_bytes"].as_u64().unwrap() > 0);
    assert_eq!(server["threads"][0]["name"], "upstream-0");
}

#[test]
fn sessions_are_kept_on_demand() {
    let upstream = Upstream::start(&["--sessions"]);
    let run = ["run", "--url", &upstream.url, "--connections", "4", "--duration", "100ms", "--warmup", "0ms"];
    let (code, report) = report(&[&run[..], &["--keep-sessions"]].concat());
    assert_clean(code, &report);
    assert_eq!(report["connections"]["sessions_ended"], 0, "{report:#}");
}
