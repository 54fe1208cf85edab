//! Setup: one shard, one server that does not answer, one that does.
//! Claim: calls that wait for the silent server hold up neither calls to the other one nor the gateway's own answers; and a
//! client that gives up frees what its call held.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mcp_system_tests::mcp::{mirrored, modern_call};
use mcp_system_tests::upstream::{After, ScriptedUpstream, answer_json};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, eventually};
use serde_json::json;

/// Calls that wait: fewer than an endpoint's pool has connections.
const WAITING: usize = 40;
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn waiting_calls_hold_up_nobody() {
    let released = Arc::new(AtomicBool::new(false));
    let gate = released.clone();
    let silent = ScriptedUpstream::modern(move |request, stream| {
        eventually("the release", LIMIT, || gate.load(Ordering::SeqCst).then_some(()));
        complete(&request.json()["id"], stream)
    });
    let quick = ScriptedUpstream::modern(|request, stream| complete(&request.json()["id"], stream));
    let gateway = start(&silent, &quick);

    let mut waiting: Vec<Connection> = (0..WAITING).map(|id| call(&gateway, "silent", id)).collect();
    eventually("all calls wait", LIMIT, || (in_flight(&gateway) >= WAITING).then_some(()));
    for id in 0..WAITING {
        let answer = call(&gateway, "quick", id).read_response(false).expect("an answer");
        assert_eq!(
            (answer.status, answer.json()["id"].as_u64()),
            (200, Some(id as u64)),
            "{}",
            answer.text()
        );
    }
    assert_eq!(gateway.get("/health").expect("an answer").status, 200);
    assert!(in_flight(&gateway) >= WAITING, "the calls did not wait at all");

    released.store(true, Ordering::SeqCst);
    for (id, connection) in waiting.iter_mut().enumerate() {
        let answer = connection.read_response(false).expect("an answer");
        assert_eq!(
            (answer.status, answer.json()["id"].as_u64()),
            (200, Some(id as u64)),
            "{}",
            answer.text()
        );
    }
}

#[test]
fn a_client_that_gives_up_frees_its_call() {
    let released = Arc::new(AtomicBool::new(false));
    let gate = released.clone();
    let silent = ScriptedUpstream::modern(move |_, _| {
        eventually("the release", LIMIT, || gate.load(Ordering::SeqCst).then_some(()));
        After::Close
    });
    let quick = ScriptedUpstream::modern(|request, stream| complete(&request.json()["id"], stream));
    let gateway = start(&silent, &quick);
    let waiting: Vec<Connection> = (0..WAITING).map(|id| call(&gateway, "silent", id)).collect();
    eventually("all calls wait", LIMIT, || (in_flight(&gateway) >= WAITING).then_some(()));
    // 2026-07-28, Streamable HTTP, Cancellation: closing the connection cancels the call.
    drop(waiting);
    eventually("nothing waits", LIMIT, || (in_flight(&gateway) == 0).then_some(()));
    released.store(true, Ordering::SeqCst);
}

fn start(silent: &ScriptedUpstream, quick: &ScriptedUpstream) -> Gateway {
    let config = GatewayConfig::new().set("gateway.runtime", "shards = 1");
    let config = config.server_with("silent", &[&silent.url()], "timeout = \"5m\"");
    Gateway::start(&config.server("quick", &[&quick.url()]))
}

fn call(gateway: &Gateway, server: &str, id: usize) -> Connection {
    let mut connection = gateway.connect().expect("a connection");
    let message = modern_call(json!(id), "any", json!({}));
    connection
        .send_post(&format!("/mcp/{server}"), &mirrored("tools/call", Some("any")), &message)
        .expect("sent");
    connection
}

fn complete(id: &serde_json::Value, stream: &mut std::net::TcpStream) -> After {
    let result = json!({"resultType": "complete", "content": []});
    answer_json(stream, "200 OK", &json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

fn in_flight(gateway: &Gateway) -> usize {
    gateway.metrics().count("mcp_gateway_requests_in_flight", &[]) as usize
}
