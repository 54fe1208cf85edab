//! Setup: 12,000 TLS connections on two shards, each with a session of its own, held while calls go round them, as the load
//! driver's scenario says; and 1,000 of them once more, with an eye on the gateway's own counts.
//! Claim: none is lost, every call on any of them is answered rightly, and the gateway counts them as they come and go.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mcp_system_tests::gateway::beside_test;
use mcp_system_tests::resources::raise_open_files;
use mcp_system_tests::{Gateway, GatewayConfig, Process, eventually};
use serde_json::Value;

const CONNECTIONS: u64 = 1_000;
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn twelve_thousand_sessions_are_held() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/scenarios/hold-12k.toml");
    let mut command = Command::new(bench());
    command.arg("scenario").arg(file).args(["--json", "-"]);
    let finished = Process::start("mcp-bench scenario", &mut command).finish(LIMIT);
    let told = finished.stderr.join("\n");
    assert!(finished.status.success(), "{}: {told}", finished.status);
    let report: Value = serde_json::from_str(&finished.stdout.join("\n"))
        .unwrap_or_else(|error| panic!("{error}: {:?}\n{told}", finished.stdout));
    let goals = report["goals"].as_array().expect("a list");
    assert!(goals.len() >= 3 && goals.iter().all(|goal| goal["verdict"] == "met"), "{goals:?}");
    let held = &report["cells"][0]["targets"][0]["turns"][0]["report"]["connections"];
    assert_eq!((&held["up_at_end"], &held["reopened"]), (&12_000.into(), &0.into()), "{held}");
}

#[test]
fn sessions_and_connections_are_counted_while_held() {
    raise_open_files();
    let mut upstream = Process::start(
        "mcp-bench upstream",
        Command::new(bench()).args(["upstream", "--listen", "127.0.0.1:0", "--sessions", "--for", "150s"]),
    );
    let url = upstream.wait_line(LIMIT, |line| {
        line.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned)
    });
    let gateway = Gateway::start(&GatewayConfig::new().server("fast", &[&url]));

    let count = CONNECTIONS.to_string();
    let target = gateway.url("fast");
    let pid = gateway.process.id().to_string();
    let mut command = Command::new(bench());
    command.args(["hold", "--connections", &count, "--ramp", "1000/s", "--hold", "2s", "--rate", "1000/s"]);
    command.args(["--url", &target, "--server-pid", &pid, "--timeout", "30s", "--keep-sessions"]);
    command.args(["--json", "-"]).arg("--ca-file").arg(&gateway.cert.ca_file);
    let finished = Process::start("mcp-bench hold", &mut command).finish(LIMIT);
    let told = finished.stderr.join("\n");
    let report: Value = serde_json::from_str(&finished.stdout.join("\n"))
        .unwrap_or_else(|error| panic!("{error}: {:?}\n{told}", finished.stdout));
    assert!(finished.status.success(), "{}: {told}", finished.status);
    let connections = &report["connections"];
    assert_eq!(connections["opened"], CONNECTIONS, "{connections}");
    assert_eq!(connections["up_at_end"], CONNECTIONS, "{connections}");
    assert_eq!(connections["lost"], 0, "{connections}");
    assert_eq!(connections["reopened"], 0, "{connections}");
    assert_eq!(report["failures"]["total"], 0, "{}", report["failures"]);
    assert!(report["calls"]["ok"].as_u64().is_some_and(|ok| ok >= 1000), "{}", report["calls"]);
    println!(
        "{} bytes per connection with its session, {} CPU µs per call",
        report["server"]["bytes_per_connection"], report["server"]["cpu_us_per_call"]
    );

    let metrics = gateway.metrics();
    assert_eq!(metrics.value("mcp_gateway_sessions_active", &[]), Some(CONNECTIONS as f64));
    eventually("the connections are gone", LIMIT, || {
        (gateway.metrics().value("mcp_gateway_connections_active", &[]) == Some(0.0)).then_some(())
    });
    assert_eq!(gateway.stop(LIMIT).code(), Some(0));
}

/// The load driver beside the running test.
fn bench() -> PathBuf {
    let path = beside_test("mcp-bench");
    assert!(path.is_file(), "no {}: build it with `cargo build --release -p mcp-bench`", path.display());
    path
}
