//! redis-benchmark, the server's own tool: owns running it. It is no client library: it writes ready-made bytes and counts
//! replies, so it shows what the system calls alone cost.

use std::process::{Command, Stdio};

use mcp_bench::sys::{Confinement, confine};

use super::table::median;
use super::usage::{Sample, Usage};
use super::{VALUE_BYTES, callers::Kind};

/// Commands of a round.
const COMMANDS: usize = 400_000;
/// Commands that it sends before it reads replies.
const PIPELINE: usize = 32;
/// Its connections: with one, and with as many as it takes by default.
const CONNECTIONS: [usize; 2] = [1, 50];

pub(crate) fn compare(port: u16, cpu: usize, rounds: usize) {
    println!("\nredis-benchmark -P {PIPELINE}, {VALUE_BYTES} bytes");
    for connections in CONNECTIONS {
        for kind in [Kind::Set, Kind::Get] {
            let samples: Vec<_> = (0..rounds).map(|_| round(port, cpu, kind, connections)).collect();
            println!(
                "  {:<3} {connections:>2} connections {:>14.0} {:>14.0}",
                kind.name(),
                median(samples.iter().map(Sample::per_cpu_second)),
                median(samples.iter().map(Sample::per_second)),
            );
        }
    }
}

fn round(port: u16, cpu: usize, kind: Kind, connections: usize) -> Sample {
    let mut command = Command::new("redis-benchmark");
    command
        .args(["-p", &port.to_string(), "-t", &kind.name().to_lowercase(), "-q"])
        .args(["-c", &connections.to_string(), "-P", &PIPELINE.to_string()])
        .args(["-n", &COMMANDS.to_string(), "-d", &VALUE_BYTES.to_string()])
        .stdout(Stdio::null());
    confine(&mut command, Confinement { cpus: vec![cpu], ..Confinement::default() });
    let before = Usage::children();
    let end = command.status().expect("redis-benchmark is installed");
    assert!(end.success(), "redis-benchmark failed");
    before.sample(COMMANDS)
}
