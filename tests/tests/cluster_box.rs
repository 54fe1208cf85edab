//! Setup: three zones of network namespaces, each with a gateway as the cluster overlay of `deploy/` makes it, two nodes of a
//! Redis Cluster and MCP servers; an L4 balancer with the guide's probes in front of the gateways, and steady traffic over all
//! doors. Needs CAP_NET_ADMIN, and fails without. Times: `mcp_system_tests::boxes::settings`.
//! Claim: a rolling restart and a rotation of the certificate fail no call; a killed gateway fails only calls in flight there;
//! the loss of a master of Redis or of a whole zone fails calls for a bounded time; no session is lost by any of it.
//!
//! `cargo test --release -p mcp-system-tests --test cluster_box -- --nocapture` prints what each event cost.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mcp_system_tests::boxes::settings::{BACK_WINDOW, HEARD, MASTER_WINDOW, SLACK, ZONE_WINDOW, ZONES};
use mcp_system_tests::boxes::{Call, ClusterBox, Found, LIMIT, STORE, reasons};
use mcp_system_tests::eventually;
use mcp_system_tests::redis::Store;

/// Calls that are made, over all doors, before an event counts as over; and so many in a row that nothing fails any more.
const CALLS: usize = 500;
/// Connections in a row that show a new certificate, on whichever shard each of them is.
const LOOKS: usize = 8;
/// The gateway that is killed.
const KILLED: usize = 1;
/// The zone that is lost: another one than the first, whose nodes are asked first.
const LOST: usize = 2;

#[test]
fn what_a_failure_costs() {
    let mut all = ClusterBox::start();
    all.clients.ledger().begin("nothing");
    some_calls(&all);
    rolling_restart(&mut all);
    rotation(&all);
    gateway_is_killed(&mut all);
    master_is_killed(&mut all);
    zone_is_lost(&all);
    zone_is_back(&all);
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

fn master_is_killed(all: &mut ClusterBox) {
    let begun = all.clients.ledger().begin("a master of Redis is killed");
    let old = all.redis.master_of("a").expect("a master");
    all.redis.nodes_mut()[old].kill();
    all.redis.await_without(&[old], LIMIT);
    calm_within(all, begun, MASTER_WINDOW, None);
    no_session_is_lost(all);

    // Two masters in one zone would be a majority that a zone's loss takes along.
    let begun = all.clients.ledger().begin("it is back, and master again");
    all.redis.nodes_mut()[old].restart();
    all.redis.replicated("a", LIMIT);
    all.redis.give_mastership(old, LIMIT);
    all.redis.await_complete(LIMIT);
    calm_within(all, begun, MASTER_WINDOW, None);
    no_session_is_lost(all);
}

fn zone_is_lost(all: &ClusterBox) {
    let begun = all.clients.ledger().begin_without("a zone is lost", Some(LOST));
    all.cut_zone(LOST);
    all.balanced(LOST, false);
    all.redis.await_without(&[LOST, LOST + ZONES], LIMIT);
    // Sessions whose own server is there are refused until it is back.
    calm_within(all, begun, ZONE_WINDOW, Some(LOST));
    let found = none_lost(all, false);
    let of_store: Vec<_> = found.stranded.iter().filter(|told| told.contains(STORE)).collect();
    assert!(of_store.is_empty(), "the store knows, and is not asked: {of_store:#?}");
    assert!(found.alive > found.stranded.len(), "more are stranded than a zone has: {found:#?}");
}

fn zone_is_back(all: &ClusterBox) {
    let begun = all.clients.ledger().begin_without("the zone is back", Some(LOST));
    all.mend_zone(LOST);
    all.balanced(LOST, true);
    all.redis.give_mastership(LOST, LIMIT);
    all.redis.await_complete(LIMIT);
    calm_within(all, begun, BACK_WINDOW, None);
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

/// Waits until no call fails any more, those of sessions that are bound to a server in the zone `away` apart; the last one
/// that did must have begun within `window`.
fn calm_within(all: &ClusterBox, begun: Instant, window: Duration, away: Option<usize>) {
    let counts = |call: &Call| !call.is_stranded(away);
    eventually("no call fails any more", LIMIT + window + SLACK, || {
        let mut calls = all.clients.ledger().since(begun);
        calls.retain(|call| counts(call));
        let last = calls.iter().rposition(|call| call.why.is_some()).map_or(0, |last| last + 1);
        (calls.len() - last >= CALLS).then_some(())
    });
    let calls = all.clients.ledger().since(begun);
    let failed = failed(&calls, counts);
    eprintln!("{}", reasons(&failed, begun));
    let late: Vec<&Call> =
        failed.iter().filter(|call| call.begun > begun + window + SLACK).copied().collect();
    assert!(late.is_empty(), "calls failed after {:?}:\n{}", window + SLACK, reasons(&late, begun));
    let lost: Vec<&Call> = calls.iter().filter(|call| call.lost).collect();
    assert!(lost.is_empty(), "sessions were lost:\n{}", reasons(&lost, begun));
}

fn no_session_is_lost(all: &ClusterBox) {
    let found = none_lost(all, true);
    assert!(found.stranded.is_empty(), "{:#?}", found.stranded);
}

/// What became of all sessions, none of which is lost.
fn none_lost(all: &ClusterBox, patient: bool) -> Found {
    let found = all.ask_sessions(patient);
    assert!(
        found.lost.is_empty(),
        "of {} sessions {} are lost: {:#?}",
        found.alive,
        found.lost.len(),
        found.lost
    );
    found
}

/// Lets the clients make some more calls.
fn some_calls(all: &ClusterBox) {
    let begun = Instant::now();
    eventually("calls are made", LIMIT, || (all.clients.ledger().begun_since(begun) >= CALLS).then_some(()));
}

fn failed(calls: &[Call], counts: impl Fn(&Call) -> bool) -> Vec<&Call> {
    calls.iter().filter(|call| call.why.is_some() && counts(call)).collect()
}
