//! A connection's MCP over HTTP with SSE (revision 2024-11-05): a stream by GET, on which everything comes, and a second connection
//! for what is POSTed. Owns both ways' bytes and when the second connection is let go; it is the worker that opens it. It shares
//! no code with the gateway.

use super::framed::Step;
use super::{Advance, Client, Context, Event, Failure, Kind, Phase, ReadEnd};
use crate::http::{Framing, parse_response_head};
use crate::load::events::EventReader;
use crate::load::link::{Link, Scratch};

/// How long an idle connection for POSTs is kept: what Node's `fetch` does.
const POSTS_KEPT_NS: u64 = 4_000_000_000;

/// The state of a client of this transport.
#[derive(Default)]
pub(super) struct Sse {
    /// Where messages go; empty until the stream has said so.
    pub(super) endpoint: String,
    events: Option<EventReader>,
    /// The connection for POSTs, if there is one.
    posts: Option<Link>,
    /// Requests that wait until it is open.
    waiting: Vec<u8>,
    /// POSTs without an answer.
    unaccepted: usize,
    /// An answer to a POST that is not complete.
    partial: Vec<u8>,
    /// When it was last used.
    used_ns: u64,
}

impl Sse {
    /// Sends requests, so many of them, or has them wait for the connection.
    fn post(&mut self, requests: &[u8], scratch: &mut Scratch) -> Result<(), Failure> {
        match &mut self.posts {
            Some(posts) if posts.is_open() => posts.send(requests, scratch),
            _ => {
                self.waiting.extend_from_slice(requests);
                Ok(())
            }
        }
    }

    /// Takes the answers to POSTs: acceptances.
    fn take_accepted(&mut self, mut plain: &[u8]) -> Result<(), Failure> {
        while !plain.is_empty() {
            let head = parse_response_head(plain).map_err(|e| Failure::new(Kind::Malformed, e))?;
            let Some(head) = head else { break };
            match (head.status, head.framing) {
                (503, _) if head.retry_after => {
                    return Err(Failure::new(Kind::Shed, "503 with Retry-After"));
                }
                (202, Framing::Length(0)) if self.unaccepted > 0 => {}
                (202, _) => return Err(Failure::new(Kind::Malformed, "an acceptance that says more")),
                (status, _) => return Err(Failure::new(Kind::HttpStatus, status)),
            }
            self.unaccepted -= 1;
            plain = &plain[head.len..];
        }
        self.partial = plain.to_vec();
        Ok(())
    }
}

impl Client {
    /// As [`Client::new`], for HTTP with SSE.
    pub(in crate::load) fn with_posts(mut self, posts: Link, now_ns: u64) -> Self {
        self.sse = Some(Box::new(Sse { posts: Some(posts), used_ns: now_ns, ..Sse::default() }));
        self
    }

    /// Whether it needs a connection for POSTs before its next call.
    pub(in crate::load) fn wants_posts(&self) -> bool {
        self.sse.as_ref().is_some_and(|sse| sse.posts.is_none())
    }

    /// Gives it that.
    pub(in crate::load) fn set_posts(&mut self, posts: Link) {
        if let Some(sse) = &mut self.sse {
            sse.posts = Some(posts);
        }
    }

    /// Closes the connection for POSTs when it has been idle for long.
    pub(in crate::load) fn let_posts_go(&mut self, now_ns: u64) {
        let is_idle = self.is_idle();
        if let Some(sse) = &mut self.sse
            && is_idle
            && sse.unaccepted == 0
            && now_ns.saturating_sub(sse.used_ns) >= POSTS_KEPT_NS
        {
            sse.posts = None;
        }
    }

    /// Notes that another request is on its way; `now_ns` is when, or 0 in the set-up.
    pub(super) fn on_posting(&mut self, now_ns: u64) {
        if let Some(sse) = &mut self.sse {
            sse.unaccepted += 1;
            sse.used_ns = sse.used_ns.max(now_ns);
        }
    }

    /// Sends requests, whichever the protocol.
    pub(super) fn transmit(&mut self, requests: &[u8], scratch: &mut Scratch) -> Result<(), Failure> {
        match &mut self.sse {
            Some(sse) => sse.post(requests, scratch),
            None => self.link.send(requests, scratch),
        }
    }

    /// Asks for the stream.
    pub(super) fn ask_stream(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        self.phase = Phase::Negotiating;
        context.request.clear();
        context.plan.requests.push_upgrade(context.request);
        self.link.send(context.request, context.scratch)
    }

