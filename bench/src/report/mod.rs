//! What a run says at its end: the numbers (JSON) and their forms for people. It measures nothing and knows no socket.
//!
//! [`Report`] is what every command shares, with one optional field per section that only some commands have. A section
//! lives in a file of its own: its numbers, how they are made, and its lines of the table (`Display`). Units stand last
//! in the names.

mod about;
mod cgroup;
mod fairness;
mod handshake;
mod hdr;
mod intervals;
mod kernel;
mod latency;
mod model;
mod overload;
mod series;
mod server;
mod stream;
mod table;

pub use about::About;
pub use cgroup::Cgroup;
pub(crate) use cgroup::CgroupSamples;
pub use fairness::FairnessReport;
pub use handshake::{HandshakeReport, Memory};
pub use intervals::LatencyPoint;
pub(crate) use intervals::{Intervals, interval_for};
pub use kernel::Kernel;
pub(crate) use kernel::KernelSamples;
pub(crate) use latency::histogram;
pub use latency::{CurvePoint, Latency, Over};
pub use model::{Bytes, Calls, Client, Connections, FailureDetail, Failures, Report};
pub use overload::{OverloadPhase, OverloadReport, OverloadSecond};
pub(crate) use series::{Reading, Readings};
pub use series::{SamplePoint, Series};
pub(crate) use server::ServerSamples;
pub use server::{Server, ServerThread, Shard};
pub use stream::StreamReport;

/// A quotient, and 0 where there is nothing to divide by: JSON has no NaN.
pub(crate) fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

/// Bytes as MiB.
fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
