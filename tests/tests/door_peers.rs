//! Setup: clients that others wrote (the official SDKs' WebSocket transports, which stand on Node's own WebSocket and on Python's
//! `websockets`, and their SSE transports, which post over connections of their own) walk through real MCP servers behind the
//! gateway's `/ws/<server>` and `/sse/<server>`; the latter on four shards.
//! Claim: what works over Streamable HTTP works over a socket and over HTTP with SSE: sessions, requests in both directions,
//! progress, sampling, elicitation, roots, logging, cancellation, subscriptions, streams that are closed and resumed, what a server
//! says by itself; the end of an SSE stream is the end of its session.

use mcp_system_tests::peers::{Client, Server};
use mcp_system_tests::{Gateway, GatewayConfig};

#[test]
fn typescript_1_through_everything_over_a_socket() {
    over_socket(Client::TypeScript1, "everything", &Server::everything());
}

#[test]
fn typescript_1_through_the_legacy_fixture_over_a_socket() {
    over_socket(Client::TypeScript1, "legacy", &Server::legacy());
}

#[test]
fn typescript_2_through_everything_over_a_socket() {
    over_socket(Client::TypeScript2, "everything", &Server::everything());
}

#[test]
fn typescript_2_through_the_modern_fixture_over_a_socket() {
    over_socket(Client::TypeScript2, "modern", &Server::modern());
}

#[test]
fn python_1_through_everything_over_a_socket() {
    over_socket(Client::Python1, "everything", &Server::everything());
}

#[test]
fn typescript_1_through_everything_over_sse() {
    over_sse(Client::TypeScript1, "everything", &Server::everything());
}

#[test]
fn typescript_1_through_the_legacy_fixture_over_sse() {
    over_sse(Client::TypeScript1, "legacy", &Server::legacy());
}

#[test]
fn typescript_2_through_everything_over_sse() {
    over_sse(Client::TypeScript2, "everything", &Server::everything());
}

#[test]
fn python_1_through_everything_over_sse() {
    over_sse(Client::Python1, "everything", &Server::everything());
}

#[test]
fn python_1_through_everything_over_sse_and_http_2() {
    over_sse(Client::Python1, "everything-h2", &Server::everything());
}

fn over_socket(client: Client, tour: &str, server: &Server) {
    let gateway = Gateway::start(&GatewayConfig::new().server("peer", &[&server.url]));
    client.walk(tour, &gateway.socket_url("peer"), Some(&gateway.cert));
}

fn over_sse(client: Client, tour: &str, server: &Server) {
    let config = GatewayConfig::new().env("MCP_GATEWAY__RUNTIME__SHARDS", "4").server("peer", &[&server.url]);
    let gateway = Gateway::start(&config);
    client.walk(tour, &gateway.sse_url("peer"), Some(&gateway.cert));
}