    /// Takes an event of the connection for POSTs.
    pub(in crate::load) fn handle_posts_event(
        &mut self,
        event: Event,
        context: &mut Context<'_>,
    ) -> Result<Advance, Failure> {
        let Some(sse) = &mut self.sse else { return Ok(Advance::Pending) };
        let Some(posts) = &mut sse.posts else { return Ok(Advance::Pending) };
        context.scratch.plain.clear();
        if event.writable {
            posts.handle_writable(context.scratch)?;
        }
        let mut end = ReadEnd::Drained;
        if event.readable {
            context.scratch.plain.append(&mut sse.partial);
            end = posts.handle_readable(context.scratch)?;
            // A short read hides the end of file that the same event told of.
            if end == ReadEnd::Drained && event.closed {
                end = posts.handle_readable(context.scratch)?;
            }
        }
        if posts.is_open() && !sse.waiting.is_empty() {
            posts.send(&std::mem::take(&mut sse.waiting), context.scratch)?;
        }
        if event.readable {
            let plain = std::mem::take(&mut context.scratch.plain);
            let taken = sse.take_accepted(&plain);
            context.scratch.plain = plain;
            taken?;
        }
        if end == ReadEnd::Closed {
            if sse.unaccepted > 0 {
                return Err(Failure::new(Kind::Reset, "closed by the peer"));
            }
            sse.posts = None;
        }
        Ok(Advance::Pending)
    }

    /// Takes the stream's head, or what came of its body.
    pub(super) fn take_stream(&mut self, plain: &[u8], context: &mut Context<'_>) -> Result<Step, Failure> {
        let reader = self.sse.as_mut().and_then(|sse| sse.events.take());
        let Some(mut reader) = reader else {
            let head = parse_response_head(plain).map_err(|e| Failure::new(Kind::Malformed, e))?;
            let Some(head) = head else { return Ok(Step::Needs(plain.len() + 1)) };
            if head.status != 200 || !head.event_stream {
                return Err(Failure::new(Kind::HttpStatus, head.status));
            }
            self.set_reader(EventReader::new(head.framing));
            return Ok(Step::Taken { bytes: head.len, advance: Advance::Pending });
        };
        let mut advance = Advance::Pending;
        let is_over = reader.handle_input(plain, |data| {
            if self.on_event_data(data, context)? == Advance::Ready {
                advance = Advance::Ready;
            }
            Ok(())
        })?;
        if is_over {
            return Err(Failure::new(Kind::Lost, "the stream's end"));
        }
        self.set_reader(reader);
        Ok(Step::Taken { bytes: plain.len(), advance })
    }

    fn set_reader(&mut self, reader: EventReader) {
        if let Some(sse) = &mut self.sse {
            sse.events = Some(reader);
        }
    }

    fn on_event_data(&mut self, data: &[u8], context: &mut Context<'_>) -> Result<Advance, Failure> {
        if self.phase != Phase::Negotiating {
            return self.on_message(data, context);
        }
        let endpoint = std::str::from_utf8(data)
            .ok()
            .filter(|path| path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()));
        let endpoint =
            endpoint.ok_or_else(|| Failure::new(Kind::Malformed, "an endpoint that is no path"))?;
        if let Some(sse) = &mut self.sse {
            endpoint.clone_into(&mut sse.endpoint);
        }
        if context.plan.requests.is_stateless() {
            self.phase = Phase::Idle;
            return Ok(Advance::Ready);
        }
        self.initialize(context).map(|()| Advance::Pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acceptances_are_counted_however_they_are_cut_and_anything_else_is_a_failure() {
        let accepted = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";
        let stream = accepted.repeat(3);
        for piece in 1..stream.len() {
            let mut sse = Sse { unaccepted: 4, ..Sse::default() };
            for part in stream.chunks(piece) {
                let plain = [&std::mem::take(&mut sse.partial)[..], part].concat();
                sse.take_accepted(&plain).unwrap();
            }
            assert_eq!((sse.unaccepted, sse.partial.len()), (1, 0), "{piece}");
        }
        for (answer, kind) in [
            (&b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"[..], Kind::HttpStatus),
            (b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n", Kind::Shed),
            (b"HTTP/1.1 202 Accepted\r\nContent-Length: 1\r\n\r\nx", Kind::Malformed),
            (b"SSH-2.0-x\r\n\r\n", Kind::Malformed),
        ] {
            let mut sse = Sse { unaccepted: 1, ..Sse::default() };
            assert_eq!(sse.take_accepted(answer).unwrap_err().kind, kind);
        }
        assert_eq!(Sse::default().take_accepted(accepted).unwrap_err().kind, Kind::Malformed);
    }
}
