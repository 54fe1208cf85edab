//! Claim: whatever breaks the protocol gets an Error frame, ends its own connection and no other, and is counted.

use serde_json::json;

use crate::client::{
    CONTROL, Client, HEALTH_CHECK, REQUEST, RESPONSE, VERSION_ACK, VERSION_NEGOTIATION, call, frame,
    initialize, raw,
};
use crate::gateway::{Gateway, eventually};

fn errors(gateway: &Gateway, kind: &str) -> u64 {
    gateway.metric(&format!("tcp_protocol_errors_total{{error_type=\"{kind}\"}}"))
}

/// A response with an id of so many characters.
fn request_id_of(length: usize) -> String {
    json!({"jsonrpc": "2.0", "id": "é".repeat(length), "result": {}}).to_string()
}

#[test]
fn every_broken_limit_is_told_counted_and_ends_the_connection() {
    let gateway = Gateway::with_demo(&[]);
    let mut bystander = Client::log_in(gateway.port);
    let long = "i".repeat(256);
    let long_token = "t".repeat(4097);
    let request = |message: serde_json::Value| frame(REQUEST, message.to_string().as_bytes());
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("bad_magic", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("bad_magic", b"MCPX".to_vec()),
        ("unsupported_version", b"MCPB\x00\x02\x00\x01\x00\x00\x00\x00".to_vec()),
        ("unknown_type", raw(8, 0, b"")),
        ("unknown_type", raw(0, 0, b"")),
        ("payload_too_large", raw(REQUEST, 10_485_761, b"")),
        ("payload_too_large", raw(REQUEST, u32::MAX, b"")),
        ("not_utf8", frame(REQUEST, b"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}")),
        ("invalid_payload", request(call(long.clone(), "echo", json!({})))),
        ("invalid_payload", request(json!({"jsonrpc": "2.0", "id": 1, "method": long}))),
        ("invalid_payload", request(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call\u{e9}"}))),
        ("invalid_payload", request(json!({"jsonrpc": "2.0", "id": 1, "result": {}}))),
        ("invalid_payload", frame(RESPONSE, br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#)),
        ("invalid_payload", frame(CONTROL, br#"{"command":"reboot"}"#)),
        ("invalid_payload", frame(HEALTH_CHECK, br#"{"check":"deep"}"#)),
        ("invalid_payload", request(initialize(json!({"token": "a\r\nX-Injected: b"})))),
        ("token_too_long", request(initialize(json!({"token": long_token})))),
        (
            "token_too_long",
            request(
                json!({"auth_token": long_token, "request": {"jsonrpc": "2.0", "id": 1, "method": "ping"}}),
            ),
        ),
        ("invalid_payload", request(call("é".repeat(256), "echo", json!({})))),
        ("invalid_payload", request(json!({"jsonrpc": "2.0", "id": 1, "method": ""}))),
        ("invalid_payload", frame(RESPONSE, request_id_of(256).as_bytes())),
        ("invalid_payload", frame(CONTROL, b"")),
        // What is not UTF-8 is no JSON either; the graver of the two counts, in every kind of frame.
        ("not_utf8", frame(REQUEST, b"{\xff")),
        ("not_utf8", frame(RESPONSE, b"{\"jsonrpc\":\"2.0\",\"id\":\"\xc3\",\"result\":{}}")),
        ("not_utf8", frame(CONTROL, b"{\"command\":\"\xff\"}")),
        ("not_utf8", frame(HEALTH_CHECK, b"\xff")),
        ("not_utf8", frame(REQUEST, b"{\"auth_token\":\"\xff\",\"request\":{}}")),
        ("unexpected_frame", frame(VERSION_ACK, br#"{"agreed_version":1}"#)),
        ("unexpected_frame", frame(VERSION_NEGOTIATION, br#"{"min_version":1,"max_version":1}"#)),
    ];
    for (kind, bytes) in &cases {
        let before = errors(&gateway, kind);
        let mut client = Client::open(gateway.port);
        client.send_bytes(bytes);
        assert!(!client.expect_error().is_empty());
        assert_eq!(
            errors(&gateway, kind),
            before + 1,
            "{kind}: {:?}",
            String::from_utf8_lossy(&bytes[..12.min(bytes.len())])
        );
    }
    let sent = gateway.metric("tcp_messages_total{direction=\"out\",type=\"error\"}");
    assert_eq!(sent, cases.len() as u64);
    assert_eq!(bystander.ask(&call(1, "echo", json!({"text": "x"})))["id"], 1);
}

#[test]
fn a_lower_limit_of_the_configuration_holds_as_well() {
    let gateway = Gateway::with_demo(&[("MCP_GATEWAY__SERVER__MAX_BODY", "2KiB")]);
    let mut client = Client::log_in(gateway.port);
    assert_eq!(client.ask(&call(1, "echo", json!({"text": "x".repeat(1900)})))["id"], 1);
    client.send_json(REQUEST, &call(2, "echo", json!({"text": "x".repeat(2048)})));
    assert!(client.expect_error().contains("longer than 2048"));
    assert_eq!(errors(&gateway, "payload_too_large"), 1);
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    const MESSAGES: usize = 100_000;
    let gateway = Gateway::with_demo(&[]);
    let mut client = Client::open(gateway.port);
    // Each is answered with an error some ten times as long.
    client.send_bytes(&frame(REQUEST, b"{").repeat(MESSAGES));
    let held =
        (0..2).map(|shard| gateway.metric(&format!("buffered_bytes{{shard=\"{shard}\"}}"))).sum::<u64>();
    assert!(held < 1 << 20, "{held} bytes are held");
    for _ in 0..MESSAGES {
        assert_eq!(client.receive().kind, RESPONSE);
    }
    assert_eq!(client.ask(&initialize(json!({})))["id"], "login");
}

#[test]
fn what_is_at_the_limit_passes() {
    let gateway = Gateway::with_demo(&[]);
    let mut client = Client::open(gateway.port);
    let login = client.ask(&initialize(json!({"token": "t".repeat(4096)})));
    assert!(login["result"]["sessionId"].is_string(), "{login}");
    // Characters count, not bytes.
    let echo = client.ask(&call("é".repeat(255), "echo", json!({"text": "x"})));
    assert_eq!(echo["result"]["content"][0]["text"], "x");
    client.send(RESPONSE, request_id_of(255).as_bytes());
    let unknown = client.ask(&json!({"jsonrpc": "2.0", "id": 1, "method": "m".repeat(255)}));
    assert_eq!(unknown["error"]["code"], -32601, "{unknown}");
}

#[test]
fn a_connection_begins_with_negotiation() {
    let gateway = Gateway::with_demo(&[]);
    for first in [
        frame(REQUEST, initialize(json!({})).to_string().as_bytes()),
        frame(CONTROL, br#"{"command":"shutdown"}"#),
        frame(RESPONSE, b"{}"),
    ] {
        let mut client = Client::connect(gateway.port).unwrap();
        client.send_bytes(&first);
        client.expect_error();
    }
    assert_eq!(errors(&gateway, "unexpected_frame"), 3);

    let mut client = Client::connect(gateway.port).unwrap();
    client.send_json(VERSION_NEGOTIATION, &json!({"min_version": 2, "max_version": 3}));
    client.expect_error();
    assert_eq!(errors(&gateway, "no_common_version"), 1);

    for lists in [json!([2, 3]), json!([])] {
        let mut client = Client::connect(gateway.port).unwrap();
        let offer = json!({"min_version": 1, "max_version": 3, "supported_versions": lists});
        client.send_json(VERSION_NEGOTIATION, &offer);
        if lists == json!([]) {
            assert_eq!(client.receive().json(), json!({"agreed_version": 1}));
        } else {
            client.expect_error();
        }
    }
    let mut client = Client::connect(gateway.port).unwrap();
    client
        .send_json(VERSION_NEGOTIATION, &json!({"min_version": 1, "max_version": 3, "preferred_version": 2}));
    assert_eq!(client.receive().json(), json!({"agreed_version": 1}));
}

#[test]
fn a_client_that_leaves_within_a_frame_leaves_nothing_behind() {
    let gateway = Gateway::with_demo(&[]);
    for cut in [1, 4, 11, 12, 30] {
        let mut client = Client::log_in(gateway.port);
        let bytes =
            frame(REQUEST, call(1, "echo", json!({"text": "never sent in full"})).to_string().as_bytes());
        client.send_bytes(&bytes[..cut]);
    }
    eventually("all are gone", || gateway.metric("tcp_connections_active") == 0);
    let held =
        (0..2).map(|shard| gateway.metric(&format!("buffered_bytes{{shard=\"{shard}\"}}"))).sum::<u64>();
    assert_eq!(held, 0);
}

#[test]
fn a_shard_at_its_limit_refuses_requests_and_serves_them_later() {
    let gateway = Gateway::with_demo(&[
        ("MCP_GATEWAY__RUNTIME__SHARDS", "1"),
        ("MCP_GATEWAY__OVERLOAD__MAX_IN_FLIGHT", "1"),
    ]);
    // The end of a login takes a place for a moment, too.
    let labels = "server=\"demo\",method=\"notifications/initialized\",status=\"202\",protocol=\"mcpb\"";
    let log_in = |logged_in| {
        let client = Client::log_in(gateway.port);
        eventually("the login is over", || {
            gateway.metric(&format!("requests_total{{{labels}}}")) == logged_in
        });
        client
    };
    let (mut busy, mut other) = (log_in(1), log_in(2));
    let mut slow = call("slow", "slow", json!({"steps": 3, "step_ms": 200}));
    slow["params"]["_meta"] = json!({"progressToken": "p"});
    busy.send_json(REQUEST, &slow);
    assert_eq!(busy.receive().json()["method"], "notifications/progress");
    // On a connection of its own, and beside the one in flight.
    for client in [&mut other, &mut busy] {
        client.send_json(REQUEST, &call("refused", "echo", json!({"text": "x"})));
        let refused =
            std::iter::repeat_with(|| client.receive().json()).find(|frame| frame["id"] == "refused");
        let error = &refused.unwrap()["error"];
        assert_eq!(error["code"], -32000, "{error}");
        assert_eq!(error["data"], json!({"retryable": true, "retry_after": 1}));
    }
    // Cancellations and the gateway's own answers do not stand in line.
    busy.send_json(
        REQUEST,
        &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "none"}}),
    );
    busy.send(HEALTH_CHECK, b"");
    let (mut health, mut result) = (false, false);
    while !(health && result) {
        let frame = busy.receive();
        health |= frame.kind == HEALTH_CHECK;
        result |= frame.kind == RESPONSE && frame.json()["id"] == "slow";
    }
    assert_eq!(gateway.metric("requests_shed_total{reason=\"in_flight\"}"), 2);
    // What the one that was refused sends at once is read when it may ask again.
    for id in 0..3 {
        let echo = other.ask(&call(id, "echo", json!({"text": "x"})));
        assert_eq!(echo["result"]["content"][0]["text"], "x", "{echo}");
    }
}
