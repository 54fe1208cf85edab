//! Setup: clients of HTTP with SSE (2024-11-05) before a server of Streamable HTTP; messages over many connections, which the
//! kernel spreads over four shards.
//! Claim: answers and what a server says by itself arrive on the stream, whichever shard a message came to; order is kept
//! where it matters; a stream's end is its session's end, here and at the server; what is malformed is refused as is told.

use std::time::Duration;

use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::mcp::{LEGACY, in_session, open_session, request};
use mcp_system_tests::sse::{Stream, post, post_with};
use mcp_system_tests::upstream::{After, answer};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const OLDEST: &str = "2024-11-05";
/// Enough connections that a shard without any is not to be expected (4 × 0.75⁴⁰ < 0.0001).
const CONNECTIONS: usize = 40;

#[test]
fn messages_reach_the_stream_from_every_shard() {
    let fixture = Fixture::legacy(nothing);
    let gateway = start(&fixture);
    let mut stream = open(&gateway);
    assert!(stream.endpoint.starts_with("/sse/one?sessionId="), "{}", stream.endpoint);
    stream.initialize(&mut connect(&gateway), OLDEST);
    let mut connections: Vec<Connection> = (0..CONNECTIONS).map(|_| connect(&gateway)).collect();
    for (number, connection) in connections.iter_mut().enumerate() {
        let answer = stream.ping(connection, number);
        assert_eq!((answer.status, answer.text().as_str()), (202, ""));
        let message = stream.message();
        assert_eq!((&message["id"], &message["result"]["number"]), (&json!(number), &json!(number)));
    }
    let seen = fixture.seen();
    let of_session =
        |header| seen.iter().filter(|request| request.header("mcp-session-id") == header).count();
    assert_eq!((of_session(Some("upstream-1")), of_session(None)), (seen.len() - 1, 1));
    // That revision knew no such field.
    assert!(seen.iter().all(|request| request.header("mcp-protocol-version").is_none()));

    let metrics = gateway.metrics();
    let forwarded = |direction| {
        let labels = [("direction", direction), ("result", "accepted")];
        metrics.count("mcp_gateway_peer_messages_total", &labels)
    };
    assert!(forwarded("out") > 0.0, "no connection was another shard's");
    assert_eq!(forwarded("out"), forwarded("in"));
    assert!(metrics.count("mcp_gateway_peer_connections", &[("peer_kind", "shard")]) > 0.0);
    let labels = [("protocol", "sse"), ("method", "ping"), ("status", "200")];
    assert_eq!(metrics.count("mcp_gateway_requests_total", &labels), CONNECTIONS as f64);
}

#[test]
fn a_stream_s_end_is_its_session_s_end() {
    let fixture = Fixture::legacy(nothing);
    let gateway = start(&fixture);
    let mut stream = open(&gateway);
    let mut connections: Vec<Connection> = (0..CONNECTIONS).map(|_| connect(&gateway)).collect();
    stream.initialize(&mut connections[0], LEGACY);
    let endpoint = stream.endpoint.clone();
    let streams = || gateway.metrics().value("mcp_gateway_connections_active", &[("protocol", "sse")]);
    assert_eq!(gateway.metrics().value("mcp_gateway_sessions_active", &[]), Some(1.0));
    assert_eq!(streams(), Some(1.0));
    drop(stream);
    eventually("the server was told", LIMIT, || {
        fixture.seen().iter().find(|request| request.is("DELETE")).map(|request| {
            assert_eq!(request.header("mcp-session-id"), Some("upstream-1"));
            assert_eq!(request.header("mcp-protocol-version"), Some(LEGACY));
        })
    });
    for connection in &mut connections {
        assert_refused(&post(connection, &endpoint, &request(1, "ping", json!({}))), 404, "session_unknown");
    }
    assert_eq!(gateway.metrics().value("mcp_gateway_sessions_active", &[]), Some(0.0));
    assert_eq!(streams(), Some(0.0));
}

