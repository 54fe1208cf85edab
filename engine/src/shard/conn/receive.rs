//! A connection's receiving half: owns how ciphertext comes in, by reading when told readable (epoll) or in pieces that
//! the ring received, and its way through TLS to the door. It never sends on its own account.

use std::os::fd::AsRawFd;
use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::{Conn, Ending, Gone, State};
use crate::door;
use crate::metrics::{Handshake, Rejection};
use crate::net::event::{Outcome, Received as Receipt};
use crate::shard::Shard;
use crate::shard::clock::NEVER;

/// Reads per event: 8 × 64 KiB, after which the others have their turn.
const READS_PER_EVENT: usize = 8;
/// Most ciphertext that may wait for the rest of a record or of a handshake message (64 KiB and its records' heads).
const CARRIED_BYTES: usize = 96 << 10;

/// Under the ring: what a client in its handshake may send during a pause before receiving stops.
const HELD_HANDSHAKE_BYTES: usize = 16 << 10;

enum Received {
    /// The socket is empty.
    Empty,
    /// There may be more.
    More,
    Ended,
    Failed(Option<Rejection>),
}

/// The ring received for the connection.
pub(super) fn on_received(shard: &Rc<Shard>, conn: &Rc<Conn>, receipt: Receipt) {
    conn.state.borrow_mut().receiving = receipt.more;
    let received = match receipt.outcome {
        Outcome::Piece(mut piece) => {
            pass_on(shard, conn, |conn, plain| conn.take_in(shard, piece.bytes_mut(), plain))
        }
        // Comes again when receiving goes on.
        Outcome::Ended if conn.state.borrow().paused => return,
        Outcome::Ended => Received::Ended,
        Outcome::Failed => Received::Failed(None),
        Outcome::Stopped => Received::Empty,
    };
    if on_outcome(shard, conn, received) {
        let state = conn.state.borrow();
        if !state.receiving && !state.paused && state.descriptor.is_some() {
            shard.revisit(conn.token);
        }
    }
}

/// Reads until the socket is empty, or until others must have their turn. Under the ring: takes up what came during a
/// pause, and has the ring receive again.
pub(crate) fn on_readable(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    if shard.reactor.ring().is_some() {
        let received = pass_on(shard, conn, |conn, plain| conn.take_in(shard, &mut [], plain));
        if on_outcome(shard, conn, received) {
            conn.receive_on(shard);
        }
        return;
    }
    for _ in 0..READS_PER_EVENT {
        match pass_on(shard, conn, |conn, plain| conn.receive(shard, plain)) {
            Received::More => {}
            received => {
                on_outcome(shard, conn, received);
                return;
            }
        }
    }
    shard.revisit(conn.token);
}

/// Receives and gives the plaintext to the door.
fn pass_on(
    shard: &Rc<Shard>,
    conn: &Rc<Conn>,
    receive: impl FnOnce(&Conn, &mut Vec<u8>) -> Received,
) -> Received {
    shard.with_scratch(|plain| {
        let received = receive(conn, plain);
        if conn.take_handshaken(shard) {
            door::on_open(shard, conn);
        }
        if !plain.is_empty() {
            door::on_data(shard, conn, plain);
        }
        received
    })
}

/// Acts on how receiving went; `false` when the input has ended.
fn on_outcome(shard: &Rc<Shard>, conn: &Rc<Conn>, received: Received) -> bool {
    match received {
        Received::Empty | Received::More => return true,
        Received::Ended => {
            if conn.is_handshaking() {
                shard.metrics.handshake(Handshake::Failed);
            }
            door::on_end(shard, conn);
        }
        Received::Failed(reason) => {
            if let Some(reason) = reason {
                shard.metrics.rejected(reason);
            }
            conn.close(shard);
        }
    }
    false
}

impl Conn {
    fn receive(&self, shard: &Rc<Shard>, plain: &mut Vec<u8>) -> Received {
        let state = &mut *self.state.borrow_mut();
        let Some(descriptor) = &state.descriptor else { return Received::Empty };
        if state.paused {
            state.unread = true;
            return Received::Empty;
        }
        let mut scratch = shard.receive_scratch.borrow_mut();
        let carried = state.rx.len();
        scratch[..carried].copy_from_slice(&state.rx);
        let room = scratch.len() - carried;
        if room == 0 {
            return Received::Failed(None);
        }
        let received = match rustix::net::recv(descriptor, &mut scratch[carried..], RecvFlags::empty()) {
            Ok((_, 0)) => return Received::Ended,
            Ok((_, received)) => received,
            Err(Errno::AGAIN) => return Received::Empty,
            Err(Errno::INTR) => return Received::More,
            Err(_) => return Received::Failed(None),
        };
        // Edge triggered: a short read has emptied the socket, unless its end is already known to follow.
        let more = received == room || state.hangup;
        if let Some(outcome) = state.throw_away(received) {
            return if more && matches!(outcome, Received::Empty) { Received::More } else { outcome };
        }
        let incoming = &mut scratch[..carried + received];
        match self.decrypt(shard, state, incoming, plain) {
            Received::Empty if more => Received::More,
            outcome => outcome,
        }
    }

