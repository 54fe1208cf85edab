//! Setup: real MCP servers that are reached by HTTP with SSE or by WebSocket, behind `/mcp/<server>`; clients of the official
//! SDKs walk through them over Streamable HTTP. Encrypted, such a server is another gateway before the real one.
//! Claim: what works with a server over Streamable HTTP works with the same server over these: requests in both directions,
//! progress, logging, cancellation and subscriptions; over TLS as without, and only where the certificate proves the name.

use mcp_system_tests::mcp::{LEGACY, initialize};
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

#[test]
fn typescript_1_through_everything_over_encrypted_sse() {
    let server = Server::everything_over_sse();
    let between = between("sse", &server);
    walk_encrypted("sse", &between.sse_url("peer"), &between);
}

#[test]
fn typescript_1_through_everything_over_an_encrypted_websocket() {
    let server = Server::everything_over_websocket();
    let between = between("websocket", &server);
    walk_encrypted("websocket", &between.socket_url("peer"), &between);
}

/// The gateway that speaks TLS for a server that does not.
fn between(transport: &str, server: &Server) -> Gateway {
    Gateway::start(&one_shard().server_over("peer", transport, &[&server.url], ""))
}

/// Walks through where the authority is known; without it nothing reaches the server.
fn walk_encrypted(transport: &str, url: &str, between: &Gateway) {
    let known = format!("tls.ca_file = {:?}", between.cert.ca_file);
    let config = one_shard().server_over("peer", transport, &[url], &known).server_over(
        "stranger",
        transport,
        &[url],
        "",
    );
    let gateway = Gateway::start(&config);
    Client::TypeScript1.walk("everything", &gateway.url("peer"), Some(&gateway.cert));
    let mut connection = gateway.connect().expect("a connection");
    let answer = connection.post("/mcp/stranger", &[], &initialize(LEGACY)).expect("an answer");
    assert_eq!(answer.status, 502, "{}", answer.text());
}

/// One shard: whichever a connection comes to, the channel is there.
fn walk(client: Client, transport: &str, server: &Server) {
    let gateway = Gateway::start(&one_shard().server_over("peer", transport, &[&server.url], ""));
    client.walk("everything", &gateway.url("peer"), Some(&gateway.cert));
}

fn one_shard() -> GatewayConfig {
    GatewayConfig::new().set("gateway.runtime", "shards = 1")
}
