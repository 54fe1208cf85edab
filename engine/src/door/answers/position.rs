//! How far a server's event stream has come: owns the place after which it can go on. A client of frames sees no event's
//! id, so the gateway resumes streams on its behalf (2025-11-25, "Resumability and Redelivery"). Pure functions of events.

use std::rc::Rc;
use std::time::Duration;

use mcp_protocol::sse::RawEvent;

/// Longest id that is kept of an event, in bytes; a stream with longer ones is not resumed.
const MAX_ID_BYTES: usize = 1024;
/// The pause before a stream is resumed, where the server does not name one, and the longest that it may name.
const USUAL_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A place in a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Position {
    /// The last event's id.
    pub(crate) id: Option<Rc<[u8]>>,
    /// What the server wants its clients to wait for.
    pub(crate) retry: Option<Duration>,
    /// Whether a message came since the stream was opened.
    pub(crate) moved: bool,
}

impl Position {
    /// An event has passed.
    pub(crate) fn on_event(&mut self, event: &RawEvent<'_>) {
        self.moved |= event.data.as_ref().is_some_and(|data| !data.is_empty());
        if let Some(retry_ms) = event.retry_ms() {
            self.retry = Some(Duration::from_millis(retry_ms).min(LONGEST_PAUSE));
        }
        if let Some(id) = event.id() {
            // An empty id means that there is no place to go on from.
            let fits =
                !id.is_empty() && id.len() <= MAX_ID_BYTES && id.iter().all(|byte| is_field_byte(*byte));
            self.id = fits.then(|| id.into());
        }
    }

    /// How long to wait before the stream is resumed.
    pub(crate) fn pause(&self) -> Duration {
        self.retry.unwrap_or(USUAL_PAUSE)
    }

    /// The same place, before anything came on a new stream.
    pub(crate) fn again(&self) -> Self {
        Position { moved: false, ..self.clone() }
    }
}

/// Whether a header line's value can hold the byte (RFC 9110, section 5.5).
fn is_field_byte(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | 0x80..)
}

#[cfg(test)]
mod tests {
    use mcp_protocol::sse::raw_events;

    use super::*;

    fn after(events: &str) -> Position {
        let mut position = Position::default();
        raw_events(events.as_bytes()).for_each(|event| position.on_event(&event));
        position
    }

    #[test]
    fn the_last_id_counts_and_only_a_message_moves() {
        let position = after("id: 1\nretry: 20\ndata:\n\nid: 2\n\n");
        assert_eq!((position.id.as_deref(), position.moved), (Some(&b"2"[..]), false));
        assert_eq!(position.pause(), Duration::from_millis(20));
        let position = after("data: {}\n\n");
        assert!(position.id.is_none() && position.moved && !position.again().moved);
        assert_eq!(position.pause(), USUAL_PAUSE);
        assert_eq!(after("retry: 99999999\n\n").pause(), LONGEST_PAUSE);
    }

    #[test]
    fn ids_that_no_header_line_holds_are_not_kept() {
        let long = "x".repeat(MAX_ID_BYTES + 1);
        for id in ["", "a\tb", "\u{7f}", &long] {
            assert!(after(&format!("id: 1\n\nid: {id}\n\n")).id.is_none(), "{id}");
        }
    }
}
