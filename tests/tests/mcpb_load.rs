//! Setup: the load driver over MCPB, 200 connections on two shards, legacy and modern.
//! Claim: every call is answered rightly, and none of the connections is lost.

use std::process::Command;
use std::time::Duration;

use mcp_system_tests::gateway::beside_test;
use mcp_system_tests::port::free_port;
use mcp_system_tests::{Gateway, GatewayConfig, Process};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn the_load_driver_speaks_mcpb() {
    let bench = beside_test("mcp-bench");
    let mut upstream = Process::start(
        "mcp-bench upstream",
        Command::new(&bench).args(["upstream", "--listen", "127.0.0.1:0", "--sessions", "--for", "90s"]),
    );
    let url = upstream.wait_line(LIMIT, |line| {
        line.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned)
    });
    let port = free_port();
    let gateway = Gateway::start(&GatewayConfig::new().server("fast", &[&url]).binary_port(port));

    for (revision, in_flight) in [
        ("2025-03-26", "1"),
        ("2025-06-18", "1"),
        ("2025-11-25", "1"),
        ("2025-11-25", "8"),
        ("2026-07-28", "8"),
    ] {
        let target = format!("mcpb://127.0.0.1:{port}");
        let mut command = Command::new(&bench);
        command.args(["run", "--url", &target, "--revision", revision, "--connections", "200"]);
        command.args(["--in-flight", in_flight]);
        command.args(["--duration", "1s", "--warmup", "0s", "--expect", "\"hi\"", "--json", "-"]);
        command.arg("--ca-file").arg(&gateway.cert.ca_file);
        let finished = Process::start("mcp-bench run", &mut command).finish(LIMIT);
        let told = finished.stderr.join("\n");
        assert!(finished.status.success(), "{revision}: {}: {told}", finished.status);
        let report: Value = serde_json::from_str(&finished.stdout.join("\n")).expect("a report");
        assert_eq!(report["connections"]["up_at_end"], 200, "{revision}: {told}");
        assert!(report["calls"]["ok"].as_u64().is_some_and(|ok| ok >= 200), "{revision}: {told}");
    }

    let target = format!("mcpb://127.0.0.1:{port}");
    let mut command = Command::new(&bench);
    command.args([
        "handshake",
        "--url",
        &target,
        "--total",
        "300",
        "--calls",
        "2",
        "--settle",
        "0ms",
        "--json",
        "-",
    ]);
    command.arg("--ca-file").arg(&gateway.cert.ca_file);
    let finished = Process::start("mcp-bench handshake", &mut command).finish(LIMIT);
    assert!(finished.status.success(), "{}: {}", finished.status, finished.stderr.join("\n"));
    let report: Value = serde_json::from_str(&finished.stdout.join("\n")).expect("a report");
    assert_eq!(report["calls"]["ok"], 600);
}
