//! `mcp-bench overload` finds the rate that a server sustains, calls at a multiple of it without slowing down with the
//! server, tells shed calls from failures, and says when the server is well again.

#![allow(clippy::unwrap_used, reason = "a failure in a test is its message")]

mod common;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::{Upstream, read_message, report, request_len};

/// Calls that the shedding server answers at a time.
const TAKES: usize = 4;

fn overload(url: &str, more: &[&str]) -> (i32, serde_json::Value) {
    let mut args = vec!["overload", "--url", url, "--connections", "40", "--probe-calls", "4"];
    args.extend_from_slice(&[
        "--warmup",
        "100ms",
        "--probe",
        "400ms",
        "--duration",
        "600ms",
        "--after",
        "600ms",
    ]);
    args.extend_from_slice(&["--revision", "2026-07-28", "--recovered-ms", "10000"]);
    args.extend_from_slice(more);
    report(&args)
}

fn phase<'a>(report: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let phases = report["overload"]["phases"].as_array().map_or(&[][..], Vec::as_slice);
    phases.iter().find(|phase| phase["name"] == name).unwrap_or(&serde_json::Value::Null)
}

fn count(value: &serde_json::Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name}: {value:#}"))
}

#[test]
fn a_slow_server_gets_every_call_of_the_schedule_or_the_call_is_counted_as_unsent() {
    // 40 connections with one call each and 20 ms for an answer: 2,000 calls a second; four in flight make 200.
    let upstream = Upstream::start(&["--delay", "20ms"]);
    let (code, report) = overload(&upstream.url, &["--factor", "20", "--patience", "50ms", "--threads", "2"]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["failures"]["total"], 0, "{report:#}");
    let peak = report["overload"]["peak_per_s"].as_f64().unwrap();
    assert!(peak > 0.0 && peak <= 201.0, "{report:#}");
    let during = phase(&report, "overload");
    assert!(count(during, "unsent") > 0, "{report:#}");
    let due = count(during, "right") + count(during, "unsent") + count(during, "shed");
    let offered = during["offered_per_s"].as_f64().unwrap() * during["length_s"].as_f64().unwrap();
    // Nothing of the schedule is forgotten, however slow the server.
    assert!((due as f64 - offered).abs() <= 2.0, "{due} of {offered}: {report:#}");
    let after = phase(&report, "after");
    assert_eq!((count(after, "unsent"), count(after, "failed")), (0, 0), "{report:#}");
    assert!(report["overload"]["recovery_s"].as_f64().unwrap() >= 0.2, "{report:#}");
    let seconds = report["overload"]["seconds"].as_array().unwrap();
    assert_eq!(seconds.len(), 3, "{report:#}");
}

#[test]
fn shed_calls_are_no_failures() {
    let url = shedding_server();
    let (code, report) = overload(&url, &["--factor", "8"]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["failures"]["total"], 0, "{report:#}");
    assert_eq!(count(phase(&report, "probe"), "shed"), 0, "{report:#}");
    assert!(count(phase(&report, "overload"), "shed") > 0, "{report:#}");
    assert!(count(phase(&report, "overload"), "right") > 0, "{report:#}");
}

#[test]
fn a_server_that_dies_is_a_failure() {
    let upstream = Upstream::start(&["--delay", "5ms"]);
    let url = upstream.url.clone();
    drop(upstream);
    let (code, report) = overload(&url, &["--timeout", "500ms"]);
    assert_eq!(code, 1, "{report:#}");
    assert!(report["failures"]["total"].as_u64().unwrap() > 0, "{report:#}");
}

/// A server that takes 5 ms for an answer and refuses a call when it has [`TAKES`] in hand. Its threads end with the
/// test's process.
fn shedding_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let busy = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        for accepted in listener.incoming() {
            let (stream, busy) = (accepted.unwrap(), busy.clone());
            thread::spawn(move || serve(stream, &busy));
        }
    });
    url
}

fn serve(mut stream: TcpStream, busy: &AtomicUsize) -> Option<()> {
    loop {
        let request = read_message(&mut stream, request_len)?;
        let text = String::from_utf8(request).ok()?;
        let id = text.split("\"id\":").nth(1)?.split(',').next()?.to_owned();
        let answer = if busy.fetch_add(1, Ordering::SeqCst) < TAKES {
            thread::sleep(std::time::Duration::from_millis(5));
            let result = r#""result":{"resultType":"complete","content":[]}"#;
            let body = format!(r#"{{"jsonrpc":"2.0","id":{id},{result}}}"#);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
            format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        } else {
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n".to_owned()
        };
        busy.fetch_sub(1, Ordering::SeqCst);
        stream.write_all(answer.as_bytes()).ok()?;
    }
}
