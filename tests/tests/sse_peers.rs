//! Setup: clients that others wrote (the official SDKs' SSE transports, which post over connections of their own) walk through
//! real MCP servers behind the gateway's `/sse/<server>`, on four shards.
//! Claim: what works over Streamable HTTP works over HTTP with SSE: requests in both directions, progress, sampling,
//! elicitation, roots, logging, cancellation, subscriptions, streams that are closed and resumed; the end of a stream is the
//! end of its session.

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
fn python_1_through_everything() {
    walk(Client::Python1, "everything", &Server::everything());
}

#[test]
fn python_1_through_everything_over_http_2() {
    walk(Client::Python1, "everything-h2", &Server::everything());
}

fn walk(client: Client, tour: &str, server: &Server) {
    let config = GatewayConfig::new().env("MCP_GATEWAY__RUNTIME__SHARDS", "4").server("peer", &[&server.url]);
    let gateway = Gateway::start(&config);
    client.walk(tour, &gateway.sse_url("peer"), Some(&gateway.cert));
}
