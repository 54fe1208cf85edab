//! A session's record: owns what must be known of a legacy MCP session (revisions 2025-03-26 to 2025-11-25) to serve it on
//! any shard of any pod. Never a socket, a buffer or a stream.

mod codec;

use std::sync::Arc;

pub use codec::{Directory, decode, encode};

/// What a session is. Small: one is kept for each of up to a million sessions, and once more per shard that uses it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Record {
    /// Who opened the session, as far as the gateway knows; empty for an anonymous client. Presented by anybody else the id
    /// is unknown. With `all:` before it where the session is one with all servers, so that it is unknown at any one of them.
    pub principal: Box<str>,
    /// The negotiated revision ("2025-06-18"); `None` until the answer to `initialize` has been seen.
    pub revision: Option<Box<str>>,
    /// What the client said of itself in `initialize`; `None` where it said nothing that can be kept.
    pub client: Option<Box<Client>>,
    /// Milliseconds since 1970 at which the session was opened. When it ends is its key's time to live.
    pub created_unix_ms: u64,
    /// Where the session lives upstream, one entry for each server. A session with all servers names here the session of ours
    /// that it has at each, and none before `initialize`.
    pub upstreams: Box<[Binding]>,
    /// Who holds the stream on which the session's answers go out (HTTP with SSE, revision 2024-11-05); `None` for a session
    /// whose messages any shard of any pod can serve.
    pub owner: Option<Box<Owner>>,
}

/// The shard that holds what only one can hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Where other pods reach this one, `host:port`; empty where they cannot.
    pub pod: Box<str>,
    /// Its process: another one at the same address is another owner. Below 2^53, so that every reader of JSON can hold it.
    pub boot: u64,
    /// The shard's index.
    pub shard: u16,
}

/// What the client said of itself: raw JSON, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// `params.clientInfo`.
    pub info: Box<str>,
    /// `params.capabilities`.
    pub capabilities: Box<str>,
}

/// A session's part at one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Index of the server in this process's configuration.
    pub server: u16,
    /// What the server's endpoint that holds the upstream session (affinity) is called, in every pod and for as long as it
    /// lasts: endpoints come and go, so an index would mean another one soon. Empty for a server that has none; shared with
    /// the endpoint, so that a session costs no copy.
    pub endpoint: Arc<str>,
    /// The server's own session id; `None` when it gave none. In a session with all servers, the id of ours.
    pub session: Option<Box<[u8]>>,
    /// Who holds the only way to the server's part of the session: a process or a connection that speaks both ways; `None`
    /// for a server that every shard reaches by itself.
    pub owner: Option<Box<Owner>>,
}
