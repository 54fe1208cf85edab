//! A connection's receiving half: owns how ciphertext comes in and its way through TLS to the door. It never sends on its
//! own account.

use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::{Conn, Ending, Gone, State};
use crate::door;
use crate::metrics::{Handshake, Rejection};
use crate::shard::Shard;
use crate::shard::clock::NEVER;

/// Reads per event: 8 × 64 KiB, after which the others have their turn.
const READS_PER_EVENT: usize = 8;
enum Received {
    /// The socket is empty.
    Empty,
    /// There may be more.
    More,
    Ended,
    Failed(Option<Rejection>),
}

/// Reads until the socket is empty, or until others must have their turn.
pub(crate) fn on_readable(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    for _ in 0..READS_PER_EVENT {
        let received = shard.with_scratch(|plain| {
            let received = conn.receive(shard, plain);
            if conn.take_handshaken(shard) {
                door::on_open(shard, conn);
            }
            if !plain.is_empty() {
                door::on_data(shard, conn, plain);
            }
            received
        });
        match received {
            Received::Empty => return,
            Received::More => {}
            Received::Ended => {
                if conn.is_handshaking() {
                    shard.metrics.handshake(Handshake::Failed);
                }
                door::on_end(shard, conn);
                return;
            }
            Received::Failed(reason) => {
                if let Some(reason) = reason {
                    shard.metrics.rejected(reason);
                }
                conn.close(shard);
                return;
            }
        }
    }
    shard.revisit(conn.token);
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
    /// While the connection ends: nothing that comes is taken any more, since no answer would leave. It is read all the same,
    /// because closing with unread input resets the connection under what was sent last.
    fn throw_away(&mut self, received: usize) -> Option<Received> {
        match &mut self.ending {
            Ending::No => None,
            // The write deadline ends it.
            Ending::Flush | Ending::Linger => Some(Received::Empty),
            Ending::Lingering(left) => {
                *left = left.saturating_sub(received);
                Some(if *left == 0 { Received::Failed(None) } else { Received::Empty })
            }
        }
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
