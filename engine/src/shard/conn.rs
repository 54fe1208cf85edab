//! A downstream connection: owns its descriptor, TLS session, deadlines and what could not be read or sent in one go. It
//! never knows a protocol above TLS: plaintext goes to its door. The halves are in [`receive`] and [`send`].
//!
//! Invariants: an idle connection owns no buffer; under epoll readiness is edge triggered, so whoever stops reading before
//! the socket is empty must come back ([`Conn::resume`], [`Shard::revisit`]); every byte held is counted in
//! [`Shard::buffered`].

mod receive;
mod send;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use super::Shard;
use super::clock::{Millis, NEVER};
use super::wheel::Timer;
use crate::door::{self, Door};
use crate::metrics::{Protocol, Rejection};
use crate::net::event::{Ready, What};
use crate::net::listener::DoorKind;
use crate::net::token::Token;
use crate::tls::session::Session;
pub(crate) use receive::on_readable;
use send::UnderWay;

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
    protocol: Cell<Protocol>,
    pub(crate) timer: Timer,
    pub(crate) door: RefCell<Door>,
    state: RefCell<State>,
    door_bytes: Cell<usize>,
}

struct State {
    token: Token,
    descriptor: Option<OwnedFd>,
    session: Option<Box<Session>>,
    /// Until the handshake is done; then the door takes over.
    handshaking: bool,
    /// Nothing was received yet.
    fresh: bool,
    /// Ciphertext that does not make a whole record yet.
    rx: Vec<u8>,
    /// Ciphertext that waits for the socket, or for the send that is under way.
    tx: Vec<u8>,
    tx_sent: usize,
    /// What the ring is sending; always `None` under epoll.
    sending: Option<UnderWay>,
    /// Exchanges that wait until the client has read more: one over HTTP, several over frames.
    writers: Vec<Waker>,
    /// The peer hung up: reading never blocks again.
    hangup: bool,
    paused: bool,
    unread: bool,
    /// The ring polls for input; under epoll it means nothing.
    polling: bool,
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

impl Conn {
    /// Takes an accepted descriptor; the permit of [`super::table::Table`] is the connection's from here on.
    pub(crate) fn open(shard: &Rc<Shard>, descriptor: OwnedFd, peer: IpAddr, kind: DoorKind) {
        let (protocol, tls) = match kind {
            DoorKind::Https => (Protocol::Http1, &shard.process.server_tls),
            DoorKind::Mcpb => (Protocol::Mcpb, &shard.process.binary_tls),
        };
        let session = match Session::new(tls.clone()) {
            Ok(session) => Box::new(session),
            Err(error) => {
                tracing::error!(%error, "no TLS session");
                shard.process.table.leave(peer);
                return;
            }
        };
        let conn = shard.conns.insert(|token| {
            Rc::new(Conn {
                token,
                peer,
                protocol: Cell::new(protocol),
                timer: Timer::default(),
                door: RefCell::new(Door::new(kind)),
                state: RefCell::new(State {
                    token,
                    descriptor: Some(descriptor),
                    session: Some(session),
                    handshaking: true,
                    fresh: true,
                    rx: Vec::new(),
                    tx: Vec::new(),
                    tx_sent: 0,
                    sending: None,
                    writers: Vec::new(),
                    hangup: false,
                    paused: false,
                    unread: false,
                    polling: false,
                    ending: Ending::No,
                    door_deadline: NEVER,
                    write_deadline: NEVER,
                    counted: 0,
                }),
                door_bytes: Cell::new(0),
            })
        });
        shard.metrics.connection_opened(protocol);
        if conn.poll_input(shard).is_err() {
            conn.close(shard);
            return;
        }
        conn.set_deadline(shard, shard.core.clock.after(shard.setup().config.server.handshake_timeout));
    }

    /// What the connection speaks above TLS.
    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol.get()
    }

    /// Goes on in another protocol, whose door is `door`.
    pub(crate) fn turn_to(&self, shard: &Shard, protocol: Protocol, door: Door) {
        shard.metrics.connection_turned(self.protocol.replace(protocol), protocol);
        self.door.replace(door);
    }

    /// Whether the handshake agreed on this protocol (ALPN).
    pub(crate) fn has_agreed_on(&self, protocol: &[u8]) -> bool {
        self.state.borrow().session.as_ref().is_some_and(|session| session.alpn() == Some(protocol))
    }

    /// Has events made of what arrives.
    fn poll_input(&self, shard: &Shard) -> Result<(), Gone> {
        let state = &mut *self.state.borrow_mut();
        let descriptor = state.descriptor.as_ref().ok_or(Gone)?;
        let registered = shard.core.reactor.add_stream(descriptor, self.token);
        state.polling = registered.is_ok();
        registered.map_err(|error| {
            tracing::warn!(%error, "a connection could not be registered");
            Gone
        })
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
            goodbye.is_err() || (state.unsent() == 0 && state.sent_all(shard))
        };
        if done {
            self.close(shard);
        } else {
            self.arm(shard);
        }
    }

    /// Ends the connection now: its descriptor, its place, its exchange.
    pub(crate) fn close(&self, shard: &Rc<Shard>) {
        let writers = {
            let mut state = self.state.borrow_mut();
            let Some(descriptor) = state.descriptor.take() else { return };
            let sending = state.sending.take().map(|sending| sending.id);
            shard.core.reactor.close_stream(descriptor, self.token, state.polling, sending);
            state.rx = Vec::new();
            state.tx = Vec::new();
            state.tx_sent = 0;
            state.session = None;
            std::mem::take(&mut state.writers)
        };
        shard.disarm(&self.timer);
        shard.want_housekeeping();
        shard.conns.remove(self.token);
        shard.process.table.leave(self.peer);
        shard.metrics.connection_closed(self.protocol.get());
        door::on_closed(shard, self);
        self.door_bytes.set(0);
        self.count(shard, &mut self.state.borrow_mut());
        writers.into_iter().for_each(Waker::wake);
    }

    fn count(&self, shard: &Shard, state: &mut State) {
        let unsent = state.tx.capacity() + state.sending.map_or(0, |sending| sending.bytes);
        let held = state.rx.capacity() + unsent + self.door_bytes.get();
        shard.buffered.set(shard.buffered.get() + held - state.counted);
        state.counted = held;
    }

    fn arm(&self, shard: &Shard) {
        let state = self.state.borrow();
        if state.descriptor.is_some() {
            shard.arm(&self.timer, self.token, state.deadline());
        }
    }
}

impl State {
    fn deadline(&self) -> Millis {
        self.door_deadline.min(self.write_deadline)
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
}

/// An event of the connection's descriptor.
pub(crate) fn on_event(shard: &Rc<Shard>, conn: &Rc<Conn>, what: What) {
    let ready = match what {
        What::Sent(sent) => return send::on_sent(shard, conn, sent),
        What::Ready(ready) => ready,
    };
    let Ready { input, output, hangup, last } = ready;
    if hangup {
        conn.state.borrow_mut().hangup = true;
    }
    if last {
        conn.state.borrow_mut().polling = false;
        // After a hang-up, reading goes on to the end without further events.
        if !hangup && conn.poll_input(shard).is_err() {
            conn.close(shard);
            return;
        }
    }
    if output && !send::on_writable(shard, conn) {
        return;
    }
    if hangup || input {
        on_readable(shard, conn);
    }
}

/// One of the connection's deadlines has passed.
pub(crate) fn on_deadline(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    let now = shard.core.clock.now();
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
