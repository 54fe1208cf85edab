//! Setup: clients stop in the middle of a handshake, a head, a body or an answer, or say nothing at all, on a gateway with
//! short timeouts.
//! Claim: each is answered where an answer is possible (408), cut in any case, and counted under its reason; a client
//! that is merely slow at the end of its answer is not cut.

use std::io::{Read, Write};
use std::time::Duration;

use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::mcp::{call, mirrored, modern};
use mcp_system_tests::{Gateway, GatewayConfig, eventually, tls};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_handshake_that_does_not_end_is_cut() {
    let gateway = start("handshake_timeout = \"300ms\"");
    for bytes in [&b""[..], &b"\x16\x03\x01\x02\x00\x01"[..]] {
        let mut stream = tls::tcp_from(gateway.addr.ip(), gateway.addr).expect("a connection");
        stream.write_all(bytes).expect("sent");
        let mut rest = Vec::new();
        assert!(matches!(stream.read_to_end(&mut rest), Ok(0)), "answered with {rest:?}");
    }
    assert_eq!(rejected(&gateway, "handshake_timeout"), 2.0);
}

#[test]
fn a_head_that_does_not_end_is_answered_and_cut() {
    let gateway = start("header_timeout = \"300ms\"");
    let head = format!("GET /health HTTP/1.1\r\nHost: {}\r\nX: ", gateway.addr);
    let mut connection = gateway.connect().expect("a connection");
    connection.send(head.as_bytes()).expect("sent");
    let answer = connection.read_response(false).expect("an answer");
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (408, &json!(-32600)), "{}", answer.text());
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(connection.is_closed().expect("closed in order"));

    // One byte now and then does not keep it open.
    let mut stream = tls::connect(gateway.addr, &gateway.cert.client_config()).expect("a connection");
    stream.write_all(head.as_bytes()).expect("sent");
    stream.sock.set_nonblocking(true).expect("a socket's flag");
    let status = eventually("the trickle was answered", LIMIT, || {
        // The connection may be closed already; the answer is there to be read all the same.
        let _ = stream.write_all(b"x").and_then(|()| stream.flush());
        let mut status = [0; 12];
        stream.read_exact(&mut status).ok().map(|()| status)
    });
    assert_eq!(&status, b"HTTP/1.1 408");
    assert_eq!(rejected(&gateway, "header_timeout"), 2.0);
}

#[test]
fn a_body_that_does_not_end_is_answered_and_cut() {
    let upstream = Fixture::modern(json!([]), nothing);
    let gateway = Gateway::start(
        &GatewayConfig::new()
            .server("fixture", &[&upstream.url()])
            .set("gateway.server", "read_timeout = \"300ms\""),
    );
    for framing in
        ["content-length: 100\r\n\r\n{\"jsonrpc\"", "transfer-encoding: chunked\r\n\r\n5\r\n{\"jso\r\n"]
    {
        let mut connection = gateway.connect().expect("a connection");
        let head = format!(
            "POST /mcp/fixture HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\n{framing}",
            gateway.addr
        );
        connection.send(head.as_bytes()).expect("sent");
        let answer = connection.read_response(false).expect("an answer");
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (408, &json!(-32600)),
            "{}",
            answer.text()
        );
        assert!(connection.is_closed().expect("closed in order"));
    }
    assert_eq!(rejected(&gateway, "read_timeout"), 2.0);
    assert!(upstream.seen().is_empty(), "half a message reached the server");
}

#[test]
fn an_idle_connection_is_closed_in_order() {
    let gateway = start("idle_timeout = \"300ms\"");
    let mut silent = gateway.connect().expect("a connection");
    let mut used = gateway.connect().expect("a connection");
    assert_eq!(used.request("GET", "/health", &[], b"").expect("an answer").status, 200);
    assert!(silent.is_closed().expect("closed in order"));
    assert!(used.is_closed().expect("closed in order"));
    eventually("both were counted", LIMIT, || (rejected(&gateway, "idle_timeout") >= 2.0).then_some(()));
}

