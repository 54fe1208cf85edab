//! Claim: port 9443 speaks MCPB version 1 as its description says, and what goes through it is the same exchange as over
//! HTTP. Set-up: a gateway process with its demonstration server or with a scripted one, and a client that shares no code
//! with the gateway.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test may block")]

mod client;
mod gateway;
mod limits;
mod server;
mod servers;
mod streams;

use std::collections::HashSet;

use client::{CONTROL, Client, ERROR, HEALTH_CHECK, REQUEST, RESPONSE, call, frame, initialize};
use gateway::{Gateway, eventually};
use serde_json::{Value, json};

#[test]
fn whatever_a_client_offers_by_alpn_it_gets_this_protocol() {
    let gateway = Gateway::with_demo(&[]);
    for offer in [&[][..], &["mcpb"], &["h2"], &["http/1.1", "h2"], &["anything"]] {
        let mut client = Client::connect_offering(gateway.port, offer).expect("a handshake");
        assert_eq!(client.chosen(), None, "{offer:?}");
        client.negotiate();
    }
}

#[test]
fn health_is_told_before_any_login_and_in_kind() {
    let gateway = Gateway::with_demo(&[]);
    let mut client = Client::connect(gateway.port).unwrap();
    client.send(HEALTH_CHECK, b"");
    let empty = client.receive();
    assert_eq!((empty.kind, empty.payload.len()), (HEALTH_CHECK, 0));
    for check in ["simple", "detailed"] {
        client.send_json(HEALTH_CHECK, &json!({ "check": check }));
        let answer = client.receive();
        assert_eq!(answer.kind, HEALTH_CHECK);
        let answer = answer.json();
        assert_eq!((&answer["check"], &answer["status"]), (&json!(check), &json!("ok")));
        assert_eq!(answer.get("version").is_some(), check == "detailed");
    }
    assert_eq!(gateway.metric("tcp_messages_total{direction=\"in\",type=\"health_check\"}"), 3);
    assert_eq!(gateway.metric("tcp_messages_total{direction=\"out\",type=\"health_check\"}"), 3);
    assert_eq!(gateway.metric("tcp_connections_active"), 1);
    assert!(gateway.metric("tcp_bytes_total{direction=\"in\"}") > 36);
}

#[test]
fn a_session_is_opened_and_used() {
    let gateway = Gateway::with_demo(&[]);
    let mut client = Client::open(gateway.port);
    let early = client.ask(&json!({"jsonrpc": "2.0", "id": 0, "method": "tools/list"}));
    assert_eq!(early["error"]["code"], -32600, "{early}");

    let login = client.ask(&initialize(json!({"token": "secret"})));
    let result = &login["result"];
    assert_eq!(result["serverInfo"]["name"], "mcp-gateway-demo");
    assert_eq!(result["sessionId"].as_str().map(str::len), Some(24));
    let expires_at = result["expiresAt"].as_str().unwrap();
    assert!(
        expires_at.len() == 20 && expires_at.ends_with('Z') && &expires_at[10..11] == "T",
        "{expires_at}"
    );
    client.send_json(REQUEST, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));

    let tools = client.ask(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}));
    assert_eq!(tools["result"]["tools"].as_array().map(Vec::len), Some(3));
    let echo = client.ask(&call("é", "echo", json!({"text": "grüß"})));
    assert_eq!(echo["result"]["content"][0]["text"], "grüß");
    let wrapped = json!({"auth_token": "t", "request": call(2, "add", json!({"a": 1, "b": 2}))});
    assert_eq!(client.ask(&wrapped)["result"]["structuredContent"]["sum"], 3);
    client.send(REQUEST, b"{\"jsonrpc\"");
    let broken = client.receive().json();
    assert_eq!((&broken["id"], &broken["error"]["code"]), (&Value::Null, &json!(-32700)));

    let labels = "server=\"demo\",method=\"tools/call\",status=\"200\",protocol=\"mcpb\"";
    eventually("the calls are counted", || gateway.metric(&format!("requests_total{{{labels}}}")) == 2);
}

#[test]
fn progress_comes_before_the_result() {
    let gateway = Gateway::with_demo(&[]);
    let mut client = Client::log_in(gateway.port);
    let mut slow = call("slow", "slow", json!({"steps": 3, "step_ms": 10}));
    slow["params"]["_meta"] = json!({"progressToken": "p"});
    client.send_json(REQUEST, &slow);
    for step in 1..=3 {
        let progress = client.receive();
        assert_eq!(progress.kind, REQUEST);
        let progress = progress.json();
        assert_eq!(progress["method"], "notifications/progress");
        assert_eq!(
            (&progress["params"]["progressToken"], &progress["params"]["progress"]),
            (&json!("p"), &json!(step))
        );
    }
    let result = client.receive();
    assert_eq!((result.kind, &result.json()["id"]), (RESPONSE, &json!("slow")));
}

