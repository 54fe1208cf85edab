//! The sending half of a stream, shared by the exchange that writes the answer and the door that watches over it: owns h2's
//! handles and what of the answer has not left yet.
//!
//! Invariant: every byte that h2 holds for an answer is counted, in the stream's `unsent` and on its connection's wire.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Buf;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::Response;

use super::wire::Wire;
use crate::shard::Shard;
use crate::shard::conn::Gone;

/// Bytes of a stream that wait for its window or the socket before whoever produces them is told to wait: 128 streams of it
/// are 2 MiB per connection.
const UNSENT_HIGH_BYTES: usize = 16 << 10;

/// A part of a piece that counts as one: a client that opens its window byte by byte earns nothing by it.
const LARGE_PIECE_BYTES: usize = 1 << 10;

pub(super) struct Answer {
    respond: RefCell<SendResponse<Piece>>,
    stream: RefCell<Option<SendStream<Piece>>>,
    progress: Rc<Sending>,
    shard: Rc<Shard>,
    wire: Rc<Wire>,
}

/// How far a stream's answer has come.
#[derive(Default)]
struct Sending {
    unsent: Cell<usize>,
    /// Something left since this was last asked.
    moved: Cell<bool>,
    /// Exchanges that wait: one, or those that share a stream.
    waiting: RefCell<Vec<Waker>>,
}

/// A piece of an answer, as h2 holds it until its stream's window and the socket take it.
pub(super) struct Piece {
    bytes: Vec<u8>,
    at: usize,
    progress: Rc<Sending>,
    shard: Rc<Shard>,
    wire: Rc<Wire>,
}

impl Answer {
    pub(super) fn new(shard: &Rc<Shard>, wire: &Rc<Wire>, respond: SendResponse<Piece>) -> Rc<Self> {
        Rc::new(Answer {
            respond: RefCell::new(respond),
            stream: RefCell::default(),
            progress: Rc::default(),
            shard: shard.clone(),
            wire: wire.clone(),
        })
    }

    /// Says that the request's body is welcome.
    pub(super) fn send_continue(&self) {
        let mut head = Response::new(());
        *head.status_mut() = http::StatusCode::CONTINUE;
        // A stream that is gone needs none.
        let _ = self.respond.borrow_mut().send_informational(head);
    }

    pub(super) fn send_head(&self, head: Response<()>, ends: bool) -> Result<(), Gone> {
        let stream = self.respond.borrow_mut().send_response(head, ends).map_err(|_| Gone)?;
        self.stream.replace(Some(stream));
        Ok(())
    }

    /// Takes a piece of the body; with `ends`, the last one.
    pub(super) fn send_data(&self, data: &[u8], ends: bool) -> Result<(), Gone> {
        let mut stream = self.stream.borrow_mut();
        let Some(stream) = &mut *stream else { return Err(Gone) };
        stream.send_data(self.piece(data), ends).map_err(|_| Gone)
    }

    /// Ends the stream without the rest of its answer.
    pub(super) fn reset(&self, reason: Reason) {
        self.respond.borrow_mut().send_reset(reason);
    }

    /// Whether the stream ended before its answer did: the client, or h2 because of what the client did, has reset it.
    pub(super) fn is_reset(&self) -> bool {
        // Nobody is woken: this is asked whenever the client has sent something.
        let cx = &mut Context::from_waker(Waker::noop());
        match &mut *self.stream.borrow_mut() {
            Some(stream) => stream.poll_reset(cx).is_ready(),
            None => self.respond.borrow_mut().poll_reset(cx).is_ready(),
        }
    }

    pub(super) fn unsent(&self) -> usize {
        self.progress.unsent.get()
    }

    /// Whether something left since this was last asked.
    pub(super) fn take_moved(&self) -> bool {
        self.progress.moved.take()
    }

    /// Whether so much is unsent that whoever produces more should wait.
    pub(super) fn is_congested(&self) -> bool {
        self.unsent() >= UNSENT_HIGH_BYTES
    }

    /// Waits until few enough bytes are unsent that more may be produced.
    pub(super) fn poll_drained(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.is_congested() {
            return Poll::Ready(());
        }
        let mut waiting = self.progress.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn piece(&self, data: &[u8]) -> Piece {
        let mut bytes = if data.is_empty() { Vec::new() } else { self.shard.take_buffer() };
        bytes.extend_from_slice(data);
        let held = &self.wire.held_by_pieces;
        held.set(held.get() + bytes.capacity());
        self.progress.unsent.set(self.progress.unsent.get() + bytes.len());
        Piece {
            bytes,
            at: 0,
            progress: self.progress.clone(),
            shard: self.shard.clone(),
            wire: self.wire.clone(),
        }
    }
}

impl Sending {
    fn take(&self, bytes: usize) {
        self.unsent.set(self.unsent.get() - bytes);
        if self.unsent.get() < UNSENT_HIGH_BYTES {
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    fn advance(&mut self, count: usize) {
        self.at += count;
        self.progress.moved.set(true);
        self.progress.take(count);
        if count >= LARGE_PIECE_BYTES || self.remaining() == 0 {
            self.wire.pieces_sent.set(self.wire.pieces_sent.get().saturating_add(1));
        }
    }
}

/// Sent, or dropped with its stream.
impl Drop for Piece {
    fn drop(&mut self) {
        self.progress.take(self.remaining());
        let bytes = std::mem::take(&mut self.bytes);
        let held = &self.wire.held_by_pieces;
        held.set(held.get() - bytes.capacity());
        self.shard.give_buffer(bytes);
    }
}