#[test]
fn a_reader_that_stops_is_cut() {
    let upstream = Fixture::modern(json!([]), nothing);
    let gateway = Gateway::start(
        &GatewayConfig::new()
            .server("fixture", &[&upstream.url()])
            .set("gateway.server", "write_timeout = \"500ms\""),
    );
    let mut connection = gateway.connect().expect("a connection");
    let pad = "x".repeat(9 << 20);
    let message = modern(1, "tools/call", json!({"name": "any", "arguments": {"pad": pad}})).to_string();
    let mut headers =
        vec![("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
    headers.extend(mirrored("tools/call", Some("any")));
    connection.send_request("POST", "/mcp/fixture", &headers, message.as_bytes()).expect("sent");
    eventually("the reader was cut", LIMIT, || (rejected(&gateway, "write_timeout") == 1.0).then_some(()));
    assert!(connection.read_response(false).is_err(), "an answer that was cut looked complete");
    eventually("the call is over", LIMIT, || {
        (gateway.metrics().value("mcp_gateway_requests_in_flight", &[]) == Some(0.0)).then_some(())
    });
    let mut other = gateway.connect().expect("a connection");
    assert_eq!(call(&mut other, "/mcp/fixture", "any", json!({})).expect("an answer").status, 200);
}

/// How much of an answer the kernel keeps for a client that reads nothing is measured first. An answer that is a little larger
/// leaves the gateway with its last bytes when it has said all that it had to say.
#[test]
fn a_slow_reader_gets_the_end_of_its_last_answer() {
    let upstream = Fixture::modern(json!([]), nothing);
    let with = |timeout: &str| {
        Gateway::start(
            &GatewayConfig::new().server("fixture", &[&upstream.url()]).set("gateway.server", timeout),
        )
    };
    let kept = {
        let gateway = with("write_timeout = \"500ms\"");
        let mut stream = ask_for(&gateway, 9 << 20);
        eventually("the reader was cut", LIMIT, || {
            (rejected(&gateway, "write_timeout") == 1.0).then_some(())
        });
        let mut received = Vec::new();
        // The end of what the kernel had is no end of TLS.
        let ended = stream.read_to_end(&mut received);
        assert!(ended.is_err(), "an answer that was cut looked complete");
        received.len()
    };
    let gateway = with("write_timeout = \"20s\"");
    let sizes = [4 << 10, 16 << 10, 28 << 10, 40 << 10].map(|more| kept + more);
    let mut streams = sizes.map(|size| ask_for(&gateway, size));
    eventually("the calls are with the server", LIMIT, || (upstream.seen().len() == 5).then_some(()));
    // A reader of that many seconds: longer than the gateway lingers after a refusal.
    std::thread::sleep(Duration::from_secs(3));
    for (stream, size) in streams.iter_mut().zip(sizes) {
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap_or_else(|error| panic!("{size}: {error}"));
        assert!(received.len() > size && received.ends_with(b"}"), "{} of {size} bytes", received.len());
    }
}

#[test]
fn answers_wait_for_their_reader() {
    let gateway = start("write_timeout = \"2s\"");
    let before = mcp_system_tests::resources::resident_bytes(gateway.process.id());
    let mut stream = tls::connect(gateway.addr, &gateway.cert.client_config()).expect("a connection");
    let one = format!("GET /health HTTP/1.1\r\nhost: {}\r\n\r\n", gateway.addr);
    let many = one.repeat((64 << 10) / one.len());
    // Never reads. At some point the gateway takes no more, and after `write_timeout` it cuts the connection.
    let mut taken = 0_usize;
    while taken < 256 << 20 && stream.write_all(many.as_bytes()).is_ok() {
        taken += many.len();
    }
    let after = mcp_system_tests::resources::peak_resident_bytes(gateway.process.id());
    assert!(taken < 256 << 20, "the gateway took {taken} bytes of requests from a client that reads nothing");
    assert!(after < before + (16 << 20), "{before} bytes before, {after} after {taken} bytes of requests");
    eventually("the connection was cut", LIMIT, || {
        (rejected(&gateway, "write_timeout") >= 1.0).then_some(())
    });
}

/// Asks for an answer of about `bytes` with `Connection: close`, and reads nothing.
fn ask_for(gateway: &Gateway, bytes: usize) -> tls::TlsStream {
    let mut stream = tls::connect(gateway.addr, &gateway.cert.client_config()).expect("a connection");
    let arguments = json!({"pad": "x".repeat(bytes)});
    let body = modern(1, "tools/call", json!({"name": "any", "arguments": arguments})).to_string();
    let mut head = format!(
        "POST /mcp/fixture HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\ncontent-length: {}\r\n",
        gateway.addr,
        body.len()
    );
    for (name, value) in mirrored("tools/call", Some("any")) {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).expect("sent");
    stream.flush().expect("sent");
    stream
}

fn start(line: &str) -> Gateway {
    Gateway::start(&GatewayConfig::new().set("gateway.server", line))
}

fn rejected(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metrics().count("mcp_gateway_connections_rejected_total", &[("reason", reason)])
}
