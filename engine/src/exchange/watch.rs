//! What the gateway learns of a server's answer as it passes: owns whether the endpoint did its work (its breaker's trial), and
//! which tools may be called twice. It never holds an answer up and never changes it.

use std::sync::LazyLock;

use mcp_protocol::jsonrpc::{Payload, Scan, ScanLimits, scan};
use mcp_protocol::mcp::for_each_tool_hint;
use memchr::memmem::Finder;

use crate::shard::clock::Millis;
use crate::upstream::Upstream;
use crate::upstream::call::CallError;
use crate::upstream::trial::Trial;

/// A server's own failure, as JSON-RPC says it.
const INTERNAL_ERROR: i64 = -32603;
static INTERNAL_ERROR_TEXT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"-32603"));
/// Bytes of an answer in several pieces that are kept to be looked at: of one that may be an error, and of a list of tools.
/// Longer ones pass unseen.
const MAX_ERROR_BYTES: usize = 16 << 10;
const MAX_LIST_BYTES: usize = 1 << 20;

pub(super) struct Watch<'a> {
    upstream: &'a Upstream,
    trial: Trial,
    lists_tools: bool,
    /// What came of an answer in pieces; `None` once it is too long.
    kept: Option<Vec<u8>>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(upstream: &'a Upstream, trial: Trial, lists_tools: bool) -> Self {
        Watch { upstream, trial, lists_tools, kept: Some(Vec::new()) }
    }

    /// The endpoint answers, whatever it says.
    pub(super) fn answered(&mut self) {
        self.trial.passed();
    }

    /// The answer broke off.
    pub(super) fn broken(&mut self, error: &CallError, now: Millis) {
        match error {
            CallError::Exhausted | CallError::Processes | CallError::Owner(_) => {}
            CallError::Connect(_) | CallError::Closed | CallError::Timeout | CallError::Malformed(_) => {
                self.trial.failed(now);
            }
        }
    }

    /// A piece of an answer that is one JSON text.
    pub(super) fn piece(&mut self, bytes: &[u8], is_last: bool, now: Millis) {
        let most = if self.lists_tools { MAX_LIST_BYTES } else { MAX_ERROR_BYTES };
        match &mut self.kept {
            Some(kept) if kept.is_empty() && is_last => self.whole(bytes, now),
            Some(kept) if kept.len() + bytes.len() <= most => {
                kept.extend_from_slice(bytes);
                if is_last {
                    self.end(now);
                }
            }
            kept => {
                *kept = None;
                if is_last {
                    self.end(now);
                }
            }
        }
    }

    /// The answer of which the pieces were is complete.
    pub(super) fn end(&mut self, now: Millis) {
        match self.kept.take() {
            Some(kept) => self.whole(&kept, now),
            None => self.trial.passed(),
        }
    }

    /// A whole answer as JSON text.
    pub(super) fn whole(&mut self, message: &[u8], now: Millis) {
        if INTERNAL_ERROR_TEXT.find(message).is_some() && has_internal_error(message) {
            self.trial.failed(now);
            return;
        }
        self.trial.passed();
        self.learn(message, now);
    }

    /// Events of a stream: a list may have changed.
    pub(super) fn said(&self, events: &[u8]) {
        self.upstream.lists.changes().on_said(events);
    }

    /// The response among a stream's events.
    pub(super) fn response(&mut self, response: &Scan, message: &[u8], now: Millis) {
        if response.error_code == Some(INTERNAL_ERROR) {
            self.trial.failed(now);
        } else {
            self.learn(message, now);
        }
    }

    fn learn(&self, message: &[u8], now: Millis) {
        if self.lists_tools && self.upstream.knowledge.may_learn_hints(message.len(), now) {
            learn_hints(self.upstream, message);
        }
    }
}

/// Learns from a list of tools which of them may be called twice.
pub(super) fn learn_hints(upstream: &Upstream, message: &[u8]) {
    for_each_tool_hint(message, |tool, harmless| upstream.shared().hints.learn(tool, harmless));
}

/// A tool may well speak of the number; only an error's code counts.
fn has_internal_error(message: &[u8]) -> bool {
    match scan(message, &ScanLimits::default()) {
        Ok(Payload::Single(scan)) => scan.error_code == Some(INTERNAL_ERROR),
        Ok(Payload::Batch(batch)) => batch.iter().any(|scan| scan.error_code == Some(INTERNAL_ERROR)),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_error_with_this_code_is_an_internal_error() {
        for (message, expected) in [
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"x"}}"#, true),
            (
                r#"[{"jsonrpc":"2.0","id":1,"result":{}},{"jsonrpc":"2.0","id":2,"error":{"code":-32603,"message":""}}]"#,
                true,
            ),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"-32603"}}"#, false),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"isError":true,"content":[{"type":"text","text":"-32603"}]}}"#,
                false,
            ),
            ("-32603", false),
        ] {
            assert_eq!(has_internal_error(message.as_bytes()), expected, "{message}");
        }
    }
}