    /// Takes a piece that the ring received; during a pause it is kept.
    fn take_in(&self, shard: &Rc<Shard>, piece: &mut [u8], plain: &mut Vec<u8>) -> Received {
        let state = &mut *self.state.borrow_mut();
        if state.descriptor.is_none() {
            return Received::Empty;
        }
        if state.paused {
            // Exactly: one wake-up may bring many pieces, and capacity counts as held.
            state.held.reserve_exact(piece.len());
            state.held.extend_from_slice(piece);
            self.count(shard, state);
            state.unread = true;
            // In a handshake a pause is short and the client waits for us: what it has sent is cheaper to keep.
            if state.receiving && (!state.handshaking || state.held.len() >= HELD_HANDSHAKE_BYTES) {
                shard.reactor.stop_receiving(self.token);
            }
            return Received::Empty;
        }
        let (mut carried, held) = (std::mem::take(&mut state.rx), std::mem::take(&mut state.held));
        if let Some(outcome) = state.throw_away(held.len() + piece.len()) {
            return outcome;
        }
        if carried.is_empty() && held.is_empty() {
            return if piece.is_empty() { Received::Empty } else { self.decrypt(shard, state, piece, plain) };
        }
        carried.extend_from_slice(&held);
        carried.extend_from_slice(piece);
        let outcome = self.decrypt(shard, state, &mut carried, plain);
        if state.rx.len() > CARRIED_BYTES { Received::Failed(None) } else { outcome }
    }

    /// Has the ring receive again where it stopped.
    fn receive_on(&self, shard: &Rc<Shard>) {
        let failed = {
            let state = &mut *self.state.borrow_mut();
            if state.receiving || state.paused {
                return;
            }
            let Some(descriptor) = &state.descriptor else { return };
            let Some(ring) = shard.reactor.ring() else { return };
            state.receiving = true;
            ring.receive(descriptor.as_raw_fd(), self.token).is_err()
        };
        if failed {
            self.close(shard);
        }
    }

    fn decrypt(
        &self,
        shard: &Rc<Shard>,
        state: &mut State,
        incoming: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Received {
        let outcome = state.decrypt(shard, incoming, plain);
        self.count(shard, state);
        if state.ending != Ending::No {
            shard.arm(&self.timer, self.token, state.deadline());
        }
        match outcome {
            Ok(true) => Received::Ended,
            Ok(false) if !state.rx.is_empty() && !shard.has_memory() => {
                Received::Failed(Some(Rejection::Memory))
            }
            Ok(false) => Received::Empty,
            Err(Gone) => Received::Failed(None),
        }
    }

    /// Whether the handshake has just finished; asked once.
    fn take_handshaken(&self, shard: &Shard) -> bool {
        let state = &mut *self.state.borrow_mut();
        match &state.session {
            Some(session) if state.handshaking && !session.is_handshaking() => {
                state.handshaking = false;
                let result = if session.is_resumed() { Handshake::Resumed } else { Handshake::Full };
                shard.metrics.handshake(result);
                true
            }
            _ => false,
        }
    }

    pub(in crate::shard) fn is_handshaking(&self) -> bool {
        self.state.borrow().handshaking
    }
}

impl State {
    /// While lingering: counts down what is thrown away.
    fn throw_away(&mut self, received: usize) -> Option<Received> {
        let Ending::Lingering(left) = &mut self.ending else { return None };
        *left = left.saturating_sub(received);
        Some(if *left == 0 { Received::Failed(None) } else { Received::Empty })
    }

    /// Decrypts what came; `Ok(true)` when the peer said goodbye.
    fn decrypt(&mut self, shard: &Shard, incoming: &mut [u8], plain: &mut Vec<u8>) -> Result<bool, Gone> {
        if std::mem::take(&mut self.fresh) && mcp_protocol::http1::looks_like_http(incoming) {
            shard.metrics.handshake(Handshake::PlainHttp);
            self.handshaking = false;
            self.session = None;
            self.send_raw(shard, &mut door::PLAIN_HTTP_ANSWER.to_vec())?;
            self.ending = Ending::Linger;
            self.door_deadline = NEVER;
            if self.unsent() == 0 && self.sent_all(shard) {
                return Err(Gone);
            }
            return Ok(false);
        }
        self.with_session(|state, session| {
            shard.with_scratch(|out| {
                let outcome = session.handle_ciphertext(incoming, plain, out);
                state.send_raw(shard, out)?;
                match outcome {
                    Ok(progress) => {
                        let rest = &incoming[progress.consumed..];
                        if rest.is_empty() {
                            state.rx = Vec::new();
                        } else {
                            state.rx.clear();
                            state.rx.extend_from_slice(rest);
                        }
                        Ok(progress.closed)
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a TLS session failed");
                        if std::mem::take(&mut state.handshaking) {
                            shard.metrics.handshake(Handshake::Failed);
                        }
                        Err(Gone)
                    }
                }
            })
        })
    }
}
