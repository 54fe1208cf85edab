//! Setup: a gateway before servers that fail as they are told, and count what reaches them.
//! Claim: sent again is only what does no harm twice, no more often than the budget pays for, and never beyond the server's
//! `timeout`.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mcp_system_tests::mcp::{LEGACY, mirrored, modern, modern_call, open_session, post_in_session, request};
use mcp_system_tests::upstream::{After, ScriptedUpstream, UpstreamRequest, answer, answer_json};
use mcp_system_tests::{Gateway, GatewayConfig, Response};
use serde_json::{Value, json};

const RETRIES: &str = "mcp_gateway_retries_total";

/// Tools with and without hints.
fn tools() -> Value {
    let schema = json!({"type": "object"});
    json!([
        {"name": "plain", "inputSchema": schema},
        {"name": "reads", "inputSchema": schema, "annotations": {"readOnlyHint": true}},
        {"name": "puts", "inputSchema": schema, "annotations": {"idempotentHint": true}},
        {"name": "destroys", "inputSchema": schema, "annotations": {"readOnlyHint": false, "destructiveHint": true}},
    ])
}

fn result(stream: &mut TcpStream, message: &Value, result: &Value) -> After {
    answer_json(stream, "200 OK", &json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
}

/// A server of both eras that answers what belongs to a session and its tools, and leaves the rest to `script` with the
/// number that it has among such requests, from 0.
fn server(
    script: impl Fn(usize, &UpstreamRequest, &mut TcpStream) -> After + Send + Sync + 'static,
) -> (ScriptedUpstream, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let upstream = ScriptedUpstream::start(move |request, stream| {
        let message = request.json();
        match message["method"].as_str() {
            Some("initialize") => {
                let body = json!({"jsonrpc": "2.0", "id": message["id"], "result":
                    {"protocolVersion": LEGACY, "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}})
                .to_string();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nmcp-session-id: one\r\ncontent-type: application/json\r\n\
                     content-length: {}\r\n\r\n",
                    body.len()
                );
                answer(stream, &(head + &body), After::KeepOpen)
            }
            Some("server/discover") => result(
                stream,
                &message,
                &json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
                    "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}),
            ),
            Some("tools/list") => {
                result(stream, &message, &json!({"resultType": "complete", "tools": tools()}))
            }
            _ => script(counted.fetch_add(1, Ordering::SeqCst), request, stream),
        }
    });
    (upstream, seen)
}

fn config() -> GatewayConfig {
    GatewayConfig::new().set("gateway.circuit_breaker", "failure_threshold = 10000")
}

fn modern_tool(gateway: &Gateway, tool: &str) -> Response {
    let message = modern_call(1, tool, json!({}));
    let mut connection = gateway.connect().expect("a connection");
    connection.post("/mcp/one", &mirrored("tools/call", Some(tool)), &message).expect("an answer")
}

fn list_prompts(gateway: &Gateway) -> Response {
    let mut connection = gateway.connect().expect("a connection");
    let message = modern(1, "prompts/list", json!({}));
    connection.post("/mcp/one", &mirrored("prompts/list", None), &message).expect("an answer")
}

#[test]
fn a_call_is_sent_again_only_if_its_tool_says_that_this_does_no_harm() {
    for (tool, is_harmless) in
        [("plain", false), ("destroys", false), ("unknown", false), ("reads", true), ("puts", true)]
    {
        let (upstream, calls) = server(|number, request, stream| match number {
            0 => After::Reset,
            _ => result(stream, &request.json(), &json!({"resultType": "complete", "content": []})),
        });
        let gateway = Gateway::start(&config().server("one", &[&upstream.url()]));
        let answer = modern_tool(&gateway, tool);
        let expected = if is_harmless { (200, 2) } else { (502, 1) };
        assert_eq!((answer.status, calls.load(Ordering::SeqCst)), expected, "{tool}: {}", answer.text());
        let retried = gateway.metrics().count(RETRIES, &[("server", "one"), ("result", "success")]);
        assert_eq!(retried, f64::from(u8::from(is_harmless)), "{tool}");
    }
}

#[test]
fn a_session_s_call_goes_by_the_list_that_passed_and_stays_at_its_endpoint() {
    let (upstream, calls) = server(|number, request, stream| match number {
        0 | 2 => answer(stream, "HTTP/1.1 503 Later\r\ncontent-length: 0\r\n\r\n", After::KeepOpen),
        _ => result(stream, &request.json(), &json!({"content": []})),
    });
    let (other, elsewhere) = server(|_, request, stream| result(stream, &request.json(), &json!({})));
    let gateway = Gateway::start(&config().server("one", &[&upstream.url(), &other.url()]));
    let mut connection = gateway.connect().expect("a connection");
    let session = open_session(&mut connection, "/mcp/one", LEGACY);
    let mut post =
        |message: Value| post_in_session(&mut connection, "/mcp/one", &session, &message).expect("an answer");
    let call = request(3, "tools/call", json!({"name": "reads", "arguments": {}}));
    // Sessions go to the endpoints in turn; this is about the first, whichever it was given.
    let bound_elsewhere =
        post(request(2, "ping", json!({}))).status == 200 && elsewhere.load(Ordering::SeqCst) == 1;
    if bound_elsewhere {
        return;
    }
    calls.store(2, Ordering::SeqCst);
    assert_eq!(post(call.clone()).status, 502, "no list has passed yet");
    assert_eq!(post(request(4, "tools/list", json!({}))).status, 200);
    calls.store(2, Ordering::SeqCst);
    assert_eq!(post(call).status, 200);
    assert_eq!((calls.load(Ordering::SeqCst), elsewhere.load(Ordering::SeqCst)), (4, 0));
}

#[test]
fn what_never_left_the_gateway_goes_to_another_endpoint() {
    let (upstream, calls) =
        server(|_, request, stream| result(stream, &request.json(), &json!({"resultType": "complete"})));
    let gateway = Gateway::start(&config().server("one", &["http://127.0.0.1:9/mcp", &upstream.url()]));
    for sent in 1..=8 {
        assert_eq!(modern_tool(&gateway, "plain").status, 200);
        assert_eq!(calls.load(Ordering::SeqCst), sent);
    }
}

#[test]
fn a_storm_of_failures_gets_no_more_retries_than_the_budget_pays_for() {
    const REQUESTS: usize = 200;
    let (upstream, asked) = server(|_, _, stream| {
        answer(stream, "HTTP/1.1 503 Later\r\ncontent-length: 0\r\n\r\n", After::KeepOpen)
    });
    let gateway = Gateway::start(
        &config()
            .set("gateway.runtime", "shards = 1")
            .set("gateway.retry", "budget_percent = 10")
            .set("gateway.retry", "min_per_second = 0")
            .set("gateway.retry", "max_attempts = 3")
            .server("one", &[&upstream.url()]),
    );
    for _ in 0..REQUESTS {
        assert_eq!(list_prompts(&gateway).status, 502);
    }
    let retries = asked.load(Ordering::SeqCst) - REQUESTS;
    // What the gateway asks on its own account pays, too.
    assert!((REQUESTS / 10 - 1..=REQUESTS / 10 + 1).contains(&retries), "{retries} retries");
    let metrics = gateway.metrics();
    assert_eq!(metrics.count(RETRIES, &[("server", "one"), ("result", "failure")]), retries as f64);
    assert!(metrics.count(RETRIES, &[("server", "one"), ("result", "no_budget")]) > 100.0);
}

#[test]
fn attempts_end_and_the_last_answer_is_the_client_s() {
    let (upstream, asked) = server(|_, request, stream| {
        let error = json!({"code": -32000, "message": "busy"});
        let body = json!({"jsonrpc": "2.0", "id": request.json()["id"], "error": error});
        answer_json(stream, "503 Later", &body)
    });
    let gateway = Gateway::start(&config().server("one", &[&upstream.url()]));
    let answer = list_prompts(&gateway);
    assert_eq!((answer.status, &answer.json()["error"]["message"]), (503, &json!("busy")));
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[test]
fn a_retry_that_does_not_fit_into_the_timeout_is_not_made() {
    let (upstream, asked) = server(|_, _, stream| {
        answer(stream, "HTTP/1.1 503 Later\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n", After::KeepOpen)
    });
    let gateway = Gateway::start(&config().server_with("one", &[&upstream.url()], "timeout = \"5s\""));
    assert_eq!(list_prompts(&gateway).status, 502);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    let skipped = gateway.metrics().count(RETRIES, &[("server", "one"), ("result", "no_time")]);
    assert_eq!(skipped, 1.0);
}

#[test]
fn a_timeout_is_all_attempts_together() {
    let (upstream, asked) = server(|number, _, stream| match number {
        0 => After::Reset,
        // Says nothing more; the gateway's leaving ends it.
        _ => {
            let mut rest = [0u8; 1];
            let _ = std::io::Read::read(stream, &mut rest);
            After::Close
        }
    });
    let gateway = Gateway::start(&config().server_with("one", &[&upstream.url()], "timeout = \"300ms\""));
    assert_eq!(list_prompts(&gateway).status, 504);
    assert_eq!(asked.load(Ordering::SeqCst), 2, "after a timeout there is no time left");
}
