//! Setup: sessions of the legacy era over many connections, which the kernel spreads over four shards, to fixtures of that era.
//! Claim: a session is one thing wherever a message arrives; it belongs to one server and one endpoint; its end is its end
//! everywhere at once; batches exist where their revision has them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::mcp::{LEGACY, in_session, initialize, open_session, post_in_session, request};
use mcp_system_tests::upstream::{After, answer, answer_json};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, Response};
use serde_json::{Value, json};

/// Enough connections that a shard without any is not to be expected (4 × 0.75⁴⁰ < 0.0001).
const CONNECTIONS: usize = 40;

#[test]
fn a_session_works_at_every_shard_and_ends_at_every_shard() {
    let fixture = Fixture::legacy(nothing);
    let gateway = start(&[("one", &[&fixture])]);
    let session = open_session(&mut connect(&gateway), "/mcp/one", LEGACY);
    let mut connections: Vec<Connection> = (0..CONNECTIONS).map(|_| connect(&gateway)).collect();
    for (number, connection) in connections.iter_mut().enumerate() {
        let answer = ping(connection, "/mcp/one", &session, number);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["result"]["number"], number);
    }
    let seen = fixture.seen();
    assert!(seen[1..].iter().all(|request| request.header("mcp-session-id") == Some("upstream-1")));
    assert_ne!(session, "upstream-1", "the client got the server's own id");

    let ended = connections[0].request("DELETE", "/mcp/one", &in_session(&session, LEGACY), b"");
    assert_eq!(ended.expect("an answer").status, 200);
    let told = fixture.seen().pop().expect("a request");
    assert!(told.is("DELETE") && told.header("mcp-session-id") == Some("upstream-1"), "{told:?}");
    let before = fixture.seen().len();
    for connection in &mut connections {
        assert_unknown(&ping(connection, "/mcp/one", &session, 0));
    }
    let again = connections[0].request("DELETE", "/mcp/one", &in_session(&session, LEGACY), b"");
    assert_unknown(&again.expect("an answer"));
    assert_eq!(fixture.seen().len(), before, "a message of an ended session reached the server");
    assert_eq!(gateway.metrics().value("mcp_gateway_sessions_active", &[]), Some(0.0));
}

#[test]
fn a_session_that_its_server_has_forgotten_ends() {
    let forgotten = Arc::new(AtomicBool::new(false));
    let flag = forgotten.clone();
    let fixture = Fixture::legacy(move |_, stream| {
        flag.load(Ordering::SeqCst)
            .then(|| answer(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", After::KeepOpen))
    });
    let gateway = start(&[("one", &[&fixture])]);
    let session = open_session(&mut connect(&gateway), "/mcp/one", LEGACY);
    let mut connections: Vec<Connection> = (0..CONNECTIONS).map(|_| connect(&gateway)).collect();
    for connection in &mut connections {
        assert_eq!(ping(connection, "/mcp/one", &session, 1).status, 200);
    }
    forgotten.store(true, Ordering::SeqCst);
    assert_unknown(&ping(&mut connections[0], "/mcp/one", &session, 1));
    forgotten.store(false, Ordering::SeqCst);
    // The server would answer again, but a session that has ended does not come back.
    for connection in &mut connections {
        assert_unknown(&ping(connection, "/mcp/one", &session, 1));
    }
    open_session(&mut connections[0], "/mcp/one", LEGACY);
}

#[test]
fn a_session_belongs_to_its_server() {
    let (one, two) = (Fixture::legacy(nothing), Fixture::legacy(nothing));
    let gateway = start(&[("one", &[&one]), ("two", &[&two])]);
    let mut connection = connect(&gateway);
    let session = open_session(&mut connection, "/mcp/one", LEGACY);
    assert_unknown(&ping(&mut connection, "/mcp/two", &session, 1));
    let ended = connection.request("DELETE", "/mcp/two", &in_session(&session, LEGACY), b"");
    assert_unknown(&ended.expect("an answer"));
    assert!(two.seen().is_empty(), "another server's session reached the server");
    // Nor is it one of all servers'.
    assert_unknown(&ping(&mut connection, "/mcp", &session, 1));
    assert_eq!(ping(&mut connection, "/mcp/one", &session, 1).status, 200);
}

#[test]
fn what_names_no_session_is_refused() {
    let fixture = Fixture::legacy(nothing);
    let gateway = start(&[("one", &[&fixture])]);
    let mut connection = connect(&gateway);
    let session = open_session(&mut connection, "/mcp/one", LEGACY);
    let mut another = session.clone().into_bytes();
    let last = another.last_mut().expect("an id is not empty");
    *last = if *last == b'0' { b'1' } else { b'0' };
    let another = String::from_utf8(another).expect("ASCII");
    for id in ["x", "", "upstream-1", &another, &format!("{session}0"), &"0".repeat(500)] {
        let answer = ping(&mut connection, "/mcp/one", id, 1);
        assert_unknown(&answer);
    }
    let answer = connection.post("/mcp/one", &[], &request(1, "ping", json!({}))).expect("an answer");
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!(-32600)), "{}", answer.text());
    let answer = connection.request("GET", "/mcp/one", &[("accept", "text/event-stream")], b"");
    assert_eq!(answer.expect("an answer").status, 400);
    assert_eq!(fixture.seen().len(), 1, "a message without a session reached the server");
    // A server that has no stream of its own says so, and the client hears it.
    let mut headers = in_session(&session, LEGACY).to_vec();
    headers.push(("accept", "text/event-stream"));
    assert_eq!(connection.request("GET", "/mcp/one", &headers, b"").expect("an answer").status, 405);
}

