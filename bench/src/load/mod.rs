//! The commands that put load on a server: MCP clients that call a tool, check every answer and measure.
//!
//! A run's way: [`Plan`] (what to do) → `driver` (threads, progress, the measured process) → `worker` (one thread:
//! epoll loop, pacing) → `client` (one connection's MCP) → `link` (its bytes, TLS) → `check` (is the answer right) →
//! `stats` → `build` → [`crate::report`]. Threads share only the plan and a few atomics.

mod build;
mod check;
mod churn;
mod client;
mod driver;
mod events;
mod failure;
mod link;
mod overload;
mod pace;
mod request;
mod sampler;
mod stats;
mod stream;
mod target;
mod tickets;
mod tls;
mod worker;

use std::net::Ipv4Addr;
use std::time::Duration;

use memchr::memmem::Finder;

pub use driver::{RunError, run};
pub use failure::{Failure, Kind};
pub use request::{CallSpec, Requests};
pub use target::{Protocol, Target, TargetError};
pub use tls::{Trust, TrustError, client_config};

/// Whether connections are only carriers of calls or what is measured themselves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scenario {
    /// Calls over some connections.
    Run,
    /// Many connections held, calls going round them.
    Hold,
    /// Connections that live only for a moment.
    Handshake(Handshakes),
    /// Calls that are answered by many events.
    Stream(Streams),
    /// More calls than the server can take.
    Overload(Overload),
}

/// The phases of [`Scenario::Overload`]; the overload itself lasts [`Plan::duration`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overload {
    /// How long the sustainable rate is looked for, after the warm-up.
    pub probe: Duration,
    /// Calls in flight meanwhile, over all threads.
    pub probe_calls: usize,
    /// The overload, in times of that rate.
    pub factor: f64,
    /// How long the time after lasts.
    pub after: Duration,
    /// Its rate, in times of the sustainable one.
    pub after_factor: f64,
    /// Longest wait of a call for a free connection.
    pub patience: Duration,
    /// 99 % of the calls within this time: the server is well again.
    pub recovered: Duration,
}

/// The event stream that each call of [`Scenario::Stream`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    /// Progress notifications before the result.
    pub events: u64,
    /// Time between two of them (µs); 0: as fast as they can be read.
    pub interval_us: u64,
    /// Bytes of each one's message.
    pub message_bytes: usize,
}

/// What the connections of [`Scenario::Handshake`] do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshakes {
    /// Calls on each connection; with 0 it carries no MCP at all.
    pub calls: u32,
    /// TLS sessions are resumed where the server allows it.
    pub resume: bool,
    /// End after so many connections.
    pub total: Option<u64>,
    /// Longest wait for the measured process's memory to fall, after the last connection.
    pub settle: Duration,
}

/// The form that answers must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerForm {
    /// JSON or an event stream, as the specification demands of clients.
    Any,
    /// One JSON object.
    Json,
    /// An event stream.
    EventStream,
}

/// What a load run does; made once, read by all threads.
#[derive(Debug)]
pub struct Plan {
    /// Which command this is.
    pub scenario: Scenario,
    /// Where to connect.
    pub target: Target,
    /// TLS for an `https` target.
    pub tls: Option<std::sync::Arc<rustls::ClientConfig>>,
    /// The requests' bytes.
    pub requests: Requests,
    /// Connections over all threads.
    pub connections: usize,
    /// Client threads.
    pub threads: usize,
    /// Calls in flight per connection, at least 1; more than 1 not over HTTP/1.1.
    pub in_flight: usize,
    /// New connections per second over all threads; `None`: as fast as they come up.
    pub ramp_per_s: Option<f64>,
    /// Calls per second over all threads (open loop); `None`: each connection calls again at once (closed loop).
    pub rate_per_s: Option<f64>,
    /// Measured time.
    pub duration: Duration,
    /// Time before it, with the same load.
    pub warmup: Duration,
    /// Longest wait for a connection's set-up or an answer.
    pub timeout: Duration,
    /// Further connections that call as fast as they are answered, in the second half of the time; on a thread of
    /// their own.
    pub flood: usize,
    /// Time without a call once all connections are up, before their memory is read.
    pub rest: Duration,
    /// Sessions are not ended by the client.
    pub keep_sessions: bool,
    /// All connections use the first one's session.
    pub shared_session: bool,
    /// Each answer must contain this.
    pub expect: Option<Finder<'static>>,
    /// The form that each answer must have.
    pub answer_form: AnswerForm,
    /// First source address and connections per address; `None`: the kernel chooses.
    pub source: Option<SourceRange>,
    /// The process to measure.
    pub server_pid: Option<u32>,
}

/// Source addresses for many connections to one target: each address has its own ports and its own limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRange {
    /// The first address; connection `i` binds to the address `i / per_address` further on.
    pub base: Ipv4Addr,
    /// Connections per address, at least 1.
    pub per_address: usize,
}

impl SourceRange {
    /// The address of the connection with this number.
    pub fn address(&self, connection: usize) -> Ipv4Addr {
        let step = u32::try_from(connection / self.per_address.max(1)).unwrap_or(0);
        Ipv4Addr::from_bits(self.base.to_bits().wrapping_add(step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_addresses_carry_over_to_the_next_octet() {
        let range = SourceRange { base: Ipv4Addr::new(127, 0, 1, 1), per_address: 100 };
        assert_eq!(range.address(0), Ipv4Addr::new(127, 0, 1, 1));
        assert_eq!(range.address(99), Ipv4Addr::new(127, 0, 1, 1));
        assert_eq!(range.address(100), Ipv4Addr::new(127, 0, 1, 2));
        assert_eq!(range.address(25_500), Ipv4Addr::new(127, 0, 2, 0));
    }
}
