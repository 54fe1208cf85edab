//! Owns the reading of an event stream (WHATWG HTML, section 9.2.6).
//!
//! Invariant: what is kept of an unfinished event never exceeds the limit given; a stream that breaks it stays broken.

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
    /// `retry`, in milliseconds, when this very event has one; [`Decoder::retry_ms`] is the one that stays.
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

/// Reads an event stream, incrementally. Bytes that are not UTF-8 become U+FFFD. Worst-case memory: four times
/// `max_event_bytes` (a line, and its text with every byte replaced).
#[derive(Clone, Debug)]
pub struct Decoder {
    max_event_bytes: usize,
    /// Bytes of the current event so far; above the limit the stream has failed.
    event_bytes: usize,
    /// The start of a line that has not ended.
    line: Vec<u8>,
    after_cr: bool,
    in_first_line: bool,
    event: Event,
    has_data: bool,
    last_event_id: String,
    retry_ms: Option<u64>,
}

impl Decoder {
    /// A decoder at the start of a stream. `max_event_bytes` bounds the bytes of one event, comments included, line ends
    /// not.
    pub fn new(max_event_bytes: usize) -> Self {
        Self {
            max_event_bytes,
            event_bytes: 0,
            line: Vec::new(),
            after_cr: false,
            in_first_line: true,
            event: Event::default(),
            has_data: false,
            last_event_id: String::new(),
            retry_ms: None,
        }
    }

