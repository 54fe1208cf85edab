//! Connections that end are made again: without a failure where the answer announced it, and with a new session where
//! the old one is gone.

mod common;

use common::{Upstream, report, report_with};

#[test]
fn an_announced_close_costs_no_failure() {
    let upstream = Upstream::start(&[]);
    let (code, report) = report(&[
        "run",
        "--url",
        &upstream.url,
        "--revision",
        "2026-07-28",
        "--connections",
        "3",
        "--rate",
        "20/s",
        "--duration",
        "500ms",
        "--warmup",
        "0ms",
        "--header",
        "Connection: close",
    ]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["calls"]["ok"], 10);
    assert_eq!(report["connections"]["lost"], 0, "{report:#}");
    // Ten calls over three connections that carry one call each.
    assert!(report["connections"]["reopened"].as_u64().unwrap() >= 7, "{report:#}");
}

#[test]
fn a_session_that_is_gone_is_begun_anew() {
    let first = Upstream::start(&["--sessions"]);
    let (url, address) = (first.url.clone(), first.address().to_string());
    let mut second = None;
    let (code, report) = report_with(
        &["run", "--url", &url, "--connections", "4", "--rate", "100/s", "--duration", "5s"],
        |_| {
            drop(first);
            second = Some(Upstream::start_at(&address, &["--sessions"]));
        },
    );
    assert_eq!(code, 1);
    // Each connection tried its old session once and was told that it is gone.
    let details = report["failures"]["details"].as_array().unwrap();
    let gone = details.iter().find(|d| d["kind"] == "http_status").unwrap();
    assert_eq!((&gone["detail"], &gone["count"]), (&"404".into(), &4.into()), "{report:#}");
    assert_eq!(report["connections"]["lost"], 4, "{report:#}");
    assert_eq!(report["connections"]["up_at_end"], 4, "{report:#}");
}
