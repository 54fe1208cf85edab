//! One connection of the upstream: bytes in, answers out, nothing of epoll.
//!
//! An idle connection owns no buffer: input is parsed where the thread read it, and only a partial request or unsent
//! output moves here. Unsent output is bounded by [`MAX_UNSENT_BYTES`]; beyond it the connection takes no more requests
//! until the peer has read.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::answer::{Answered, Responder, refuse};
use super::stream::Stream;
use crate::http::{Framing, decode_chunked, parse_request_head};
use crate::sys;

/// Output held for a peer that does not read (bytes), before its requests wait. One answer may exceed it.
const MAX_UNSENT_BYTES: usize = 1024 * 1024;

/// A connection's state between events.
#[derive(Debug)]
pub(super) struct Connection {
    fd: OwnedFd,
    input: Vec<u8>,
    unsent: Vec<u8>,
    /// Close when everything is sent.
    pub(super) closing: bool,
    /// Answers that wait for their time elsewhere.
    pub(super) held_back: usize,
    /// The answer that is being streamed; requests behind it wait.
    pub(super) stream: Option<Box<Stream>>,
    /// The socket may hold more input than was read.
    pub(super) readable: bool,
}

/// Room of a thread for all its connections.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) input: Vec<u8>,
    pub(super) body: Vec<u8>,
    pub(super) output: Vec<u8>,
}

/// What became of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Go on.
    Open,
    /// The peer closed, or the socket is broken: drop the connection.
    Gone,
}

impl Connection {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            input: Vec::new(),
            unsent: Vec::new(),
            closing: false,
            held_back: 0,
            stream: None,
            readable: false,
        }
    }

    /// The connection shall be dropped now.
    pub(super) fn is_finished(&self) -> bool {
        self.closing && self.unsent.is_empty() && self.held_back == 0 && self.stream.is_none()
    }

    /// The peer must read before more is made for it.
    pub(super) fn is_blocked(&self) -> bool {
        self.unsent.len() > MAX_UNSENT_BYTES
    }

    /// More requests may be taken.
    pub(super) fn takes_requests(&self) -> bool {
        !self.closing && !self.is_blocked() && self.stream.is_none()
    }

    /// Answers the requests that came behind a stream, which has ended.
    pub(super) fn handle_held(
        &mut self,
        responder: &Responder,
        scratch: &mut Scratch,
        on_call: &mut dyn FnMut(),
    ) {
        let held = std::mem::take(&mut self.input);
        let taken = self.answer_all(&held, responder, &mut scratch.body, &mut scratch.output, on_call);
        self.input.extend_from_slice(&held[taken..]);
    }

    /// Reads once and answers the complete requests, appending to `scratch.output`. `on_call` runs after each call.
    pub(super) fn handle_readable(
        &mut self,
        responder: &Responder,
        scratch: &mut Scratch,
        peer_closed: bool,
        on_call: &mut dyn FnMut(),
    ) -> Progress {
        let n = match sys::read(self.fd.as_fd(), &mut scratch.input) {
            Ok(0) => return Progress::Gone,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                return Progress::Open;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Progress::Open,
            Err(_) => return Progress::Gone,
        };
        // A short read empties the socket, so the next bytes raise a new edge; an end of file raised its own already.
        self.readable = n == scratch.input.len() || peer_closed;
        let Scratch { input, body, output } = scratch;
        if self.input.is_empty() {
            let taken = self.answer_all(&input[..n], responder, body, output, on_call);
            self.input.extend_from_slice(&input[taken..n]);
        } else {
            let mut held = std::mem::take(&mut self.input);
            held.extend_from_slice(&input[..n]);
            let taken = self.answer_all(&held, responder, body, output, on_call);
            if taken < held.len() {
                held.drain(..taken);
                self.input = held;
            }
        }
        Progress::Open
    }

    /// Sends `bytes` behind what is unsent.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Progress {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Progress::Open;
        }
        match sys::write_some(self.fd.as_fd(), bytes) {
            Ok(sent) => {
                self.unsent.extend_from_slice(&bytes[sent..]);
                Progress::Open
            }
            Err(_) => Progress::Gone,
        }
    }

    /// Sends what is left over.
    pub(super) fn handle_writable(&mut self) -> Progress {
        if self.unsent.is_empty() {
            return Progress::Open;
        }
        match sys::write_some(self.fd.as_fd(), &self.unsent) {
            Ok(sent) if sent == self.unsent.len() => self.unsent = Vec::new(),
            Ok(sent) => drop(self.unsent.drain(..sent)),
            Err(_) => return Progress::Gone,
        }
        Progress::Open
    }

    /// Answers the complete requests in `input` and returns how many bytes they were.
    fn answer_all(
        &mut self,
        input: &[u8],
        responder: &Responder,
        body: &mut Vec<u8>,
        output: &mut Vec<u8>,
        on_call: &mut dyn FnMut(),
    ) -> usize {
        let mut at = 0;
        while at < input.len() && !self.closing && self.stream.is_none() {
            match answer_one(&input[at..], responder, body, output) {
                Ok(None) => break,
                Ok(Some(done)) => {
                    at += done.taken;
                    self.closing = !done.keep_alive;
                    match done.answered {
                        Answered::Call => on_call(),
                        Answered::Stream(stream) => {
                            on_call();
                            self.stream = Some(stream);
                        }
                        Answered::Other => {}
                    }
                }
                Err(_) => {
                    refuse(output);
                    self.closing = true;
                }
            }
        }
        if self.closing { input.len() } else { at }
    }
}

struct Done {
    taken: usize,
    keep_alive: bool,
    answered: Answered,
}

fn answer_one(
    input: &[u8],
    responder: &Responder,
    body: &mut Vec<u8>,
    output: &mut Vec<u8>,
) -> Result<Option<Done>, crate::http::HttpError> {
    let Some(head) = parse_request_head(input)? else { return Ok(None) };
    let rest = &input[head.len..];
    let (json, body_len) = match head.framing {
        Framing::Chunked => match decode_chunked(rest, body)? {
            Some(n) => (&body[..], n),
            None => return Ok(None),
        },
        Framing::Length(n) => match rest.get(..n) {
            Some(json) => (json, n),
            None => return Ok(None),
        },
        Framing::UntilClose => (&[][..], 0),
    };
    let start = output.len();
    let answered = responder.handle(&head, json, output);
    if !head.keep_alive {
        announce_close(output, start);
    }
    Ok(Some(Done { taken: head.len + body_len, keep_alive: head.keep_alive, answered }))
}

/// Puts `Connection: close` behind the status line of the answer that begins at `start`.
fn announce_close(output: &mut Vec<u8>, start: usize) {
    if let Some(end) = memchr::memmem::find(&output[start..], b"\r\n") {
        let at = start + end + 2;
        output.splice(at..at, *b"Connection: close\r\n");
    }
}
