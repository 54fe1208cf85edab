//! Setup: a client sends several requests on one connection without waiting for the answers.
//! Claim: each is answered once, in order, however the bytes are cut (RFC 9112, 9.3.2).

use mcp_system_tests::mcp::{POST_HEADERS, mirrored, modern_call};
use mcp_system_tests::upstream::{ScriptedUpstream, answer_json};
use mcp_system_tests::{Gateway, GatewayConfig};
use serde_json::json;

const CALLS: u64 = 8;

#[test]
fn requests_sent_at_once_are_answered_in_order() {
    let upstream = ScriptedUpstream::modern(|request, stream| {
        let result = json!({"resultType": "complete", "content": []});
        answer_json(
            stream,
            "200 OK",
            &json!({"jsonrpc": "2.0", "id": request.json()["id"], "result": result}),
        )
    });
    let gateway = Gateway::start(&GatewayConfig::new().server("quick", &[&upstream.url()]));
    let all: String = (0..CALLS).map(|id| request(&gateway, id) + &health(&gateway)).collect();
    // In one piece, and in pieces that end at every kind of place.
    for piece in [all.len(), 1000, 97] {
        let mut connection = gateway.connect().expect("a connection");
        for bytes in all.as_bytes().chunks(piece) {
            connection.send(bytes).expect("sent");
        }
        for id in 0..CALLS {
            let answer = connection.read_response(false).expect("a call's answer");
            assert_eq!((answer.status, answer.json()["id"].as_u64()), (200, Some(id)), "{}", answer.text());
            let health = connection.read_response(false).expect("an answer of the gateway's");
            assert_eq!((health.status, health.json().get("result")), (200, None), "{}", health.text());
        }
    }
}

#[test]
fn nothing_is_served_after_connection_close() {
    let gateway = Gateway::start(&GatewayConfig::new());
    let mut connection = gateway.connect().expect("a connection");
    let closing = format!("GET /health HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", gateway.addr);
    connection.send((closing + &health(&gateway)).as_bytes()).expect("sent");
    let answer = connection.read_response(false).expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(connection.is_closed().unwrap_or(true), "a second request was served");
}

fn request(gateway: &Gateway, id: u64) -> String {
    let body = modern_call(json!(id), "any", json!({})).to_string();
    let mut text =
        format!("POST /mcp/quick HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n", gateway.addr, body.len());
    for (name, value) in POST_HEADERS.iter().chain(&mirrored("tools/call", Some("any"))) {
        text += &format!("{name}: {value}\r\n");
    }
    text + "\r\n" + &body
}

fn health(gateway: &Gateway) -> String {
    format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.addr)
}
