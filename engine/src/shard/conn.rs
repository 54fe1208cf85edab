//! A downstream connection: owns its descriptor, TLS session, deadlines and what could not be read or sent in one go. It
//! never knows a protocol above TLS: plaintext goes to its door.
//!
//! Invariants: an idle connection owns no buffer; readiness is edge triggered, so whoever stops reading before the
//! socket is empty must come back ([`Conn::resume`], [`Shard::revisit`]); every byte held is counted in
//! [`Shard::buffered`].

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use super::Shard;
use super::clock::{Millis, NEVER};
use super::wheel::Timer;
use crate::door::{self, Door};
use crate::metrics::{Handshake, Protocol, Rejection};
use crate::net::listener::DoorKind;
use crate::net::token::Token;
use crate::tls::session::Session;

/// Reads per event: 8 × 64 KiB, after which the others have their turn.
const READS_PER_EVENT: usize = 8;
/// Bytes of ciphertext that may wait for a slow reader before whoever produces them is told to wait.
pub(crate) const UNSENT_HIGH_BYTES: usize = 64 << 10;
/// How long, and for how many bytes, input is thrown away after a refusal, so that the refusal reaches a client that is
/// still sending (a reset would destroy it).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// The connection is closed; nothing more can be sent.
#[derive(Debug)]
pub(crate) struct Gone;

pub(crate) struct Conn {
    pub(crate) token: Token,
    pub(crate) peer: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) timer: Timer,
    pub(crate) door: RefCell<Door>,
    state: RefCell<State>,
    door_bytes: Cell<usize>,
}

struct State {
    descriptor: Option<OwnedFd>,
    session: Option<Box<Session>>,
    /// Until the handshake is done; then the door takes over.
    handshaking: bool,
    /// Nothing was received yet.
    fresh: bool,
    /// Ciphertext that does not make a whole record yet.
    rx: Vec<u8>,
    tx: Vec<u8>,
    tx_sent: usize,
    /// Exchanges that wait until the client has read more: one over HTTP, several over frames.
    writers: Vec<Waker>,
    /// The peer hung up: reading never blocks again.
    hangup: bool,
    paused: bool,
    unread: bool,
    ending: Ending,
    door_deadline: Millis,
    write_deadline: Millis,
    counted: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    /// Close when everything is sent.
    Flush,
    /// When everything is sent, shut our side and throw input away for a while.
    Linger,
    /// Throwing input away; so many bytes are left.
    Lingering(usize),
}

enum Received {
    /// The socket is empty.
    Empty,
    /// There may be more.
    More,
    Ended,
    Failed(Option<Rejection>),
}

impl Conn {
    /// Takes an accepted descriptor; the permit of [`super::table::Table`] is the connection's from here on.
    pub(crate) fn open(shard: &Rc<Shard>, descriptor: OwnedFd, peer: IpAddr, kind: DoorKind) {
        let session = match Session::new(shard.process.server_tls.clone()) {
            Ok(session) => Box::new(session),
            Err(error) => {
                tracing::error!(%error, "no TLS session");
                shard.process.table.leave(peer);
                return;
            }
        };
        let protocol = match kind {
            DoorKind::Https => Protocol::Http1,
            DoorKind::Mcpb => Protocol::Mcpb,
        };
        let conn = shard.conns.insert(|token| {
            Rc::new(Conn {
                token,
                peer,
                protocol,
                timer: Timer::default(),
                door: RefCell::new(Door::new(kind)),
                state: RefCell::new(State {
                    descriptor: Some(descriptor),
                    session: Some(session),
                    handshaking: true,
                    fresh: true,
                    rx: Vec::new(),
                    tx: Vec::new(),
                    tx_sent: 0,
                    writers: Vec::new(),
                    hangup: false,
                    paused: false,
                    unread: false,
                    ending: Ending::No,
                    door_deadline: NEVER,
                    write_deadline: NEVER,
                    counted: 0,
                }),
                door_bytes: Cell::new(0),
            })
        });
        shard.metrics.connection_opened(protocol);
        let registered = {
            let state = conn.state.borrow();
            state.descriptor.as_ref().map(|descriptor| shard.reactor.add_edge(descriptor, conn.token))
        };
        if let Some(Err(error)) = registered {
            tracing::warn!(%error, "a connection could not be registered");
            conn.close(shard);
            return;
        }
        conn.set_deadline(shard, shard.clock.after(shard.process.config.server.handshake_timeout));
    }

