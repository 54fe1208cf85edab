//! Setup: real MCP servers that are reached by HTTP with SSE or by WebSocket, behind `/mcp/<server>`; clients of the official
//! SDKs walk through them over Streamable HTTP.
//! Claim: what works with a server over Streamable HTTP works with the same server over these: requests in both directions,
//! progress, logging, cancellation and subscriptions.

use mcp_system_tests::peers::{Client, Server};
use mcp_system_tests::{Gateway, GatewayConfig};

#[test]
fn typescript_1_through_everything_over_sse() {
    walk(Client::TypeScript1, "sse", &Server::everything_over_sse());
}

#[test]
fn python_1_through_everything_over_sse() {
    walk(Client::Python1, "sse", &Server::everything_over_sse());
}

#[test]
fn typescript_2_through_everything_over_websocket() {
    walk(Client::TypeScript2, "websocket", &Server::everything_over_websocket());
}

#[test]
fn python_1_through_everything_over_websocket() {
    walk(Client::Python1, "websocket", &Server::everything_over_websocket());
}

/// One shard: whichever a connection comes to, the channel is there.
fn walk(client: Client, transport: &str, server: &Server) {
    let config = GatewayConfig::new().set("gateway.runtime", "shards = 1");
    let gateway = Gateway::start(&config.server_over("peer", transport, &[&server.url], ""));
    client.walk("everything", &gateway.url("peer"), Some(&gateway.cert));
}
