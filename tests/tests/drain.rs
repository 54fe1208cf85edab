//! Setup: the gateway is asked to end (SIGTERM) while a call is at its server.
//! Claim: the call is answered, new work is not taken, and the process ends by itself with status 0.

use std::time::Duration;

use mcp_system_tests::mcp::{mirrored, modern_call};
use mcp_system_tests::peers::Server;
use mcp_system_tests::{Gateway, GatewayConfig, eventually};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(40);

#[test]
fn what_was_begun_is_finished() {
    let server = Server::modern();
    let gateway = Gateway::start(&GatewayConfig::new().server("modern", &[&server.url]));
    let mut connection = gateway.connect().expect("a connection");
    let call = modern_call(json!(1), "slow_compute", json!({"seconds": 2, "label": "last"}));
    connection.send_post("/mcp/modern", &mirrored("tools/call", Some("slow_compute")), &call).expect("sent");
    eventually("the call is under way", LIMIT, || {
        (gateway.metrics().count("mcp_gateway_requests_in_flight", &[]) >= 1.0).then_some(())
    });

    let answered = std::thread::spawn(move || connection.read_response(false));
    let addr = gateway.addr;
    let config = gateway.cert.client_config();
    let status = gateway.stop(LIMIT);
    assert_eq!(status.code(), Some(0));
    let answer = answered.join().expect("no panic").expect("the call was answered");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["result"]["content"][0]["text"], "Computed last for 2 s");
    assert!(mcp_system_tests::Connection::tls(addr, &config).is_err(), "somebody still listens");
}

#[test]
fn an_idle_gateway_ends_at_once() {
    let gateway = Gateway::start(&GatewayConfig::new());
    let mut idle = gateway.connect().expect("a connection");
    assert_eq!(idle.request("GET", "/health", &[], b"").expect("an answer").status, 200);
    assert_eq!(gateway.stop(LIMIT).code(), Some(0));
    assert!(idle.is_closed().unwrap_or(true), "the idle connection is still open");
}
