//! The parts of a call that are pure computing, each against what else could do it: owns the inputs and the timing. It
//! asserts no time, only that each part does its work.
//!
//! CPU time of this thread; every figure is the median of several rounds, in which the candidates take turns.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

#[allow(dead_code, reason = "the gateway's own file, of which the wheel needs a part")]
#[path = "../../engine/src/shard/clock.rs"]
mod clock;
#[allow(dead_code, reason = "the gateway's own file, of which a part is measured")]
#[path = "../../engine/src/shard/wheel.rs"]
mod wheel;

use std::collections::{BTreeMap, BinaryHeap};
use std::hint::black_box;

use hdrhistogram::Histogram;
use mcp_protocol::jsonrpc::{ScanLimits, scan};
use serde::Deserialize;
use serde_json::value::RawValue;
use wheel::{Timer, Wheel};

/// Rounds per figure.
const ROUNDS: usize = 11;
/// Bytes that each candidate reads per round.
const BYTES_PER_ROUND: usize = 8 << 20;

fn main() {
    scans();
    histogram();
    timers();
}

/// A message with its members left as they are: what `serde_json` needs at least to tell messages apart.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

type Candidate = (&'static str, fn(&[u8]) -> bool);

const CANDIDATES: [Candidate; 4] = [
    ("the gateway's scan", |text| scan(text, &ScanLimits::default()).is_ok()),
    ("serde_json, envelope", |text| {
        serde_json::from_slice::<Envelope<'_>>(text).is_ok_and(|envelope| {
            envelope.id.is_some()
                && (envelope.method.is_some() || envelope.result.is_some())
                && envelope.params.is_some() != envelope.result.is_some()
        })
    }),
    ("serde_json, Value", |text| serde_json::from_slice::<serde_json::Value>(text).is_ok()),
    ("sonic-rs, Value", |text| sonic_rs::from_slice::<sonic_rs::Value>(text).is_ok()),
];

fn scans() {
    for (name, text) in [
        ("small call", small_call()),
        ("64 KiB of text", text_result(64 << 10)),
        ("1 MiB nested", nested_result(1 << 20)),
    ] {
        let times = BYTES_PER_ROUND.div_ceil(text.len());
        let costs = in_turn(CANDIDATES.map(|(_, read)| {
            let text = &text;
            move || (0..times).for_each(|_| assert!(read(black_box(text))))
        }));
        println!("scan of {name}, {} bytes", text.len());
        for ((candidate, _), ns) in CANDIDATES.iter().zip(costs) {
            let per_byte = ns / (times * text.len()) as f64;
            let ratio = ns / costs[0];
            println!(
                "  {candidate:<22} {:>7.2} GB/s  {:>9.0} ns each  {ratio:>5.2}x",
                1.0 / per_byte,
                ns / times as f64
            );
        }
    }
}

fn small_call() -> Vec<u8> {
    br#"{"jsonrpc":"2.0","id":12345,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hi there"},"_meta":{"progressToken":7}}}"#.to_vec()
}

fn text_result(bytes: usize) -> Vec<u8> {
    let line = "Some text with a \\\"quoted\\\" word, an escape\\nand wörds beyond ASCII. ";
    let text = line.repeat(bytes / line.len());
    format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"content":[{{"type":"text","text":"{text}"}}]}}}}"#)
        .into_bytes()
}

fn nested_result(bytes: usize) -> Vec<u8> {
    let row = r#"{"id":184467,"name":"row","tags":["a","b",{"deep":[1,2.5,-3e7,true,null]}],"point":{"x":1.25,"y":-7}},"#;
    let rows = row.repeat(bytes / row.len());
    format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"rows":[{}]}}}}"#, rows.trim_end_matches(',')).into_bytes()
}

