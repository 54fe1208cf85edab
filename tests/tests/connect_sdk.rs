//! Setup: a client of an official SDK starts `mcp-gateway connect` as its stdio server; behind the gateway stands a real MCP
//! server.
//! Claim: everything that client and server can do with each other works through both, whatever the door between them:
//! requests in both directions, progress, cancellation, subscriptions, streams that are resumed; and a 2.x client finds
//! the server's era.

use mcp_system_tests::connect;
use mcp_system_tests::peers::{Client, Server};
use mcp_system_tests::port::free_port;
use mcp_system_tests::{Gateway, GatewayConfig};

#[test]
fn typescript1_through_everything_over_https() {
    over_https(Client::TypeScript1, "everything", &Server::everything());
}

#[test]
fn typescript1_through_the_legacy_fixture_over_https() {
    over_https(Client::TypeScript1, "legacy", &Server::legacy());
}

#[test]
fn typescript2_through_the_modern_fixture_over_https() {
    over_https(Client::TypeScript2, "modern", &Server::modern());
}

#[test]
fn typescript2_finds_a_legacy_server_over_https() {
    over_https(Client::TypeScript2, "auto-everything", &Server::everything());
}

#[test]
fn typescript2_finds_a_modern_server_over_https() {
    over_https(Client::TypeScript2, "auto-modern", &Server::modern());
}

#[test]
fn python1_through_everything_over_https() {
    over_https(Client::Python1, "everything", &Server::everything());
}

#[test]
fn python2_through_everything_over_https() {
    over_https(Client::Python2, "everything", &Server::everything());
}

#[test]
fn python2_finds_a_modern_server_over_https() {
    over_https(Client::Python2, "auto-modern", &Server::modern());
}

#[test]
fn typescript1_through_everything_over_mcpb() {
    over_mcpb(Client::TypeScript1, "everything", &Server::everything());
}

#[test]
fn typescript2_through_the_modern_fixture_over_mcpb() {
    over_mcpb(Client::TypeScript2, "modern", &Server::modern());
}

#[test]
fn python1_through_everything_over_mcpb() {
    over_mcpb(Client::Python1, "everything", &Server::everything());
}

#[test]
fn python2_finds_a_modern_server_over_mcpb() {
    over_mcpb(Client::Python2, "auto-modern", &Server::modern());
}

#[test]
fn typescript1_through_everything_over_a_socket() {
    over_socket(Client::TypeScript1, "everything", &Server::everything());
}

#[test]
fn typescript2_through_the_modern_fixture_over_a_socket() {
    over_socket(Client::TypeScript2, "modern", &Server::modern());
}

#[test]
fn python1_through_everything_over_a_socket() {
    over_socket(Client::Python1, "everything", &Server::everything());
}

#[test]
fn python2_finds_a_modern_server_over_a_socket() {
    over_socket(Client::Python2, "auto-modern", &Server::modern());
}

fn over_https(client: Client, tour: &str, server: &Server) {
    let gateway = Gateway::start(&GatewayConfig::new().server("peer", &[&server.url]));
    client.walk_stdio(tour, &connect::command(&gateway, &gateway.url("peer"), &[]));
}

fn over_mcpb(client: Client, tour: &str, server: &Server) {
    let port = free_port();
    let gateway = Gateway::start(&GatewayConfig::new().binary_port(port).server("peer", &[&server.url]));
    client.walk_stdio(tour, &connect::command(&gateway, &format!("mcpb://127.0.0.1:{port}"), &[]));
}

fn over_socket(client: Client, tour: &str, server: &Server) {
    let gateway = Gateway::start(&GatewayConfig::new().server("peer", &[&server.url]));
    client.walk_stdio(tour, &connect::command(&gateway, &gateway.socket_url("peer"), &[]));
}
