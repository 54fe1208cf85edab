//! One connection's MCP: session set-up, one call at a time, its answer checked.
//!
//! It owns the protocol's state and never the pace: the worker says when to call. Times are nanoseconds since the run's
//! base.

mod framed;
mod h2;
mod mcpb;
mod sse;
mod ws;

use std::sync::Arc;

use rustls::HandshakeKind;

use super::check::{Answer, check_call, result_of};
use super::failure::{Failure, Kind};
use super::link::{Link, ReadEnd, Scratch};
use super::stream::{EventCounts, StreamReader};
use super::target::Protocol;
use super::{Plan, Scenario};
use crate::http::{Framing, MAX_BODY_BYTES, decode_chunked, parse_response_head};
use crate::sys::{Event, monotonic_ns};
pub(super) use h2::{MAX_FRAME_BYTES, push_field, push_indexed_name, push_request};
pub(super) use mcpb::push_request_header;
pub(super) use ws::push_text_head;

/// A call in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// When it was due.
    pub(super) intended_ns: u64,
    /// When it was sent.
    pub(super) sent_ns: u64,
}

/// What an event led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Advance {
    /// Nothing to tell.
    Pending,
    /// The connection is set up and idle.
    Ready,
    /// The calls in [`Context::answered`] were answered, rightly or not.
    Answered { then: After },
    /// The session was ended, or the server keeps it.
    SessionEnded { verdict: Result<(), Failure> },
    /// The peer closed after we had.
    Closed,
}

/// What becomes of a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It is idle and can carry the next call.
    Idle,
    /// It ends here, as the answer said.
    Close,
    /// The peer closed it without a word.
    Lost,
}

/// A thread's things that every connection needs for a moment.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) plan: &'a Plan,
    pub(super) scratch: &'a mut Scratch,
    pub(super) ids: &'a mut u64,
    /// The plaintext of the request in hand.
    pub(super) request: &'a mut Vec<u8>,
    /// The body of a chunked answer.
    pub(super) body: &'a mut Vec<u8>,
    /// Calls that the event in hand has answered, with what the check said.
    pub(super) answered: &'a mut Vec<(Call, Result<(), Failure>)>,
    pub(super) events: &'a mut EventCounts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// TCP and TLS come up.
    Opening,
    /// MCPB: our versions are sent; WebSocket: the upgrade is asked for; HTTP with SSE: the stream is.
    Negotiating,
    Initializing {
        id: u64,
    },
    Notifying,
    Idle,
    Calling {
        id: u64,
        call: Call,
    },
    /// The session is being deleted.
    Ending,
    /// We send no more and wait for the peer's end.
    Closing,
}

/// A connection with its session.
pub(super) struct Client {
    link: Link,
    phase: Phase,
    /// An answer that is not complete yet.
    partial: Vec<u8>,
    /// Bytes that the answer in `partial` has at least.
    needed: usize,
    /// Calls that leave with the next flush.
    outgoing: Vec<u8>,
    /// But for HTTP/1.1: calls in flight, by id; the phase is idle meanwhile.
    flights: Vec<(u64, Call)>,
    h2: Option<Box<h2::H2>>,
    sse: Option<Box<sse::Sse>>,
    /// The event stream being read.
    stream: Option<Box<StreamReader>>,
    pub(super) session: Option<Arc<str>>,
    /// When the set-up or the call in hand has failed.
    pub(super) deadline_ns: u64,
}

impl Client {
    /// A connection being made; with a session it needs no `initialize`.
    pub(super) fn new(link: Link, session: Option<Arc<str>>, deadline_ns: u64) -> Self {
        Self {
            link,
            phase: Phase::Opening,
            partial: Vec::new(),
            needed: 0,
            outgoing: Vec::new(),
            flights: Vec::new(),
            h2: None,
            sse: None,
            stream: None,
            session,
            deadline_ns,
        }
    }

    /// Its session is being ended.
    pub(super) fn is_ending(&self) -> bool {
        self.phase == Phase::Ending
    }

