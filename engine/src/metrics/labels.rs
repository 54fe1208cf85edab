//! The labels of what a shard counts: owns their closed lists, and the hash by which counters are found. Never a number.

use std::borrow::Cow;
use std::hash::Hasher;

use mcp_protocol::mcp::OTHER_METHOD;

/// The `protocol` label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    #[default]
    Http1,
    H2,
    Mcpb,
    Ws,
    Sse,
}

impl Protocol {
    pub(crate) const ALL: [Protocol; 5] =
        [Protocol::Http1, Protocol::H2, Protocol::Mcpb, Protocol::Ws, Protocol::Sse];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Protocol::Http1 => "http1",
            Protocol::H2 => "h2",
            Protocol::Mcpb => "mcpb",
            Protocol::Ws => "ws",
            Protocol::Sse => "sse",
        }
    }
}

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($variant:ident => $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($variant,)* }

        impl $name {
            pub(crate) const LABELS: &'static [&'static str] = &[$($label,)*];
        }
    };
}

labels! {
    /// Why a connection was turned away or cut.
    Rejection {
        MaxConnections => "max_connections",
        MaxConnectionsPerIp => "max_connections_per_ip",
        Exhausted => "descriptors_exhausted",
        HandshakeTimeout => "handshake_timeout",
        HeaderTimeout => "header_timeout",
        ReadTimeout => "read_timeout",
        WriteTimeout => "write_timeout",
        IdleTimeout => "idle_timeout",
        Flood => "flood",
        Memory => "memory",
    }
}

labels! {
    /// Why a request was refused that could have been served at another time.
    Shed {
        QueueDelay => "queue_delay",
        InFlight => "in_flight",
        Pool => "pool",
    }
}

labels! {
    /// Whose requests were too many.
    RateScope {
        Principal => "principal",
        Address => "address",
    }
}

labels! {
    /// Who was to be there: whoever opened the session that a message names; another gateway, or a shard of this one.
    AuthFailure {
        Session => "session",
        Peer => "peer",
    }
}

labels! {
    /// How a TLS handshake ended.
    Handshake {
        Full => "full",
        Resumed => "resumed",
        Failed => "failed",
        PlainHttp => "plain_http",
    }
}

labels! {
    /// Which way a frame goes, as the gateway sees it.
    Direction {
        In => "in",
        Out => "out",
    }
}

labels! {
    /// What became of a message on its way to the owner of its session.
    PeerResult {
        Accepted => "accepted",
        Refused => "refused",
        Busy => "busy",
        Unreachable => "unreachable",
        TimedOut => "timeout",
    }
}

labels! {
    /// What became of an exchange whose client had left it.
    OrphanResult {
        Finished => "finished",
        Failed => "failed",
        TimedOut => "timeout",
        TooLarge => "too_large",
        NoRoom => "no_room",
    }
}

labels! {
    /// What became of a request that was to be sent to a server again.
    Retried {
        Success => "success",
        Failure => "failure",
        NoBudget => "no_budget",
        NoTime => "no_time",
    }
}

labels! {
    /// Who is at the other end of a connection between owners.
    PeerKind {
        Shard => "shard",
        Pod => "pod",
    }
}

labels! {
    /// What became of a server's channel, or of a message on it.
    ChannelEvent {
        Opened => "opened",
        Lost => "lost",
        Refused => "refused",
        NotAMessage => "not_a_message",
        Unclaimed => "unclaimed",
    }
}

/// A request's labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RequestLabels {
    /// Index of the server; `None` where no server was found.
    pub(crate) server: Option<u16>,
    /// Index into [`mcp_protocol::mcp::METHOD_LABELS`].
    pub(crate) method: u8,
    pub(crate) status: u16,
    pub(crate) protocol: Protocol,
}

impl RequestLabels {
    /// What a request counts under where its own labels would be one set too many.
    pub(super) fn rest(self) -> Self {
        RequestLabels { server: None, method: OTHER_METHOD as u8, status: class(self.status), ..self }
    }
}

/// An upstream exchange's labels; `status` 0 stands for "no answer".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct UpstreamLabels {
    pub(crate) server: u16,
    pub(crate) endpoint: u16,
    pub(crate) status: u16,
}

/// The status as a label has it: itself where HTTP defines it and MCP or a proxy may answer with it; else its class, one
/// digit, so that a server that makes up statuses makes no series; 0 where there was no answer.
pub(crate) fn known_status(status: u16) -> u16 {
    match status {
        200..=206 | 301..=304 | 307 | 308 | 400..=418 | 421..=426 | 428 | 429 | 431 | 451 | 500..=511 => {
            status
        }
        other => class(other),
    }
}

/// The values that a `status` label can have.
#[cfg(test)]
pub(super) const STATUSES: usize = 64;

/// The first of three digits, by which a status stands for all of its class; 0 where there are not three, and for a class.
fn class(status: u16) -> u16 {
    if (100..1_000).contains(&status) { status / 100 } else { 0 }
}

/// The text of what [`known_status`] gave.
pub(crate) fn status_text(status: u16) -> Cow<'static, str> {
    match status {
        0 => "none".into(),
        1..=9 => format!("{status}xx").into(),
        known => known.to_string().into(),
    }
}

/// Hashes label sets: a few small numbers that no client chooses freely, looked up twice per call. The multiplier, the
/// golden ratio's, spreads small numbers over all bits.
#[derive(Clone, Copy, Default)]
pub(crate) struct LabelHasher(u64);

impl Hasher for LabelHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0.rotate_left(5) ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn statuses_are_a_closed_list() {
        let texts: BTreeSet<_> = (0..=u16::MAX).map(|status| status_text(known_status(status))).collect();
        assert_eq!(texts.len(), STATUSES);
        for (status, text) in
            [(0, "none"), (200, "200"), (404, "404"), (503, "503"), (599, "5xx"), (1_000, "none")]
        {
            assert_eq!(status_text(known_status(status)), text);
        }
    }
}
