//! Setup: real MCP servers as processes of the gateway, behind `/mcp/<server>`; clients of the official SDKs walk through
//! them over Streamable HTTP.
//! Claim: what works with a server over Streamable HTTP works with the same server over its standard streams: requests in both
//! directions, progress, logging, cancellation and subscriptions.

use mcp_system_tests::peers::{Client, everything_over_stdio};
use mcp_system_tests::{Gateway, GatewayConfig};

#[test]
fn typescript_1_through_everything() {
    walk(Client::TypeScript1, "everything");
}

#[test]
fn typescript_2_through_everything() {
    walk(Client::TypeScript2, "everything");
}

#[test]
fn python_1_through_everything() {
    walk(Client::Python1, "everything");
}

/// One shard: whichever a connection comes to, the process is there.
fn walk(client: Client, tour: &str) {
    let config = GatewayConfig::new().set("gateway.runtime", "shards = 1");
    let gateway = Gateway::start(&config.stdio("peer", &everything_over_stdio(), ""));
    client.walk(tour, &gateway.url("peer"), Some(&gateway.cert));
}