    /// Takes the stream's next bytes and appends the events that they complete.
    ///
    /// # Errors
    /// [`SseError`]; every later call fails as well.
    pub fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), SseError> {
        let mut rest = bytes;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(len) = memchr::memchr2(b'\n', b'\r', rest) {
            self.count(len)?;
            if self.line.is_empty() {
                self.take_line(&rest[..len], events);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(&rest[..len]);
                self.take_line(&line, events);
            }
            let ended_by_cr = rest[len] == b'\r';
            rest = &rest[len + 1..];
            if ended_by_cr {
                self.after_cr = rest.is_empty();
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
        }
        self.count(rest.len())?;
        self.line.extend_from_slice(rest);
        Ok(())
    }

    /// The id to resume from: the last `id` seen in a complete event, with or without data.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The last `retry` seen, in milliseconds; it counts at once, whether its event is complete or not.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    fn count(&mut self, len: usize) -> Result<(), SseError> {
        self.event_bytes = self.event_bytes.saturating_add(len);
        if self.event_bytes > self.max_event_bytes {
            return Err(SseError::EventTooLong { limit: self.max_event_bytes });
        }
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], events: &mut Vec<Event>) {
        const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
        let line = match line.strip_prefix(BYTE_ORDER_MARK) {
            Some(rest) if self.in_first_line => rest,
            Some(_) | None => line,
        };
        self.in_first_line = false;
        if line.is_empty() {
            self.dispatch(events);
            return;
        }
        let (name, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &line[line.len()..]),
        };
        self.take_field(name, value.strip_prefix(b" ").unwrap_or(value));
    }

    fn take_field(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.has_data = true;
                self.event.data.push_str(&String::from_utf8_lossy(value));
            }
            b"event" => {
                let event = String::from_utf8_lossy(value).into_owned();
                self.event.event = Some(event).filter(|event| !event.is_empty());
            }
            b"id" if !value.contains(&0) => {
                self.event.id = Some(String::from_utf8_lossy(value).into_owned());
            }
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                if let Some(retry_ms) = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok())
                {
                    self.event.retry = Some(retry_ms);
                    self.retry_ms = Some(retry_ms);
                }
            }
            // Comments (an empty name) and unknown fields.
            _ => {}
        }
    }

    fn dispatch(&mut self, events: &mut Vec<Event>) {
        self.event_bytes = 0;
        let event = std::mem::take(&mut self.event);
        if let Some(id) = &event.id {
            self.last_event_id.clone_from(id);
        }
        if std::mem::take(&mut self.has_data) {
            events.push(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(stream: &[u8], piece: usize) -> Vec<Event> {
        let mut decoder = Decoder::new(1000);
        let mut events = Vec::new();
        for part in stream.chunks(piece) {
            decoder.push(part, &mut events).unwrap();
        }
        events
    }

    fn event(event: Option<&str>, id: Option<&str>, data: &str) -> Event {
        Event {
            event: event.map(str::to_owned),
            id: id.map(str::to_owned),
            data: data.to_owned(),
            retry: None,
        }
    }

    #[test]
    fn the_examples_of_the_specification_read_as_it_says() {
        for (stream, expected) in [
            ("data: YHOO\ndata: +2\ndata: 10\n\n", vec![event(None, None, "YHOO\n+2\n10")]),
            (
                ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
                vec![
                    event(None, Some("1"), "first event"),
                    event(None, Some(""), "second event"),
                    event(None, None, " third event"),
                ],
            ),
            ("data\n\ndata\ndata\n\ndata:", vec![event(None, None, ""), event(None, None, "\n")]),
            ("data:test\n\ndata: test\n\n", vec![event(None, None, "test"), event(None, None, "test")]),
        ] {
            for piece in 1..=stream.len() {
                assert_eq!(decode(stream.as_bytes(), piece), expected, "{stream:?} by {piece}");
            }
        }
    }

    #[test]
    fn line_ends_marks_and_odd_fields() {
        for (stream, expected) in [
            (
                &b"event: e\rdata: a\r\rdata: b\r\n\r\n"[..],
                vec![event(Some("e"), None, "a"), event(None, None, "b")],
            ),
            (b"\xEF\xBB\xBFdata: a\n\n", vec![event(None, None, "a")]),
            (b"x: y\n\xEF\xBB\xBFdata: a\n\n", vec![]),
            (b"event: e\n\ndata: a\n\n", vec![event(None, None, "a")]),
            (b"event: e\nevent\ndata: a\n\n", vec![event(None, None, "a")]),
            (b"id: a\0b\ndata: a\n\n", vec![event(None, None, "a")]),
            (b"Data: a\n data: b\ndata : c\n\n", vec![]),
            (b"data: \xFFa:b\n\n", vec![event(None, None, "\u{FFFD}a:b")]),
            (b"data: unfinished\n", vec![]),
        ] {
            for piece in 1..=stream.len() {
                assert_eq!(decode(stream, piece), expected, "{stream:?} by {piece}");
            }
        }
    }

    #[test]
    fn ids_and_retries_stay_without_data() {
        let mut decoder = Decoder::new(100);
        let mut events = Vec::new();
        decoder.push(b"retry: 250\nid: 7\n", &mut events).unwrap();
        assert_eq!((decoder.last_event_id(), decoder.retry_ms()), ("", Some(250)));
        decoder.push(b"\nretry: 1x\nretry:\nretry: 99999999999999999999\n\n", &mut events).unwrap();
        assert_eq!((decoder.last_event_id(), decoder.retry_ms()), ("7", Some(250)));
        assert_eq!(events, []);
        decoder.push(b"data\nretry: 3\n\n", &mut events).unwrap();
        assert_eq!(events, [Event { retry: Some(3), ..Event::default() }]);
    }

    #[test]
    fn an_event_over_the_limit_ends_the_stream() {
        let error = SseError::EventTooLong { limit: 16 };
        for stream in
            ["data: 0123456789a", ":0123456789abcdef", "data: 01\ndata: 012\n", "id: 0123456\ndata: 0"]
        {
            for piece in 1..=stream.len() {
                let mut decoder = Decoder::new(16);
                let mut events = Vec::new();
                let failed =
                    stream.as_bytes().chunks(piece).any(|part| decoder.push(part, &mut events).is_err());
                assert!(failed, "{stream:?} by {piece}");
                assert_eq!(decoder.push(b"\n\n", &mut events), Err(error));
                assert_eq!(events, []);
            }
        }
        let mut decoder = Decoder::new(16);
        let mut events = Vec::new();
        decoder.push(b"data: 0123456789\n\ndata: 0123456789\n\n", &mut events).unwrap();
        assert_eq!(events.len(), 2);
    }
}
