//! Doors that are one connection for everything: owns the messages that wait for it, those that went out on it, and what
//! becomes of both when it breaks. What a message looks like on the wire is a [`Codec`]'s matter, the connection itself
//! [`carry`]'s.
//!
//! Invariants: a request is answered once; what went out and may have had an effect is not sent again unless the gateway
//! said that it did not take it; the client's handshake is said again on each new connection before anything else.

mod carry;
mod codec;
pub(super) mod mcpb;
pub(super) mod ws;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use futures_rustls::TlsConnector;
use mcp_protocol::jsonrpc::Scan;
use mcp_shard_store::runtime::Address;
use rustls_pki_types::ServerName;

use super::front::{Flight, Front};
use super::host::Gate;
use super::message::{Fault, Message};
use super::pace::Pace;
use super::token::Token;
use crate::shard::clock::Millis;
use codec::Codec;

/// How long a message waits for a connection before it is given up: a gateway that restarts is back within this.
const PATIENCE_MS: Millis = 30_000;
/// How long a cancelled request that went out may still bring an answer.
const LINGER: Duration = Duration::from_secs(5);
/// How often a request that the gateway did not take, because it shuts down or has lost the session, is sent again.
const MAX_REFUSALS: u32 = 3;
/// A connection that lasted this long owes nothing to the ones before: the next is opened without a pause.
const GOOD_MS: Millis = 10_000;

/// A message on its way.
struct Parcel {
    message: Rc<Message>,
    flight: Rc<Flight>,
    /// Since when it waits.
    since: Millis,
    refusals: u32,
}

/// The client's own handshake, to be said again.
#[derive(Default)]
struct Handshake {
    initialize: Option<Rc<Message>>,
    /// The server has agreed to it.
    is_agreed: bool,
    initialized: Option<Rc<Message>>,
}

/// Why a connection is no more.
enum Ending {
    /// It broke, or was closed in order.
    Lost(String),
    /// It was closed in order, and what is not answered was not taken.
    Untaken(String),
    /// The gateway said why in so many words: sending the same again would bring the same.
    Refused(String),
    /// The gateway does not want this client.
    Denied(String),
    /// The session has ended: the next connection begins another.
    SessionEnded,
}

/// A door of one connection.
pub(super) struct Duplex<C> {
    front: Rc<Front>,
    address: Address,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    token: Token,
    codec: RefCell<C>,
    /// Messages that wait for a connection.
    queue: RefCell<VecDeque<Parcel>>,
    /// Requests that went out on the connection of the moment.
    sent: RefCell<Vec<Parcel>>,
    /// Bytes that go out before any message.
    urgent: RefCell<Vec<u8>>,
    handshake: RefCell<Handshake>,
    stage: Cell<Stage>,
    goodbye: Cell<Goodbye>,
    /// What any of these hold has changed.
    changed: Gate,
}

/// What may be sent on the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing but what is urgent.
    Opening,
    /// Everything.
    Open,
    /// No requests: the gateway takes none any more.
    Leaving,
    /// Nothing: the connection is gone.
    Gone,
}

/// How far the client's leaving has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goodbye {
    /// It stays.
    Unwanted,
    /// It is to be said on the connection, as soon as that is open.
    Wanted,
    /// Nothing is sent any more; the gateway closes the connection.
    Said,
    /// The connection is gone, and there will be no other.
    Over,
}

