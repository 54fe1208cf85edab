//! Setup: `mcp-gateway connect` over `mcpb://` and `wss://`, for some claims also over `https://`, with a client that writes lines, towards gateways with a server that behaves and,
//! for single requests, does not.
//! Claim: what holds over HTTP holds over one connection for everything: it is kept alive, and is replaced when it breaks or the
//! gateway shuts down; the session goes on, or the client's handshake is said again by itself, with what the client had set; the
//! session ends when the client leaves.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mcp_system_tests::connect::{Bridge, command, first_times, seen, to};
use mcp_system_tests::fixtures::{Fixture, error, nothing, response};
use mcp_system_tests::mcp::modern;
use mcp_system_tests::port::free_port;
use mcp_system_tests::redis::{Redis, RedisOptions};
use mcp_system_tests::upstream::{After, UpstreamRequest, answer, answer_json};
use mcp_system_tests::{Gateway, GatewayConfig, TempDir, TestCert, eventually};
use serde_json::{Value, json};

/// After this a message that nobody has seen is held back by the bridge.
const HELD_BACK: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(30);

/// Gateways that prove to be the same one, at one port, in front of this server.
fn same_gateways(server: &Fixture, cert: &TestCert, port: u16) -> GatewayConfig {
    GatewayConfig::new()
        .server("peer", &[&server.url()])
        .binary_port(port)
        .showing(&cert.cert_file, &cert.key_file)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Http,
    WebSocket,
    Mcpb,
}

fn connect_to(door: Door, gateway: &Gateway, cert: &TestCert, port: u16) -> Bridge {
    let ca_file = cert.ca_file.display().to_string();
    let url = match door {
        Door::Http => gateway.url("peer"),
        Door::WebSocket => gateway.socket_url("peer"),
        Door::Mcpb => format!("mcpb://127.0.0.1:{port}"),
    };
    Bridge::start(&to(&url, &["--ca-file", &ca_file]))
}

#[test]
fn a_gateway_that_is_killed_and_comes_back_is_found_over_mcpb() {
    killed_and_back(Door::Mcpb);
}

#[test]
fn a_gateway_that_is_killed_and_comes_back_is_found_over_a_socket() {
    killed_and_back(Door::WebSocket);
}

#[test]
fn a_gateway_that_shuts_down_loses_nothing_over_mcpb() {
    shut_down_and_back(Door::Mcpb);
}

#[test]
fn a_gateway_that_shuts_down_loses_nothing_over_a_socket() {
    shut_down_and_back(Door::WebSocket);
}

#[test]
fn a_session_that_ended_is_opened_again_over_mcpb() {
    session_ended(Door::Mcpb);
}

#[test]
fn a_session_that_ended_is_opened_again_over_a_socket() {
    session_ended(Door::WebSocket);
}

#[test]
fn the_session_ends_with_the_client_over_mcpb() {
    ends_with_the_client(Door::Mcpb);
}

#[test]
fn the_session_ends_with_the_client_over_a_socket() {
    ends_with_the_client(Door::WebSocket);
}

#[test]
fn what_the_client_had_set_is_set_again_over_http() {
    set_again(Door::Http);
}

#[test]
fn what_the_client_had_set_is_set_again_over_mcpb() {
    set_again(Door::Mcpb);
}

#[test]
fn what_the_client_had_set_is_set_again_over_a_socket() {
    set_again(Door::WebSocket);
}

fn ends_with_the_client(door: Door) {
    let server = Fixture::legacy(nothing);
    let (dir, port) = (TempDir::new(), free_port());
    let cert = TestCert::generate(&dir);
    let gateway = Gateway::start_unready(&same_gateways(&server, &cert, port));
    let sessions = |expected: f64| {
        eventually("the gateway's sessions", LIMIT, || {
            (gateway.metrics().count("mcp_gateway_sessions_active", &[]) == expected).then_some(())
        });
    };
    for (number, by_signal) in [(1, false), (2, true)] {
        let mut bridge = connect_to(door, &gateway, &cert, port);
        bridge.initialize();
        bridge.call(1, "any", json!({}));
        assert_eq!(bridge.answer(1)["result"]["name"], "any");
        sessions(1.0);
        if by_signal {
            bridge.signal(libc::SIGTERM);
        } else {
            bridge.close_input();
        }
        assert_eq!(bridge.finish(LIMIT).code(), Some(0));
        sessions(0.0);
        let id = format!("upstream-{number}");
        eventually("the server hears of it", LIMIT, || {
            let seen = server.seen();
            let ended = |r: &UpstreamRequest| r.is("DELETE") && r.header("mcp-session-id") == Some(&id);
            seen.iter().any(ended).then_some(())
        });
    }
    // Without a session there is nothing to end, and without a gateway nobody to tell.
    let mut bridge = connect_to(door, &gateway, &cert, port);
    bridge.close_input();
    assert_eq!(bridge.finish(LIMIT).code(), Some(0));
    let mut bridge = connect_to(door, &gateway, &cert, port);
    bridge.initialize();
    drop(gateway);
    bridge.close_input();
    assert_eq!(bridge.finish(LIMIT).code(), Some(0));
}

