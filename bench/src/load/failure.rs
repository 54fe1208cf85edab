//! What can go wrong with a call or a connection, and how often it did. Pure.

use std::collections::BTreeMap;

/// Different failures told apart in a report; further ones are counted under their kind only.
const MAX_DETAILS: usize = 64;

/// The kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The connection could not be made.
    Connect,
    /// The TLS handshake or a record failed.
    Tls,
    /// The server was too busy and asks to try again later: 503 with `Retry-After`, or JSON-RPC -32000, retryable.
    Shed,
    /// The HTTP status was not the one due.
    HttpStatus,
    /// The answer was not HTTP, JSON or JSON-RPC.
    Malformed,
    /// The answer's id was not the request's.
    WrongId,
    /// The answer was a JSON-RPC error.
    JsonRpcError,
    /// The tool reported an error (`isError`).
    ToolError,
    /// The answer did not contain what was expected.
    WrongAnswer,
    /// No answer in time, or no connection free to send the call on.
    Timeout,
    /// The connection ended with a request in flight.
    Reset,
    /// The connection ended while idle.
    Lost,
}

impl Kind {
    /// The kind's name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Shed => "shed",
            Self::HttpStatus => "http_status",
            Self::Malformed => "malformed",
            Self::WrongId => "wrong_id",
            Self::JsonRpcError => "jsonrpc_error",
            Self::ToolError => "tool_error",
            Self::WrongAnswer => "wrong_answer",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Lost => "lost",
        }
    }
}

/// One failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its kind.
    pub kind: Kind,
    /// What is special about it: a status, a code, the system's words. Never an id or another value of the call.
    pub detail: String,
}

impl Failure {
    /// Makes one.
    pub fn new(kind: Kind, detail: impl ToString) -> Self {
        Self { kind, detail: detail.to_string() }
    }
}

/// How often each failure was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct FailureCounts {
    by_detail: BTreeMap<(Kind, String), u64>,
    total: u64,
}

impl FailureCounts {
    /// Counts one.
    pub(super) fn add(&mut self, failure: Failure) {
        self.add_many(failure, 1);
    }

    /// Counts the same `n` times.
    pub(super) fn add_many(&mut self, failure: Failure, n: u64) {
        let mut key = (failure.kind, failure.detail);
        if self.by_detail.len() >= MAX_DETAILS && !self.by_detail.contains_key(&key) {
            key.1 = "other".to_owned();
        }
        if n > 0 {
            self.total += n;
            *self.by_detail.entry(key).or_default() += n;
        }
    }

    /// Adds another thread's counts.
    pub(super) fn merge(&mut self, other: Self) {
        for ((kind, detail), n) in other.by_detail {
            self.add_many(Failure { kind, detail }, n);
        }
    }

    /// All failures.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Counts by kind.
    pub(super) fn by_kind(&self) -> BTreeMap<&'static str, u64> {
        let mut kinds = BTreeMap::new();
        for ((kind, _), n) in &self.by_detail {
            *kinds.entry(kind.name()).or_default() += n;
        }
        kinds
    }

    /// Kind, detail and count, by kind.
    pub(super) fn details(&self) -> impl Iterator<Item = (Kind, &str, u64)> {
        self.by_detail.iter().map(|((kind, detail), n)| (*kind, detail.as_str(), *n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_merge_and_details_are_bounded() {
        let mut one = FailureCounts::default();
        for code in 0..200 {
            one.add(Failure::new(Kind::JsonRpcError, code));
        }
        let mut all = FailureCounts::default();
        all.add(Failure::new(Kind::Connect, "refused"));
        all.merge(one);
        assert_eq!(all.total(), 201);
        assert_eq!(all.by_kind(), BTreeMap::from([("connect", 1), ("jsonrpc_error", 200)]));
        assert!(all.details().count() <= MAX_DETAILS + 1);
    }
}
