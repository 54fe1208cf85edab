//! Between the shard's connection and h2: owns the plaintext that h2 has not read yet and what it has written in this turn.
//! No socket and no waker: the door polls h2 whenever one of the two may go on.
//!
//! Invariants: h2 reads at most [`FRAMES_PER_TURN`] frames per turn of the shard; it writes at most [`OUTBOX_BYTES`] and a
//! frame before the door has sent them, and nothing while the client reads too slowly.

use std::cell::{Cell, RefCell};
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ledger::Ledger;
use super::meter::{Begun, Cut, Meter};
use crate::shard::clock::Millis;

/// Frames read per connection and turn of the shard, after which the others have their turn.
const FRAMES_PER_TURN: usize = 32;
/// Bytes gathered for one send, as many as a connection may have unsent.
const OUTBOX_BYTES: usize = 64 << 10;

/// What h2 reads from and writes to.
pub(super) struct Wire {
    input: RefCell<Input>,
    out: RefCell<Vec<u8>>,
    meter: RefCell<Meter>,
    ledger: RefCell<Ledger>,
    /// What h2 reads before anything else; it is not the client's.
    replay: RefCell<Vec<u8>>,
    replaying: Cell<bool>,
    now: Cell<Millis>,
    frames_left: Cell<usize>,
    /// Nothing is read: the client was refused and is to come back later.
    pub(super) held: Cell<bool>,
    /// Nothing is written: the client has not read what was sent.
    pub(super) congested: Cell<bool>,
    /// h2 had more to write than it may.
    blocked: Cell<bool>,
    /// Bytes of answers that h2 holds.
    pub(super) held_by_pieces: Cell<usize>,
    /// Pieces of answers that left since h2 last read.
    pub(super) pieces_sent: Cell<u32>,
}

#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    read: usize,
}

/// h2's end of the wire.
pub(super) struct Io(pub(super) Rc<Wire>);

impl Wire {
    pub(super) fn new(now: Millis) -> Rc<Self> {
        Rc::new(Wire {
            input: RefCell::default(),
            out: RefCell::default(),
            meter: RefCell::new(Meter::new(now)),
            ledger: RefCell::new(Ledger::new()),
            replay: RefCell::default(),
            replaying: Cell::new(false),
            now: Cell::new(now),
            frames_left: Cell::new(FRAMES_PER_TURN),
            held: Cell::new(false),
            congested: Cell::new(false),
            blocked: Cell::new(false),
            held_by_pieces: Cell::new(0),
            pieces_sent: Cell::new(0),
        })
    }

    /// Takes plaintext of the client.
    pub(super) fn feed(&self, data: &[u8]) {
        let input = &mut *self.input.borrow_mut();
        input.bytes.drain(..input.read);
        input.read = 0;
        input.bytes.extend_from_slice(data);
    }

    /// A turn of the shard has begun for this connection.
    pub(super) fn begin_turn(&self) {
        self.frames_left.set(FRAMES_PER_TURN);
    }

    /// h2 is about to be polled.
    pub(super) fn begin_poll(&self, now: Millis) {
        self.now.set(now);
        self.blocked.set(false);
    }

    /// Bytes that h2 has not read.
    pub(super) fn unread(&self) -> usize {
        let input = self.input.borrow();
        input.bytes.len() - input.read
    }

