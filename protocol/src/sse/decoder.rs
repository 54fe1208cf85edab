//! Owns the reading of an event stream (WHATWG HTML, section 9.2.6).

use thiserror::Error;

/// One event.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Event {
    /// `event`, when given and not empty.
    pub event: Option<String>,
    /// `id`, when this very event has one; [`Decoder::last_event_id`] is the one that stays.
    pub id: Option<String>,
    /// The `data` lines, joined by line feeds.
    pub data: String,
    /// `retry`, in milliseconds.
    pub retry: Option<u64>,
}

/// Why a stream is given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum SseError {
    /// An event (or a line) is longer than the decoder's limit.
    #[error("event is longer than {limit} bytes")]
    EventTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
}

/// Reads an event stream, incrementally. Worst-case memory: twice `max_event_bytes`.
#[derive(Clone, Debug)]
pub struct Decoder {
    max_event_bytes: usize,
}

impl Decoder {
    /// A decoder at the start of a stream. `max_event_bytes` bounds the bytes of one event, comments included.
    pub fn new(max_event_bytes: usize) -> Self {
        Self { max_event_bytes }
    }

    /// Takes the stream's next bytes and appends the events that they complete.
    ///
    /// # Errors
    /// [`SseError`]; every later call fails as well.
    pub fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), SseError> {
        let _ = (bytes, events, self.max_event_bytes);
        unimplemented!()
    }

    /// The id to resume from: the last `id` seen in a complete event, with or without data.
    pub fn last_event_id(&self) -> &str {
        unimplemented!()
    }
}
