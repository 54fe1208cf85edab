//! Setup: 12,000 TLS connections on two shards, each with a session of its own, held while calls go round them, as the load
//! driver's scenario says; and 1,000 of them once more, with an eye on the gateway's own counts.
//! Claim: none is lost, every call on any of them is answered rightly, and the gateway counts them as they come and go.

use std::path::Path;
use std::time::Duration;

use mcp_system_tests::load::{FastServer, driver, report, report_of};
use mcp_system_tests::resources::raise_open_files;
use mcp_system_tests::{Gateway, GatewayConfig, Process, eventually};

const CONNECTIONS: u64 = 1_000;
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn twelve_thousand_sessions_are_held() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/scenarios/hold-12k.toml");
    let mut command = driver();
    command.arg("scenario").arg(file).args(["--json", "-"]);
    let finished = Process::start("mcp-bench scenario", &mut command).finish(LIMIT);
    let told = finished.stderr.join("\n");
    assert!(finished.status.success(), "{}: {told}", finished.status);
    let report = report(&finished);
    let goals = report["goals"].as_array().expect("a list");
    assert!(goals.len() >= 3 && goals.iter().all(|goal| goal["verdict"] == "met"), "{goals:?}");
    let held = &report["cells"][0]["targets"][0]["turns"][0]["report"]["connections"];
    assert_eq!((&held["up_at_end"], &held["reopened"]), (&12_000.into(), &0.into()), "{held}");
}

#[test]
fn sessions_and_connections_are_counted_while_held() {
    raise_open_files();
    let server = FastServer::start();
    let gateway = Gateway::start(&GatewayConfig::new().server("fast", &[&server.url]));

    let (count, pid) = (CONNECTIONS.to_string(), gateway.process.id().to_string());
    let target = gateway.url("fast");
    let options = [
        &["hold", "--connections", &count, "--ramp", "1000/s", "--hold", "2s", "--rate", "1000/s"][..],
        &["--url", &target, "--server-pid", &pid, "--timeout", "30s", "--keep-sessions"],
    ]
    .concat();
    let (report, _) = report_of(&gateway, &options, LIMIT);
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
