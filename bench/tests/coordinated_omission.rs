//! A stall of the server shows in every call that was due meanwhile, not only in those in flight.
//!
//! The upstream stops once for a second, at a rate of 500 calls per second over 4 connections. Whatever the machine
//! does, the calls due in the first half of the stall cannot be answered before its end, so they take longer than
//! 500 ms: at least 249 of them. Counted from the sending, only a call in flight can see the stall.

mod common;

use common::{Upstream, calls_over, report};

const STALL: [&str; 4] = ["--stall-at-call", "300", "--stall-for", "1s"];

#[test]
fn the_open_loop_counts_from_the_intended_time() {
    let upstream = Upstream::start(&STALL);
    let (code, report) = report(&[
        "run",
        "--url",
        &upstream.url,
        "--connections",
        "4",
        "--rate",
        "500/s",
        "--duration",
        "3s",
        "--warmup",
        "0ms",
    ]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["calls"]["measured"], 1500);
    let intended = calls_over(&report["latency"], 500_000);
    let from_send = calls_over(&report["from_send"], 500_000);
    assert!(intended >= 249, "{intended} calls over 500 ms: {report:#}");
    assert!(intended > from_send, "{intended} and {from_send}: {report:#}");
    assert!(from_send >= 1, "{report:#}");
}

#[test]
fn the_closed_loop_shows_it_once_per_connection() {
    let upstream = Upstream::start(&STALL);
    let (code, report) =
        report(&["run", "--url", &upstream.url, "--connections", "4", "--duration", "3s", "--warmup", "0ms"]);
    assert_eq!(code, 0, "{report:#}");
    let seen = calls_over(&report["latency"], 500_000);
    assert!(seen >= 1, "{report:#}");
    assert_eq!(seen, calls_over(&report["from_send"], 500_000));
}