#[test]
fn a_bare_login_gets_a_session_that_works() {
    let gateway = Gateway::with_demo(&[]);
    let mut client = Client::open(gateway.port);
    let login = json!({"jsonrpc": "2.0", "id": 7, "method": "initialize", "params": {"token": "t"}});
    let login = client.ask(&login);
    let members: HashSet<&str> = login["result"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, HashSet::from(["sessionId", "expiresAt"]));
    let sum = client.ask(&call(8, "add", json!({"a": 40, "b": 2})));
    assert_eq!(sum["result"]["structuredContent"]["sum"], 42);
}

#[test]
fn answers_come_in_any_order() {
    let gateway = Gateway::with_demo(&[]);
    let mut client = Client::log_in(gateway.port);
    client.send_json(REQUEST, &call("slow", "slow", json!({"steps": 1, "step_ms": 1000})));
    for id in 0..20 {
        client.send_json(REQUEST, &call(id, "echo", json!({"text": id.to_string()})));
    }
    let answers: Vec<Value> = (0..21).map(|_| client.receive().json()).collect();
    assert_eq!(answers[20]["id"], "slow");
    for answer in &answers[..20] {
        assert_eq!(answer["result"]["content"][0]["text"], answer["id"].to_string());
    }
    let ids: HashSet<u64> = answers[..20].iter().filter_map(|answer| answer["id"].as_u64()).collect();
    assert_eq!(ids.len(), 20);
}

#[test]
fn more_than_may_be_in_flight_wait_and_are_answered() {
    let gateway = Gateway::with_demo(&[]);
    let mut client = Client::log_in(gateway.port);
    let mut frames = Vec::new();
    for id in 0..300 {
        let request = call(id, "slow", json!({"steps": 1, "step_ms": id % 7}));
        frames.extend_from_slice(&frame(REQUEST, request.to_string().as_bytes()));
    }
    client.send_bytes(&frames);
    let ids: HashSet<u64> = (0..300).filter_map(|_| client.receive().json()["id"].as_u64()).collect();
    assert_eq!(ids.len(), 300);
    eventually("only the server's own stream is left", || gateway.metric("requests_in_flight") == 1);
    drop(client);
    eventually("nothing is left", || gateway.metric("requests_in_flight") == 0);
}

#[test]
fn frames_may_come_in_any_pieces() {
    let gateway = Gateway::with_demo(&[]);
    let mut client = Client::log_in(gateway.port);
    let first = call(1, "echo", json!({"text": "piece by piece"})).to_string();
    for byte in frame(REQUEST, first.as_bytes()) {
        client.send_bytes(&[byte]);
    }
    assert_eq!(client.receive().json()["id"], 1);
    let large = "x".repeat(3 << 20);
    let answer = client.ask(&call(2, "echo", json!({"text": large})));
    // The demonstration server takes messages of at most 1 MiB; what counts is that this one reached it and was answered.
    assert!(answer.get("result").is_some() || answer.get("error").is_some());
    assert_eq!(
        client.ask(&call(3, "echo", json!({"text": "after"})))["result"]["content"][0]["text"],
        "after"
    );
}

#[test]
fn silence_is_probed_and_then_ends() {
    let gateway = Gateway::with_demo(&[("MCP_GATEWAY__SERVER__READ_TIMEOUT", "300ms")]);
    let mut client = Client::log_in(gateway.port);
    for _ in 0..2 {
        let probe = client.receive();
        assert_eq!((probe.kind, probe.payload.len()), (HEALTH_CHECK, 0));
        client.send(HEALTH_CHECK, b"");
    }
    // An answer is not answered: the next frame is the next probe, and then comes the end.
    assert_eq!(client.receive().kind, HEALTH_CHECK);
    client.expect_end();
    assert_eq!(gateway.metric("connections_rejected_total{reason=\"idle_timeout\"}"), 1);

    let mut stalled = Client::open(gateway.port);
    stalled.send_bytes(&frame(REQUEST, b"{\"jsonrpc\":\"2.0\"}")[..20]);
    assert_eq!(stalled.expect_error(), "the frame did not arrive in time");
    assert_eq!(gateway.metric("connections_rejected_total{reason=\"read_timeout\"}"), 1);
}

