//! A connection's sending half: owns how plaintext goes out through TLS, at once (epoll) or handed to the ring, and what
//! could not be sent yet. It never reads.
//!
//! Invariants: bytes leave in the order in which they were encrypted; under the ring one send is under way at most, and
//! what is produced meanwhile waits in `tx`.

use std::future::poll_fn;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::task::{Poll, Waker};

use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};

use super::{Conn, Ending, Gone, LINGER, LINGER_BYTES, State, UNSENT_HIGH_BYTES};
use crate::net::event::Sent;
use crate::net::ring::{Ring, SendId};
use crate::shard::Shard;
use crate::shard::clock::NEVER;

/// What the ring is sending.
#[derive(Clone, Copy)]
pub(super) struct UnderWay {
    pub(super) id: SendId,
    pub(super) bytes: usize,
}

impl Conn {
    /// Whether something can still be sent.
    pub(crate) fn is_open(&self) -> bool {
        let state = self.state.borrow();
        state.descriptor.is_some() && state.ending == Ending::No
    }

    /// Encrypts and sends the parts as one piece; what the socket does not take waits.
    ///
    /// # Errors
    /// [`Gone`] when the connection is closed, is closing, or fails now.
    pub(crate) fn send(&self, shard: &Rc<Shard>, parts: &[&[u8]]) -> Result<(), Gone> {
        let sent = {
            let state = &mut *self.state.borrow_mut();
            if state.descriptor.is_none() || state.ending != Ending::No {
                return Err(Gone);
            }
            let sent = state.encrypt_and_send(shard, parts);
            self.count(shard, state);
            sent
        };
        if sent.is_err() {
            self.close(shard);
            return Err(Gone);
        }
        self.arm(shard);
        Ok(())
    }