    /// Set up, and nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle && self.flights.is_empty()
    }

    /// Whether it can take a further call.
    pub(super) fn has_room(&self, plan: &Plan) -> bool {
        let may_send = self.h2.as_ref().is_none_or(|h2| h2.has_room());
        self.phase == Phase::Idle && self.flights.len() < plan.in_flight && may_send
    }

    /// Calls in flight.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = Call> {
        let alone = match self.phase {
            Phase::Calling { call, .. } => Some(call),
            _ => None,
        };
        alone.into_iter().chain(self.flights.iter().map(|(_, call)| *call))
    }

    /// Takes a call, which leaves with [`Self::flush`]; the connection must have room for it.
    pub(super) fn push_call(&mut self, call: Call, context: &mut Context<'_>) {
        let id = next_id(context);
        let at = self.outgoing.len();
        let endpoint = self.sse.as_ref().map(|sse| &*sse.endpoint);
        context.plan.requests.push_call(&mut self.outgoing, endpoint.or(self.session.as_deref()), id);
        self.on_posting(call.sent_ns);
        if let Some(h2) = &mut self.h2 {
            h2.begin(&mut self.outgoing[at..], id);
        }
        match context.plan.target.protocol {
            Protocol::Http1 => self.phase = Phase::Calling { id, call },
            Protocol::Http2 | Protocol::WebSocket | Protocol::Sse | Protocol::Mcpb => {
                self.flights.push((id, call));
            }
        }
    }

    /// Sends the calls taken, as one piece.
    pub(super) fn flush(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let outgoing = std::mem::take(&mut self.outgoing);
        if outgoing.is_empty() { Ok(()) } else { self.transmit(&outgoing, context.scratch) }
    }

    /// TCP and TLS are up.
    pub(super) fn is_open(&self) -> bool {
        self.link.is_open()
    }

    /// Whether the TLS handshake was a full one; `None` without TLS.
    pub(super) fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.link.handshake_kind()
    }

    /// Ends the session, which there must be; the connection must be idle.
    pub(super) fn send_end(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        context.request.clear();
        context.plan.requests.push_delete(context.request, self.session.as_deref());
        self.phase = Phase::Ending;
        self.send_request(0, context)
    }

    /// Says that no more will be sent and waits for the peer to close; the connection must be open.
    pub(super) fn close(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        self.phase = Phase::Closing;
        self.partial = Vec::new();
        self.link.finish(context.scratch)
    }

    /// Takes an event of the socket.
    pub(super) fn handle_event(
        &mut self,
        event: Event,
        context: &mut Context<'_>,
    ) -> Result<Advance, Failure> {
        context.scratch.plain.clear();
        if event.writable {
            self.link.handle_writable(context.scratch)?;
        }
        let mut end = ReadEnd::Drained;
        if event.readable {
            context.scratch.plain.append(&mut self.partial);
            end = self.link.handle_readable(context.scratch)?;
            // A short read hides the end of file that the same event told of.
            if end == ReadEnd::Drained && event.closed {
                end = self.link.handle_readable(context.scratch)?;
            }
        }
        if self.phase == Phase::Opening
            && self.link.is_open()
            && self.begin_session(context)? == Advance::Ready
        {
            return Ok(Advance::Ready);
        }
        if self.phase == Phase::Closing {
            return Ok(if end == ReadEnd::Closed { Advance::Closed } else { Advance::Pending });
        }
        // What is partial stays so: the event may follow bytes that an earlier read has taken already.
        if !event.readable {
            return Ok(Advance::Pending);
        }
        let plain = std::mem::take(&mut context.scratch.plain);
        let advance = self.handle_plain(&plain, end, context);
        context.scratch.plain = plain;
        advance
    }

    /// As [`Self::handle_event`] for a connection that is to carry no MCP: it is ready as soon as it is open.
    pub(super) fn handle_handshake(
        &mut self,
        event: Event,
        context: &mut Context<'_>,
    ) -> Result<Advance, Failure> {
        context.scratch.plain.clear();
        if event.writable {
            self.link.handle_writable(context.scratch)?;
        }
        if event.readable && self.link.handle_readable(context.scratch)? == ReadEnd::Closed {
            return Err(Failure::new(Kind::Reset, "closed by the peer"));
        }
        if !self.link.is_open() {
            return Ok(Advance::Pending);
        }
        self.phase = Phase::Idle;
        Ok(Advance::Ready)
    }

    fn begin_session(&mut self, context: &mut Context<'_>) -> Result<Advance, Failure> {
        match context.plan.target.protocol {
            Protocol::Mcpb => return self.negotiate(context).map(|()| Advance::Pending),
            Protocol::WebSocket => return self.upgrade(context).map(|()| Advance::Pending),
            Protocol::Sse => return self.ask_stream(context).map(|()| Advance::Pending),
            Protocol::Http2 => self.open_h2(context)?,
            Protocol::Http1 => {}
        }
        if context.plan.requests.is_stateless() || self.session.is_some() {
            self.phase = Phase::Idle;
            return Ok(Advance::Ready);
        } else {
            self.initialize(context)?;
        }
        Ok(Advance::Pending)
    }

    /// Sends `initialize`, over any protocol.
    fn initialize(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let id = next_id(context);
        context.request.clear();
        let endpoint = self.sse.as_ref().map(|sse| &*sse.endpoint);
        context.plan.requests.push_initialize(context.request, endpoint, id);
        self.phase = Phase::Initializing { id };
        self.on_posting(0);
        self.send_request(id, context)
    }

    /// Sends the request in hand, whose message has this id, or 0 for none.
    fn send_request(&mut self, id: u64, context: &mut Context<'_>) -> Result<(), Failure> {
        if let Some(h2) = &mut self.h2 {
            h2.begin(context.request, id);
        }
        self.transmit(context.request, context.scratch)
    }

    /// Takes all plaintext received and not yet used.
    fn handle_plain(
        &mut self,
        plain: &[u8],
        end: ReadEnd,
        context: &mut Context<'_>,
    ) -> Result<Advance, Failure> {
        let closed = end == ReadEnd::Closed;
        if context.plan.target.protocol != Protocol::Http1 {
            return self.handle_frames(plain, end, context);
        }
        if self.stream.is_some() || matches!(context.plan.scenario, Scenario::Stream(_)) {
            match self.handle_stream(plain, closed, context)? {
                Some(advance) => return Ok(advance),
                None if self.stream.is_some() => return Ok(Advance::Pending),
                None => {}
            }
        }
        if (plain.len() >= self.needed || closed)
            && let Some(done) = self.try_answer(plain, closed, context)?
        {
            return Ok(done);
        }
        if closed {
            let kind = if self.is_idle() { Kind::Lost } else { Kind::Reset };
            return Err(Failure::new(kind, "closed by the peer"));
        }
        self.partial = plain.to_vec();
        Ok(Advance::Pending)
    }

    /// Takes plaintext of an event stream, from its head on. `None` while more must come, or when it is none.
    fn handle_stream(
        &mut self,
        mut plain: &[u8],
        closed: bool,
        context: &mut Context<'_>,
    ) -> Result<Option<Advance>, Failure> {
        let (Phase::Calling { id, call }, Scenario::Stream(wanted)) = (self.phase, context.plan.scenario)
        else {
            return Ok(None);
        };
        let malformed = |e| Failure::new(Kind::Malformed, e);
        if self.stream.is_none() {
            let head = match parse_response_head(plain).map_err(malformed)? {
                Some(head) if head.status == 200 && head.event_stream => head,
                _ => return Ok(None),
            };
            plain = &plain[head.len..];
            self.stream = Some(Box::new(StreamReader::new(wanted, id, head.framing, head.keep_alive)));
        }
        let Some(reader) = &mut self.stream else { return Ok(None) };
        let mut done = reader.handle_input(plain, monotonic_ns(), context.events)?;
        if closed && !done {
            reader.handle_end(context.events)?;
            done = true;
        }
        if !done {
            return Ok(None);
        }
        let then = match (reader.keep_alive, closed) {
            (true, false) => After::Idle,
            (true, true) => After::Lost,
            (false, _) => After::Close,
        };
        self.stream = None;
        self.phase = Phase::Idle;
        context.answered.push((call, Ok(())));
        Ok(Some(Advance::Answered { then }))
    }

    /// Takes one answer off the front, if it is complete.
    fn try_answer(
        &mut self,
        plain: &[u8],
        closed: bool,
        context: &mut Context<'_>,
    ) -> Result<Option<Advance>, Failure> {
        let malformed = |e| Failure::new(Kind::Malformed, e);
        let mut at = 0;
        let head = loop {
            if at == plain.len() {
                return Ok(None);
            }
            if matches!(self.phase, Phase::Idle | Phase::Opening) {
                return Err(Failure::new(Kind::Malformed, "bytes that nobody asked for"));
            }
            match parse_response_head(&plain[at..]).map_err(malformed)? {
                None => return Ok(None),
                // An interim answer: the final one follows.
                Some(head) if head.status < 200 => at += head.len,
                Some(head) => break head,
            }
        };
        let rest = &plain[at + head.len..];
        let mut chunked = std::mem::take(context.body);
        let (body, body_len) = match head.framing {
            Framing::Length(n) => (rest.get(..n), n),
            Framing::UntilClose if rest.len() > MAX_BODY_BYTES => {
                return Err(Failure::new(Kind::Malformed, "a body without end"));
            }
            Framing::UntilClose => (closed.then_some(rest), rest.len()),
            Framing::Chunked => match decode_chunked(rest, &mut chunked).map_err(malformed)? {
                Some(n) => (Some(&chunked[..]), n),
                None => (None, 0),
            },
        };
        self.needed = at + head.len + body_len;
        let advance = match body {
            None => None,
            Some(body) => {
                if plain.len() > self.needed {
                    return Err(Failure::new(Kind::Malformed, "bytes behind the answer"));
                }
                self.needed = 0;
                let answer = Answer {
                    status: head.status,
                    event_stream: head.event_stream,
                    retry_after: head.retry_after,
                    body,
                };
                let session = head.session.map(|range| &plain[at..][range]);
                let then = match (head.keep_alive, closed) {
                    (true, false) => After::Idle,
                    (true, true) => After::Lost,
                    (false, _) => After::Close,
                };
                Some(self.take_answer(answer, session, then, context)?)
            }
        };
        *context.body = chunked;
        Ok(advance)
    }

    fn take_answer(
        &mut self,
        answer: Answer<'_>,
        session: Option<&[u8]>,
        then: After,
        context: &mut Context<'_>,
    ) -> Result<Advance, Failure> {
        match self.phase {
            Phase::Opening | Phase::Negotiating | Phase::Idle | Phase::Closing => Ok(Advance::Pending),
            Phase::Initializing { id } => {
                result_of(answer, id)?;
                self.session = session.and_then(|s| std::str::from_utf8(s).ok()).map(Arc::from);
                context.request.clear();
                context.plan.requests.push_initialized(context.request, self.session.as_deref());
                self.phase = Phase::Notifying;
                self.send_request(0, context)?;
                Ok(Advance::Pending)
            }
            Phase::Notifying if !matches!(answer.status, 200 | 202 | 204) => {
                Err(Failure::new(Kind::HttpStatus, answer.status))
            }
            Phase::Notifying => {
                self.phase = Phase::Idle;
                Ok(Advance::Ready)
            }
            Phase::Ending => {
                self.phase = Phase::Idle;
                self.session = None;
                // A server may keep sessions to itself: 405 (2025-11-25, basic/transports, Session Management).
                let ended = matches!(answer.status, 200 | 202 | 204 | 405);
                let verdict = if ended { Ok(()) } else { Err(Failure::new(Kind::HttpStatus, answer.status)) };
                Ok(Advance::SessionEnded { verdict })
            }
            Phase::Calling { id, call } => {
                self.phase = Phase::Idle;
                let verdict = check_call(answer, id, context.plan.answer_form, context.plan.expect.as_ref());
                let session_gone = answer.status == 404 && self.session.is_some();
                if session_gone {
                    // Begin a new one, on a new connection (2025-11-25, basic/transports, Session Management).
                    self.session = None;
                }
                let then = if session_gone && then == After::Idle { After::Close } else { then };
                context.answered.push((call, verdict));
                Ok(Advance::Answered { then })
            }
        }
    }
}

