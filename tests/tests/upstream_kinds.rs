//! Setup: real MCP servers that others wrote, each behind `/mcp/<server>` by the transport that it speaks; clients of the official
//! SDKs walk through them over Streamable HTTP and WebSocket. Servers on the TypeScript SDKs that speak Streamable HTTP are in
//! `sdk_typescript.rs` and `sdk_python.rs`, `server-everything` over the other transports is in `stdio_peers.rs` and
//! `duplex_peers.rs`.
//! Claim: what a client and a server can do with each other works whatever lies between the gateway and the server, on any shard.

use mcp_system_tests::peers::{Client, Server, over_stdio, python2_over_stdio};
use mcp_system_tests::{Gateway, GatewayConfig, TempDir};

/// Tours through the server on Python's `mcp`, by clients of its era.
const PYTHON_MODERN: [(Client, &str); 2] =
    [(Client::TypeScript2, "python"), (Client::TypeScript2, "auto-python")];
const PYTHON_LEGACY: [(Client, &str); 2] =
    [(Client::TypeScript2, "python-legacy"), (Client::TypeScript1, "python-legacy")];

#[test]
fn python_2_over_http() {
    let server = Server::python2();
    let config = GatewayConfig::new().server("peer", &[&server.url]);
    walk(&config, &[PYTHON_MODERN, PYTHON_LEGACY].concat());
}

#[test]
fn python_1_over_sse() {
    let server = Server::python1_sse();
    walk(&GatewayConfig::new().server_over("peer", "sse", &[&server.url], ""), &PYTHON_LEGACY);
}

#[test]
fn python_1_over_a_socket() {
    let server = Server::python1_socket();
    walk(&GatewayConfig::new().server_over("peer", "websocket", &[&server.url], ""), &PYTHON_LEGACY);
}

#[test]
fn python_2_over_stdio_for_modern_clients() {
    walk(&GatewayConfig::new().stdio("peer", &python2_over_stdio(), ""), &PYTHON_MODERN);
}

#[test]
fn python_2_over_stdio_for_legacy_clients() {
    walk(&GatewayConfig::new().stdio("peer", &python2_over_stdio(), ""), &PYTHON_LEGACY);
}

#[test]
fn the_filesystem_server() {
    let dir = TempDir::new();
    let command = over_stdio("mcp-server-filesystem", &[&dir.path().display().to_string()]);
    let config = GatewayConfig::new().stdio("peer", &command, "");
    walk(&config, &[(Client::TypeScript1, "filesystem"), (Client::TypeScript2, "filesystem")]);
}

#[test]
fn the_filesystem_server_shared() {
    let dir = TempDir::new();
    let command = over_stdio("mcp-server-filesystem", &[&dir.path().display().to_string()]);
    let config = GatewayConfig::new().stdio("peer", &command, "mode = \"shared\"");
    walk(&config, &[(Client::TypeScript1, "filesystem"), (Client::TypeScript2, "filesystem")]);
}

/// The server is told by its environment where to remember things.
#[test]
fn the_memory_server() {
    let dir = TempDir::new();
    let file = dir.path().join("memory.jsonl");
    let config = GatewayConfig::new().stdio(
        "peer",
        &over_stdio("mcp-server-memory", &[]),
        &format!("env = [\"MEMORY_FILE_PATH={}\"]", file.display()),
    );
    walk(&config, &[(Client::TypeScript2, "memory"), (Client::TypeScript1, "memory")]);
    assert!(file.exists(), "the server remembers elsewhere");
}

/// Walks these tours, one after another, through the server `peer`; each over Streamable HTTP, and over a socket where the client
/// has sockets.
fn walk(config: &GatewayConfig, tours: &[(Client, &str)]) {
    let gateway = Gateway::start(config);
    for (client, tour) in tours {
        client.walk(tour, &gateway.url("peer"), Some(&gateway.cert));
        client.walk(tour, &gateway.socket_url("peer"), Some(&gateway.cert));
    }
}
