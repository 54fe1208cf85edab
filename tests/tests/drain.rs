//! Setup: the gateway is asked to end (SIGTERM) while a call is at its server; or with a delay before the drain.
//! Claim: the call is answered, new work is not taken, and the process ends by itself with status 0. During the delay nothing
//! but `/ready` is refused, and in its second half answers end their connections; Ctrl-C does without it, and a second signal
//! ends it.

use std::time::Duration;

use mcp_system_tests::fixtures::{Fixture, nothing};
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

#[test]
fn during_the_delay_only_readiness_fails() {
    let server = Fixture::modern(json!([]), nothing);
    let config = GatewayConfig::new()
        .set("gateway.server", "drain_delay = \"1h\"")
        .set("gateway.server", "drain_timeout = \"30s\"")
        .server("modern", &[&server.url()]);
    let mut gateway = Gateway::start(&config);
    let mut kept = gateway.connect().expect("a connection");
    assert_eq!(kept.request("GET", "/ready", &[], b"").expect("an answer").status, 200);
    gateway.process.signal(libc::SIGTERM);
    let told = eventually("it is not ready", LIMIT, || {
        let answer = gateway.get("/ready").expect("an answer");
        (answer.status == 503).then_some(answer)
    });
    assert_eq!(told.json()["status"], "draining");

    for _ in 0..20 {
        let mut fresh = gateway.connect().expect("a new connection");
        for connection in [&mut fresh, &mut kept] {
            let call = modern_call(1, "greet", json!({"name": "you"}));
            let headers = mirrored("tools/call", Some("greet"));
            let answer = connection.post("/mcp/modern", &headers, &call).expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        assert_eq!(fresh.request("GET", "/health", &[], b"").expect("an answer").status, 200);
        assert_eq!(fresh.request("GET", "/ready", &[], b"").expect("an answer").status, 503);
    }
    // A second signal: the drain begins.
    assert_eq!(gateway.stop(LIMIT).code(), Some(0));
    assert!(kept.is_closed().unwrap_or(true), "the idle connection is still open");
}

#[test]
fn whoever_asks_on_is_told_to_go_before_the_drain() {
    let mut gateway = Gateway::start(&GatewayConfig::new().set("gateway.server", "drain_delay = \"10s\""));
    let mut kept = gateway.connect().expect("a connection");
    gateway.process.signal(libc::SIGTERM);
    // It never meets an end that was not announced.
    let announced = eventually("an answer ends the connection", LIMIT, || {
        let answer = kept.request("GET", "/health", &[], b"").expect("an answer");
        assert_eq!(answer.status, 200);
        answer.header("connection").map(str::to_owned)
    });
    assert_eq!(announced, "close");
    assert!(kept.is_closed().expect("closed in order"), "it is still open");
    // New ones are taken all the same.
    assert_eq!(gateway.get("/health").expect("an answer").status, 200);
    assert_eq!(gateway.stop(LIMIT).code(), Some(0));
}

#[test]
fn after_the_delay_the_gateway_drains() {
    let mut gateway = Gateway::start(&GatewayConfig::new().set("gateway.server", "drain_delay = \"50ms\""));
    gateway.process.signal(libc::SIGTERM);
    assert_eq!(gateway.process.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn ctrl_c_does_without_the_delay() {
    let mut gateway = Gateway::start(&GatewayConfig::new().set("gateway.server", "drain_delay = \"1h\""));
    gateway.process.signal(libc::SIGINT);
    assert_eq!(gateway.process.finish(LIMIT).status.code(), Some(0));
}