#[test]
fn what_a_server_says_by_itself_arrives() {
    let fixture = Fixture::legacy(|request, stream| {
        request.is("GET").then(|| {
            assert_eq!(request.header("mcp-session-id"), Some("upstream-1"));
            assert_eq!(request.header("authorization"), Some("Bearer token"));
            assert_eq!(request.header("x-tenant"), Some("a"));
            let events = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: hi\n\nevent: message\n\
                          data: {\"jsonrpc\":\"2.0\",\ndata: \"method\":\"notifications/message\"}\n\n";
            answer(stream, events, After::Close)
        })
    });
    let gateway = start(&fixture);
    let headers = [("authorization", "Bearer token"), ("x-tenant", "a")];
    let mut stream = Stream::open_with(connect(&gateway), "/sse/one", &headers).expect("a stream");
    let mut connection = connect(&gateway);
    for message in [
        mcp_system_tests::mcp::initialize("2025-06-18"),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
    ] {
        assert_eq!(post_with(&mut connection, &stream.endpoint, &headers, &message).status, 202);
    }
    assert_eq!(stream.message()["result"]["protocolVersion"], "2025-06-18");
    assert_eq!(stream.message(), json!({"jsonrpc": "2.0", "method": "notifications/message"}));
    // It ended, and is opened again.
    assert_eq!(stream.message(), json!({"jsonrpc": "2.0", "method": "notifications/message"}));
}

#[test]
fn nothing_overtakes_the_handshake() {
    let fixture = Fixture::legacy(|request, _| {
        // Slow enough that whoever may overtake does.
        if matches!(request.json()["method"].as_str(), Some("initialize" | "notifications/initialized")) {
            std::thread::sleep(Duration::from_millis(100));
        }
        None
    });
    let gateway = start(&fixture);
    let mut stream = open(&gateway);
    let mut connection = connect(&gateway);
    for message in [
        mcp_system_tests::mcp::initialize(LEGACY),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        request(2, "ping", json!({})),
    ] {
        assert_eq!(post(&mut connection, &stream.endpoint, &message).status, 202);
    }
    assert_eq!(stream.message()["id"], 1);
    assert_eq!(stream.message()["id"], 2);
    let methods: Vec<Value> = fixture.seen().iter().map(|request| request.json()["method"].clone()).collect();
    let of_messages: Vec<_> = methods.iter().filter_map(Value::as_str).collect();
    assert_eq!(of_messages, ["initialize", "notifications/initialized", "ping"]);
}

#[test]
fn an_initialize_that_fails_can_be_tried_again() {
    let refusing = std::sync::atomic::AtomicBool::new(true);
    let fixture = Fixture::legacy(move |request, stream| {
        (request.json()["method"] == "initialize"
            && refusing.swap(false, std::sync::atomic::Ordering::SeqCst))
        .then(|| {
            let refused = mcp_system_tests::fixtures::error(&request.json(), -32602, "not today");
            mcp_system_tests::upstream::answer_json(stream, "200 OK", &refused)
        })
    });
    let gateway = start(&fixture);
    let mut stream = open(&gateway);
    let mut connection = connect(&gateway);
    post(&mut connection, &stream.endpoint, &mcp_system_tests::mcp::initialize(LEGACY));
    assert_eq!(stream.message()["error"]["message"], "not today");
    stream.initialize(&mut connection, LEGACY);
}

#[test]
fn a_session_that_its_server_has_forgotten_ends_the_stream() {
    let fixture = Fixture::legacy(|request, stream| {
        let text = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        (request.json()["method"] == "ping").then(|| answer(stream, text, After::KeepOpen))
    });
    let gateway = start(&fixture);
    let mut stream = open(&gateway);
    let mut connection = connect(&gateway);
    stream.initialize(&mut connection, LEGACY);
    assert_eq!(stream.ping(&mut connection, 7).status, 202);
    assert_eq!(stream.message()["error"]["code"], -32001);
    assert_eq!(stream.events.next_event().expect("the stream ends in order"), None);
    assert_refused(&stream.ping(&mut connection, 8), 404, "session_unknown");
}

#[test]
fn posts_for_no_stream_are_refused() {
    let fixture = Fixture::legacy(nothing);
    let gateway = start(&fixture);
    let mut stream = Stream::open_with(connect(&gateway), "/sse/one", &[("authorization", "Basic YTp4")])
        .expect("a stream");
    let own = stream.endpoint.clone();
    let id = own.split_once("sessionId=").expect("an id").1.to_owned();
    let mut last = id.clone();
    last.replace_range(3..4, if id[3..4] == *"A" { "B" } else { "A" });
    let over_http = open_session(&mut connect(&gateway), "/mcp/one", LEGACY);
    let ping = request(1, "ping", json!({})).to_string();
    let json = ("content-type", "application/json");
    let alice = ("authorization", "Basic YTp4");
    let bob = ("authorization", "Basic Yjp4");
    let cases: Vec<Case<'_>> = vec![
        ("POST", "/sse/one", vec![json], &ping, 400, "sessionId is required"),
        ("POST", "/sse/one?sessionid=x", vec![json], &ping, 400, "sessionId is required"),
        ("POST", "/sse/one?sessionId=", vec![json], &ping, 404, "Session not found"),
        ("POST", "/sse/one?sessionId=%20", vec![json], &ping, 404, "Session not found"),
        ("POST", &own, vec![json], &ping, 404, "Session not found"),
        ("POST", &own, vec![json, bob], &ping, 404, "Session not found"),
        ("POST", &own, vec![alice], &ping, 415, "application/json"),
        ("POST", &own, vec![("content-type", "text/plain"), alice], &ping, 415, "application/json"),
        ("POST", &own, vec![json, alice, ("content-encoding", "gzip")], &ping, 415, "encoded"),
        ("POST", &own, vec![json, alice, ("origin", "https://evil.example")], &ping, 403, "Origin"),
        ("POST", &own, vec![json, alice], "", 400, ""),
        ("GET", "/sse/none", vec![], "", 404, "no server"),
        ("GET", "/ssex", vec![], "", 404, "nothing is served"),
        ("GET", "/sse/one", vec![("accept", "application/json")], "", 406, "text/event-stream"),
        ("GET", "/sse/one", vec![("origin", "https://evil.example")], "", 403, "Origin"),
        ("GET", "/sse/one", vec![], "x", 413, ""),
        ("DELETE", &own, vec![alice], "", 405, "GET, POST"),
        ("PUT", &own, vec![json, alice], &ping, 405, "GET, POST"),
    ];
    for (method, path, headers, body, status, text) in cases {
        let answer = connect(&gateway).request(method, path, &headers, body.as_bytes()).expect("an answer");
        assert_eq!(answer.status, status, "{method} {path} {headers:?} {body}: {}", answer.text());
        assert!(answer.text().contains(text), "{method} {path} {headers:?} {body}: {}", answer.text());
    }
    // One that differs in a character, and one of Streamable HTTP, which has no stream.
    for id in [&last, &over_http] {
        let path = format!("/sse/one?sessionId={id}");
        assert_refused(
            &post_with(&mut connect(&gateway), &path, &[alice], &request(1, "ping", json!({}))),
            404,
            "",
        );
    }
    // Nor is a stream's session one of Streamable HTTP.
    let mut headers = in_session(&id, LEGACY).to_vec();
    headers.push(alice);
    let answer =
        connect(&gateway).post("/mcp/one", &headers, &request(1, "ping", json!({}))).expect("an answer");
    assert_eq!(answer.status, 404);
    // None of that has touched the stream; the first server has no name in its path; nothing need be accepted by name.
    let initialize = mcp_system_tests::mcp::initialize(OLDEST);
    assert_eq!(post_with(&mut connect(&gateway), &own, &[alice], &initialize).status, 202);
    assert_eq!(stream.message()["id"], 1);
    let mut bare = connect(&gateway);
    bare.send_request("GET", "/sse?x=y", &[], b"").expect("sent");
    let first = bare.into_events().expect("a stream").next_event().expect("read").expect("an event");
    assert!(first.data.starts_with("/sse?sessionId="), "{first:?}");
}

