//! What a channel's server says, told in HTTP's terms: owns the answer to a request, whole or event by event, and the stream of
//! what belongs to no request. Never where a message belongs.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use mcp_protocol::sse::write_event;

use super::SeatId;
use super::flight::Flight;
use super::hub::Hub;
use super::queue::Queue;
use crate::upstream::answer::{Source, Step, Told};
use crate::upstream::call::CallError;

const EVENTS: &[u8] = b"Content-Type: text/event-stream\r\n";
const JSON: &[u8] = b"Content-Type: application/json\r\n";

/// The response is here: JSON.
pub(super) fn whole(session: Option<SeatId>, body: Vec<u8>) -> Told {
    Told::whole(200, fields(JSON, session), body)
}

/// What comes for a request, as events.
pub(super) fn events(session: Option<SeatId>, answering: Answering) -> Told {
    Told::new(200, fields(EVENTS, session), None, Box::new(answering))
}

/// What comes for no request, as events.
pub(super) fn listening(listening: Listening) -> Told {
    Told::new(200, fields(EVENTS, None), None, Box::new(listening))
}

/// Nothing but a status: what is not a request has been taken (202), a session has ended (200) or there is none (404).
pub(super) fn status(status: u16) -> Told {
    Told::whole(status, Vec::new(), Vec::new())
}

fn fields(kind: &[u8], session: Option<SeatId>) -> Vec<u8> {
    let mut fields = kind.to_vec();
    if let Some(session) = session {
        fields.extend_from_slice(format!("Mcp-Session-Id: {session}\r\n").as_bytes());
    }
    fields
}

/// A request whose answer is awaited; dropped before its end, the request is given up.
pub(super) struct Answering {
    hub: Rc<Hub>,
    pub(super) flight: Rc<Flight>,
}

impl Answering {
    pub(super) fn new(hub: &Rc<Hub>, flight: Rc<Flight>) -> Self {
        Answering { hub: hub.clone(), flight }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.hub.on_left(&self.flight);
    }
}

impl Source for Answering {
    fn poll_piece(&mut self, cx: &mut Context<'_>, piece: &mut Vec<u8>) -> Poll<Result<Step, CallError>> {
        match ready!(self.flight.poll_message(cx))? {
            Some(message) => {
                write_event(piece, Some("message"), None, &message);
                Poll::Ready(Ok(if self.flight.is_over() { Step::Last } else { Step::Piece }))
            }
            None => Poll::Ready(Ok(Step::End)),
        }
    }

    fn is_ready(&self) -> bool {
        self.flight.has_message()
    }

    fn detach(&mut self) {}
}

/// A client that listens for what belongs to no request.
pub(super) struct Listening {
    hub: Rc<Hub>,
    seat: SeatId,
    queue: Rc<Queue>,
}

impl Listening {
    pub(super) fn new(hub: &Rc<Hub>, seat: SeatId, queue: Rc<Queue>) -> Self {
        Listening { hub: hub.clone(), seat, queue }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.hub.on_deaf(self.seat, &self.queue);
    }
}

impl Source for Listening {
    fn poll_piece(&mut self, cx: &mut Context<'_>, piece: &mut Vec<u8>) -> Poll<Result<Step, CallError>> {
        if let Some(message) = self.queue.pop() {
            write_event(piece, Some("message"), None, &message);
            return Poll::Ready(Ok(Step::Piece));
        }
        if !self.hub.has_seat(self.seat) {
            return Poll::Ready(Ok(Step::End));
        }
        self.queue.wait(cx);
        Poll::Pending
    }

    fn is_ready(&self) -> bool {
        !self.queue.is_empty()
    }

    fn detach(&mut self) {}
}
