//! Setup: three real servers, `server-everything` and the fixtures of both eras, behind one gateway as one server; a client of
//! the TypeScript SDK walks the tour of each of them at `/mcp`, by the names that the gateway gives.
//! Claim: whatever a client and a server can do with each other they can do where the server is one of many: prompts, resources,
//! completion, subscriptions, notifications, progress, cancellation, sampling, elicitation, streams and their resumption,
//! multi-round-trip results.

use mcp_system_tests::peers::{Client, Server};
use mcp_system_tests::{Gateway, GatewayConfig};

#[test]
fn every_tour_goes_as_well_where_its_server_is_one_of_many() {
    let servers = [Server::everything(), Server::legacy(), Server::modern()];
    let names = ["everything", "legacy-fixture", "modern-fixture"];
    let config = servers
        .iter()
        .zip(names)
        .fold(GatewayConfig::new(), |config, (server, name)| config.server(name, &[&server.url]));
    let gateway = Gateway::start(&config);
    let walk = |client: Client, tour: &str, server: &str| {
        let url = format!("https://{}/mcp#{server}", gateway.addr);
        client.walk(tour, &url, Some(&gateway.cert));
    };
    walk(Client::TypeScript1, "everything", "everything");
    walk(Client::TypeScript1, "legacy", "legacy-fixture");
    walk(Client::TypeScript2, "everything", "everything");
    walk(Client::TypeScript2, "legacy", "legacy-fixture");
    walk(Client::TypeScript2, "modern", "modern-fixture");
}
