//! Setup: a gateway with small limits is met by clients that exceed each of them.
//! Claim: each limit holds at its value and not before, is answered as documented and counted under its reason, and what it
//! bounds comes back when it is given back.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::mcp::{LEGACY, call, in_session, initialize, mirrored, modern, open_session};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, eventually, tls};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn connections_are_counted_over_all_shards() {
    let gateway = Gateway::start(&GatewayConfig::new().set("gateway.server", "max_connections = 20"));
    await_idle(&gateway);
    let mut held: Vec<Connection> =
        (0..20).map(|_| gateway.connect().expect("a place for each of twenty")).collect();
    for _ in 0..3 {
        assert!(gateway.connect().is_err(), "a place beyond the limit");
    }
    assert_eq!(rejected(&gateway, "max_connections"), 3.0);
    for connection in &mut held {
        assert_healthy(connection);
    }
    held.truncate(19);
    let mut back = eventually("a place came back", LIMIT, || gateway.connect().ok());
    assert_healthy(&mut back);
}

#[test]
fn connections_are_counted_per_address() {
    let gateway = Gateway::start(&GatewayConfig::new().set("gateway.server", "max_connections_per_ip = 5"));
    let config = gateway.cert.client_config();
    let connect = |source: [u8; 4]| {
        let stream = tls::tcp_from(IpAddr::from(source), gateway.addr)?;
        Ok::<_, std::io::Error>(tls::http_over(
            tls::handshake(stream, &config, gateway.addr.ip())?,
            gateway.addr,
        ))
    };
    let mut held: Vec<Connection> =
        (0..5).map(|_| connect([127, 0, 2, 1]).expect("a place for each of five")).collect();
    assert!(connect([127, 0, 2, 1]).is_err(), "a place beyond the limit");
    assert_eq!(rejected(&gateway, "max_connections_per_ip"), 1.0);
    assert_healthy(&mut connect([127, 0, 2, 2]).expect("another address has its own places"));
    held.iter_mut().for_each(assert_healthy);
    held.pop();
    let mut back = eventually("a place came back", LIMIT, || connect([127, 0, 2, 1]).ok());
    assert_healthy(&mut back);
}

#[test]
fn a_head_may_be_as_long_as_it_says() {
    let gateway = Gateway::start(&GatewayConfig::new().set("gateway.server", "max_header_bytes = \"4KiB\""));
    let head = |length: usize| {
        let start = format!("GET /health HTTP/1.1\r\nHost: {}\r\nX: ", gateway.addr);
        let filler = "x".repeat(length - start.len() - 4);
        format!("{start}{filler}\r\n\r\n")
    };
    let lines = |count: usize| {
        let fields: String = (1..count).map(|number| format!("X-{number}: y\r\n")).collect();
        format!("GET /health HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", gateway.addr)
    };
    let endless = head(5000)[..4500].to_owned();
    for (name, bytes, status) in [
        ("a head of 4 KiB", head(4096), 200),
        ("one byte more", head(4097), 431),
        ("a head without an end", endless, 431),
        ("a hundred lines", lines(100), 200),
        ("one line more", lines(101), 431),
    ] {
        let mut connection = gateway.connect().expect("a connection");
        connection.send(bytes.as_bytes()).expect("sent");
        let answer = connection.read_response(false).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        if status == 431 {
            assert_eq!(answer.json()["error"]["code"], -32600, "{name}");
            assert!(connection.is_closed().expect("closed in order"), "{name}");
        }
    }
    assert_eq!(refused(&gateway, "http_head"), 3.0);
}

#[test]
fn a_body_may_be_as_long_as_it_says() {
    let upstream = Fixture::modern(json!([]), nothing);
    let config = GatewayConfig::new()
        .server("fixture", &[&upstream.url()])
        .set("gateway.server", "max_body = \"4KiB\"");
    let gateway = Gateway::start(&config);
    for (length, status) in [(4096, 200), (4097, 413)] {
        let body = padded_call(length);
        for chunked in [false, true] {
            let mut connection = gateway.connect().expect("a connection");
            connection.send(&post(&gateway, &body, chunked)).expect("sent");
            let answer = connection.read_response(false).expect("an answer");
            assert_eq!(answer.status, status, "{length} bytes, chunked: {chunked}: {}", answer.text());
        }
    }
    // A length that is too large is refused before anything of the body is there.
    let mut connection = gateway.connect().expect("a connection");
    let head = format!("{}content-length: 1000000000\r\n\r\n", call_head(&gateway));
    connection.send(head.as_bytes()).expect("sent");
    let answer = connection.read_response(false).expect("an answer");
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (413, &json!(-32600)), "{}", answer.text());
    assert!(connection.is_closed().expect("closed in order"));
    assert_eq!(refused(&gateway, "body_too_large"), 3.0);
}

