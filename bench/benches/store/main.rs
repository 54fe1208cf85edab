//! The store's client against what else speaks to Redis from one core: owns the rounds and the goals. Never a figure that
//! was taken while something else of ours ran.
//!
//! One server on one CPU; on another one client after the other, each with one connection. What counts is commands per
//! second of the client's CPU time: wall time has the server in it, which all of them share.

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

mod callers;
mod crates;
mod ours;
mod server;
mod table;
mod tool;
mod usage;

use std::process::ExitCode;

use clap::Parser;
use mcp_bench::sys::keep_to;
use mcp_engine::runtime::Executor;

use self::callers::{Kind, Load};
use self::server::Server;
use self::table::Table;
use self::usage::Sample;

/// Bytes of a value.
const VALUE_BYTES: usize = 512;
/// Commands of a round, by callers: half a second or so each.
const COMMANDS: [(usize, usize); 3] = [(1, 8_000), (64, 96_000), (1_024, 128 * 1_024)];
/// How many times as many commands as the better crate the goal is, by callers.
const GOALS: [(usize, f64); 3] = [(1, 1.0), (64, 1.0), (1_024, 1.5)];
/// Rounds that a figure is the median of.
const ROUNDS: usize = 7;

/// Measures the store's client against redis-benchmark and the crates `fred` and `redis`.
#[derive(Parser)]
struct Args {
    /// Rounds that each figure is the median of.
    #[arg(long, default_value_t = ROUNDS)]
    rounds: usize,
    /// The CPU that the server keeps to.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// The CPU that the clients keep to.
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// Only this candidate, by a part of its name: for a profiler.
    #[arg(long, default_value = "")]
    only: String,
    /// Only this number of callers.
    #[arg(long)]
    callers: Option<usize>,
    /// Gives the crates' commands a deadline too; ours always have one.
    #[arg(long)]
    deadlines: bool,
    /// Fails when a goal is missed.
    #[arg(long)]
    check: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A client that is measured.
#[derive(Clone, Copy)]
struct Candidate {
    name: &'static str,
    round: fn(&Load) -> Sample,
}

/// Ours, on the driver that the gateway takes where it may, and on the other.
const OURS: [Candidate; 2] = [
    Candidate { name: "ours, io_uring", round: |load| ours::round(Executor::IoUring, load) },
    Candidate { name: "ours, epoll", round: |load| ours::round(Executor::Epoll, load) },
];
const CRATES: [Candidate; 2] = [
    Candidate { name: "fred", round: crates::fred_round },
    Candidate { name: "redis", round: crates::redis_round },
];

fn main() -> ExitCode {
    let args = Args::parse();
    let server = Server::start(args.server_cpu);
    keep_to(&[args.client_cpu]).expect("the client's CPU exists");
    let ring = ours::has_ring();
    if !ring {
        println!("the kernel refuses io_uring: epoll alone");
    }
    let candidates: Vec<_> = (OURS.iter().skip(usize::from(!ring)))
        .chain(&CRATES)
        .filter(|candidate| candidate.name.contains(&args.only))
        .copied()
        .collect();
    let mut missed = 0;
    for (callers, commands) in COMMANDS {
        if args.callers.is_some_and(|only| only != callers) {
            continue;
        }
        for kind in [Kind::Set, Kind::Get] {
            let load = Load {
                port: server.port(),
                kind,
                callers,
                each: commands / callers,
                deadlines: args.deadlines,
            };
            let table = measure(&candidates, &load, args.rounds);
            missed += table.print(&load, goal_of(callers));
        }
    }
    if args.only.is_empty() {
        tool::compare(server.port(), args.client_cpu, args.rounds);
    }
    println!("\n{missed} goals missed");
    ExitCode::from(u8::from(args.check && missed > 0))
}

/// The candidates take turns, and each round begins with another.
fn measure(candidates: &[Candidate], load: &Load, rounds: usize) -> Table {
    let mut table = Table::new(candidates.iter().map(|candidate| candidate.name));
    for round in 0..rounds {
        for turn in 0..candidates.len() {
            let place = (round + turn) % candidates.len();
            table.add(place, (candidates[place].round)(load));
        }
    }
    table
}

fn goal_of(callers: usize) -> f64 {
    GOALS.iter().find(|(of, _)| *of == callers).map_or(1.0, |(_, goal)| *goal)
}
