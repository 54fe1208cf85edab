//! Setup: a client of the TypeScript SDK, 1.x or 2.x, walks through a real MCP server behind the gateway.
//! Claim: everything that a client and a server of one era can do with each other works through the gateway: sessions, streams
//! and their resumption, requests in both directions, progress, cancellation, subscriptions, multi-round-trip results; and a
//! 2.x client that does not know the server's era finds it.

use mcp_system_tests::peers::{Client, Server};
use mcp_system_tests::{Gateway, GatewayConfig};

#[test]
fn sdk1_through_everything() {
    walk(Client::TypeScript1, "everything", &Server::everything());
}

#[test]
fn sdk1_through_the_legacy_fixture() {
    walk(Client::TypeScript1, "legacy", &Server::legacy());
}

#[test]
fn sdk2_through_everything() {
    walk(Client::TypeScript2, "everything", &Server::everything());
}

#[test]
fn sdk2_through_the_legacy_fixture() {
    walk(Client::TypeScript2, "legacy", &Server::legacy());
}

#[test]
fn sdk2_through_the_modern_fixture() {
    walk(Client::TypeScript2, "modern", &Server::modern());
}

#[test]
fn sdk2_finds_a_legacy_server() {
    walk(Client::TypeScript2, "auto-everything", &Server::everything());
}

#[test]
fn sdk2_finds_a_modern_server() {
    walk(Client::TypeScript2, "auto-modern", &Server::modern());
}

fn walk(client: Client, tour: &str, server: &Server) {
    let gateway = Gateway::start(&GatewayConfig::new().server("peer", &[&server.url]));
    client.walk(tour, &gateway.url("peer"), Some(&gateway.cert));
}
