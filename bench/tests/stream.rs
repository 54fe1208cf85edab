//! `mcp-bench stream` reads answers of many events as they come, checks each event, and measures them by the upstream's
//! own clock.

mod common;

use std::io::{Read, Write};

use common::{Upstream, connect, report, response_len, tls_front};

fn stream(url: &str, more: &[&str]) -> (i32, serde_json::Value) {
    let mut args = vec!["stream", "--url", url, "--connections", "4", "--warmup", "0ms"];
    args.extend_from_slice(more);
    report(&args)
}

/// Every event of every stream came, in order and whole.
fn assert_whole(code: i32, report: &serde_json::Value, events_per_stream: u64) {
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["failures"]["total"], 0, "{report:#}");
    let section = &report["stream"];
    let streams = section["streams"].as_u64().unwrap_or(0);
    assert!(streams > 0, "{report:#}");
    assert_eq!(section["events"], streams * events_per_stream, "{report:#}");
    assert_eq!(report["calls"]["ok"], streams);
}

#[test]
fn as_fast_as_it_can_be_read() {
    let upstream = Upstream::start(&["--sessions", "--threads", "2"]);
    for revision in ["2025-06-18", "2026-07-28"] {
        let more = ["--events", "500", "--bytes", "200", "--duration", "300ms", "--revision", revision];
        let (code, report) = stream(&upstream.url, &more);
        assert_whole(code, &report, 500);
        assert!(report["bytes"]["received"].as_u64().unwrap() > 200 * 500, "{report:#}");
    }
}

#[test]
fn at_a_rate_each_event_has_its_time() {
    let upstream = Upstream::start(&[]);
    let pid = upstream.pid().to_string();
    let more = ["--events", "20", "--interval", "5ms", "--duration", "400ms", "--server-pid", &pid];
    let (code, report) = stream(&upstream.url, &more);
    assert_whole(code, &report, 20);
    // 19 intervals lie between the first and the last event, so no call can be faster.
    assert!(report["from_send"]["p50_us"].as_f64().unwrap() >= 95_000.0, "{report:#}");
    assert!(report["stream"]["latency"]["p50_us"].as_f64().unwrap() > 0.0, "{report:#}");
    assert!(report["stream"]["server_cpu_us"].as_f64().unwrap() > 0.0, "{report:#}");
}

#[test]
fn over_tls_and_in_small_pieces() {
    let upstream = Upstream::start(&["--sessions"]);
    let (port, _) = tls_front(upstream.address());
    let url = format!("https://127.0.0.1:{port}/mcp");
    let (code, report) = stream(&url, &["--insecure", "--events", "30", "--duration", "200ms"]);
    assert_whole(code, &report, 30);
}

#[test]
fn an_answer_without_events_is_wrong() {
    let upstream = Upstream::start(&["--answer", "json"]);
    let (code, report) = stream(&upstream.url, &["--tool", "echo", "--duration", "100ms"]);
    assert_eq!(code, 1);
    assert!(report["failures"]["total"].as_u64().unwrap() > 0, "{report:#}");
    assert_eq!(report["stream"]["streams"], 0);
}

#[test]
fn without_a_token_there_is_no_progress_and_behind_a_stream_the_next_request_waits() {
    let upstream = Upstream::start(&[]);
    let call = |id: u8, field: &str, meta: &str| {
        let arguments = r#""arguments":{"events":3,"interval_us":2000}"#;
        let params = format!(r#""params":{{"name":"stream",{arguments}{meta}}}"#);
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call",{params}}}"#);
        format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n{field}\r\n{body}", body.len())
    };
    let mut client = connect(upstream.address());
    let both = call(1, "", r#","_meta":{"progressToken":"t"}"#) + &call(2, "Connection: close\r\n", "");
    client.write_all(both.as_bytes()).unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (first, second) = all.split_at(response_len(&all).unwrap());
    let (first, second) = (text(first), text(second));
    assert_eq!(first.matches(r#""progressToken":"t""#).count(), 3, "{first}");
    assert!(first.contains(r#""id":1"#) && !first.contains(r#""id":2"#), "{first}");
    assert!(second.contains(r#""id":2"#) && !second.contains("progress"), "{second}");
}
