//! The body of an answer over HTTP/2: owns the stream until its end and returns what was read to the server's windows. Dropped
//! before the end, it resets the stream, so that the server can stop.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;

use super::line::InStream;
use crate::upstream::answer::{Source, Step};
use crate::upstream::call::CallError;
use crate::upstream::pool::Permit;

type Polled = Poll<Option<Result<Bytes, h2::Error>>>;

pub(super) struct Body {
    stream: RecvStream,
    /// What was there when the head was read.
    first: Polled,
    permit: Option<Permit>,
    _in_stream: InStream,
}

impl Body {
    pub(super) fn new(stream: RecvStream, first: Polled, in_stream: InStream) -> Self {
        Body { stream, first, permit: None, _in_stream: in_stream }
    }

    /// Holds a place among the endpoint's exchanges until the end.
    pub(super) fn with(mut self, permit: Option<Permit>) -> Self {
        self.permit = permit;
        self
    }
}

impl Source for Body {
    fn poll_piece(&mut self, cx: &mut Context<'_>, piece: &mut Vec<u8>) -> Poll<Result<Step, CallError>> {
        loop {
            let data = match std::mem::replace(&mut self.first, Poll::Pending) {
                Poll::Pending => std::task::ready!(self.stream.poll_data(cx)),
                Poll::Ready(data) => data,
            };
            let Some(data) = data else { return Poll::Ready(Ok(Step::End)) };
            let data = data.map_err(|_| CallError::Closed)?;
            if data.is_empty() {
                continue;
            }
            piece.extend_from_slice(&data);
            // The windows are the connection's own; one that is over needs no more of them.
            let _ = self.stream.flow_control().release_capacity(data.len());
            let step = if self.stream.is_end_stream() { Step::Last } else { Step::Piece };
            return Poll::Ready(Ok(step));
        }
    }

    fn is_ready(&self) -> bool {
        self.first.is_ready()
    }

    fn detach(&mut self) {
        self.permit = None;
    }
}