fn set_again(door: Door) {
    let server = Fixture::legacy(|request: &UpstreamRequest, stream: &mut TcpStream| {
        let message = request.json();
        let is_bad = message["params"]["uri"] == "file:///bad" || message["params"]["level"] == "bad";
        is_bad.then(|| answer_json(stream, "200 OK", &error(&message, -32602, "there is no such thing")))
    });
    let (dir, port) = (TempDir::new(), free_port());
    let cert = TestCert::generate(&dir);
    let config = same_gateways(&server, &cert, port);
    let first = Gateway::start_unready(&config);
    let mut bridge = connect_to(door, &first, &cert, port);
    bridge.initialize();
    for (id, (method, params)) in (1..).zip([
        ("logging/setLevel", json!({"level": "debug"})),
        ("resources/subscribe", json!({"uri": "file:///a"})),
        ("resources/subscribe", json!({"uri": "file:///b"})),
        ("resources/subscribe", json!({"uri": "file:///bad"})),
        ("logging/setLevel", json!({"level": "warning"})),
        ("logging/setLevel", json!({"level": "bad"})),
        ("resources/unsubscribe", json!({"uri": "file:///a"})),
        ("resources/subscribe", json!({"uri": "file:///c"})),
    ]) {
        bridge.request(id, method, params);
        bridge.answer(id);
    }
    // Its sessions are gone with it.
    drop(first);
    let second = Gateway::start_unready(&config);
    bridge.request(100, "tools/list", json!({}));
    assert_eq!(bridge.answer(100)["result"], json!({}));
    let set = eventually("all is set again", LIMIT, || {
        let in_second = |r: &UpstreamRequest| r.header("mcp-session-id") == Some("upstream-2");
        let seen: Vec<Value> =
            server.seen().iter().filter(|r| in_second(r)).map(UpstreamRequest::json).collect();
        let is_setting = |m: &&Value| {
            ["logging/setLevel", "resources/subscribe", "resources/unsubscribe"]
                .iter()
                .any(|known| m["method"] == **known)
        };
        let mut set: Vec<_> =
            seen.iter().filter(is_setting).map(|m| (m["method"].clone(), m["params"].clone())).collect();
        set.sort_by_key(|(method, params)| format!("{method}{params}"));
        (set.len() >= 3).then_some(set)
    });
    let expected = [
        ("logging/setLevel", json!({"level": "warning"})),
        ("resources/subscribe", json!({"uri": "file:///b"})),
        ("resources/subscribe", json!({"uri": "file:///c"})),
    ];
    assert_eq!(set, expected.map(|(method, params)| (json!(method), params)));
    bridge.close_input();
    assert_eq!(bridge.rest(), Vec::<Value>::new(), "the client sees nothing of it");
    drop(second);
}

