//! Setup: a session of each era is served while the gateway's metrics are scraped.
//! Claim: what happened is counted under the names that dashboards and alerts use, and what ended is counted no more.

use std::time::Duration;

use mcp_system_tests::peers::{Client, Server};
use mcp_system_tests::{Gateway, GatewayConfig, eventually};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn what_happens_is_counted() {
    let server = Server::modern();
    let gateway = Gateway::start(&GatewayConfig::new().server("modern", &[&server.url]));
    let before = gateway.metrics();
    Client::TypeScript2.walk("modern", &gateway.url("modern"), Some(&gateway.cert));
    let after = gateway.metrics();

    let grew = |name: &str, labels: &[(&str, &str)]| after.count(name, labels) - before.count(name, labels);
    let calls = [("server", "modern"), ("method", "tools/call")];
    // The tour makes 32 calls at once, and more one by one.
    assert!(grew("mcp_gateway_requests_total", &calls) > 40.0, "{after:?}");
    assert!(
        grew("mcp_gateway_requests_total", &[("server", "modern"), ("method", "server/discover")]) >= 1.0,
        "{after:?}"
    );
    assert!(grew("mcp_gateway_upstream_requests_total", &[("server", "modern")]) > 40.0, "{after:?}");
    assert!(grew("mcp_gateway_connections_total", &[]) >= 1.0, "{after:?}");
    assert!(grew("mcp_gateway_handshakes_total", &[]) >= 1.0, "{after:?}");
    assert!(grew("mcp_gateway_request_duration_seconds_count", &[]) > 40.0, "{after:?}");
    assert_eq!(after.value("mcp_gateway_build_info", &[]), Some(1.0));
}

#[test]
fn what_ended_is_counted_no_more() {
    let server = Server::legacy();
    let gateway = Gateway::start(&GatewayConfig::new().server("legacy", &[&server.url]));
    // The tour ends its session.
    Client::TypeScript1.walk("legacy", &gateway.url("legacy"), Some(&gateway.cert));
    eventually("nothing is left", LIMIT, || {
        let metrics = gateway.metrics();
        let gauges = [
            "mcp_gateway_requests_in_flight",
            "mcp_gateway_sessions_active",
            "mcp_gateway_connections_active",
        ];
        gauges.iter().all(|name| metrics.value(name, &[]) == Some(0.0)).then_some(())
    });
}
