//! Setup: real MCP servers that others wrote, each behind `/mcp/<server>` by the transport that it speaks; clients of the official
//! SDKs walk through them over Streamable HTTP. Servers that speak Streamable HTTP on the TypeScript SDKs are in
//! `sdk_typescript.rs` and `sdk_python.rs`.
//! Claim: what a client and a server can do with each other works whatever lies between the gateway and the server.

use mcp_system_tests::peers::{Client, Server};
use mcp_system_tests::{Gateway, GatewayConfig};

#[test]
fn python_2_over_http() {
    let server = Server::python2();
    walk(
        &GatewayConfig::new().server("peer", &[&server.url]),
        &[
            (Client::TypeScript2, "python"),
            (Client::TypeScript2, "auto-python"),
            (Client::TypeScript2, "python-legacy"),
            (Client::TypeScript1, "python-legacy"),
        ],
    );
}

/// Walks these tours, one after another, through the server `peer`.
fn walk(config: &GatewayConfig, tours: &[(Client, &str)]) {
    let gateway = Gateway::start(config);
    for (client, tour) in tours {
        client.walk(tour, &gateway.url("peer"), Some(&gateway.cert));
    }
}
