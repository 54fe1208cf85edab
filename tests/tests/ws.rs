//! Setup: a WebSocket client that shares no code with the gateway, in front of real and scripted servers.
//! Claim: one message per text message, both ways; a session for the life of the socket and its time to live, resumed by its
//! id; what a server says by itself arrives; upgrades that are none are refused with the status that RFC 6455 names.

use std::time::Duration;

use mcp_system_tests::fixtures::initialized;
use mcp_system_tests::mcp::{LEGACY, initialize, modern_call, open_session, post_in_session, request};
use mcp_system_tests::peers::Server;
use mcp_system_tests::redis::pods::Pods;
use mcp_system_tests::redis::{Redis, RedisOptions};
use mcp_system_tests::upstream::{After, ScriptedUpstream, answer, answer_json};
use mcp_system_tests::ws::{CLOSE, Frame, PING, PONG, Socket, TEXT, UPGRADE};
use mcp_system_tests::{Gateway, GatewayConfig, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

/// A socket with a session, its handshake with the server done; and the session's id.
fn log_in(gateway: &Gateway) -> (Socket, String) {
    let mut socket = Socket::open(gateway, "/ws/peer", &[("sec-websocket-protocol", "mcp")]);
    let opened = socket.ask(&initialize(LEGACY));
    assert_eq!(opened["result"]["protocolVersion"], LEGACY, "{opened}");
    let id = opened["result"]["_meta"]["mcp-gateway/sessionId"].as_str().expect("a session id").to_owned();
    socket.send_json(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    (socket, id)
}

fn before(server: &str) -> GatewayConfig {
    GatewayConfig::new().server("peer", &[server])
}

fn call(id: impl Into<Value>, tool: &str, arguments: &Value) -> Value {
    request(id, "tools/call", json!({"name": tool, "arguments": arguments}))
}

#[test]
fn a_session_is_opened_used_and_resumed() {
    let server = Server::everything();
    let gateway = Gateway::start(&before(&server.url));
    let (mut socket, id) = log_in(&gateway);
    assert_eq!(socket.head.header("sec-websocket-protocol"), Some("mcp"));
    assert_eq!(socket.head.header("mcp-session-id"), None);
    assert_eq!(id.len(), 24);
    let echo = socket.ask(&call("é", "echo", &json!({"message": "grüß"})));
    assert_eq!(echo["result"]["content"][0]["text"], "Echo: grüß", "{echo}");
    // Fragments, with a ping between them.
    let text = call(7, "echo", &json!({"message": "pieces"})).to_string();
    let (head, tail) = text.as_bytes().split_at(20);
    socket.send(0x01, head);
    socket.send(PING, b"there?");
    socket.send(0x00, b"");
    socket.send(0x80, tail);
    let pong = loop {
        let frame = socket.receive();
        if frame.first != TEXT {
            break frame;
        }
    };
    assert_eq!(pong, Frame { first: PONG, payload: b"there?".to_vec() });
    let echo = loop {
        let message = socket.message();
        if message["id"] == 7 {
            break message;
        }
    };
    assert_eq!(echo["result"]["content"][0]["text"], "Echo: pieces");
    // The client's own goodbye comes back.
    socket.send(CLOSE, b"\x03\xe8");
    assert_eq!(socket.expect_close(), (1000, String::new()));

    let mut socket = Socket::open(&gateway, "/ws/peer", &[("mcp-session-id", &id)]);
    assert_eq!(socket.head.header("mcp-session-id"), Some(id.as_str()));
    let echo = socket.ask(&call(8, "echo", &json!({"message": "again"})));
    assert_eq!(echo["result"]["content"][0]["text"], "Echo: again", "{echo}");
    let metrics = gateway.metrics();
    assert_eq!(metrics.count("mcp_gateway_ws_closes_total", &[("reason", "client")]), 1.0);
    let calls = [("method", "tools/call"), ("status", "200"), ("protocol", "ws"), ("server", "peer")];
    assert_eq!(metrics.count("mcp_gateway_requests_total", &calls), 3.0);
    assert_eq!(metrics.count("mcp_gateway_connections_active", &[("protocol", "ws")]), 1.0);

    // The goodbye that ends the session, too.
    assert_eq!(metrics.count("mcp_gateway_sessions_active", &[]), 1.0);
    socket.send(CLOSE, &4000_u16.to_be_bytes());
    assert_eq!(socket.expect_close(), (4000, String::new()));
    eventually("the session has ended", LIMIT, || {
        (gateway.metrics().count("mcp_gateway_sessions_active", &[]) == 0.0).then_some(())
    });
    let named = [&UPGRADE[..], &[("mcp-session-id", &*id)]].concat();
    let mut connection = gateway.connect().expect("a connection");
    assert_eq!(connection.request("GET", "/ws/peer", &named, b"").expect("an answer").status, 404);
}

#[test]
fn upgrades_that_are_none_are_refused() {
    let server = ScriptedUpstream::start(|_, stream| answer_json(stream, "200 OK", &json!({})));
    let gateway = Gateway::start(&before(&server.url()));
    let with = |name: &'static str, value: &'static str| {
        let mut headers: Vec<_> = UPGRADE.into_iter().filter(|(field, _)| *field != name).collect();
        if !value.is_empty() {
            headers.push((name, value));
        }
        headers
    };
    let cases = [
        ("GET", "/ws", vec![], 426),
        ("GET", "/ws", with("upgrade", "h2c"), 426),
        ("GET", "/ws", with("connection", "keep-alive"), 426),
        ("GET", "/ws", with("sec-websocket-version", "12"), 426),
        ("GET", "/ws", with("sec-websocket-version", ""), 426),
        ("GET", "/ws", with("sec-websocket-key", ""), 400),
        ("GET", "/ws", with("sec-websocket-key", "short"), 400),
        ("GET", "/ws", with("sec-websocket-protocol", "graphql-ws"), 400),
        ("POST", "/ws", with("x", ""), 405),
        ("OPTIONS", "/ws/peer", with("x", ""), 405),
        ("GET", "/ws/nobody", with("x", ""), 404),
        ("GET", "/wsx", with("x", ""), 404),
        ("GET", "/ws", with("origin", "https://evil.example"), 403),
        ("GET", "/ws", with("origin", "null"), 403),
        ("GET", "/ws", with("mcp-session-id", "no session"), 404),
        ("GET", "/ws", with("mcp-session-id", "AAAAAAAAAAAAAAAAAAAAAAAA"), 404),
        ("HEAD", "/mcp", with("x", ""), 405),
    ];
    for (method, path, headers, status) in cases {
        let mut connection = gateway.connect().expect("a connection");
        let found = connection.request(method, path, &headers, b"").expect("an answer");
        assert_eq!(found.status, status, "{method} {path} {headers:?}: {}", found.text());
        assert_eq!(found.header("upgrade"), (status == 426).then_some("websocket"), "{headers:?}");
        assert_eq!(found.header("sec-websocket-version"), (status == 426).then_some("13"), "{headers:?}");
        assert_eq!(found.header("allow").is_some(), status == 405);
    }
    // With a body there is no telling where frames begin.
    let mut connection = gateway.connect().expect("a connection");
    assert_eq!(connection.request("GET", "/ws", &UPGRADE, b"x").expect("an answer").status, 400);
    // A foreign host is refused before anything else is looked at.
    let mut connection = gateway.connect().expect("a connection");
    connection
        .send(
            b"GET /ws HTTP/1.1\r\nHost: rebound.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        )
        .expect("sent");
    assert_eq!(connection.read_response(false).expect("an answer").status, 403);
    // The gateway's own page may, and whoever is not a browser.
    let own = format!("https://{}", gateway.addr);
    for headers in [&[("origin", own.as_str())][..], &[("sec-websocket-protocol", "x, mcp")], &[]] {
        let mut socket = Socket::open(&gateway, "/ws", headers);
        socket.send(PING, b"");
        assert_eq!(socket.receive().first, PONG);
    }
    assert_eq!(server.requests(), 0);
    let refused = gateway.metrics().count("mcp_gateway_routing_errors_total", &[("reason", "upgrade")]);
    assert_eq!(refused, 11.0);
}

#[test]
fn what_is_sent_behind_the_upgrade_is_not_lost() {
    let server = Server::legacy();
    let gateway = Gateway::start(&before(&server.url));
    let mut connection = gateway.connect().expect("a connection");
    let mut bytes = format!("GET /ws HTTP/1.1\r\nHost: {}\r\n", gateway.addr).into_bytes();
    for (name, value) in UPGRADE {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&mcp_system_tests::ws::frame(PING, b"at once"));
    connection.send(&bytes).expect("sent");
    assert_eq!(connection.read_bare_head().expect("a head").status, 101);
    assert_eq!(connection.read_bytes(9).expect("a pong"), b"\x8a\x07at once");
}

#[test]
fn a_session_is_its_opener_s_and_its_server_s() {
    let server = ScriptedUpstream::start(|request, stream| {
        let message = request.json();
        match message["method"].as_str() {
            Some("initialize") => answer_json(stream, "200 OK", &initialized(&message)),
            Some("ping") => {
                let authorization = request.header("authorization");
                answer_json(
                    stream,
                    "200 OK",
                    &json!({"jsonrpc": "2.0", "id": message["id"], "result": {"authorization": authorization}}),
                )
            }
            _ => answer(
                stream,
                "HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n",
                After::KeepOpen,
            ),
        }
    });
    let config = before(&server.url()).server("other", &[&server.url()]);
    let gateway = Gateway::start(&config);
    let alice = ("authorization", "Basic YWxpY2U6eA==");
    let bob = ("authorization", "Basic Ym9iOng=");
    let mut socket = Socket::open(&gateway, "/ws/peer", &[alice]);
    let opened = socket.ask(&initialize(LEGACY));
    let id = opened["result"]["_meta"]["mcp-gateway/sessionId"].as_str().expect("an id").to_owned();
    let pinged = socket.ask(&request(2, "ping", json!({})));
    assert_eq!(pinged["result"]["authorization"], alice.1, "{pinged}");
    for (path, headers, is_its) in [
        ("/ws/peer", [alice, ("mcp-session-id", id.as_str())], true),
        ("/ws/peer", [bob, ("mcp-session-id", id.as_str())], false),
        ("/ws/other", [alice, ("mcp-session-id", id.as_str())], false),
    ] {
        let connection = gateway.connect().expect("a connection");
        match Socket::upgrade(connection, path, &headers).expect("an answer") {
            Ok(mut socket) => {
                assert!(is_its, "{path} {headers:?}");
                assert_eq!(socket.ask(&request(3, "ping", json!({})))["result"]["authorization"], alice.1);
            }
            Err(refusal) => {
                assert!(!is_its && refusal.status == 404, "{path} {headers:?} {}", refusal.status)
            }
        }
    }
    // The same session over HTTP, and ended there: the socket learns of it and closes.
    let mut http = gateway.connect().expect("a connection");
    let headers = [alice, ("mcp-session-id", id.as_str())];
    assert_eq!(http.request("DELETE", "/mcp/peer", &headers, b"").expect("an answer").status, 200);
    let refused = socket.ask(&request(4, "ping", json!({})));
    assert_eq!(refused["error"]["code"], -32001, "{refused}");
    assert_eq!(socket.expect_close(), (1008, "the session has ended".to_owned()));
}

#[test]
fn a_session_lives_as_long_as_its_socket_and_its_time_to_live() {
    let server = Server::legacy();
    let gateway = Gateway::start(&before(&server.url).set("gateway.session", "ttl = \"1s\""));
    let (mut socket, id) = log_in(&gateway);
    // The server's own clock is not ours: what counts is that the session was left alone for longer than it lives.
    let since = std::time::Instant::now();
    eventually("three times to live", LIMIT, || (since.elapsed() > Duration::from_secs(3)).then_some(()));
    let listed = socket.ask(&request(5, "tools/list", json!({})));
    assert!(listed["result"]["tools"].is_array(), "{listed}");
    drop(socket);
    eventually("the session ends", LIMIT, || {
        let connection = gateway.connect().expect("a connection");
        let since = std::time::Instant::now();
        // Looking extends a session's life, so a look must come later than that.
        eventually("more than a time to live", LIMIT, || {
            (since.elapsed() > Duration::from_millis(1500)).then_some(())
        });
        Socket::upgrade(connection, "/ws/peer", &[("mcp-session-id", &id)])
            .expect("an answer")
            .is_err()
            .then_some(())
    });
}

#[test]
fn a_session_opened_over_http_goes_on_over_a_socket() {
    let server = Server::everything();
    let gateway = Gateway::start(&before(&server.url));
    let mut http = gateway.connect().expect("a connection");
    let id = open_session(&mut http, "/mcp/peer", LEGACY);
    let mut socket = Socket::open(&gateway, "/ws/peer", &[("mcp-session-id", &id)]);
    let echo = socket.ask(&call(2, "echo", &json!({"message": "over"})));
    assert_eq!(echo["result"]["content"][0]["text"], "Echo: over", "{echo}");
    let pinged =
        post_in_session(&mut http, "/mcp/peer", &id, &request(3, "ping", json!({}))).expect("an answer");
    assert_eq!(pinged.status, 200);
}

#[test]
fn a_session_moves_to_another_pod_when_its_own_drains() {
    let server = Server::everything();
    let store = Redis::start(&RedisOptions::new());
    let mut pods = Pods::start(&store, &server.url, |config| config);
    let mut socket = Socket::open(&pods.gateways[0], "/ws/one", &[]);
    let opened = socket.ask(&initialize(LEGACY));
    let id = opened["result"]["_meta"]["mcp-gateway/sessionId"].as_str().expect("an id").to_owned();
    socket.send_json(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    assert!(socket.ask(&request(2, "ping", json!({})))["result"].is_object());
    pods.gateways[0].process.signal(libc::SIGTERM);
    assert_eq!(socket.expect_close().0, 1012);
    let mut socket = Socket::open(&pods.gateways[1], "/ws/one", &[("mcp-session-id", &id)]);
    let echo = socket.ask(&call(3, "echo", &json!({"message": "moved"})));
    assert_eq!(echo["result"]["content"][0]["text"], "Echo: moved", "{echo}");
}

#[test]
fn streams_go_on_where_they_ended() {
    // Every stream ends after one event. A call's stream ends before its response, which comes on the second one that is
    // opened for it.
    let (tell, told) = std::sync::mpsc::sync_channel(1000);
    let tell = std::sync::Mutex::new(tell);
    let server = ScriptedUpstream::start(move |request, stream| {
        let events = |text: &str| {
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n{text}")
        };
        let message = request.json();
        if request.head[0].starts_with("GET") {
            let after = request.header("last-event-id").unwrap_or_default().to_owned();
            // The test may have ended.
            let _ = tell.lock().expect("the sender").try_send(after.clone());
            let text = match after.as_str() {
                "call-1" => "id: call-2\nretry: 10\ndata:\n\n".to_owned(),
                "call-2" => {
                    let response = json!({"jsonrpc": "2.0", "id": "c", "result": {"content": []}});
                    format!("id: call-3\ndata: {response}\n\n")
                }
                after => {
                    let number =
                        after.strip_prefix("own-").map_or(0, |number| number.parse().unwrap_or(0)) + 1;
                    let message = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": number}});
                    format!("id: own-{number}\nretry: 100\ndata: {message}\n\n")
                }
            };
            return answer(stream, &events(&text), After::Close);
        }
        match message["method"].as_str() {
            Some("initialize") => answer_json(stream, "200 OK", &initialized(&message)),
            Some("tools/call") => answer(stream, &events("id: call-1\nretry: 10\ndata:\n\n"), After::Close),
            _ => answer(stream, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", After::KeepOpen),
        }
    });
    let gateway = Gateway::start(&before(&server.url()));
    let (mut socket, _) = log_in(&gateway);
    for number in 1..=3 {
        let message = socket.message();
        assert_eq!(
            (&message["method"], &message["params"]["data"]),
            (&json!("notifications/message"), &json!(number))
        );
    }
    let called = socket.ask(&call("c", "any", &json!({})));
    assert!(called["result"].is_object(), "{called}");
    let places: Vec<String> = told.try_iter().collect();
    assert_eq!(&places[..3], ["", "own-1", "own-2"]);
    let of_call: Vec<&String> = places.iter().filter(|place| place.starts_with("call")).collect();
    assert_eq!(of_call, ["call-1", "call-2"]);
}

#[test]
fn cancelled_calls_hold_nothing_up() {
    let server = Server::everything();
    let gateway = Gateway::start(&before(&server.url));
    let (mut socket, _) = log_in(&gateway);
    // More than may be in flight, one after the other.
    for id in 0..80 {
        let mut slow = call(id, "trigger-long-running-operation", &json!({"duration": 60, "steps": 60_000}));
        slow["params"]["_meta"] = json!({"progressToken": id});
        socket.send_json(&slow);
        while socket.message()["params"]["progressToken"] != id {}
        let cancelled = json!({"requestId": id, "reason": "enough"});
        socket
            .send_json(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled}));
    }
    assert!(socket.ask(&request("after", "ping", json!({})))["result"].is_object());
    eventually("only the server's own stream is left", LIMIT, || {
        (gateway.metrics().count("mcp_gateway_requests_in_flight", &[]) <= 1.0).then_some(())
    });
}

#[test]
fn modern_messages_need_no_session() {
    let server = Server::modern();
    let gateway = Gateway::start(&before(&server.url));
    let mut socket = Socket::open(&gateway, "/ws/peer", &[]);
    let legacy = socket.ask(&request(1, "tools/list", json!({})));
    assert_eq!(legacy["error"]["message"], "Mcp-Session-Id is required; a session begins with initialize");
    let listed = socket.ask(&mcp_system_tests::mcp::modern(2, "tools/list", json!({})));
    let tool = listed["result"]["tools"][0]["name"].as_str().unwrap_or_else(|| panic!("{listed}")).to_owned();
    let called = socket.ask(&modern_call(3, &tool, json!({})));
    assert!(called.get("result").is_some() || called["error"]["code"] == -32602, "{called}");
}

#[test]
fn a_drain_closes_after_the_answers_in_flight() {
    let server = Server::everything();
    let mut gateway = Gateway::start(&before(&server.url));
    let (mut socket, _) = log_in(&gateway);
    let mut idle = Socket::open(&gateway, "/ws", &[]);
    let slow = "trigger-long-running-operation";
    socket.send_json(&call("last", slow, &json!({"duration": 1, "steps": 1})));
    eventually("the call is in flight", LIMIT, || {
        (gateway.metrics().count("mcp_gateway_requests_in_flight", &[]) >= 2.0).then_some(())
    });
    gateway.process.signal(libc::SIGTERM);
    assert_eq!(idle.expect_close(), (1012, "shutting down".to_owned()));
    let late = socket.ask(&call("late", "echo", &json!({"message": "x"})));
    assert_eq!(late["error"]["message"], "shutting down", "{late}");
    let last = loop {
        let message = socket.message();
        if message["id"] == "last" {
            break message;
        }
    };
    assert!(last["result"].is_object(), "{last}");
    assert_eq!(socket.expect_close(), (1012, "shutting down".to_owned()));
}