#[test]
fn silence_is_probed_before_the_negotiation_too() {
    let gateway = Gateway::with_demo(&[("MCP_GATEWAY__SERVER__READ_TIMEOUT", "300ms")]);
    let mut client = Client::connect(gateway.port).unwrap();
    assert_eq!(client.receive().kind, HEALTH_CHECK);
    client.negotiate();
    assert_eq!(client.receive().kind, HEALTH_CHECK);
    client.expect_end();
}

#[test]
fn who_waits_for_an_answer_is_not_idle() {
    let gateway = Gateway::with_demo(&[("MCP_GATEWAY__SERVER__READ_TIMEOUT", "300ms")]);
    let mut client = Client::log_in(gateway.port);
    // The next frame is the answer, although three silent periods pass.
    assert!(client.ask(&call(1, "slow", json!({"steps": 1, "step_ms": 1000})))["result"].is_object());
    assert_eq!(client.receive().kind, HEALTH_CHECK);
}

#[test]
fn a_client_may_end_in_good_order() {
    let gateway = Gateway::with_demo(&[]);
    let mut client = Client::log_in(gateway.port);
    client.send_json(REQUEST, &call(1, "slow", json!({"steps": 1, "step_ms": 300})));
    client.send_json(CONTROL, &json!({"command": "shutdown"}));
    let ack = client.receive();
    assert_eq!((ack.kind, ack.json()), (CONTROL, json!({"command": "shutdown_ack", "status": "ok"})));
    assert_eq!(client.receive().json()["id"], 1);
    client.expect_end();
    eventually("the connection is gone", || gateway.metric("tcp_connections_active") == 0);
}

#[test]
fn a_drain_says_goodbye_refuses_what_is_new_and_finishes_the_rest() {
    let mut gateway = Gateway::with_demo(&[]);
    let mut client = Client::log_in(gateway.port);
    let mut fresh = Client::connect(gateway.port).unwrap();
    client.send_json(REQUEST, &call("last", "slow", json!({"steps": 1, "step_ms": 1000})));
    // The other one is the stream on which the server speaks by itself.
    eventually("the call is in flight", || gateway.metric("requests_in_flight") == 2);
    gateway.terminate();
    let goodbye = client.receive();
    assert_eq!((goodbye.kind, goodbye.json()), (CONTROL, json!({"command": "shutdown"})));
    let refused = client.ask(&call("late", "echo", json!({"text": "x"})));
    assert_eq!(refused["error"]["code"], -32000);
    assert_eq!(refused["error"]["message"], "shutting down");
    assert_eq!(refused["error"]["data"]["retryable"], true);
    assert_eq!(client.receive().json()["id"], "last");
    client.send_json(CONTROL, &json!({"command": "shutdown_ack", "status": "ok"}));
    client.expect_end();
    fresh.expect_end();
    assert!(gateway.wait().success());
}

#[test]
fn a_drain_that_is_acknowledged_early_still_finishes() {
    let mut gateway = Gateway::with_demo(&[]);
    let mut client = Client::log_in(gateway.port);
    client.send_json(REQUEST, &call("last", "slow", json!({"steps": 1, "step_ms": 1000})));
    eventually("the call is in flight", || gateway.metric("requests_in_flight") == 2);
    gateway.terminate();
    assert_eq!(client.receive().json(), json!({"command": "shutdown"}));
    client.send_json(CONTROL, &json!({"command": "shutdown_ack", "status": "ok"}));
    client.send_json(HEALTH_CHECK, &json!({"check": "simple"}));
    assert_eq!(client.receive().json(), json!({"check": "simple", "status": "draining"}));
    assert_eq!(client.receive().json()["id"], "last");
    client.expect_end();
    assert!(gateway.wait().success());
}

#[test]
fn an_acknowledgement_of_nothing_changes_nothing() {
    let gateway = Gateway::with_demo(&[]);
    let mut client = Client::log_in(gateway.port);
    client.send_json(CONTROL, &json!({"command": "shutdown_ack", "status": "ok"}));
    assert_eq!(client.ask(&call(1, "echo", json!({"text": "x"})))["id"], 1);
}

#[test]
fn a_drain_without_acknowledgement_ends_at_its_deadline() {
    let mut gateway = Gateway::with_demo(&[("MCP_GATEWAY__SERVER__DRAIN_TIMEOUT", "500ms")]);
    let mut client = Client::log_in(gateway.port);
    gateway.terminate();
    assert_eq!(client.receive().kind, CONTROL);
    assert!(gateway.wait().success());
}

#[test]
fn an_error_frame_of_the_client_ends_the_connection() {
    let gateway = Gateway::with_demo(&[]);
    let mut client = Client::log_in(gateway.port);
    client.send(ERROR, "enough".as_bytes());
    client.expect_end();
}