#[test]
fn an_initialize_that_fails_opens_no_session() {
    let fixture = Fixture::legacy(|request, stream| {
        let refusal = mcp_system_tests::fixtures::error(&request.json(), -32602, "not today");
        let status = "200 OK\r\nmcp-session-id: upstream-0";
        request.is("POST").then(|| answer_json(stream, status, &refusal))
    });
    let gateway = start(&[("one", &[&fixture])]);
    let answer = connect(&gateway).post("/mcp/one", &[], &initialize(LEGACY)).expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["error"], json!({"code": -32602, "message": "not today"}));
    assert_eq!(answer.header("mcp-session-id"), None);
    assert_eq!(gateway.metrics().value("mcp_gateway_sessions_active", &[]), Some(0.0));
}

#[test]
fn sessions_stay_at_their_endpoint() {
    let fixtures = [Fixture::legacy(nothing), Fixture::legacy(nothing), Fixture::legacy(nothing)];
    let gateway = start(&[("one", &[&fixtures[0], &fixtures[1], &fixtures[2]])]);
    let mut connection = connect(&gateway);
    let sessions: Vec<String> = (0..9).map(|_| open_session(&mut connection, "/mcp/one", LEGACY)).collect();
    let mut connections: Vec<Connection> = (0..8).map(|_| connect(&gateway)).collect();
    for (number, session) in sessions.iter().enumerate() {
        for connection in &mut connections {
            assert_eq!(ping(connection, "/mcp/one", session, number).status, 200);
        }
    }
    let mut total = 0;
    for fixture in &fixtures {
        let mut opened = 0;
        let mut here: Vec<u64> = Vec::new();
        for request in fixture.seen() {
            match request.json()["params"]["number"].as_u64() {
                Some(number) => here.push(number),
                None => opened += 1,
            }
        }
        // One connection is one shard, which takes its endpoints in turn.
        assert_eq!(opened, 3, "sessions are not spread over the endpoints");
        here.dedup();
        assert_eq!(here.len(), opened, "a session's messages went to several endpoints");
        total += here.len();
    }
    assert_eq!(total, sessions.len());
}

#[test]
fn batches_exist_in_2025_03_26_only() {
    let fixture = Fixture::legacy(nothing);
    let gateway = start(&[("one", &[&fixture])]);
    let mut connection = connect(&gateway);
    let batch = json!([request(1, "ping", json!({"a": 1})), request("two", "ping", json!({"b": 2}))]);

    let session = open_session(&mut connection, "/mcp/one", "2025-03-26");
    let in_old = in_session(&session, "2025-03-26");
    let answer = connection.post("/mcp/one", &in_old, &batch).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let expected = json!([
        {"jsonrpc": "2.0", "id": 1, "result": {"a": 1}},
        {"jsonrpc": "2.0", "id": "two", "result": {"b": 2}},
    ]);
    assert_eq!(answer.json(), expected);
    // basic/lifecycle of that revision: the initialize request must not be part of a batch.
    let with_initialize = json!([initialize("2025-03-26"), request(2, "ping", json!({}))]);
    for headers in [&in_old[..], &[]] {
        assert_refused(&connection.post("/mcp/one", headers, &with_initialize).expect("an answer"));
    }
    assert_refused(&connection.post("/mcp/one", &in_old, &json!([])).expect("an answer"));
    assert_refused(&connection.post("/mcp/one", &[], &batch).expect("an answer"));

    for revision in ["2025-06-18", "2025-11-25"] {
        let session = open_session(&mut connection, "/mcp/one", revision);
        let headers = in_session(&session, revision);
        assert_refused(&connection.post("/mcp/one", &headers, &batch).expect("an answer"));
        assert_eq!(ping(&mut connection, "/mcp/one", &session, 1).status, 200);
    }
    let batches = fixture.seen().iter().filter(|request| request.json().is_array()).count();
    assert_eq!(batches, 1, "a refused batch reached the server");
}

fn start(servers: &[(&str, &[&Fixture])]) -> Gateway {
    let mut config = GatewayConfig::new().env("MCP_GATEWAY__RUNTIME__SHARDS", "4");
    for (name, fixtures) in servers {
        let urls: Vec<String> = fixtures.iter().map(|fixture| fixture.url()).collect();
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        config = config.server(name, &urls);
    }
    Gateway::start(&config)
}

fn connect(gateway: &Gateway) -> Connection {
    gateway.connect().expect("a connection")
}

fn ping(connection: &mut Connection, path: &str, session: &str, number: usize) -> Response {
    let message = request(number, "ping", json!({"number": number}));
    post_in_session(connection, path, session, &message).expect("an answer")
}

/// What the official SDKs know as the end of a session.
fn assert_unknown(answer: &Response) {
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &json!(-32001)), "{}", answer.text());
}

fn assert_refused(answer: &Response) {
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!(-32600)), "{}", answer.text());
    assert_eq!(answer.json()["id"], Value::Null, "{}", answer.text());
}
