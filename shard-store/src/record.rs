//! A session's record: owns what must be known of a legacy MCP session (revisions 2025-03-26 to 2025-11-25) to serve it on
//! any shard. Never a socket, a buffer or a stream.

/// What a session is. Small: one is kept for each of up to a million sessions, and once more per shard that uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Index of the upstream server in the configuration.
    pub server: u16,
    /// Index of the server's endpoint that holds the upstream session (affinity).
    pub endpoint: u16,
    /// The upstream server's own session id; `None` when it gave none.
    pub upstream_session: Option<Box<[u8]>>,
    /// The negotiated revision ("2025-06-18"); `None` until the answer to `initialize` has been seen.
    pub revision: Option<Box<str>>,
}
