//! Claim: a call costs no more instructions in user space than it did when it was last measured, and some head-room. Times mean
//! nothing on a shared machine; instructions do.
//! Set-up: the gateway runs with one shard under `valgrind --tool=callgrind`, several times: with few calls, and with so
//! many more of one kind. The difference, divided by the number of calls, is what one costs. Counted are all threads but the
//! main one, which makes the certificate.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test may block")]
// The bounds hold for optimised code of this architecture. Valgrind shows every CPU as one with AVX2 at most, so that newer
// ones run the same code.
#![cfg(all(target_arch = "x86_64", not(debug_assertions)))]

mod calls;

use std::path::Path;
use std::process::{Command, Stdio};

use calls::{Caller, Kind, Setup};

/// Calls that every run makes of every kind.
const WARM_UP_CALLS: u64 = 50;
/// Calls of one kind on top of those.
const CALLS: u64 = 1_000;

/// Instructions per call that are allowed: what was measured (without link-time optimisation, as CI builds), and 5 %.
fn bound(kind: Kind) -> u64 {
    match kind {
        Kind::LegacyJson => 44_000,
        Kind::LegacyEvents => 52_800,
        Kind::ModernJson => 48_300,
        Kind::ModernEvents => 57_100,
    }
}

#[test]
fn a_call_costs_no_more_instructions_than_measured() {
    let base = instructions(None);
    let counted = Kind::ALL.map(|kind| (kind, instructions(Some(kind)).saturating_sub(base) / CALLS));
    for (kind, per_call) in counted {
        println!("{kind:?}: {per_call} instructions per call, {} allowed", bound(kind));
    }
    for (kind, per_call) in counted {
        assert!(per_call > 1_000, "{kind:?}: {per_call} instructions per call cannot be");
        assert!(
            per_call <= bound(kind),
            "{kind:?}: {per_call} instructions per call, {} allowed",
            bound(kind)
        );
    }
}

/// The instructions of a gateway's whole life, its main thread's not counted.
fn instructions(more: Option<Kind>) -> u64 {
    let setup = Setup::new();
    let out = setup.file.with_extension("callgrind");
    let mut gateway = Command::new("valgrind")
        .args(["--tool=callgrind", "--separate-threads=yes", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env!("CARGO_BIN_EXE_mcp-gateway"))
        .arg("--config")
        .arg(&setup.file)
        .stdout(Stdio::null())
        .spawn()
        .expect("valgrind is installed (apt-get install valgrind)");
    let calls = std::panic::catch_unwind(|| {
        let mut caller = Caller::open(&setup);
        Kind::ALL.into_iter().for_each(|kind| caller.call(kind, WARM_UP_CALLS));
        if let Some(kind) = more {
            caller.call(kind, CALLS);
        }
    });
    // SIGTERM drains, and valgrind writes what it counted at the end.
    rustix::process::kill_process(rustix::process::Pid::from_child(&gateway), rustix::process::Signal::TERM)
        .unwrap();
    let status = gateway.wait().unwrap();
    let counted = collect(&out);
    if let Err(panic) = calls {
        std::panic::resume_unwind(panic);
    }
    assert!(status.success(), "{status}");
    counted
}

/// Adds up the totals of all threads but the first, and removes the files: `callgrind` writes one per thread, with its
/// number as suffix.
fn collect(out: &Path) -> u64 {
    let mut total = 0;
    for thread in 1.. {
        let file = format!("{}-{thread:02}", out.display());
        let Ok(text) = std::fs::read_to_string(&file) else { break };
        let _ = std::fs::remove_file(&file);
        let counted = text.lines().find_map(|line| line.strip_prefix("totals: "));
        if thread > 1 {
            total += counted.map_or(0, |counted| counted.parse::<u64>().unwrap());
        }
    }
    let _ = std::fs::remove_file(out);
    total
}