#[test]
fn ten_mebibytes_go_there_and_back() {
    let upstream = Fixture::modern(json!([]), nothing);
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&upstream.url()]));
    let body = padded_call(10 << 20);
    let sent: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    for chunked in [false, true] {
        let mut connection = gateway.connect().expect("a connection");
        connection.send(&post(&gateway, &body, chunked)).expect("sent");
        let answer = connection.read_response(false).expect("an answer");
        assert_eq!(answer.status, 200);
        assert!(answer.json()["result"] == sent["params"], "the body came back changed, chunked: {chunked}");
        assert_healthy(&mut connection);
    }
    assert!(upstream.seen().iter().all(|request| request.body == body), "the body arrived changed");
}

#[test]
fn an_expectation_is_met_before_the_body_comes() {
    let upstream = Fixture::modern(json!([]), nothing);
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&upstream.url()]));
    let body = padded_call(2000);
    let expecting = |length: usize| {
        format!("{}content-length: {length}\r\nexpect: 100-continue\r\n\r\n", call_head(&gateway))
    };
    let mut stream = tls::connect(gateway.addr, &gateway.cert.client_config()).expect("a connection");
    std::io::Write::write_all(&mut stream, expecting(body.len()).as_bytes()).expect("sent");
    let mut interim = [0; 25];
    std::io::Read::read_exact(&mut stream, &mut interim).expect("an interim answer");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    let mut connection = tls::http_over(stream, gateway.addr);
    connection.send(&body).expect("sent");
    assert_eq!(connection.read_response(false).expect("an answer").status, 200);

    // Whoever would be refused hears that instead, and need not send the body at all.
    let mut stream = tls::connect(gateway.addr, &gateway.cert.client_config()).expect("a connection");
    std::io::Write::write_all(&mut stream, expecting(1 << 30).as_bytes()).expect("sent");
    let mut status = [0; 12];
    std::io::Read::read_exact(&mut stream, &mut status).expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 413");
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let upstream = Fixture::modern(json!([]), nothing);
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&upstream.url()]));
    let mut connection = gateway.connect().expect("a connection");
    let mut bytes = Vec::new();
    let health = format!("GET /health HTTP/1.1\r\nhost: {}\r\n\r\n", gateway.addr);
    // More than `max_header_bytes` waits behind the request in flight.
    for id in 0..200 {
        let message =
            modern(id, "tools/call", json!({"name": "any", "arguments": {"pad": "x".repeat(1000)}}));
        bytes.extend_from_slice(&post(&gateway, message.to_string().as_bytes(), id % 2 == 0));
        bytes.extend_from_slice(health.as_bytes());
    }
    connection.send(&bytes).expect("sent");
    for id in 0..200 {
        let answer = connection.read_response(false).expect("an answer");
        assert_eq!((answer.status, &answer.json()["id"]), (200, &json!(id)), "{}", answer.text());
        let answer = connection.read_response(false).expect("an answer");
        assert_eq!(answer.json()["status"], "ok", "{}", answer.text());
    }
}

#[test]
fn more_calls_than_connections_wait_for_their_turn() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, peak) = (now.clone(), most.clone());
    let upstream = Fixture::modern(json!([]), move |request, _| {
        if request.json()["method"] == "tools/call" {
            peak.fetch_max(counted.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // A server that takes its time; nothing waits for this pause to be long enough.
            std::thread::sleep(Duration::from_millis(50));
            counted.fetch_sub(1, Ordering::SeqCst);
        }
        None
    });
    let config = GatewayConfig::new()
        .server("fixture", &[&upstream.url()])
        .set("gateway.runtime", "driver = \"auto\"")
        .set("gateway.connection_pool", "max_size = 2");
    let gateway = Gateway::start(&config);
    let gateway = &gateway;
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..40)
            .map(|number| {
                scope.spawn(move || {
                    let mut connection = gateway.connect()?;
                    call(&mut connection, "/mcp/fixture", "any", json!({"number": number}))
                })
            })
            .collect();
        for (number, call) in calls.into_iter().enumerate() {
            let answer = call.join().expect("no panic").expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.json()["result"]["arguments"]["number"], number);
        }
    });
    // Two per shard, and there are two shards.
    assert!(most.load(Ordering::SeqCst) <= 4, "{most:?} calls at once");
    assert_eq!(
        gateway.metrics().value("mcp_gateway_upstream_pool_connections", &[("state", "in_use")]),
        Some(0.0)
    );
}

