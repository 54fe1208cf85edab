//! Owns media types: what a client accepts, what a body is (RFC 9110, sections 8.3 and 12.5.1).

use super::RequestHead;

/// A media type that the gateway answers with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MediaKind {
    /// `application/json`.
    Json,
    /// `text/event-stream`.
    EventStream,
}

/// Whether the request's `Accept` lines, all together, take `kind`. Without any such line everything is accepted
/// (RFC 9110, section 12.5.1). The most specific range decides; `q=0` refuses; other parameters are ignored.
pub fn accepts(head: &RequestHead, buf: &[u8], kind: MediaKind) -> bool {
    let _ = (head, buf, kind);
    unimplemented!()
}

/// Whether a `Content-Type` is `application/json`, with any parameters; a `charset` must be UTF-8.
pub fn is_json(content_type: &[u8]) -> bool {
    let _ = content_type;
    unimplemented!()
}

/// Whether a `Content-Type` is `text/event-stream`, with any parameters; a `charset` must be UTF-8.
pub fn is_event_stream(content_type: &[u8]) -> bool {
    let _ = content_type;
    unimplemented!()
}