    /// Waits until few enough bytes are unsent that more may be produced.
    ///
    /// # Errors
    /// [`Gone`] when the connection closed meanwhile.
    pub(crate) async fn drained(&self) -> Result<(), Gone> {
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            if state.descriptor.is_none() {
                return Poll::Ready(Err(Gone));
            }
            if !state.is_congested() {
                return Poll::Ready(Ok(()));
            }
            if !state.writers.iter().any(|writer| writer.will_wake(cx.waker())) {
                state.writers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Whether so much is unsent that whoever produces more should wait.
    pub(crate) fn is_congested(&self) -> bool {
        self.state.borrow().is_congested()
    }
}

impl State {
    fn encrypt_and_send(&mut self, shard: &Shard, parts: &[&[u8]]) -> Result<(), Gone> {
        self.with_session(|state, session| {
            shard.with_scratch(|out| {
                let encrypted = match parts {
                    [one] => session.encrypt(one, &mut state.rx, out),
                    many => shard.with_scratch(|gathered| {
                        many.iter().for_each(|part| gathered.extend_from_slice(part));
                        session.encrypt(gathered, &mut state.rx, out)
                    }),
                };
                encrypted.map_err(|_| Gone)?;
                state.send_raw(shard, out)
            })
        })
    }

    pub(super) fn say_goodbye(&mut self, shard: &Shard) -> Result<(), Gone> {
        self.with_session(|state, session| {
            shard.with_scratch(|out| {
                session.close(&mut state.rx, out);
                state.send_raw(shard, out)
            })
        })
    }

    /// Sends, or keeps what the socket does not take. Under the ring, `out` is exchanged for an empty vector.
    pub(super) fn send_raw(&mut self, shard: &Shard, out: &mut Vec<u8>) -> Result<(), Gone> {
        if out.is_empty() {
            return Ok(());
        }
        let Some(ring) = shard.core.reactor.ring() else { return self.send_at_once(shard, out) };
        if self.sending.is_some() {
            self.tx.extend_from_slice(out);
            return Ok(());
        }
        let buffer = std::mem::replace(out, ring.take_spare());
        self.write_deadline = shard.core.clock.after(shard.setup().config.server.write_timeout);
        self.hand_over(ring, buffer, 0)
    }

    fn hand_over(&mut self, ring: &Ring, buffer: Vec<u8>, from: usize) -> Result<(), Gone> {
        let Some(descriptor) = &self.descriptor else { return Err(Gone) };
        let bytes = buffer.len() - from;
        let id = ring.send(descriptor.as_raw_fd(), self.token, buffer, from).map_err(|_| Gone)?;
        self.sending = Some(UnderWay { id, bytes });
        Ok(())
    }

    /// Goes on after a completed send; `Ok(true)` when nothing is left.
    fn hand_over_rest(&mut self, shard: &Shard, sent: Sent) -> Result<bool, Gone> {
        let Some(ring) = shard.core.reactor.ring() else { return Err(Gone) };
        self.sending = None;
        let from = match sent.result {
            Ok(count) => sent.from + count,
            Err(Errno::INTR | Errno::AGAIN) => sent.from,
            Err(_) => return Err(Gone),
        };
        let done = from == sent.buffer.len();
        if done && self.tx.is_empty() {
            ring.give_spare(sent.buffer);
            self.write_deadline = NEVER;
            return Ok(true);
        }
        self.write_deadline = shard.core.clock.after(shard.setup().config.server.write_timeout);
        if done {
            ring.give_spare(sent.buffer);
            let next = std::mem::take(&mut self.tx);
            self.hand_over(ring, next, 0)?;
        } else {
            self.hand_over(ring, sent.buffer, from)?;
        }
        Ok(false)
    }

    fn send_at_once(&mut self, shard: &Shard, mut bytes: &[u8]) -> Result<(), Gone> {
        let Some(descriptor) = &self.descriptor else { return Err(Gone) };
        if self.tx.is_empty() {
            loop {
                match rustix::net::send(descriptor, bytes, SendFlags::NOSIGNAL) {
                    Ok(sent) => {
                        bytes = &bytes[sent..];
                        break;
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Err(_) => return Err(Gone),
                }
            }
        }
        if !bytes.is_empty() {
            self.tx.extend_from_slice(bytes);
            if self.write_deadline == NEVER {
                self.write_deadline = shard.core.clock.after(shard.setup().config.server.write_timeout);
            }
        }
        Ok(())
    }

    /// Sends what waits; `Ok(true)` when nothing is left.
    fn flush(&mut self, shard: &Shard) -> Result<bool, Gone> {
        let Some(descriptor) = &self.descriptor else { return Err(Gone) };
        while self.tx_sent < self.tx.len() {
            match rustix::net::send(descriptor, &self.tx[self.tx_sent..], SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    self.tx_sent += sent;
                    self.write_deadline = shard.core.clock.after(shard.setup().config.server.write_timeout);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(_) => return Err(Gone),
            }
        }
        self.tx = Vec::new();
        self.tx_sent = 0;
        self.write_deadline = NEVER;
        Ok(true)
    }

    /// Bytes that the socket has not taken yet.
    pub(super) fn unsent(&self) -> usize {
        self.tx.len() - self.tx_sent + self.sending.map_or(0, |sending| sending.bytes)
    }

    fn is_congested(&self) -> bool {
        self.unsent() >= UNSENT_HIGH_BYTES
    }

    /// Everything is sent: `true` when the connection can be closed now.
    pub(super) fn sent_all(&mut self, shard: &Shard) -> bool {
        match self.ending {
            Ending::Flush => true,
            Ending::Linger => {
                self.ending = Ending::Lingering(LINGER_BYTES);
                self.door_deadline = shard.core.clock.after(LINGER);
                let shut =
                    self.descriptor.as_ref().map(|socket| rustix::net::shutdown(socket, Shutdown::Write));
                !matches!(shut, Some(Ok(())))
            }
            Ending::No | Ending::Lingering(_) => false,
        }
    }
}

/// The socket takes output again (epoll): sends what waits; `false` when that ended the connection.
pub(super) fn on_writable(shard: &Rc<Shard>, conn: &Rc<Conn>) -> bool {
    if conn.state.borrow().tx.is_empty() {
        return true;
    }
    on_progress(shard, conn, |state| state.flush(shard))
}

/// The ring has sent.
pub(super) fn on_sent(shard: &Rc<Shard>, conn: &Rc<Conn>, sent: Sent) {
    on_progress(shard, conn, |state| state.hand_over_rest(shard, sent));
}

/// Sends on, and acts on how far that came; `false` when that ended the connection.
fn on_progress(
    shard: &Rc<Shard>,
    conn: &Rc<Conn>,
    send_on: impl FnOnce(&mut State) -> Result<bool, Gone>,
) -> bool {
    let (close, writers) = {
        let state = &mut *conn.state.borrow_mut();
        let close = match send_on(state) {
            Ok(true) => state.sent_all(shard),
            Ok(false) => false,
            Err(Gone) => true,
        };
        conn.count(shard, state);
        (close, if state.is_congested() { Vec::new() } else { std::mem::take(&mut state.writers) })
    };
    writers.into_iter().for_each(Waker::wake);
    if close {
        conn.close(shard);
        return false;
    }
    conn.arm(shard);
    true
}