/// A client that reads nothing must not keep its place in the pool: a few of them would cut everybody off from the server.
#[test]
fn readers_that_stop_do_not_starve_calls() {
    let upstream = Fixture::modern(json!([]), nothing);
    let config = GatewayConfig::new()
        .server_with("fixture", &[&upstream.url()], "timeout = \"5s\"")
        .set("gateway.server", "write_timeout = \"60s\"")
        .set("gateway.connection_pool", "max_size = 2");
    let gateway = Gateway::start(&config);
    let body = padded_call(9 << 20);
    let _stopped: Vec<Connection> = (0..12)
        .map(|_| {
            let mut connection = gateway.connect().expect("a connection");
            connection.send(&post(&gateway, &body, false)).expect("sent");
            connection
        })
        .collect();
    for number in 0..12 {
        let mut connection = gateway.connect().expect("a connection");
        let answer =
            call(&mut connection, "/mcp/fixture", "any", json!({"number": number})).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[test]
fn sessions_are_bounded_and_their_place_comes_back() {
    let upstream = Fixture::legacy(nothing);
    let config =
        GatewayConfig::new().server("fixture", &[&upstream.url()]).set("gateway.session", "max_sessions = 6");
    let gateway = Gateway::start(&config);
    // Each shard has its share, so a connection finds either places or none.
    let mut sessions = Vec::new();
    let refusal = eventually("a shard is full", LIMIT, || {
        assert!(sessions.len() <= 6, "more sessions than there may be");
        let mut connection = gateway.connect().expect("a connection");
        let answer = connection.post("/mcp/fixture", &[], &initialize(LEGACY)).expect("an answer");
        if answer.status != 200 {
            return Some(answer);
        }
        sessions.push((answer.header("mcp-session-id").expect("a session").to_owned(), connection));
        None
    });
    assert_eq!(refusal.status, 503, "{}", refusal.text());
    assert_eq!(refusal.header("retry-after"), Some("1"));
    assert_eq!(refusal.json()["id"], 1);
    assert_eq!(refusal.json()["error"]["code"], -32000);
    assert_eq!(refusal.json()["error"]["data"], json!({"retryable": true, "retry_after": 1}));
    assert_eq!(refused(&gateway, "store_full"), 1.0);
    let held = sessions.len();
    assert_eq!(gateway.metrics().value("mcp_gateway_sessions_active", &[]), Some(held as f64));
    // The server must not keep a session that nobody has.
    eventually("the server was told of the session that found no place", LIMIT, || {
        upstream.seen().iter().any(|request| request.is("DELETE")).then_some(())
    });
    for (session, mut connection) in sessions {
        let ended = connection.request("DELETE", "/mcp/fixture", &in_session(&session, LEGACY), b"");
        assert_eq!(ended.expect("an answer").status, 200);
    }
    let mut connection = gateway.connect().expect("a connection");
    open_session(&mut connection, "/mcp/fixture", LEGACY);
}

#[test]
fn an_unused_session_ends() {
    let upstream = Fixture::legacy(nothing);
    let config =
        GatewayConfig::new().server("fixture", &[&upstream.url()]).set("gateway.session", "ttl = \"1s\"");
    let gateway = Gateway::start(&config);
    let mut connection = gateway.connect().expect("a connection");
    let session = open_session(&mut connection, "/mcp/fixture", LEGACY);
    assert_eq!(gateway.metrics().value("mcp_gateway_sessions_active", &[]), Some(1.0));
    eventually("the session ended", LIMIT, || {
        (gateway.metrics().value("mcp_gateway_sessions_active", &[]) == Some(0.0)).then_some(())
    });
    let ping = mcp_system_tests::mcp::request(2, "ping", json!({}));
    let answer = connection.post("/mcp/fixture", &in_session(&session, LEGACY), &ping).expect("an answer");
    assert_eq!(answer.status, 404, "{}", answer.text());
}

fn rejected(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metrics().count("mcp_gateway_connections_rejected_total", &[("reason", reason)])
}

fn refused(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metrics().count("mcp_gateway_routing_errors_total", &[("reason", reason)])
}

fn await_idle(gateway: &Gateway) {
    eventually("no connection is open", LIMIT, || {
        (gateway.metrics().value("mcp_gateway_connections_active", &[]) == Some(0.0)).then_some(())
    });
}

fn assert_healthy(connection: &mut Connection) {
    let answer = connection.request("GET", "/health", &[], b"").expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// A modern call whose body has exactly `length` bytes.
fn padded_call(length: usize) -> Vec<u8> {
    let with = |pad: usize| {
        modern(1, "tools/call", json!({"name": "any", "arguments": {"pad": "x".repeat(pad)}})).to_string()
    };
    let body = with(length - with(0).len());
    assert_eq!(body.len(), length);
    body.into_bytes()
}

fn call_head(gateway: &Gateway) -> String {
    let mut head = format!(
        "POST /mcp/ HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\n",
        gateway.addr
    );
    for (name, value) in mirrored("tools/call", Some("any")) {
        head += &format!("{name}: {value}\r\n");
    }
    head
}

fn post(gateway: &Gateway, body: &[u8], chunked: bool) -> Vec<u8> {
    let mut bytes = call_head(gateway).into_bytes();
    if !chunked {
        bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(body);
        return bytes;
    }
    bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
    for chunk in body.chunks(1000.max(body.len() / 7)) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}