    /// Whether the connection has had its share of the turn, with more to read.
    pub(super) fn has_rest(&self) -> bool {
        self.frames_left.get() == 0 && self.unread() > 0 && !self.held.get() && self.cut().is_none()
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    /// Whether the connection is to be cut, and why.
    pub(super) fn cut(&self) -> Option<Cut> {
        self.meter.borrow().cut()
    }

    /// What the client has begun to send, and which frame that is; what waits here for its turn is not the client's delay.
    pub(super) fn begun(&self) -> (Begun, u64) {
        let meter = self.meter.borrow();
        (if self.unread() > 0 { Begun::Nothing } else { meter.begun() }, meter.number())
    }

    /// What is to be sent, with its memory.
    pub(super) fn take_output(&self) -> Vec<u8> {
        std::mem::take(&mut *self.out.borrow_mut())
    }

    /// Memory for what h2 writes next.
    pub(super) fn lend(&self, buffer: impl FnOnce() -> Vec<u8>) {
        let mut out = self.out.borrow_mut();
        if out.capacity() == 0 {
            *out = buffer();
        }
    }

    /// Whether a new h2 could take this one's place, as far as the two directions tell.
    pub(super) fn may_sleep(&self) -> bool {
        let nothing_waits = self.unread() == 0 && self.out.borrow().is_empty();
        nothing_waits && !self.held.get() && self.cut().is_none() && self.ledger.borrow().is_complete()
    }

    /// A new h2 is about to be told what the old one knew.
    pub(super) fn begin_replay(&self) {
        self.replay.replace(self.ledger.borrow().replay());
        self.replaying.set(true);
    }

    /// Bytes that the new h2 must send for it to know the client's window; see [`Ledger::shortfall`].
    pub(super) fn shortfall(&self) -> usize {
        self.ledger.borrow().shortfall()
    }

    /// What a new h2 says in its replay is not for the client.
    pub(super) fn throw_output_away(&self) {
        self.out.borrow_mut().clear();
    }

    /// The new h2 knows it; what it said to that is thrown away. The client's window becomes `window`, as h2 believes.
    pub(super) fn end_replay(&self, window: u32) {
        let mut ledger = self.ledger.borrow_mut();
        let mut out = self.out.borrow_mut();
        out.clear();
        let more = ledger.top_up(window);
        ledger.on_out(&more);
        out.extend_from_slice(&more);
        self.replay.take();
        self.replaying.set(false);
    }

    /// A goodbye without h2.
    pub(super) fn say_goodbye(&self) {
        self.out.borrow_mut().extend_from_slice(&self.ledger.borrow().goodbye());
    }

    /// Bytes held.
    pub(super) fn held_bytes(&self) -> usize {
        self.input.borrow().bytes.capacity() + self.out.borrow().capacity() + self.held_by_pieces.get()
    }

    /// The vectors that nothing is in, for others to use.
    pub(super) fn take_empty(&self) -> [Vec<u8>; 2] {
        let input = &mut *self.input.borrow_mut();
        let read = input.read == input.bytes.len();
        let read = if read { std::mem::take(input).bytes } else { Vec::new() };
        let mut out = self.out.borrow_mut();
        [read, if out.is_empty() { std::mem::take(&mut *out) } else { Vec::new() }]
    }

    fn room(&self) -> bool {
        let room = !self.congested.get() && self.out.borrow().len() < OUTBOX_BYTES;
        if !room {
            self.blocked.set(true);
        }
        room
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = &*self.0;
        let replay = &mut *wire.replay.borrow_mut();
        if !replay.is_empty() {
            let part = replay.len().min(buf.remaining());
            buf.put_slice(&replay[..part]);
            replay.drain(..part);
            return Poll::Ready(Ok(()));
        }
        if wire.replaying.get() || wire.held.get() {
            return Poll::Pending;
        }
        let input = &mut *wire.input.borrow_mut();
        let rest = &input.bytes[input.read..];
        let rest = &rest[..rest.len().min(buf.remaining())];
        let mut meter = wire.meter.borrow_mut();
        meter.on_pieces_sent(wire.pieces_sent.take());
        let passed = meter.pass(rest, wire.frames_left.get(), wire.now.get());
        wire.frames_left.set(wire.frames_left.get() - passed.frames);
        if passed.bytes == 0 {
            return Poll::Pending;
        }
        buf.put_slice(&rest[..passed.bytes]);
        wire.ledger.borrow_mut().on_in(&rest[..passed.bytes]);
        input.read += passed.bytes;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.0.room() {
            return Poll::Pending;
        }
        let mut out = self.0.out.borrow_mut();
        let before = out.len();
        for buf in bufs {
            if !self.0.replaying.get() {
                self.0.ledger.borrow_mut().on_out(buf);
            }
            out.extend_from_slice(buf);
        }
        Poll::Ready(Ok(out.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Sending is the door's, at the end of the turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