#[test]
fn a_page_elsewhere_may_use_it_where_that_is_allowed() {
    let fixture = Fixture::legacy(nothing);
    let origin = ("origin", "https://app.example.com");
    let gateway = Gateway::start(
        &config(&fixture).set("gateway.server", "allowed_origins = [\"https://app.example.com\"]"),
    );
    let preflight = connect(&gateway).request("OPTIONS", "/sse/one", &[origin], b"").expect("an answer");
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, Some(origin.1)));
    let stream = Stream::open_with(connect(&gateway), "/sse/one", &[origin]).expect("a stream");
    assert_eq!(stream.events.head.header("access-control-allow-origin"), Some(origin.1));
    assert_eq!(stream.events.head.header("x-accel-buffering"), Some("no"));
    assert!(stream.events.head.header("cache-control").is_some_and(|value| value.contains("no-cache")));
}

/// Method, path, header fields, body; the status and a part of the answer.
type Case<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>, &'a str, u16, &'a str);

fn config(fixture: &Fixture) -> GatewayConfig {
    GatewayConfig::new().env("MCP_GATEWAY__RUNTIME__SHARDS", "4").server("one", &[&fixture.url()])
}

fn start(fixture: &Fixture) -> Gateway {
    Gateway::start(&config(fixture))
}

fn connect(gateway: &Gateway) -> Connection {
    gateway.connect().expect("a connection")
}

fn open(gateway: &Gateway) -> Stream {
    Stream::open(connect(gateway), "/sse/one").expect("a stream")
}

fn assert_refused(answer: &mcp_system_tests::Response, status: u16, reason: &str) {
    assert_eq!(answer.status, status, "{reason}: {}", answer.text());
    assert!(answer.json()["error"]["code"].is_i64(), "{}", answer.text());
}
