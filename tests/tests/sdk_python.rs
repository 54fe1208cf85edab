//! Setup: a client of Python's `mcp`, 1.x or 2.x, walks through a real MCP server behind the gateway.
//! Claim: everything that a client and a server of one era can do with each other works through the gateway, over HTTP/2, too;
//! and a 2.x client that does not know the server's era finds it.

use mcp_system_tests::peers::{Client, Server};
use mcp_system_tests::{Gateway, GatewayConfig};

#[test]
fn mcp1_through_everything() {
    walk(Client::Python1, "everything", &Server::everything());
}

#[test]
fn mcp1_through_everything_over_http_2() {
    walk(Client::Python1, "everything-h2", &Server::everything());
}

#[test]
fn mcp2_through_everything() {
    walk(Client::Python2, "everything", &Server::everything());
}

#[test]
fn mcp2_through_the_modern_fixture() {
    walk(Client::Python2, "modern", &Server::modern());
}

#[test]
fn mcp2_finds_a_legacy_server() {
    walk(Client::Python2, "auto-everything", &Server::everything());
}

#[test]
fn mcp2_finds_a_modern_server() {
    walk(Client::Python2, "auto-modern", &Server::modern());
}

fn walk(client: Client, tour: &str, server: &Server) {
    let gateway = Gateway::start(&GatewayConfig::new().server("peer", &[&server.url]));
    client.walk(tour, &gateway.url("peer"), Some(&gateway.cert));
}
