//! Setup: a gateway of two shards before servers that fail as they are told, and count what reaches them.
//! Claim: a breaker opens for all shards at once, leaves its endpoint alone, probes it and closes again; it counts failures of
//! the server and nothing else; with all of a server's breakers open, clients are told at once when to come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mcp_system_tests::mcp::{mirrored, modern, modern_call};
use mcp_system_tests::upstream::{After, ScriptedUpstream, answer, answer_json};
use mcp_system_tests::{Gateway, GatewayConfig, Response, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const STATE: &str = "mcp_gateway_circuit_breaker_state";

/// A server of 2026-07-28 whose calls are answered as `fails` says, and counted.
struct Flaky {
    upstream: ScriptedUpstream,
    fails: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

/// What a server does when it fails.
type Failure = fn(&Value, &mut std::net::TcpStream) -> After;

impl Flaky {
    fn start(failure: Failure) -> Self {
        let (fails, calls) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (failing, counted) = (fails.clone(), calls.clone());
        let upstream = ScriptedUpstream::modern(move |request, stream| {
            counted.fetch_add(1, Ordering::SeqCst);
            let message = request.json();
            if failing.load(Ordering::SeqCst) {
                return failure(&message, stream);
            }
            let body = json!({"jsonrpc": "2.0", "id": message["id"], "result": {"resultType": "complete"}});
            answer_json(stream, "200 OK", &body)
        });
        Flaky { upstream, fails, calls }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn recover(&self) {
        self.fails.store(false, Ordering::SeqCst);
    }
}

fn internal_error(message: &Value, stream: &mut std::net::TcpStream) -> After {
    let error = json!({"code": -32603, "message": "Internal error"});
    answer_json(stream, "200 OK", &json!({"jsonrpc": "2.0", "id": message["id"], "error": error}))
}

fn internal_error_as_event(message: &Value, stream: &mut std::net::TcpStream) -> After {
    let event = json!({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32603, "message": ""}});
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    answer(stream, &format!("{head}data: {event}\n\n"), After::Close)
}

fn status_500(_: &Value, stream: &mut std::net::TcpStream) -> After {
    answer(stream, "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", After::KeepOpen)
}

fn hang_up(_: &Value, _: &mut std::net::TcpStream) -> After {
    After::Reset
}

fn config(failures: u32, open_time: &str) -> GatewayConfig {
    GatewayConfig::new()
        .set("gateway.circuit_breaker", &format!("failure_threshold = {failures}"))
        .set("gateway.circuit_breaker", &format!("open_time = \"{open_time}\""))
        .set("gateway.circuit_breaker", "success_threshold = 2")
}

/// A call over a connection of its own, so that it comes to either shard.
fn call(gateway: &Gateway) -> Response {
    let message = modern_call(7, "any", json!({}));
    let mut connection = gateway.connect().expect("a connection");
    connection.post("/mcp/flaky", &mirrored("tools/call", Some("any")), &message).expect("an answer")
}

fn state(gateway: &Gateway, url: &str) -> Option<f64> {
    gateway.metrics().value(STATE, &[("server", "flaky"), ("endpoint", url)])
}

#[test]
fn a_breaker_opens_for_all_shards_and_clients_are_told_when_to_come_back() {
    for failure in [status_500 as Failure, hang_up, internal_error, internal_error_as_event] {
        let flaky = Flaky::start(failure);
        let url = flaky.upstream.url();
        let gateway = Gateway::start(&config(3, "1h").server("flaky", &[&url]));
        assert_eq!(state(&gateway, &url), Some(0.0));
        for _ in 0..3 {
            let answer = call(&gateway);
            assert_ne!(answer.json()["error"], Value::Null, "{}", answer.text());
        }
        // What the last answer says of the server is known when it has passed; the client may have it before.
        eventually("the breaker is open", LIMIT, || (state(&gateway, &url) == Some(1.0)).then_some(()));
        let reached = flaky.calls();
        for _ in 0..16 {
            let answer = call(&gateway);
            assert_eq!(answer.status, 503, "{}", answer.text());
            let error = &answer.json()["error"];
            assert_eq!((&answer.json()["id"], &error["code"]), (&json!(7), &json!(-32000)));
            assert_eq!(error["data"]["retryable"], true);
            let wait = error["data"]["retry_after"].as_u64().expect("seconds");
            assert!((3_500..=3_600).contains(&wait), "{wait}");
            assert_eq!(answer.header("retry-after"), Some(wait.to_string().as_str()));
        }
        assert_eq!(flaky.calls(), reached, "a request passed an open breaker");
        let refused =
            gateway.metrics().count("mcp_gateway_routing_errors_total", &[("reason", "no_endpoint")]);
        assert_eq!(refused, 16.0);
    }
}

#[test]
fn an_open_breaker_probes_and_closes_when_the_server_is_well() {
    let flaky = Flaky::start(status_500);
    let url = flaky.upstream.url();
    let gateway = Gateway::start(&config(2, "100ms").server("flaky", &[&url]));
    eventually("the breaker is open", LIMIT, || {
        call(&gateway);
        (state(&gateway, &url) == Some(1.0)).then_some(())
    });
    // It probes, again and again, and opens each time.
    let reached = flaky.calls();
    eventually("two more probes", LIMIT, || {
        assert!([500, 502, 503].contains(&call(&gateway).status));
        (flaky.calls() >= reached + 2).then_some(())
    });
    flaky.recover();
    eventually("the breaker is closed", LIMIT, || {
        call(&gateway);
        (state(&gateway, &url) == Some(0.0)).then_some(())
    });
    for _ in 0..8 {
        assert_eq!(call(&gateway).status, 200);
    }
}

#[test]
fn one_endpoint_s_breaker_leaves_the_others_to_serve() {
    let (bad, good) = (Flaky::start(hang_up), Flaky::start(hang_up));
    good.recover();
    let (bad_url, good_url) = (bad.upstream.url(), good.upstream.url());
    let gateway = Gateway::start(&config(3, "1h").server("flaky", &[&bad_url, &good_url]));
    eventually("the bad one's breaker is open", LIMIT, || {
        call(&gateway);
        (state(&gateway, &bad_url) == Some(1.0)).then_some(())
    });
    let reached = bad.calls();
    for _ in 0..20 {
        assert_eq!(call(&gateway).status, 200);
    }
    assert_eq!((bad.calls(), state(&gateway, &good_url)), (reached, Some(0.0)));
}

#[test]
fn neither_a_tool_s_own_error_nor_a_client_s_fault_counts() {
    let upstream = ScriptedUpstream::modern(|request, stream| {
        let message = request.json();
        let id = &message["id"];
        let tool_error = json!({"resultType": "complete", "isError": true,
            "content": [{"type": "text", "text": "-32603"}]});
        match id.as_u64() {
            Some(0) => {
                answer_json(stream, "200 OK", &json!({"jsonrpc": "2.0", "id": id, "result": tool_error}))
            }
            Some(1) => {
                let error = json!({"code": -32602, "message": "wrong params"});
                answer_json(stream, "200 OK", &json!({"jsonrpc": "2.0", "id": id, "error": error}))
            }
            Some(2) => answer(stream, "HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", After::KeepOpen),
            Some(3) => answer(stream, "HTTP/1.1 429 Slow\r\ncontent-length: 0\r\n\r\n", After::KeepOpen),
            _ => answer(stream, "HTTP/1.1 401 Who\r\ncontent-length: 0\r\n\r\n", After::KeepOpen),
        }
    });
    let url = upstream.url();
    let gateway = Gateway::start(&config(1, "1h").server("flaky", &[&url]));
    for id in 0..5 {
        let message = modern_call(id, "any", json!({}));
        let mut connection = gateway.connect().expect("a connection");
        let answer =
            connection.post("/mcp/flaky", &mirrored("tools/call", Some("any")), &message).expect("an answer");
        assert_ne!(answer.status, 503, "{id}: {}", answer.text());
    }
    assert_eq!(state(&gateway, &url), Some(0.0));
}

#[test]
fn a_client_that_leaves_does_not_keep_a_probe_s_place() {
    let released = Arc::new(AtomicBool::new(false));
    let (held, calls) = (released.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = calls.clone();
    // The first fails, the second hangs until its client is gone, all others are served.
    let upstream = ScriptedUpstream::modern(move |request, stream| {
        match counted.fetch_add(1, Ordering::SeqCst) {
            0 => After::Reset,
            1 => {
                eventually("the test's end", LIMIT, || held.load(Ordering::SeqCst).then_some(()));
                After::Close
            }
            _ => {
                let body = json!({"jsonrpc": "2.0", "id": request.json()["id"], "result": {"resultType": "complete"}});
                answer_json(stream, "200 OK", &body)
            }
        }
    });
    let url = upstream.url();
    let gateway = Gateway::start(&config(1, "50ms").server("flaky", &[&url]));
    assert_eq!(call(&gateway).status, 502);
    let message = modern(7, "tools/call", json!({"name": "any", "arguments": {}}));
    // All of them stay, so that none leaves while it is the probe.
    let mut leaving = Vec::new();
    eventually("a probe that hangs", LIMIT, || {
        let mut connection = gateway.connect().expect("a connection");
        connection.send_post("/mcp/flaky", &mirrored("tools/call", Some("any")), &message).expect("sent");
        leaving.push(connection);
        (calls.load(Ordering::SeqCst) == 2).then_some(())
    });
    assert_eq!(call(&gateway).status, 503, "all places of the breaker are taken");
    drop(leaving);
    eventually("the place is free", LIMIT, || (call(&gateway).status == 200).then_some(()));
    released.store(true, Ordering::SeqCst);
}
