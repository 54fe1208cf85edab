//! Setup: the load driver over HTTP/2, WebSocket, HTTP with SSE and MCPB, 200 connections on two shards, legacy and modern; and its
//! scenario of idle connections by door, with a twentieth of them.
//! Claim: every call is answered rightly and no connection is lost, one call or many in flight; the scenario's report says for each
//! door what an idle connection costs.

use std::path::Path;
use std::time::Duration;

use mcp_system_tests::gateway::binary;
use mcp_system_tests::load::{FastServer, driver, report, report_of};
use mcp_system_tests::port::free_port;
use mcp_system_tests::{Gateway, GatewayConfig, Process};

const LIMIT: Duration = Duration::from_secs(120);

/// Revisions and calls in flight per connection.
const RUNS: [(&str, &str); 4] =
    [("2025-03-26", "1"), ("2025-06-18", "1"), ("2025-11-25", "8"), ("2026-07-28", "8")];

#[test]
fn the_load_driver_speaks_http2() {
    let (_server, gateway) = start(GatewayConfig::new());
    runs_at(&gateway, "h2", &format!("h2://{}/mcp/fast", gateway.addr));
}

#[test]
fn the_load_driver_speaks_websocket() {
    let (_server, gateway) = start(GatewayConfig::new());
    runs_at(&gateway, "ws", &format!("wss://{}/ws/fast", gateway.addr));
}

#[test]
fn the_load_driver_speaks_http_with_sse() {
    let (_server, gateway) = start(GatewayConfig::new());
    let url = format!("sse://{}/sse/fast", gateway.addr);
    runs_at(&gateway, "sse", &url);
    // Longer without a call than the connection for POSTs is kept.
    let options =
        ["hold", "--url", &url, "--connections", "20", "--rest", "5s", "--hold", "1s", "--rate", "40/s"];
    let (report, told) = report_of(&gateway, &options, LIMIT);
    assert_eq!(report["failures"]["total"], 0, "{told}");
    assert!(report["calls"]["ok"].as_u64().is_some_and(|ok| ok >= 40), "{told}");
}

#[test]
fn the_load_driver_speaks_mcpb() {
    let port = free_port();
    let (_server, gateway) = start(GatewayConfig::new().binary_port(port));
    let url = format!("mcpb://127.0.0.1:{port}");
    runs_at(&gateway, "mcpb", &url);
    let options = ["handshake", "--url", &url, "--total", "300", "--calls", "2", "--settle", "0ms"];
    let (report, told) = report_of(&gateway, &options, LIMIT);
    assert_eq!(report["calls"]["ok"], 600, "{told}");
}

#[test]
fn the_scenario_says_what_an_idle_connection_of_each_door_costs() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/scenarios/idle-doors.toml");
    let mut command = driver();
    command.arg("scenario").arg(file).args(["--scale", "0.05", "--json", "-"]);
    command.arg("--gateway").arg(binary());
    let finished = Process::start("mcp-bench scenario", &mut command).finish(LIMIT);
    let told = finished.stderr.join("\n");
    let report = report(&finished);
    let targets = report["cells"][0]["targets"].as_array().expect("a list");
    let names: Vec<_> = targets.iter().filter_map(|target| target["name"].as_str()).collect();
    assert_eq!(names, ["http1", "h2", "ws", "sse", "mcpb"]);
    for target in targets {
        assert_eq!(target["turns"][0]["report"]["protocol"], target["name"]);
        assert_eq!(target["failures"], 0, "{told}");
        // With so few, what the process needs once is a large part of it; the scenario itself has the bounds.
        assert!(target["median"]["idle"]["resident"].is_number(), "{target}");
    }
}

fn start(config: GatewayConfig) -> (FastServer, Gateway) {
    let server = FastServer::start();
    let gateway = Gateway::start(&config.server("fast", &[&server.url]));
    (server, gateway)
}

fn runs_at(gateway: &Gateway, protocol: &str, url: &str) {
    for (revision, in_flight) in RUNS {
        let options = [
            &["run", "--url", url, "--revision", revision, "--connections", "200", "--in-flight", in_flight]
                [..],
            &["--duration", "500ms", "--warmup", "0s", "--expect", "\"hi\""],
        ]
        .concat();
        let (report, told) = report_of(gateway, &options, LIMIT);
        assert_eq!(report["protocol"], protocol);
        assert_eq!(report["connections"]["up_at_end"], 200, "{url} {revision}: {told}");
        assert!(report["calls"]["ok"].as_u64().is_some_and(|ok| ok >= 200), "{url} {revision}: {told}");
        // Where a session does not end with its connection.
        let ended = if protocol == "h2" && revision != "2026-07-28" { 200 } else { 0 };
        assert_eq!(report["connections"]["sessions_ended"], ended, "{url} {revision}: {told}");
    }
}
