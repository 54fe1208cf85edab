//! Setup: clients that others wrote (the official SDKs' WebSocket transports, which stand on Node's own WebSocket and on
//! Python's `websockets`) walk through real MCP servers behind the gateway's `/ws/<server>`.
//! Claim: what works over Streamable HTTP works over a socket: sessions, requests in both directions, progress, logging,
//! cancellation, subscriptions, and what a server says by itself.

use mcp_system_tests::peers::{Client, Server};
use mcp_system_tests::{Gateway, GatewayConfig};

#[test]
fn typescript_1_through_everything() {
    walk(Client::TypeScript1, "everything", &Server::everything());
}

#[test]
fn typescript_1_through_the_legacy_fixture() {
    walk(Client::TypeScript1, "legacy", &Server::legacy());
}

#[test]
fn typescript_2_through_everything() {
    walk(Client::TypeScript2, "everything", &Server::everything());
}

#[test]
fn typescript_2_through_the_modern_fixture() {
    walk(Client::TypeScript2, "modern", &Server::modern());
}

#[test]
fn python_1_through_everything() {
    walk(Client::Python1, "everything", &Server::everything());
}

fn walk(client: Client, tour: &str, server: &Server) {
    let gateway = Gateway::start(&GatewayConfig::new().server("peer", &[&server.url]));
    client.walk(tour, &gateway.socket_url("peer"), Some(&gateway.cert));
}
