//! What the protocols of frames (MCPB, WebSocket, HTTP/2) and of events (HTTP with SSE) have in common: owns the loop over what was
//! received, and the finding of the call that a response answers. Never a frame's layout.

use super::{
    Advance, After, Answer, Client, Context, Failure, Kind, Phase, Protocol, ReadEnd, check_call, result_of,
};
use crate::json::members;

/// What became of the bytes at the front of what was received.
pub(super) enum Step {
    /// One frame was taken.
    Taken { bytes: usize, advance: Advance },
    /// It is not complete, and has so many bytes at least.
    Needs(usize),
}

impl Client {
    /// Takes all frames received.
    pub(super) fn handle_frames(
        &mut self,
        mut plain: &[u8],
        end: ReadEnd,
        context: &mut Context<'_>,
    ) -> Result<Advance, Failure> {
        let closed = end == ReadEnd::Closed;
        if plain.len() < self.needed && !closed {
            self.partial = plain.to_vec();
            return Ok(Advance::Pending);
        }
        self.needed = 0;
        let mut advance = Advance::Pending;
        while !plain.is_empty() {
            let step = match context.plan.target.protocol {
                Protocol::Mcpb => self.take_mcpb(plain, context)?,
                Protocol::WebSocket => self.take_socket(plain, context)?,
                Protocol::Sse => self.take_stream(plain, context)?,
                Protocol::Http1 | Protocol::Http2 => self.take_h2(plain, context)?,
            };
            match step {
                Step::Taken { bytes, advance: next } => {
                    plain = &plain[bytes..];
                    if next != Advance::Pending {
                        advance = next;
                    }
                }
                Step::Needs(bytes) => {
                    self.needed = bytes;
                    break;
                }
            }
        }
        self.partial = plain.to_vec();
        if !context.answered.is_empty() {
            return Ok(Advance::Answered { then: if closed { After::Lost } else { After::Idle } });
        }
        if closed {
            let kind = if self.is_idle() { Kind::Lost } else { Kind::Reset };
            return Err(Failure::new(kind, "closed by the peer"));
        }
        Ok(advance)
    }

    /// Takes a message that may be anything a server says.
    pub(super) fn on_message(
        &mut self,
        message: &[u8],
        context: &mut Context<'_>,
    ) -> Result<Advance, Failure> {
        let Some([method]) = members(message, ["method"]) else {
            return Err(Failure::new(Kind::Malformed, "not a JSON object"));
        };
        if method.is_some() {
            // A server's own notifications; its questions go unanswered, as over HTTP.
            return Ok(Advance::Pending);
        }
        if let Phase::Initializing { id } = self.phase {
            result_of(message_answer(message), id)?;
            self.announce(context)?;
            return Ok(Advance::Ready);
        }
        self.on_response(message, context).map(|()| Advance::Pending)
    }

    /// Takes the response to a call, found by its id.
    pub(super) fn on_response(&mut self, message: &[u8], context: &mut Context<'_>) -> Result<(), Failure> {
        let id = response_id(message)
            .filter(|id| self.flights.iter().any(|(flight, _)| flight == id))
            .ok_or_else(|| Failure::new(Kind::WrongId, "an id that nobody asked with"))?;
        self.on_call_answered(id, message_answer(message), context);
        Ok(())
    }

    /// Takes the answer to the call with this id, if there is one in flight.
    pub(super) fn on_call_answered(&mut self, id: u64, answer: Answer<'_>, context: &mut Context<'_>) {
        let Some(place) = self.flights.iter().position(|(flight, _)| *flight == id) else { return };
        let (_, call) = self.flights.swap_remove(place);
        let verdict = check_call(answer, id, context.plan.answer_form, context.plan.expect.as_ref());
        context.answered.push((call, verdict));
    }

    /// Ends the set-up of a session that `initialize` has opened; nothing answers this notification.
    pub(super) fn announce(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        context.request.clear();
        let endpoint = self.sse.as_ref().map(|sse| &*sse.endpoint);
        context.plan.requests.push_initialized(context.request, endpoint);
        self.on_posting(0);
        self.transmit(context.request, context.scratch)?;
        self.phase = Phase::Idle;
        Ok(())
    }
}

/// A message as the checks know it from HTTP.
pub(super) fn message_answer(message: &[u8]) -> Answer<'_> {
    Answer { status: 200, event_stream: false, retry_after: false, body: message }
}

/// The id of a response, as our requests have them.
fn response_id(message: &[u8]) -> Option<u64> {
    let [id] = members(message, ["id"])?;
    std::str::from_utf8(id?).ok()?.parse().ok()
}
