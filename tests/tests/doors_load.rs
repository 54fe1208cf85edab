//! Setup: the load driver over HTTP/2 and WebSocket, 200 connections on two shards, legacy and modern; and its scenario of idle
//! connections by door, with a twentieth of them.
//! Claim: every call is answered rightly and no connection is lost, one call or many in flight; the scenario's report says for each
//! door what an idle connection costs.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mcp_system_tests::gateway::{beside_test, binary};
use mcp_system_tests::{Gateway, GatewayConfig, Process};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn the_load_driver_speaks_http2_and_websocket() {
    let bench = beside_test("mcp-bench");
    let mut upstream = Process::start(
        "mcp-bench upstream",
        Command::new(&bench).args(["upstream", "--listen", "127.0.0.1:0", "--sessions", "--for", "90s"]),
    );
    let url = upstream.wait_line(LIMIT, |line| {
        line.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned)
    });
    let gateway = Gateway::start(&GatewayConfig::new().server("fast", &[&url]));

    for (scheme, path) in [("h2", "mcp"), ("wss", "ws")] {
        for (revision, in_flight) in
            [("2025-03-26", "1"), ("2025-06-18", "1"), ("2025-11-25", "8"), ("2026-07-28", "8")]
        {
            let target = format!("{scheme}://{}/{path}/fast", gateway.addr);
            let mut command = Command::new(&bench);
            command.args(["run", "--url", &target, "--revision", revision, "--connections", "200"]);
            command.args(["--in-flight", in_flight]);
            command.args(["--duration", "500ms", "--warmup", "0s", "--expect", "\"hi\"", "--json", "-"]);
            command.arg("--ca-file").arg(&gateway.cert.ca_file);
            let finished = Process::start("mcp-bench run", &mut command).finish(LIMIT);
            let told = finished.stderr.join("\n");
            assert!(finished.status.success(), "{target} {revision}: {}: {told}", finished.status);
            let report: Value = serde_json::from_str(&finished.stdout.join("\n")).expect("a report");
            assert_eq!(report["protocol"], if scheme == "h2" { "h2" } else { "ws" });
            assert_eq!(report["connections"]["up_at_end"], 200, "{target} {revision}: {told}");
            assert!(
                report["calls"]["ok"].as_u64().is_some_and(|ok| ok >= 200),
                "{target} {revision}: {told}"
            );
            let ended = if scheme == "h2" && revision != "2026-07-28" { 200 } else { 0 };
            assert_eq!(report["connections"]["sessions_ended"], ended, "{target} {revision}: {told}");
        }
    }
}

#[test]
fn the_scenario_says_what_an_idle_connection_of_each_door_costs() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/scenarios/idle-doors.toml");
    let mut command = Command::new(beside_test("mcp-bench"));
    command.arg("scenario").arg(file).args(["--scale", "0.05", "--json", "-"]);
    command.arg("--gateway").arg(binary());
    let finished = Process::start("mcp-bench scenario", &mut command).finish(LIMIT);
    let told = finished.stderr.join("\n");
    let report: Value = serde_json::from_str(&finished.stdout.join("\n"))
        .unwrap_or_else(|error| panic!("{error}: {:?}\n{told}", finished.stdout));
    let targets = report["cells"][0]["targets"].as_array().expect("a list");
    let names: Vec<_> = targets.iter().filter_map(|target| target["name"].as_str()).collect();
    assert_eq!(names, ["http1", "h2", "ws", "mcpb"]);
    for target in targets {
        assert_eq!(target["turns"][0]["report"]["protocol"], target["name"]);
        assert_eq!(target["failures"], 0, "{told}");
        // With so few, what the process needs once is a large part of it; the scenario itself has the bounds.
        assert!(target["median"]["idle"]["resident"].is_number(), "{target}");
    }
}
