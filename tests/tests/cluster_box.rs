//! Setup: three zones of network namespaces, each with a gateway as the cluster overlay of `deploy/` makes it, two nodes of a
//! Redis Cluster and MCP servers; an L4 balancer with the guide's probes in front of the gateways, and steady traffic over all
//! doors. Needs CAP_NET_ADMIN, and fails without. Times: `mcp_system_tests::boxes::settings`.
//! Claim: a rolling restart and a rotation of the certificate fail no call; a killed gateway fails only calls in flight there;
//! no session is lost by any of it.
//!
//! `cargo test --release -p mcp-system-tests --test cluster_box -- --nocapture` prints what each event cost.

use std::collections::BTreeSet;
use std::time::Instant;

use mcp_system_tests::boxes::settings::{HEARD, ZONES};
use mcp_system_tests::boxes::{Call, ClusterBox, LIMIT, reasons};
use mcp_system_tests::eventually;

/// Calls that are made, over all doors, before an event counts as over.
const CALLS: usize = 500;
/// Connections in a row that show a new certificate, on whichever shard each of them is.
const LOOKS: usize = 8;
/// The gateway that is killed.
const KILLED: usize = 1;

#[test]
fn what_a_failure_costs() {
    let mut all = ClusterBox::start();
    all.clients.ledger().begin("nothing");
    some_calls(&all);
    rolling_restart(&mut all);
    rotation(&all);
    gateway_is_killed(&mut all);
    eprintln!("{}", all.clients.ledger().table());
    for pod in &all.pods {
        assert_eq!(
            pod.liveness_kills(),
            0,
            "the kubelet would have killed a gateway that lived:\n{}",
            pod.log()
        );
    }
}

fn rolling_restart(all: &mut ClusterBox) {
    let begun = all.clients.ledger().begin("rolling restart");
    for pod in 0..ZONES {
        all.pods[pod].terminate();
        all.start_pod(pod);
    }
    some_calls(all);
    nothing_failed(all, begun);
    no_session_is_lost(all);
}

fn rotation(all: &ClusterBox) {
    let begun = all.clients.ledger().begin("certificate rotation");
    all.deployment.mount(1);
    for pod in &all.pods {
        let deployment = &all.deployment;
        // Each shard looks at the files by itself.
        eventually("the new certificate is in force", LIMIT, || {
            (0..LOOKS).all(|_| pod.shows(deployment, 1)).then_some(())
        });
    }
    some_calls(all);
    nothing_failed(all, begun);
    no_session_is_lost(all);
}

fn gateway_is_killed(all: &mut ClusterBox) {
    let begun = all.clients.ledger().begin("a gateway is killed");
    all.pods[KILLED].kill();
    let dead = Instant::now();
    all.balanced(KILLED, false);
    some_calls(all);
    all.start_pod(KILLED);
    some_calls(all);
    let calls = all.clients.ledger().since(begun);
    let failed = failed(&calls, |_| true);
    let was_in_flight = |call: &&&Call| call.begun < dead + HEARD;
    let others: Vec<&Call> = failed.iter().filter(|call| !was_in_flight(call)).copied().collect();
    assert!(others.is_empty(), "calls failed that were not in flight:\n{}", reasons(&others, begun));
    // A client has one call in flight.
    let clients: BTreeSet<usize> = failed.iter().map(|call| call.client).collect();
    assert_eq!(clients.len(), failed.len(), "more failed than were in flight:\n{}", reasons(&failed, begun));
    no_session_is_lost(all);
}

fn nothing_failed(all: &ClusterBox, begun: Instant) {
    let calls = all.clients.ledger().since(begun);
    let failed = failed(&calls, |_| true);
    assert!(
        failed.is_empty(),
        "{} of {} calls failed:\n{}",
        failed.len(),
        calls.len(),
        reasons(&failed, begun)
    );
}

fn no_session_is_lost(all: &ClusterBox) {
    let found = all.ask_sessions(true);
    assert!(
        found.lost.is_empty(),
        "of {} sessions {} are lost: {:#?}",
        found.alive,
        found.lost.len(),
        found.lost
    );
    assert!(found.stranded.is_empty(), "{:#?}", found.stranded);
}

/// Lets the clients make some more calls.
fn some_calls(all: &ClusterBox) {
    let begun = Instant::now();
    eventually("calls are made", LIMIT, || (all.clients.ledger().since(begun).len() >= CALLS).then_some(()));
}

fn failed(calls: &[Call], counts: impl Fn(&Call) -> bool) -> Vec<&Call> {
    calls.iter().filter(|call| call.why.is_some() && counts(call)).collect()
}