/// Ids are unique over the run, so that an answer to another connection's call shows.
fn next_id(context: &mut Context<'_>) -> u64 {
    *context.ids += 1;
    *context.ids
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::load::{AnswerForm, CallSpec, Requests, Scenario, Target};
    use crate::mcp::Revision;

    fn plan(url: &str) -> Plan {
        let target = Target::resolve(url).unwrap();
        let spec = CallSpec {
            revision: Revision::V2026_07_28,
            tool: "echo".into(),
            arguments: "{}".into(),
            headers: Vec::new(),
            token: None,
            progress: false,
        };
        Plan {
            scenario: Scenario::Run,
            requests: Requests::for_target(&spec, &target).unwrap(),
            target,
            tls: None,
            connections: 1,
            threads: 1,
            in_flight: 1,
            ramp_per_s: None,
            rate_per_s: None,
            duration: Duration::ZERO,
            warmup: Duration::ZERO,
            timeout: Duration::from_secs(10),
            shared_session: false,
            expect: None,
            answer_form: AnswerForm::Any,
            source: None,
            server_pid: None,
            keep_sessions: false,
            flood: 0,
            rest: Duration::ZERO,
        }
    }

    fn wait_for_bytes(stream: &mut TcpStream) {
        let mut head = [0; 4096];
        assert!(stream.read(&mut head).unwrap() > 0);
    }

    /// The kernel may tell of room to write after the bytes of the same wake-up have been read.
    #[test]
    fn an_event_without_input_leaves_a_partial_answer_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let plan = plan(&format!("http://{}/mcp", listener.local_addr().unwrap()));
        let (mut scratch, mut ids, mut request, mut body) = (Scratch::new(), 0, Vec::new(), Vec::new());
        let mut answered = Vec::new();
        let mut events = EventCounts::new();
        let mut context = Context {
            plan: &plan,
            scratch: &mut scratch,
            ids: &mut ids,
            request: &mut request,
            body: &mut body,
            answered: &mut answered,
            events: &mut events,
        };
        let mut client = Client::new(Link::connect(plan.target.address, None, None).unwrap(), None, 0);
        let (mut peer, _) = listener.accept().unwrap();
        let event = |readable, writable| Event { token: 0, readable, writable, closed: false };
        assert_eq!(client.handle_event(event(false, true), &mut context).unwrap(), Advance::Ready);

        let call = Call { intended_ns: 1, sent_ns: 2 };
        client.push_call(call, &mut context);
        client.flush(&mut context).unwrap();
        wait_for_bytes(&mut peer);
        let json = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","content":[]}}"#;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}",
            json.len()
        );
        let (first, rest) = answer.as_bytes().split_at(answer.len() / 2);
        let mut send = |bytes: &[u8]| peer.write_all(bytes).unwrap();
        send(first);
        while client.partial.len() < first.len() {
            assert_eq!(client.handle_event(event(true, true), &mut context).unwrap(), Advance::Pending);
        }
        assert_eq!(client.handle_event(event(false, true), &mut context).unwrap(), Advance::Pending);
        send(rest);
        loop {
            match client.handle_event(event(true, true), &mut context).unwrap() {
                Advance::Pending => {}
                done => {
                    assert_eq!(done, Advance::Answered { then: After::Idle });
                    assert_eq!(answered, [(call, Ok(()))]);
                    return;
                }
            }
        }
    }
}
