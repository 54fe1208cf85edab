//! Setup: Debian's nginx in front of the gateway, with the headers and timeouts that the ingress annotations of the
//! high-availability guide come to; the read timeout alone is shorter, so that the test need not last an hour.
//! Claim: a socket passes, lives for longer than nginx tolerates silence because the gateway pings, and its goodbye arrives.

use std::time::{Duration, Instant};

use mcp_system_tests::ingress::Ingress;
use mcp_system_tests::mcp::{LEGACY, initialize, request};
use mcp_system_tests::peers::Server;
use mcp_system_tests::ws::{CLOSE, PING, PONG, Socket};
use mcp_system_tests::{Connection, Gateway, GatewayConfig};
use serde_json::json;

/// nginx' patience, and the gateway's, which is when it pings.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
const PING_AFTER: &str = "read_timeout = \"500ms\"";

#[test]
fn a_socket_outlives_the_ingress_s_patience() {
    let server = Server::everything();
    let config = GatewayConfig::new().server("peer", &[&server.url]).set("gateway.server", PING_AFTER);
    let mut gateway = Gateway::start(&config);
    let ingress = Ingress::start(&gateway, "2s");
    let connection = Connection::tls(ingress.addr, &gateway.cert.client_config()).expect("a connection");
    let headers = [("sec-websocket-protocol", "mcp"), ("authorization", "Bearer opaque")];
    let mut socket = Socket::upgrade(connection, "/ws/peer", &headers)
        .expect("an answer")
        .unwrap_or_else(|refusal| panic!("{} {}\n{}", refusal.status, refusal.text(), ingress.log()));
    assert_eq!(socket.head.header("sec-websocket-protocol"), Some("mcp"));
    let opened = socket.ask(&initialize(LEGACY));
    let id = opened["result"]["_meta"]["mcp-gateway/sessionId"].as_str().expect("an id").to_owned();
    socket.send_json(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));

    let since = Instant::now();
    let mut pings = 0;
    while since.elapsed() < 2 * READ_TIMEOUT {
        let frame = socket.receive();
        if frame.first == PING {
            pings += 1;
            socket.send(PONG, &frame.payload);
        }
    }
    assert!(pings >= 2, "{pings} pings");
    let echo = |id: u32| {
        request(id, "tools/call", json!({"name": "echo", "arguments": {"message": "x".repeat(100_000)}}))
    };
    let answer = socket.ask(&echo(2));
    assert_eq!(answer["result"]["content"][0]["text"].as_str().map(str::len), Some(100_006));

    // A socket that comes back passes, too, and so do refusals.
    let come_back = |id: &str| {
        let connection = Connection::tls(ingress.addr, &gateway.cert.client_config()).expect("a connection");
        let headers = [("mcp-session-id", id), ("authorization", "Bearer opaque")];
        Socket::upgrade(connection, "/ws/peer", &headers).expect("an answer")
    };
    let Err(refused) = come_back("nobody's") else { panic!("resumed") };
    assert_eq!(refused.status, 404);
    let Ok(mut second) = come_back(&id) else { panic!("not resumed") };
    assert!(second.ask(&echo(3))["result"].is_object());
    second.send(CLOSE, b"\x03\xe9");
    assert_eq!(second.expect_close().0, 1001);

    gateway.process.signal(libc::SIGTERM);
    assert_eq!(socket.expect_close(), (1012, "shutting down".to_owned()));
}
