//! Reads an answer of many events as it comes: each progress notification must be the next one, whole and for this
//! call; then the result. Sans-IO: bytes and the clock's time go in, counts come out.

use hdrhistogram::Histogram;

use super::Streams;
use super::check::{Answer, check_call};
use super::events::EventReader;
use super::failure::{Failure, Kind};
use crate::http::Framing;
use crate::json::{members, string_content};
use crate::report::histogram;

/// Events counted by one thread.
#[derive(Debug)]
pub(super) struct EventCounts {
    /// Whether events count as measured now.
    pub(super) measuring: bool,
    pub(super) total: u64,
    pub(super) in_window: u64,
    /// Streams whose result came after all their events.
    pub(super) streams: u64,
    /// From the event's making at the server to its check here (ns), in the measured time.
    pub(super) latency: Histogram<u64>,
}

impl EventCounts {
    pub(super) fn new() -> Self {
        Self { measuring: false, total: 0, in_window: 0, streams: 0, latency: histogram() }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.total += other.total;
        self.in_window += other.in_window;
        self.streams += other.streams;
        self.latency += other.latency;
    }
}

/// The answer of one call, as far as it has come.
#[derive(Debug)]
pub(super) struct StreamReader {
    events: EventReader,
    call: StreamedCall,
    pub(super) keep_alive: bool,
}

/// What has come of a call's events.
#[derive(Debug)]
struct StreamedCall {
    wanted: Streams,
    id: u64,
    next: u64,
    has_result: bool,
}

impl StreamReader {
    /// For the answer to the call with this id, whose head says how the body is framed.
    pub(super) fn new(wanted: Streams, id: u64, framing: Framing, keep_alive: bool) -> Self {
        let call = StreamedCall { wanted, id, next: 1, has_result: false };
        Self { events: EventReader::new(framing), call, keep_alive }
    }

    /// Takes bytes of the body; `now_ns` is `CLOCK_MONOTONIC`, the clock of the server's events. True when the answer is
    /// complete.
    pub(super) fn handle_input(
        &mut self,
        input: &[u8],
        now_ns: u64,
        counts: &mut EventCounts,
    ) -> Result<bool, Failure> {
        let Self { events, call, .. } = self;
        if !events.handle_input(input, |data| call.handle_message(data, now_ns, counts))? {
            return Ok(false);
        }
        call.end(counts).map(|()| true)
    }

    /// The peer sends no more: right only where that is how the answer ends.
    pub(super) fn handle_end(&mut self, counts: &mut EventCounts) -> Result<(), Failure> {
        if !self.events.ends_with_connection() {
            return Err(Failure::new(Kind::Reset, "closed by the peer within a stream"));
        }
        self.call.end(counts)
    }
}

impl StreamedCall {
    fn end(&self, counts: &mut EventCounts) -> Result<(), Failure> {
        if !self.has_result {
            return Err(Failure::new(Kind::Malformed, "an event stream without a response"));
        }
        counts.streams += 1;
        Ok(())
    }

    fn handle_message(&mut self, json: &[u8], now_ns: u64, counts: &mut EventCounts) -> Result<(), Failure> {
        if self.has_result {
            return Err(Failure::new(Kind::WrongAnswer, "an event behind the result"));
        }
        let Some([method, params]) = members(json, ["method", "params"]) else {
            return Err(Failure::new(Kind::Malformed, "an event that is no JSON object"));
        };
        match method {
            Some(br#""notifications/progress""#) => {
                self.handle_progress(params.unwrap_or_default(), now_ns, counts)
            }
            Some(_) => Ok(()),
            None => {
                let answer = Answer { status: 200, event_stream: false, retry_after: false, body: json };
                check_call(answer, self.id, super::AnswerForm::Any, None)?;
                if self.next <= self.wanted.events {
                    return Err(Failure::new(Kind::WrongAnswer, "the result came before all events"));
                }
                self.has_result = true;
                Ok(())
            }
        }
    }