fn killed_and_back(door: Door) {
    let server = Fixture::legacy(|request: &UpstreamRequest, _: &mut TcpStream| {
        let message = request.json();
        let is_first = request.header("mcp-session-id") == Some("upstream-1");
        if message["params"]["name"] != "slow" && !(is_first && message["method"] == "tools/list") {
            return None;
        }
        std::thread::park_timeout(LIMIT);
        Some(After::Close)
    });
    let (dir, port) = (TempDir::new(), free_port());
    let cert = TestCert::generate(&dir);
    let config = same_gateways(&server, &cert, port);
    let first = Gateway::start_unready(&config);
    // The gateway is not up yet: `initialize` waits for it.
    let mut bridge = connect_to(door, &first, &cert, port);
    bridge.initialize();
    bridge.call(1, "slow", json!({}));
    bridge.request(2, "tools/list", json!({"cursor": "c"}));
    eventually("both are at the server", LIMIT, || {
        (seen(&server, "tools/call") == 1 && seen(&server, "tools/list") == 1).then_some(())
    });
    drop(first);
    let lost = bridge.answer(1);
    assert_eq!(lost["error"]["data"]["retryable"], true, "{lost}");
    bridge.call(3, "quick", json!({}));
    let second = Gateway::start_unready(&config);
    assert_eq!(bridge.answer(2)["result"]["cursor"], "c", "what only reads is sent again");
    assert_eq!(bridge.answer(3)["result"]["name"], "quick");
    assert_eq!((seen(&server, "tools/call"), seen(&server, "initialize")), (2, 2));
    bridge.close_input();
    assert_eq!(bridge.rest(), Vec::<Value>::new(), "the client sees nothing of the second handshake");
    assert_eq!(bridge.finish(LIMIT).code(), Some(0));
    drop(second);
}

fn shut_down_and_back(door: Door) {
    let released = Arc::new(AtomicBool::new(false));
    let awaited = released.clone();
    let server = Fixture::legacy(first_times(1, "tools/call", move |request, stream| {
        eventually("the shutdown", LIMIT, || awaited.load(Ordering::SeqCst).then_some(()));
        answer_json(stream, "200 OK", &response(&request.json(), json!({"late": true})))
    }));
    let (dir, port) = (TempDir::new(), free_port());
    let cert = TestCert::generate(&dir);
    let config = same_gateways(&server, &cert, port);
    let mut first = Gateway::start_unready(&config);
    let mut bridge = connect_to(door, &first, &cert, port);
    bridge.initialize();
    bridge.call(1, "slow", json!({}));
    eventually("the call is at the server", LIMIT, || (seen(&server, "tools/call") == 1).then_some(()));
    first.process.signal(libc::SIGTERM);
    first.process.wait_line(LIMIT, |line| line.contains("draining").then_some(()));
    // It may come before the gateway's word, or after it, or cross a socket's goodbye: then it is for the next gateway. Over MCPB
    // one that crosses has an outcome that nobody knows, so there the goodbye, which comes with the first answer, waits for it.
    bridge.call(2, "next", json!({}));
    let is_refused =
        || first.metrics().count("mcp_gateway_routing_errors_total", &[("reason", "draining")]) > 0.0;
    let by = Instant::now() + HELD_BACK;
    while door == Door::Mcpb && Instant::now() < by && seen(&server, "tools/call") < 2 && !is_refused() {
        std::thread::park_timeout(Duration::from_millis(10));
    }
    released.store(true, Ordering::SeqCst);
    assert_eq!(bridge.answer(1)["result"]["late"], true);
    let Gateway { process, .. } = first;
    assert_eq!(process.finish(LIMIT).status.code(), Some(0));
    let second = Gateway::start_unready(&config);
    assert_eq!(bridge.answer(2)["result"]["name"], "next");
    assert_eq!(seen(&server, "tools/call"), 2);
    eventually("the session is open at the next gateway", LIMIT, || {
        (seen(&server, "initialize") == 2).then_some(())
    });
    drop(second);
}