    /// When the door's patience ends; [`NEVER`] for no bound.
    pub(crate) fn set_deadline(&self, shard: &Shard, deadline: Millis) {
        self.state.borrow_mut().door_deadline = deadline;
        self.arm(shard);
    }

    /// Counts what the door holds for this connection.
    pub(crate) fn count_door_bytes(&self, shard: &Shard, bytes: usize) {
        self.door_bytes.set(bytes);
        self.count(shard, &mut self.state.borrow_mut());
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
            if !state.tx.is_empty() && state.write_deadline == NEVER {
                state.write_deadline = shard.clock.after(shard.process.config.server.write_timeout);
            }
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

    /// Stops reading; TCP's window then holds the client back. Says whether it was stopped already.
    pub(crate) fn pause(&self) -> bool {
        std::mem::replace(&mut self.state.borrow_mut().paused, true)
    }

    /// Reads on.
    pub(crate) fn resume(&self, shard: &Shard) {
        let mut state = self.state.borrow_mut();
        state.paused = false;
        if std::mem::take(&mut state.unread) {
            shard.revisit(self.token);
        }
    }

    /// Closes once everything is sent, with TLS's goodbye. With `linger`, input is thrown away for a moment first.
    pub(crate) fn finish(&self, shard: &Rc<Shard>, linger: bool) {
        let done = {
            let state = &mut *self.state.borrow_mut();
            if state.descriptor.is_none() || state.ending != Ending::No {
                return;
            }
            let goodbye = state.say_goodbye(shard);
            state.ending = if linger { Ending::Linger } else { Ending::Flush };
            // What is unsent has its own deadline, which a slow but steady reader moves on.
            state.door_deadline = NEVER;
            self.count(shard, state);
            goodbye.is_err() || (state.tx.is_empty() && state.sent_all(shard))
        };
        if done {
            self.close(shard);
        } else {
            self.arm(shard);
        }
    }

    /// Ends the connection now: its descriptor, its place, its exchange.
    pub(crate) fn close(&self, shard: &Rc<Shard>) {
        let (descriptor, writers) = {
            let mut state = self.state.borrow_mut();
            let taken = (state.descriptor.take(), std::mem::take(&mut state.writers));
            state.rx = Vec::new();
            state.tx = Vec::new();
            state.tx_sent = 0;
            state.session = None;
            taken
        };
        if descriptor.is_none() {
            return;
        }
        drop(descriptor);
        shard.conns.remove(self.token);
        shard.process.table.leave(self.peer);
        shard.metrics.connection_closed(self.protocol);
        door::on_closed(shard, self);
        self.door_bytes.set(0);
        self.count(shard, &mut self.state.borrow_mut());
        writers.into_iter().for_each(Waker::wake);
    }

    fn count(&self, shard: &Shard, state: &mut State) {
        let held = state.rx.capacity() + state.tx.capacity() + self.door_bytes.get();
        shard.buffered.set(shard.buffered.get() + held - state.counted);
        state.counted = held;
    }

    fn arm(&self, shard: &Shard) {
        shard.arm(&self.timer, self.token, self.state.borrow().deadline());
    }

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
        if let Ending::Lingering(left) = &mut state.ending {
            *left = left.saturating_sub(received);
            return if *left == 0 {
                Received::Failed(None)
            } else if more {
                Received::More
            } else {
                Received::Empty
            };
        }
        let incoming = &mut scratch[..carried + received];
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
            Ok(false) if more => Received::More,
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

    pub(super) fn is_handshaking(&self) -> bool {
        self.state.borrow().handshaking
    }
}

impl State {
    /// Decrypts what came; `Ok(true)` when the peer said goodbye.
    fn decrypt(&mut self, shard: &Shard, incoming: &mut [u8], plain: &mut Vec<u8>) -> Result<bool, Gone> {
        if std::mem::take(&mut self.fresh) && mcp_protocol::http1::looks_like_http(incoming) {
            shard.metrics.handshake(Handshake::PlainHttp);
            self.handshaking = false;
            self.session = None;
            self.send_raw(shard, door::PLAIN_HTTP_ANSWER)?;
            self.ending = Ending::Linger;
            self.door_deadline = NEVER;
            if self.tx.is_empty() && self.sent_all(shard) {
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

    fn say_goodbye(&mut self, shard: &Shard) -> Result<(), Gone> {
        self.with_session(|state, session| {
            shard.with_scratch(|out| {
                session.close(&mut state.rx, out);
                state.send_raw(shard, out)
            })
        })
    }

    /// Runs `work` with the session beside the rest of the state; [`Gone`] where there is none.
    fn with_session<T>(
        &mut self,
        work: impl FnOnce(&mut State, &mut Session) -> Result<T, Gone>,
    ) -> Result<T, Gone> {
        let mut session = self.session.take().ok_or(Gone)?;
        let result = work(self, &mut session);
        self.session = Some(session);
        result
    }

    /// Sends, or keeps what the socket does not take.
    fn send_raw(&mut self, shard: &Shard, mut bytes: &[u8]) -> Result<(), Gone> {
        if bytes.is_empty() {
            return Ok(());
        }
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
                self.write_deadline = shard.clock.after(shard.process.config.server.write_timeout);
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
                    self.write_deadline = shard.clock.after(shard.process.config.server.write_timeout);
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

    fn is_congested(&self) -> bool {
        self.tx.len() - self.tx_sent >= UNSENT_HIGH_BYTES
    }

    fn deadline(&self) -> Millis {
        self.door_deadline.min(self.write_deadline)
    }

    /// Everything is sent: `true` when the connection can be closed now.
    fn sent_all(&mut self, shard: &Shard) -> bool {
        match self.ending {
            Ending::Flush => true,
            Ending::Linger => {
                self.ending = Ending::Lingering(LINGER_BYTES);
                self.door_deadline = shard.clock.after(LINGER);
                let shut =
                    self.descriptor.as_ref().map(|socket| rustix::net::shutdown(socket, Shutdown::Write));
                !matches!(shut, Some(Ok(())))
            }
            Ending::No | Ending::Lingering(_) => false,
        }
    }
}

/// An event of the connection's descriptor.
pub(crate) fn on_event(shard: &Rc<Shard>, conn: &Rc<Conn>, flags: EventFlags) {
    let failed = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
    if failed {
        conn.state.borrow_mut().hangup = true;
    }
    if flags.contains(EventFlags::OUT) && !on_writable(shard, conn) {
        return;
    }
    if failed || flags.contains(EventFlags::IN) {
        on_readable(shard, conn);
    }
}

/// Sends what waits; `false` when that ended the connection.
fn on_writable(shard: &Rc<Shard>, conn: &Rc<Conn>) -> bool {
    let (close, writers) = {
        let state = &mut *conn.state.borrow_mut();
        if state.tx.is_empty() {
            return true;
        }
        let close = match state.flush(shard) {
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

/// One of the connection's deadlines has passed.
pub(crate) fn on_deadline(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let now = shard.clock.now();
    let (slow_reader, ending, handshaking) = {
        let state = conn.state.borrow();
        (state.write_deadline <= now, state.ending != Ending::No, state.handshaking)
    };
    if slow_reader {
        shard.metrics.rejected(Rejection::WriteTimeout);
        conn.close(shard);
    } else if ending {
        conn.close(shard);
    } else if handshaking {
        shard.metrics.rejected(Rejection::HandshakeTimeout);
        conn.close(shard);
    } else {
        door::on_deadline(shard, conn);
    }
}