    fn handle_progress(
        &mut self,
        params: &[u8],
        now_ns: u64,
        counts: &mut EventCounts,
    ) -> Result<(), Failure> {
        let wrong = |what: &str| Failure::new(Kind::WrongAnswer, what);
        let [token, progress, message] =
            members(params, ["progressToken", "progress", "message"]).unwrap_or_default();
        let mut digits = itoa::Buffer::new();
        if token != Some(digits.format(self.id).as_bytes()) {
            return Err(wrong("an event of another call"));
        }
        if progress != Some(digits.format(self.next).as_bytes()) || self.next > self.wanted.events {
            return Err(wrong("an event is missing, doubled or out of order"));
        }
        self.next += 1;
        let message = message.and_then(string_content).ok_or_else(|| wrong("an event without a message"))?;
        let time = message.split(|b| *b == b' ').next().unwrap_or_default();
        if message.len() != self.wanted.message_bytes.max(time.len()) {
            return Err(wrong("an event is not whole"));
        }
        counts.total += 1;
        if counts.measuring {
            counts.in_window += 1;
            let made_ns = std::str::from_utf8(time).ok().and_then(|t| t.parse::<u64>().ok());
            // Events of another machine or server carry no time of this clock.
            if let Some(made_ns) = made_ns.filter(|made| *made <= now_ns) {
                counts.latency.saturating_record((now_ns - made_ns).max(1));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Streams = Streams { events: 2, interval_us: 0, message_bytes: 6 };

    fn event(k: u64, message: &str) -> String {
        format!(
            "event: message\r\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{\"progressToken\":7,\"progress\":{k},\"total\":2,\"message\":\"{message}\"}}}}\r\n\r\n"
        )
    }

    const RESULT: &str = "data: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"content\":[]}}\n\n";

    fn chunked(parts: &[&str]) -> Vec<u8> {
        let mut body = String::new();
        for part in parts {
            body += &format!("{:x}\r\n{part}\r\n", part.len());
        }
        (body + "0\r\nT: v\r\n\r\n").into_bytes()
    }

    /// Reads `body` in pieces of `size`.
    fn read(body: &[u8], size: usize) -> Result<EventCounts, Failure> {
        let mut reader = StreamReader::new(WANTED, 7, Framing::Chunked, true);
        let mut counts = EventCounts { measuring: true, ..EventCounts::new() };
        let mut done = false;
        for piece in body.chunks(size) {
            assert!(!done, "done before the end");
            done = reader.handle_input(piece, 1_000, &mut counts)?;
        }
        assert!(done);
        Ok(counts)
    }

    #[test]
    fn a_stream_is_read_at_every_cut() {
        let (one, two) = (event(1, "100 xx"), event(2, "400 xx"));
        let (front, back) = two.split_at(30);
        let body = chunked(&[&one, front, back, ": a comment\n\n", RESULT]);
        for size in 1..body.len() {
            let counts = read(&body, size).unwrap();
            assert_eq!((counts.total, counts.in_window, counts.streams), (2, 2, 1), "pieces of {size}");
            assert_eq!((counts.latency.min(), counts.latency.len()), (600, 2));
        }
    }

    #[test]
    fn missing_doubled_cut_and_foreign_events_are_found() {
        let (one, two) = (event(1, "100 xx"), event(2, "400 xx"));
        let foreign = one.replace("\"progressToken\":7", "\"progressToken\":8");
        for wrong in [
            vec![&two[..], RESULT],
            vec![&one, RESULT],
            vec![&one, &one, RESULT],
            vec![&foreign, &two, RESULT],
            vec![&one, &event(2, "400 x"), RESULT],
            vec![&one, &two, &event(3, "500 xx"), RESULT],
            vec![&one, &two, RESULT, &one],
        ] {
            assert_eq!(read(&chunked(&wrong), 1000).unwrap_err().kind, Kind::WrongAnswer, "{wrong:?}");
        }
        assert_eq!(read(&chunked(&[&one, &two]), 1000).unwrap_err().kind, Kind::Malformed);
    }

    #[test]
    fn an_end_is_right_only_where_it_frames_the_answer() {
        let body = event(1, "100 xx") + &event(2, "400 xx") + RESULT;
        for (framing, right) in [(Framing::UntilClose, true), (Framing::Length(body.len() + 1), false)] {
            let mut reader = StreamReader::new(WANTED, 7, framing, false);
            let mut counts = EventCounts::new();
            assert!(!reader.handle_input(body.as_bytes(), 1_000, &mut counts).unwrap());
            assert_eq!(reader.handle_end(&mut counts).is_ok(), right);
        }
    }
}
