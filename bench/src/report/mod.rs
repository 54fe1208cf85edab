//! What a run says at its end: the numbers (JSON) and their forms for people. It measures nothing and knows no socket.
//!
//! [`Report`] is what every command shares, with one optional field per section that only some commands have. A section
//! lives in a file of its own: its numbers, how they are made, and its lines of the table (`Display`). Units stand last
//! in the names.

mod handshake;
mod latency;
mod model;
mod server;
mod stream;
mod table;

pub use handshake::{HandshakeReport, Memory};
pub use latency::{Latency, Over};
pub use model::{Bytes, Calls, Client, Connections, FailureDetail, Failures, Report};
pub(crate) use server::ServerSamples;
pub use server::{ResidentPoint, Server, ServerThread};
pub use stream::StreamReport;

/// A quotient, and 0 where there is nothing to divide by: JSON has no NaN.
pub(crate) fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}