impl<C: Codec> Duplex<C> {
    pub(super) fn start(
        front: &Rc<Front>,
        address: Address,
        tls: Option<(TlsConnector, ServerName<'static>)>,
        token: Token,
        codec: C,
    ) -> Rc<Self> {
        let door = Rc::new(Duplex {
            front: front.clone(),
            address,
            tls,
            token,
            codec: RefCell::new(codec),
            queue: RefCell::default(),
            sent: RefCell::default(),
            urgent: RefCell::default(),
            handshake: RefCell::default(),
            stage: Cell::new(Stage::Gone),
            goodbye: Cell::new(Goodbye::Unwanted),
            changed: Gate::default(),
        });
        let keeper = door.clone();
        front.host.spawn(async move { keeper.keep().await });
        door
    }

    /// Takes a message of the client's. What it comes to is told by the front.
    ///
    /// # Errors
    /// It cannot be taken, now or ever.
    pub(super) fn take(self: &Rc<Self>, message: Message) -> Result<(), Fault> {
        self.codec.borrow().check(&message)?;
        if let Some(id) = message.cancels()
            && !self.cancel(id)
        {
            return Ok(());
        }
        let flight = self.front.take_off(&message)?;
        let message = Rc::new(message);
        if flight.is_initialize {
            *self.handshake.borrow_mut() =
                Handshake { initialize: Some(message.clone()), ..Handshake::default() };
        } else if message.is("notifications/initialized") {
            self.handshake.borrow_mut().initialized = Some(message.clone());
        }
        let since = self.front.host.now();
        self.queue.borrow_mut().push_back(Parcel { message, flight, since, refusals: 0 });
        self.changed.open();
        Ok(())
    }

    /// The client leaves: its session ends with the connection. Where there is none at the moment, the session is left to its
    /// time to live. The caller bounds the time.
    pub(super) async fn end(&self) {
        if !self.handshake.borrow().is_agreed || self.stage.get() == Stage::Gone {
            return;
        }
        self.goodbye.set(Goodbye::Wanted);
        self.changed.open();
        self.changed.until(|| (self.goodbye.get() == Goodbye::Over).then_some(())).await;
    }

    /// Whether a cancellation is to be told to the gateway: not when the request has not even gone out.
    fn cancel(self: &Rc<Self>, id: &[u8]) -> bool {
        let Some(flight) = self.front.flight_of(id) else { return true };
        if flight.is_initialize {
            return false;
        }
        self.front.cancel(&flight);
        let is_queued = {
            let mut queue = self.queue.borrow_mut();
            let place = queue.iter().position(|parcel| Rc::ptr_eq(&parcel.flight, &flight));
            place.and_then(|place| queue.remove(place)).is_some()
        };
        if is_queued {
            self.front.land(&flight);
            return false;
        }
        let door = self.clone();
        self.front.host.spawn(async move {
            door.front.host.sleep(LINGER).await;
            door.front.land(&flight);
            door.forget_answered();
        });
        true
    }

    /// Keeps a connection as long as there is a use for one: something to send, or a session in which the server may speak.
    async fn keep(self: Rc<Self>) {
        let mut pace = Pace::new();
        loop {
            self.changed
                .until(|| {
                    let wanted = !self.queue.borrow().is_empty() || self.handshake.borrow().is_agreed;
                    wanted.then_some(())
                })
                .await;
            let opened = self.front.host.now();
            match self.front.host.connect(&self.address, self.tls.as_ref()).await {
                Ok(stream) => {
                    let ending = self.carry(stream).await;
                    if self.goodbye.get() != Goodbye::Unwanted {
                        self.goodbye.set(Goodbye::Over);
                        return self.changed.open();
                    }
                    self.lose(ending).await;
                }
                // Trying again does not mend a certificate.
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    let fault = Fault::lasting(format!("the gateway cannot be trusted: {error}"));
                    self.expire(&fault, 0).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "no connection");
                    let fault = Fault::retryable(format!("the gateway cannot be reached: {error}"));
                    self.expire(&fault, PATIENCE_MS).await;
                }
            }
            if self.front.host.now() - opened >= GOOD_MS {
                pace = Pace::new();
            }
            self.front.host.sleep(pace.next()).await;
        }
    }

    /// The connection is gone: what only reads waits for the next one, what may have had an effect is answered.
    async fn lose(&self, ending: Ending) {
        let now = self.front.host.now();
        let mut was_taken = true;
        let (fault, may_repeat) = match ending {
            Ending::Untaken(why) => {
                tracing::debug!(why, "the connection is gone");
                was_taken = false;
                (Fault::retryable(format!("the gateway closed the connection: {why}")), true)
            }
            Ending::Lost(why) => {
                tracing::debug!(why, "the connection is gone");
                let told = format!("the connection to the gateway broke ({why}); the outcome is not known");
                (Fault::retryable(told), true)
            }
            Ending::Refused(why) => {
                tracing::warn!(why, "the gateway closed the connection");
                (Fault::retryable(format!("the gateway closed the connection: {why}")), false)
            }
            Ending::Denied(why) => {
                let fault = Fault::lasting(why);
                self.expire(&fault, 0).await;
                (fault, false)
            }
            Ending::SessionEnded => {
                tracing::info!("the session has ended: opening another");
                self.codec.borrow_mut().forget_session();
                (Fault::retryable("the session has ended; the outcome is not known"), true)
            }
        };
        let sent = self.sent.take();
        let (again, lost): (Vec<_>, Vec<_>) = sent
            .into_iter()
            .filter(|parcel| !parcel.flight.is_answered() && !parcel.flight.is_cancelled())
            .partition(|parcel| {
                let was_refused = !was_taken && parcel.refusals < MAX_REFUSALS;
                was_refused || may_repeat && parcel.message.is_repeatable()
            });
        for parcel in again.into_iter().rev() {
            let refusals = parcel.refusals + u32::from(!was_taken);
            self.queue.borrow_mut().push_front(Parcel { since: now, refusals, ..parcel });
        }
        for parcel in lost {
            self.front.fail(&parcel.flight, &fault).await;
        }
        // A gateway that closes each connection before it is open is no gateway.
        self.expire(&fault, PATIENCE_MS).await;
    }

    /// Gives up what has waited for so long.
    async fn expire(&self, fault: &Fault, patience_ms: Millis) {
        let now = self.front.host.now();
        let expired = {
            let mut queue = self.queue.borrow_mut();
            let (expired, kept): (Vec<_>, Vec<_>) =
                queue.drain(..).partition(|parcel| now - parcel.since >= patience_ms);
            queue.extend(kept);
            expired
        };
        for parcel in expired {
            self.front.fail(&parcel.flight, fault).await;
        }
    }

    /// The client's handshake could not be said again: what waits belongs to a session that is no more.
    async fn give_up_session(&self, fault: &Fault) {
        self.handshake.take();
        let (modern, legacy): (Vec<_>, Vec<_>) =
            self.queue.take().into_iter().partition(|parcel| parcel.flight.is_modern);
        self.queue.borrow_mut().extend(modern);
        for parcel in legacy {
            self.front.fail(&parcel.flight, fault).await;
        }
    }

    /// Puts a request back that the gateway refused without a reason of its own; `false` when it has been refused too often.
    fn requeue_refused(&self, id: &[u8]) -> bool {
        let Some(flight) = self.front.flight_of(id) else { return false };
        let mut sent = self.sent.borrow_mut();
        let place = sent.iter().position(|parcel| Rc::ptr_eq(&parcel.flight, &flight));
        let Some(place) = place.filter(|&place| sent[place].refusals < MAX_REFUSALS) else { return false };
        let parcel = sent.remove(place);
        let since = self.front.host.now();
        self.queue.borrow_mut().push_back(Parcel { refusals: parcel.refusals + 1, since, ..parcel });
        true
    }

    /// Lands what is answered.
    fn forget_answered(&self) {
        self.sent.borrow_mut().retain(|parcel| {
            let is_over = parcel.flight.is_answered();
            if is_over {
                self.front.land(&parcel.flight);
            }
            !is_over
        });
    }

    /// Learns from a message what the next connection needs.
    fn learn(&self, text: &[u8], scan: &Scan) {
        let mut handshake = self.handshake.borrow_mut();
        let agreed = match (&handshake.initialize, scan.id, scan.result_protocol_version) {
            (Some(initialize), Some(id), Some(_)) => {
                initialize.requests().first().is_some_and(|asked| asked.is(id.of(text)))
            }
            _ => false,
        };
        if agreed {
            handshake.is_agreed = true;
            self.codec.borrow_mut().learn(text);
        }
    }
}
