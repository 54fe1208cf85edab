//! Setup: clients that begin something and do not go on: a handshake, a head, a body, or nothing at all; and more connections
//! than are allowed.
//! Claim: each is cut after the time that is configured for it, is told so where there is a way to, is counted, and takes
//! nothing from the others.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use mcp_system_tests::{Connection, Gateway, GatewayConfig, eventually};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn what_does_not_go_on_is_cut() {
    let upstream = "http://127.0.0.1:9/mcp";
    let config = GatewayConfig::new()
        .server("never", &[upstream])
        .set("gateway.server", "handshake_timeout = \"200ms\"")
        .set("gateway.server", "header_timeout = \"200ms\"")
        .set("gateway.server", "read_timeout = \"200ms\"")
        .set("gateway.server", "idle_timeout = \"1s\"");
    let gateway = Gateway::start(&config);

    let mut silent = tcp(&gateway);
    assert_closed(&mut silent);
    // The head of a record of a handshake, and no more.
    let mut begun = tcp(&gateway);
    begun.write_all(&[22, 3, 1, 2, 0]).expect("sent");
    assert_closed(&mut begun);

    let mut head = gateway.connect().expect("a connection");
    head.send(b"GET /health HTTP/1.1\r\nHost: ").expect("sent");
    assert_eq!(head.read_response(false).expect("an answer").status, 408);
    assert!(head.is_closed().unwrap_or(true), "still open after the head's timeout");

    let mut body = gateway.connect().expect("a connection");
    let text = format!(
        "POST /mcp/never HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: 100\r\n\r\n{{",
        gateway.addr
    );
    body.send(text.as_bytes()).expect("sent");
    assert_eq!(body.read_response(false).expect("an answer").status, 408);
    assert!(body.is_closed().unwrap_or(true), "still open after the body's timeout");

    let mut idle = gateway.connect().expect("a connection");
    assert_eq!(idle.request("GET", "/health", &[], b"").expect("an answer").status, 200);
    assert!(idle.is_closed().expect("closed in order"), "still open after the idle timeout");

    let metrics = gateway.metrics();
    for (reason, least) in
        [("handshake_timeout", 2.0), ("header_timeout", 1.0), ("read_timeout", 1.0), ("idle_timeout", 1.0)]
    {
        let cut = metrics.count("mcp_gateway_connections_rejected_total", &[("reason", reason)]);
        assert!(cut >= least, "{reason}: {cut}");
    }
}

#[test]
fn a_head_that_trickles_is_cut_all_the_same() {
    let gateway = Gateway::start(&GatewayConfig::new().set("gateway.server", "header_timeout = \"500ms\""));
    let mut connection = gateway.connect().expect("a connection");
    connection.send(b"GET /health HTTP/1.1\r\n").expect("sent");
    // Each byte comes in time, the head never ends: its limit is for the whole of it.
    eventually("the connection is cut", LIMIT, || connection.send(b"x").is_err().then_some(()));
    assert_eq!(gateway.get("/health").expect("others are served").status, 200);
}

#[test]
fn connections_over_the_limit_are_turned_away() {
    let config = GatewayConfig::new().set("gateway.server", "max_connections_per_ip = 4");
    let gateway = Gateway::start(&config);
    let mut held: Vec<Connection> = Vec::new();
    eventually("four connections are open", LIMIT, || {
        held.extend(served(&gateway));
        (held.len() == 4).then_some(())
    });
    assert!(served(&gateway).is_none(), "a fifth connection was served");
    for connection in &mut held {
        assert_eq!(connection.request("GET", "/health", &[], b"").expect("still served").status, 200);
    }
    let labels = [("reason", "max_connections_per_ip")];
    assert!(gateway.metrics().count("mcp_gateway_connections_rejected_total", &labels) >= 1.0);
    held.pop();
    eventually("a place is free again", LIMIT, || served(&gateway));
}

/// A connection on which something was answered.
fn served(gateway: &Gateway) -> Option<Connection> {
    let mut connection = gateway.connect().ok()?;
    let answer = connection.request("GET", "/health", &[], b"").ok()?;
    (answer.status == 200).then_some(connection)
}

#[expect(clippy::disallowed_methods, reason = "a test's own thread may block")]
fn tcp(gateway: &Gateway) -> TcpStream {
    let stream = TcpStream::connect(gateway.addr).expect("a connection");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    stream
}

/// An alert may come before the end.
fn assert_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    let reset = end.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
    assert!(end.is_ok() || reset, "still open: {end:?}");
}
