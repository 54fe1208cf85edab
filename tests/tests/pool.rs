//! Setup: one shard in front of one server, called again and again over one connection.
//! Claim: the calls share one connection to the server, which is kept while it is used and given up when it has been idle for
//! `max_idle_time`.

use std::time::Duration;

use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::mcp::{LEGACY, open_session, post_in_session, request};
use mcp_system_tests::{Gateway, GatewayConfig, eventually};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn an_idle_connection_is_used_again_and_then_given_up() {
    let fixture = Fixture::legacy(nothing);
    let config = GatewayConfig::new()
        .set("gateway.runtime", "shards = 1")
        .set("gateway.connection_pool", "max_idle_time = \"2s\"")
        .server("one", &[&fixture.url()]);
    let gateway = Gateway::start(&config);
    let mut connection = gateway.connect().expect("a connection");
    let session = open_session(&mut connection, "/mcp/one", LEGACY);
    for id in 0..20 {
        let answer = post_in_session(&mut connection, "/mcp/one", &session, &request(id, "ping", json!({})));
        assert_eq!(answer.expect("an answer").status, 200);
    }
    let kept = |state: &str| {
        gateway
            .metrics()
            .value("mcp_gateway_upstream_pool_connections", &[("server", "one"), ("state", state)])
    };
    assert_eq!((kept("in_use"), kept("idle")), (Some(0.0), Some(1.0)));
    eventually("the idle connection is given up", LIMIT, || (kept("idle") == Some(0.0)).then_some(()));
}
