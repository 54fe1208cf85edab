//! The tool `stream`: an answer of many events, `notifications/progress` and then the result, at a rate or as fast as
//! the client reads. Sans-IO: time and room to write go in, bytes come out.
//!
//! ```text
//! event: message
//! data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":T,"progress":K,"total":N,
//!        "message":"<CLOCK_MONOTONIC in ns> xxx"}}
//! ```

use std::io::Write;
use std::time::{Duration, Instant};

use crate::json::members;
use crate::sys::monotonic_ns;

/// Events of one stream at most.
const MAX_EVENTS: u64 = 1_000_000_000;
/// Bytes of an event's message at most.
const MAX_MESSAGE_BYTES: u64 = 1024 * 1024;
/// Time between two events at most (µs): a minute.
const MAX_INTERVAL_US: u64 = 60_000_000;
/// Events made in one go, before other connections get their turn.
const EVENTS_PER_STEP: u64 = 64;
/// Bytes made in one go, after which no further event is begun.
const BYTES_PER_STEP: usize = 64 * 1024;

/// What the arguments of the tool ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamArguments {
    events: u64,
    interval: Duration,
    message_bytes: usize,
}

impl StreamArguments {
    /// Reads `{"events":N,"interval_us":M,"bytes":B}`; each is optional. `None` when one is no number in range.
    pub(super) fn parse(arguments: Option<&[u8]>) -> Option<Self> {
        let [events, interval, bytes] = match arguments {
            Some(object) => members(object, ["events", "interval_us", "bytes"])?,
            None => [None; 3],
        };
        let number = |raw: Option<&[u8]>, default: u64, max: u64| match raw {
            None => Some(default),
            Some(raw) => std::str::from_utf8(raw).ok()?.parse().ok().filter(|n| *n <= max),
        };
        Some(Self {
            events: number(events, 10, MAX_EVENTS)?,
            interval: Duration::from_micros(number(interval, 0, MAX_INTERVAL_US)?),
            message_bytes: number(bytes, 64, MAX_MESSAGE_BYTES)? as usize,
        })
    }
}

/// A stream being sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stream {
    arguments: StreamArguments,
    /// The JSON around an event's number, time and padding.
    before_number: Vec<u8>,
    before_time: Vec<u8>,
    /// The last event's data.
    result: Vec<u8>,
    begin: Option<Instant>,
    sent: u64,
    /// A step of it is waited for: at its time, or as soon as the others had their turn.
    pub(super) scheduled: bool,
}

impl Stream {
    /// A stream for the request with this progress token (raw JSON), whose last event carries `result`.
    pub(super) fn new(arguments: StreamArguments, token: &[u8], result: Vec<u8>) -> Self {
        let open = br#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"#;
        let total = format!(r#","total":{},"message":""#, arguments.events);
        Self {
            arguments,
            before_number: [open, token, br#","progress":"#].concat(),
            before_time: total.into_bytes(),
            result,
            begin: None,
            sent: 0,
            scheduled: false,
        }
    }

    /// When the next event is due; `None`: at once.
    pub(super) fn due(&self) -> Option<Instant> {
        let begin = self.begin.filter(|_| !self.arguments.interval.is_zero())?;
        // Counted from the begin, so that a late event does not move those behind it.
        Some(begin + Duration::from_nanos(self.arguments.interval.as_nanos() as u64 * self.sent))
    }

    /// Appends the events that are due, within the bounds of one step. True when the stream is at its end.
    pub(super) fn step(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        self.begin.get_or_insert(now);
        let (last, from) = (self.sent + EVENTS_PER_STEP, out.len());
        while self.sent < self.arguments.events
            && self.sent < last
            && out.len() < from + BYTES_PER_STEP
            && self.due().is_none_or(|due| due <= now)
        {
            self.sent += 1;
            self.push_event(out);
        }
        let done = self.sent == self.arguments.events;
        if done {
            push_chunk(out, &[&self.result]);
            out.extend_from_slice(b"0\r\n\r\n");
        }
        done
    }

    fn push_event(&self, out: &mut Vec<u8>) {
        let mut number = itoa::Buffer::new();
        let mut time = itoa::Buffer::new();
        let time = time.format(monotonic_ns()).as_bytes();
        let pad = self.arguments.message_bytes.saturating_sub(time.len());
        let padding = [if pad > 0 { b" " } else { &b""[..] }, &vec![b'x'; pad.saturating_sub(1)]].concat();
        let number = number.format(self.sent).as_bytes();
        push_chunk(out, &[&self.before_number, number, &self.before_time, time, &padding, br#""}}"#]);
    }
}

/// The head of the answer that a stream follows.
pub(super) fn push_head(out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
}

/// Appends one event with this data, as one chunk.
fn push_chunk(out: &mut Vec<u8>, data: &[&[u8]]) {
    const OPEN: &[u8] = b"event: message\ndata: ";
    const CLOSE: &[u8] = b"\n\n";
    let len = OPEN.len() + data.iter().map(|d| d.len()).sum::<usize>() + CLOSE.len();
    write!(out, "{len:x}\r\n").expect("writing to a Vec never fails");
    out.extend_from_slice(OPEN);
    for part in data {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(CLOSE);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(arguments: &str) -> Stream {
        let arguments = StreamArguments::parse(Some(arguments.as_bytes())).unwrap();
        Stream::new(arguments, b"7", b"{}".to_vec())
    }

    fn events(out: &[u8]) -> usize {
        memchr::memmem::find_iter(out, b"notifications/progress").count()
    }

    #[test]
    fn events_come_at_their_times_however_late_one_was() {
        let mut stream = stream(r#"{"events":4,"interval_us":1000}"#);
        let (begin, mut out) = (Instant::now(), Vec::new());
        assert_eq!(stream.due(), None);
        assert!(!stream.step(begin, &mut out));
        assert_eq!(events(&out), 1);
        assert_eq!(stream.due(), Some(begin + Duration::from_millis(1)));
        assert!(!stream.step(begin + Duration::from_micros(2500), &mut out));
        assert_eq!(events(&out), 3);
        assert!(stream.step(begin + Duration::from_millis(3), &mut out));
        assert_eq!(events(&out), 4);
        assert!(out.ends_with(b"data: {}\n\n\r\n0\r\n\r\n"));
    }

    #[test]
    fn one_step_is_bounded_in_events_and_bytes() {
        let mut many = stream(r#"{"events":1000}"#);
        let mut out = Vec::new();
        assert!(!many.step(Instant::now(), &mut out));
        assert_eq!(events(&out), EVENTS_PER_STEP as usize);
        let mut large = stream(r#"{"events":10,"bytes":50000}"#);
        out.clear();
        assert!(!large.step(Instant::now(), &mut out));
        assert_eq!(events(&out), 2);
    }

    #[test]
    fn arguments_out_of_range_are_refused() {
        for bad in [r#"{"events":-1}"#, r#"{"bytes":2000000}"#, r#"{"interval_us":"1"}"#, "[]"] {
            assert_eq!(StreamArguments::parse(Some(bad.as_bytes())), None, "{bad}");
        }
        assert!(StreamArguments::parse(None).is_some());
    }
}
