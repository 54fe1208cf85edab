//! Setup: the official conformance suite runs against a fixture server on an official SDK, directly and then through the
//! gateway, for each revision for which the suite has requirements.
//! Claim: directly, exactly the scenarios of the committed baseline pass; through the gateway, every check holds that held
//! directly.

use mcp_system_tests::conformance::{baseline, run_directly, run_through};
use mcp_system_tests::peers::Server;
use mcp_system_tests::{Gateway, GatewayConfig};

#[test]
fn legacy_2025_11_25() {
    passes_through("2025-11-25", &Server::legacy());
}

#[test]
fn modern_2026_07_28() {
    passes_through("2026-07-28", &Server::modern());
}

fn passes_through(revision: &str, fixture: &Server) {
    let direct = run_directly(&fixture.url, revision);
    assert_eq!(direct.passing(), baseline(revision), "directly, against the baseline");

    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&fixture.url]));
    let through = run_through(&gateway, "fixture", revision);
    let lost = direct.lost_in(&through);
    assert!(lost.is_empty(), "lost in the gateway:\n{lost}\nit printed:\n{}", gateway.process.log());
}
