//! `mcp-bench compare`, with targets that need no installing: it takes turns, divides round by round, and says of a target
//! that cannot what it cannot. Claim: figures of failed turns are in no median, and nothing it started is left.

mod common;

use std::path::Path;

use common::{Upstream, bench, report};

#[test]
fn targets_have_their_turns_and_ratios() {
    let other = Upstream::start(&[]);
    let pid = other.pid().to_string();
    let (code, report) = report(&[
        "compare",
        "--targets",
        "direct,url",
        "--url",
        &other.url,
        "--server-pid",
        &pid,
        "--rounds",
        "3",
        "--connections",
        "4",
        "--duration",
        "200ms",
        "--warmup",
        "50ms",
    ]);
    assert_eq!(code, 0, "{report:#}");
    for (place, name) in ["direct", "url"].into_iter().enumerate() {
        let target = &report["targets"][place];
        assert_eq!(target["name"], name);
        let turns = target["turns"].as_array().unwrap();
        assert_eq!(turns.len(), 3);
        assert!(turns.iter().all(|turn| turn["report"]["calls"]["ok"].as_u64() > Some(0)), "{report:#}");
        assert_eq!(target["failures"], 0);
    }
    let ratio = &report["ratio"]["url"];
    assert_eq!(ratio["rounds"], 3, "{report:#}");
    let [min, median, max] = ["min", "median", "max"].map(|key| ratio[key].as_f64().unwrap());
    assert!(0.0 < min && min <= median && median <= max, "{ratio}");
}

#[test]
fn a_target_that_cannot_says_why_and_has_no_ratio() {
    // Both serve `echo`; what the prefix makes of it neither knows.
    let other = Upstream::start(&[]);
    let options =
        ["compare", "--targets", "direct,url", "--url", &other.url, "--rounds", "2", "--duration", "200ms"];
    let more = ["--connections", "2", "--tool-prefix", "no-such-", "--warmup", "0ms"];
    let (code, report) = report(&[&options[..], &more].concat());
    assert_eq!(code, 1, "{report:#}");
    let [direct, url] = [&report["targets"][0], &report["targets"][1]];
    assert_eq!(direct["turns"].as_array().map(Vec::len), Some(2), "{report:#}");
    assert_eq!(url["turns"].as_array().map(Vec::len), Some(0), "{report:#}");
    assert!(url["cannot"].as_str().unwrap().contains("jsonrpc_error -32602"), "{url:#}");
    assert!(report["ratio"].as_object().unwrap().is_empty());
}

#[test]
fn a_target_that_is_not_installed_is_an_error_unless_it_may_be_skipped() {
    let options = ["compare", "--targets", "direct,gateway", "--gateway", "/no/such/gateway"];
    let output = bench(&options);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("/no/such/gateway") && told.contains("cargo build"), "{told}");

    let more = ["--skip-missing", "--rounds", "1", "--connections", "2", "--duration", "100ms"];
    let (code, report) = report(&[&options[..], &more].concat());
    assert_eq!(code, 1, "a target without figures is no success: {report:#}");
    assert!(report["targets"][1]["cannot"].as_str().unwrap().contains("not installed"), "{report:#}");
}

#[test]
fn a_wrong_word_is_found_before_anything_starts() {
    for (options, word) in [
        (&["--load", "upstream"][..], "no load"),
        (&["--", "--no-such-option"][..], "--no-such-option"),
        (&["--targets", "nginx", "--threads", "2"][..], "threads"),
        (&["--targets", "direct,direct"][..], "name"),
        (&["--targets", "url"][..], "url"),
    ] {
        let output = bench(&[&["compare"][..], options].concat());
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {told}");
        assert!(told.contains(word), "{options:?}: {told}");
    }
}

/// The files and processes of a run are gone at its end.
#[test]
fn nothing_is_left_behind() {
    let own = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compare-leaves-nothing");
    // A folder of an earlier run may still be there.
    let _ = std::fs::remove_dir_all(&own);
    std::fs::create_dir_all(&own).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_mcp-bench"))
        .args(["compare", "--targets", "direct", "--rounds", "1", "--connections", "2"])
        .args(["--duration", "100ms", "--json", "-", "--", "--warmup", "0ms"])
        .env("TMPDIR", &own)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_dir(&own).unwrap().count(), 0);
}