fn histogram() {
    const RECORDS: u64 = 1_000_000;
    let mut hdr = Histogram::<u32>::new_with_bounds(1, 3_600_000_000, 2).unwrap();
    let mut plain = vec![0_u32; 4096];
    // The bodies differ in type: each is timed on its own, round by round.
    let [hdr_ns, plain_ns] = in_turn::<_, 2>([
        Box::new(|| (0..RECORDS).for_each(|at| hdr.saturating_record(black_box(spread(at)))))
            as Box<dyn FnMut()>,
        Box::new(|| {
            for at in 0..RECORDS {
                let us = black_box(spread(at));
                // 32 steps per power of two: what a table made for this range alone would need.
                let power = 63 - (us | 1).leading_zeros() as usize;
                let step = (us >> power.saturating_sub(5)) as usize & 31;
                plain[power * 32 + step] += 1;
            }
        }),
    ]);
    let per_record = |ns: f64| ns / RECORDS as f64;
    println!("a latency recorded");
    println!("  hdrhistogram, 2 digits {:>6.2} ns", per_record(hdr_ns));
    println!("  power-of-two table     {:>6.2} ns", per_record(plain_ns));
    assert!(!hdr.is_empty() && plain.iter().any(|&count| count > 0));
}

/// A latency in microseconds, spread over 100 µs to 100 ms.
fn spread(at: u64) -> u64 {
    100 + at.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 100_000
}

fn timers() {
    const OWNERS: u64 = 100_000;
    let owners: Vec<Timer> = (0..OWNERS).map(|_| Timer::default()).collect();
    let mut wheel = Wheel::new(0);
    let mut due = Vec::new();
    let mut tree: BTreeMap<(u64, u64), ()> = (0..OWNERS).map(|owner| ((owner, owner), ())).collect();
    let mut at_tree: Vec<u64> = (0..OWNERS).collect();
    let mut heap = BinaryHeap::new();
    let mut now = 0;
    let [wheeled, ordered, heaped] = in_turn::<_, 3>([
        Box::new(|| {
            // A second passes between two calls of a connection whose deadline is a minute: entries come up and are put back.
            now += 1_000;
            for (owner, timer) in owners.iter().enumerate() {
                wheel.set(black_box(timer), owner as u64, now + 60_000);
            }
            wheel.advance(now, &mut due);
            for (owner, tick) in due.drain(..) {
                let timer = &owners[owner as usize];
                if Wheel::visit(timer, tick, now) == Some(false) {
                    wheel.set(timer, owner, timer.deadline());
                }
            }
        }) as Box<dyn FnMut()>,
        Box::new(|| {
            for owner in 0..OWNERS {
                let old = at_tree[owner as usize];
                tree.remove(&(old, owner));
                at_tree[owner as usize] = old + 60_000;
                tree.insert((old + 60_000, owner), ());
            }
        }),
        Box::new(|| {
            // Lazy deletion: every renewal is a push, every push is popped some time.
            (0..OWNERS).for_each(|owner| heap.push(std::cmp::Reverse((60_000 + owner, owner))));
            while heap.pop().is_some() {}
        }),
    ]);
    let each = |ns: f64| ns / OWNERS as f64;
    println!("a deadline renewed, {OWNERS} owners");
    println!("  the gateway's wheel    {:>6.2} ns", each(wheeled));
    println!("  BTreeMap               {:>6.2} ns", each(ordered));
    println!("  BinaryHeap             {:>6.2} ns", each(heaped));
    assert_eq!((tree.len() as u64, heap.len(), wheel.next_due().is_none()), (OWNERS, 0, false));
}

/// Lets the candidates take turns; the median CPU time of each, in nanoseconds.
fn in_turn<F: FnMut(), const N: usize>(mut candidates: [F; N]) -> [f64; N] {
    let mut rounds = [const { Vec::new() }; N];
    for _ in 0..ROUNDS {
        for (candidate, seen) in candidates.iter_mut().zip(&mut rounds) {
            let started = cpu_ns();
            candidate();
            seen.push(cpu_ns() - started);
        }
    }
    rounds.map(|mut seen| {
        seen.sort_unstable();
        seen[ROUNDS / 2] as f64
    })
}

/// This thread's CPU time so far.
fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