#[test]
fn an_idle_connection_is_kept_and_the_token_goes_with_each_era() {
    let legacy = Fixture::legacy(nothing);
    let port = free_port();
    let config = GatewayConfig::new().set("gateway.server", "read_timeout = \"1s\"").binary_port(port);
    let gateway = Gateway::start(&config.server("peer", &[&legacy.url()]));
    let dir = TempDir::new();
    let token = dir.write("token", "s3cret").display().to_string();
    let url = format!("mcpb://127.0.0.1:{port}");
    let mut bridge = Bridge::start(&command(&gateway, &url, &["--token-file", &token]));
    bridge.initialize();
    let probes = [("type", "health_check"), ("direction", "in")];
    eventually("probes are answered", LIMIT, || {
        (gateway.metrics().count("mcp_gateway_tcp_messages_total", &probes) >= 2.0).then_some(())
    });
    bridge.call(1, "any", json!({}));
    assert_eq!(bridge.answer(1)["result"]["name"], "any");
    assert_eq!(seen(&legacy, "initialize"), 1, "it is still the first connection");
    assert!(legacy.seen().iter().all(|request| request.header("authorization") == Some("Bearer s3cret")));
    assert!(legacy.seen().iter().all(|request| !request.json().to_string().contains("s3cret")));
    bridge.send(&json!([{"jsonrpc": "2.0", "id": 2, "method": "ping"}]));
    assert_eq!(bridge.answer(2)["error"]["code"], -32600, "there are no batches");

    let server = Fixture::modern(json!([]), nothing);
    let port = free_port();
    let gateway = Gateway::start(&GatewayConfig::new().binary_port(port).server("peer", &[&server.url()]));
    let url = format!("mcpb://127.0.0.1:{port}");
    let mut bridge = Bridge::start(&command(&gateway, &url, &["--token-file", &token]));
    bridge.send(&modern(1, "tools/call", json!({"name": "any", "arguments": {}})));
    assert_eq!(bridge.answer(1)["result"]["name"], "any");
    assert!(server.seen().iter().all(|request| request.header("authorization") == Some("Bearer s3cret")));
}

#[test]
fn a_session_goes_on_over_the_next_socket_and_a_refused_upgrade_is_told_at_once() {
    let redis = Redis::start(&RedisOptions::new());
    let server = Fixture::legacy(nothing);
    let (dir, port) = (TempDir::new(), free_port());
    let cert = TestCert::generate(&dir);
    let config = same_gateways(&server, &cert, port).store(&redis);
    let first = Gateway::start_unready(&config);
    let mut bridge = connect_to(Door::WebSocket, &first, &cert, port);
    bridge.initialize();
    bridge.call(1, "one", json!({}));
    assert_eq!(bridge.answer(1)["result"]["name"], "one");
    drop(first);
    let second = Gateway::start_unready(&config);
    // A killed process's sockets may close later than it is gone: what only reads is answered all the same.
    bridge.request(2, "tools/list", json!({"cursor": "two"}));
    let answer = bridge.answer(2);
    assert_eq!(answer["result"]["cursor"], "two", "{answer}");
    assert_eq!(seen(&server, "initialize"), 1, "the session outlived the gateway");
    let id = eventually("the session's key", LIMIT, || {
        server.seen().last()?.header("mcp-session-id").map(str::to_owned)
    });
    assert_eq!(id, "upstream-1");
    drop(bridge);

    let ca_file = cert.ca_file.display().to_string();
    let mut bridge = Bridge::start(&to(&second.socket_url("nobody"), &["--ca-file", &ca_file]));
    bridge.request(1, "initialize", json!({"protocolVersion": "2025-11-25"}));
    let refused = bridge.answer(1);
    assert!(refused["error"]["message"].as_str().is_some_and(|text| text.contains("404")), "{refused}");
    assert!(refused["error"].get("data").is_none(), "trying again does not help: {refused}");
}

fn session_ended(door: Door) {
    let ended = Arc::new(AtomicBool::new(false));
    let has_ended = ended.clone();
    let server = Fixture::legacy(move |request: &UpstreamRequest, stream: &mut TcpStream| {
        let is_of_first = request.header("mcp-session-id") == Some("upstream-1");
        let gone = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        (is_of_first && has_ended.load(Ordering::SeqCst)).then(|| answer(stream, gone, After::KeepOpen))
    });
    let (dir, port) = (TempDir::new(), free_port());
    let cert = TestCert::generate(&dir);
    let gateway = Gateway::start_unready(&same_gateways(&server, &cert, port));
    let mut bridge = connect_to(door, &gateway, &cert, port);
    bridge.initialize();
    bridge.call(1, "one", json!({}));
    assert_eq!(bridge.answer(1)["result"]["name"], "one");
    ended.store(true, Ordering::SeqCst);
    // A call is sent again, too: the refusal says that nothing was done.
    bridge.call(2, "two", json!({}));
    assert_eq!(bridge.answer(2)["result"]["name"], "two");
    assert_eq!((seen(&server, "initialize"), seen(&server, "notifications/initialized")), (2, 2));
    bridge.close_input();
    assert_eq!(bridge.rest(), Vec::<Value>::new(), "the client sees nothing of it");
}
