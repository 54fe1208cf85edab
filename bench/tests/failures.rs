//! What is wrong is counted by its kind, makes the exit code differ from 0, and never keeps the run from ending.

mod common;

use std::net::{SocketAddr, TcpListener};

use common::{Upstream, bench, report, report_with, terminate, tls_front};
use socket2::{Domain, Socket, Type};

fn run_against(url: &str, more: &[&str]) -> (i32, serde_json::Value) {
    let mut args = vec!["run", "--url", url, "--connections", "4", "--duration", "100ms", "--warmup", "0ms"];
    args.extend_from_slice(more);
    report(&args)
}

fn count(report: &serde_json::Value, kind: &str) -> u64 {
    report["failures"]["by_kind"][kind].as_u64().unwrap_or(0)
}

#[test]
fn an_unexpected_text_is_a_wrong_answer() {
    let upstream = Upstream::start(&[]);
    let (code, report) = run_against(&upstream.url, &["--expect", "something else"]);
    assert_eq!(code, 1);
    assert!(count(&report, "wrong_answer") > 0, "{report:#}");
    assert_eq!(report["calls"]["ok"], 0);
    // The connections stay up: nothing was wrong with them.
    assert_eq!(report["connections"]["up_at_end"], 4);
}

#[test]
fn failures_within_the_allowance_are_success() {
    let upstream = Upstream::start(&["--answer", "json"]);
    let (code, report) = run_against(&upstream.url, &["--max-errors", "0"]);
    assert_eq!((code, report["failures"]["total"].as_u64()), (0, Some(0)));
    let (code, report) =
        run_against(&upstream.url, &["--answer", "sse", "--rate", "100/s", "--max-errors", "1000"]);
    assert_eq!(code, 1, "no right answer is no success: {report:#}");
}

#[test]
fn an_unknown_tool_is_a_jsonrpc_error() {
    let upstream = Upstream::start(&[]);
    let (code, report) = run_against(&upstream.url, &["--tool", "nonsense"]);
    assert_eq!(code, 1);
    assert!(count(&report, "jsonrpc_error") > 0, "{report:#}");
    assert_eq!(report["failures"]["details"][0]["detail"], "-32602");
}

#[test]
fn a_modern_error_is_seen_by_its_http_status() {
    let upstream = Upstream::start(&[]);
    let (code, report) = run_against(&upstream.url, &["--revision", "2026-07-28", "--tool", "nonsense"]);
    assert_eq!(code, 1);
    assert!(count(&report, "http_status") > 0, "{report:#}");
    assert_eq!(report["failures"]["details"][0]["detail"], "400");
}

#[test]
fn a_dead_target_gives_connect_failures_and_ends() {
    // Bound and so kept from others, but nobody listens.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let (code, report) = run_against(&format!("http://{address}/mcp"), &[]);
    assert_eq!(code, 1);
    // Three attempts for each of the four connections.
    assert_eq!(count(&report, "connect"), 12, "{report:#}");
    assert_eq!(report["connections"]["opened"], 0);
}

#[test]
fn a_target_that_never_answers_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let (code, report) = run_against(&url, &["--timeout", "100ms"]);
    assert_eq!(code, 1);
    assert_eq!(count(&report, "timeout"), 12, "{report:#}");
}

#[test]
fn an_untrusted_certificate_is_a_tls_failure() {
    let upstream = Upstream::start(&[]);
    let (port, _) = tls_front(upstream.address());
    let (_, other) = tls_front(upstream.address());
    let file = std::env::temp_dir().join(format!("mcp-bench-other-{}.pem", std::process::id()));
    std::fs::write(&file, other).unwrap();
    let url = format!("https://127.0.0.1:{port}/mcp");
    let (code, report) = run_against(&url, &["--ca-file", file.to_str().unwrap()]);
    std::fs::remove_file(file).unwrap();
    assert_eq!(code, 1);
    assert_eq!(count(&report, "tls"), 12, "{report:#}");
}

#[test]
fn an_upstream_that_dies_costs_its_connections() {
    let upstream = Upstream::start(&[]);
    let url = upstream.url.clone();
    let (code, report) =
        report_with(&["run", "--url", &url, "--connections", "4", "--duration", "4s"], |_| drop(upstream));
    assert_eq!(code, 1);
    assert!(report["calls"]["ok"].as_u64().unwrap() > 0, "{report:#}");
    assert_eq!(report["connections"]["lost"], 4, "{report:#}");
    assert!(count(&report, "connect") > 0, "{report:#}");
    assert_eq!(report["connections"]["up_at_end"], 0);
}

#[test]
fn sigterm_ends_a_run_early_with_its_report() {
    let upstream = Upstream::start(&[]);
    let args = ["run", "--url", &upstream.url, "--connections", "4", "--duration", "1h", "--rate", "100/s"];
    let (code, report) = report_with(&args, terminate);
    assert_eq!((code, &report["failures"]["total"]), (0, &serde_json::json!(0)), "{report:#}");
    assert!(report["calls"]["measured"].as_u64().unwrap() > 0, "{report:#}");
}

#[test]
fn arguments_that_make_no_plan_end_at_once() {
    for args in [
        &["run", "--url", "https://127.0.0.1:1/mcp"][..],
        &["run", "--url", "nonsense"],
        &["run", "--url", "http://127.0.0.1:1/", "--arguments", "[]"],
        &["run", "--url", "http://127.0.0.1:1/", "--server-pid", "4294967295"],
        &["hold", "--url", "http://127.0.0.1:1/", "--connections", "9999999"],
    ] {
        let output = bench(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("mcp-bench: "), "{args:?}");
    }
}
