//! Setup: a thousand sockets, each with a session of its own, each after a call of 100 KB both ways.
//! Claim: an idle socket owns no buffer: the gateway counts none, and what it holds resident for each socket with its TLS and
//! its session stays near what an idle HTTPS connection costs.

use std::time::Duration;

use mcp_system_tests::mcp::{LEGACY, initialize, request};
use mcp_system_tests::resources::raise_open_files;
use mcp_system_tests::upstream::{After, ScriptedUpstream, answer, answer_json};
use mcp_system_tests::ws::Socket;
use mcp_system_tests::{Gateway, GatewayConfig, eventually};
use serde_json::json;

const SOCKETS: usize = 1000;
/// Resident bytes for a socket, its session and the shard's share: 5 KiB is the goal for HTTPS; a socket has a door of its
/// own, and the allocator's reserve after the calls is divided by few connections here.
const MOST_BYTES: u64 = 8 << 10;
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn an_idle_socket_owns_no_buffer() {
    raise_open_files();
    let server = ScriptedUpstream::start(|request, stream| {
        let message = request.json();
        match message["method"].as_str() {
            Some("initialize") => {
                let info = json!({"name": "s", "version": "1"});
                let result = json!({"protocolVersion": LEGACY, "capabilities": {}, "serverInfo": info});
                answer_json(
                    stream,
                    "200 OK",
                    &json!({"jsonrpc": "2.0", "id": message["id"], "result": result}),
                )
            }
            Some("ping") => {
                let result = json!({"text": message["params"]["text"]});
                answer_json(
                    stream,
                    "200 OK",
                    &json!({"jsonrpc": "2.0", "id": message["id"], "result": result}),
                )
            }
            // No stream of its own.
            None => answer(stream, "HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n", After::KeepOpen),
            _ => answer(stream, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", After::KeepOpen),
        }
    });
    let config = GatewayConfig::new().server("peer", &[&server.url()]);
    let gateway = Gateway::start(&config.set("gateway.server", "max_connections_per_ip = 5000"));
    let large = request(2, "ping", json!({"text": "x".repeat(100_000)}));
    let open = || {
        let mut socket = Socket::open(&gateway, "/ws", &[]);
        assert!(socket.ask(&initialize(LEGACY))["result"].is_object());
        socket.send_json(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        assert!(socket.ask(&large)["result"].is_object());
        socket
    };
    // Pools and the allocator's arenas are filled by the first ones.
    let first: Vec<Socket> = (0..50).map(|_| open()).collect();
    let before = gateway.process.resident_bytes();
    let sockets: Vec<Socket> = (0..SOCKETS).map(|_| open()).collect();
    eventually("nothing is held", LIMIT, || {
        let metrics = gateway.metrics();
        let idle = metrics.count("mcp_gateway_requests_in_flight", &[]) == 0.0;
        (idle && metrics.value("mcp_gateway_buffered_bytes", &[]) == Some(0.0)).then_some(())
    });
    let each = gateway.process.resident_bytes().saturating_sub(before) / SOCKETS as u64;
    println!("{each} resident bytes per idle socket with its session");
    assert!(each <= MOST_BYTES, "{each} bytes");
    let up = gateway.metrics().count("mcp_gateway_connections_active", &[("protocol", "ws")]);
    assert_eq!(up, (first.len() + sockets.len()) as f64);
}
