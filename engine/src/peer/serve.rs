//! Those who connect: owns a shard's Unix socket, its TLS listener, who is let in, and the answer to what they bring. Never a
//! message's way any further.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use mcp_protocol::http1::Method;
use mcp_protocol::jsonrpc::{Payload, ScanLimits, scan};
use mcp_protocol::mcpb::FrameKind;
use mcp_shard_store::Owner;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with, sockopt,
};

use super::call::frame::{AskerWord, Failed};
use super::call::serving::{Calls, Outlet};
use super::call::{Asked, MAX_CALLS};
use super::frame::{Forward, Reply, Verdict};
use super::link::{Connected, Failure};
use super::wire::Wire;
use super::{Counted, result};
use crate::door::sse::{self, Arrived};
use crate::exchange::Scope;
use crate::metrics::{AuthFailure, Direction, PeerKind, PeerResult};
use crate::net::listener::{Accepted, DoorKind, Listener};
use crate::net::reactor::Reactor;
use crate::net::socket::Socket;
use crate::net::stream::Stream;
use crate::net::token::{Kind, Token};
use crate::process::Process;
use crate::shard::{Elapsed, Shard};
use crate::upstream::answer::{Answer, Told};
use crate::upstream::{Via, duplex};

/// Connections accepted per event.
const ACCEPTS_PER_EVENT: usize = 16;
/// Connections that wait to be accepted; as many shards as there may be connect once each.
const BACKLOG: i32 = 256;
/// Connections that a shard holds: those of 255 other shards, and of 256 other processes with as many shards each spread
/// over all shards here.
const MAX_CONNECTIONS: usize = 1024;
/// Messages of one connection that wait for another shard of this process.
const MAX_PASSED_ON: usize = 1024;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

pub(super) struct Listeners {
    unix: OwnedFd,
    tls: Option<Listener>,
    connections: Rc<Cell<usize>>,
}

/// Places of the listeners among the tokens.
const UNIX: usize = 0;
const TLS: usize = 1;

impl Listeners {
    pub(super) fn bind(process: &Arc<Process>, own: &Owner) -> io::Result<Self> {
        let name = super::settings::socket_name(own.boot, own.shard);
        let unix = || -> io::Result<OwnedFd> {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let unix = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            bind(&unix, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
            listen(&unix, BACKLOG)?;
            Ok(unix)
        };
        let unix =
            unix().map_err(|error| io::Error::new(error.kind(), format!("listening on @{name}: {error}")))?;
        let listener = |address| Listener::bind(address, DoorKind::Mcpb);
        let tls = process.identity.listens().map(listener).transpose()?;
        Ok(Listeners { unix, tls, connections: Rc::default() })
    }

    pub(super) fn register(&self, reactor: &Reactor) -> io::Result<()> {
        reactor.add_level(&self.unix, Token::plain(Kind::Peer, UNIX))?;
        match &self.tls {
            Some(listener) => reactor.add_level(listener.descriptor(), Token::plain(Kind::Peer, TLS)),
            None => Ok(()),
        }
    }
}

/// Somebody connects.
pub(crate) fn accept(shard: &Rc<Shard>, place: usize) {
    let listeners = &shard.peers.listeners;
    let mut arrived = Vec::new();
    match (&listeners.tls, place) {
        (_, UNIX) => {
            let stranger = || shard.metrics.auth_failed(AuthFailure::Peer);
            accept_unix(listeners.unix.as_fd(), |descriptor| arrived.push(descriptor), stranger);
        }
        (Some(listener), _) => {
            if listener.accept(ACCEPTS_PER_EVENT, |descriptor, _| arrived.push(descriptor))
                == Accepted::Exhausted
            {
                tracing::warn!("no descriptor or memory for another gateway's connection");
            }
        }
        (None, _) => {}
    }
    for descriptor in arrived {
        if listeners.connections.get() >= MAX_CONNECTIONS {
            tracing::warn!(limit = MAX_CONNECTIONS, "one more connection of another owner is refused");
            continue;
        }
        match Socket::adopt(&shard.core.reactor, descriptor) {
            Ok(socket) => start(shard, socket, place),
            Err(error) => tracing::warn!(%error, "a connection of another owner could not be registered"),
        }
    }
}

/// Lets in whoever is of this very process: names of the abstract namespace have no owner and no rights.
fn accept_unix(listener: impl AsFd, mut take: impl FnMut(OwnedFd), stranger: impl Fn()) {
    let own = rustix::process::getpid();
    for _ in 0..ACCEPTS_PER_EVENT {
        match accept_with(&listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(descriptor) => match sockopt::socket_peercred(&descriptor) {
                Ok(peer) if peer.pid == own => take(descriptor),
                Ok(peer) => {
                    stranger();
                    tracing::warn!(pid = ?peer.pid, "another process connected to a shard's socket");
                }
                Err(error) => tracing::warn!(%error, "who connected to a shard's socket cannot be known"),
            },
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(_) => return,
        }
    }
}

fn start(shard: &Rc<Shard>, socket: Socket, place: usize) {
    let counted = (Counted::new(&shard.peers), Place::new(&shard.peers.listeners));
    let own_shard = shard.clone();
    shard.core.tasks.spawn(|| async move {
        let _counted = counted;
        let (stream, kind) = match (own_shard.process.identity.acceptor(), place) {
            (Some(acceptor), TLS) => {
                let by = own_shard.core.clock.after(HANDSHAKE_TIMEOUT);
                let handshake = pin!(Stream::accept(&acceptor, socket));
                match own_shard.deadline(by, handshake).await {
                    Ok(Ok(stream)) => (stream, PeerKind::Pod),
                    Ok(Err(error)) => {
                        if error.kind() == io::ErrorKind::InvalidData {
                            own_shard.metrics.auth_failed(AuthFailure::Peer);
                        }
                        tracing::debug!(%error, "another gateway did not prove who it is");
                        return;
                    }
                    Err(Elapsed) => return,
                }
            }
            _ => (Stream::from_socket(socket), PeerKind::Shard),
        };
        // What is served for a pod that has vanished ends with its connection.
        if kind == PeerKind::Pod
            && let Err(error) = stream.probe_silent_peer()
        {
            tracing::debug!(%error, "another gateway's connection cannot be watched");
            return;
        }
        let _open = Connected::new(&own_shard, kind);
        let mut guest = Guest {
            shard: own_shard.clone(),
            wire: Rc::default(),
            kind,
            envelope: None,
            passed_on: Rc::default(),
            calls: Calls::new(&own_shard),
        };
        let wire = guest.wire.clone();
        let error = wire.drive(&own_shard, stream, |kind, payload| guest.on_frame(kind, payload)).await;
        tracing::debug!(%error, "a connection of another owner ended");
    });
}

/// Counts a connection that was accepted.
struct Place(Rc<Cell<usize>>);

impl Place {
    fn new(listeners: &Listeners) -> Self {
        listeners.connections.set(listeners.connections.get() + 1);
        Place(listeners.connections.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Whoever is connected, and what it is in the middle of saying.
struct Guest {
    shard: Rc<Shard>,
    wire: Rc<Wire>,
    kind: PeerKind,
    envelope: Option<Forward<'static>>,
    passed_on: Rc<Cell<usize>>,
    calls: Calls,
}

impl Guest {
    fn on_frame(&mut self, kind: FrameKind, payload: Vec<u8>) -> io::Result<()> {
        if kind == FrameKind::Control {
            let word = AskerWord::parse(&payload);
            self.calls.on_word(word.ok_or_else(|| io::Error::other("another owner said what is no word"))?);
            return Ok(());
        }
        if kind != FrameKind::Request {
            return Err(io::Error::other("another owner sent what is no message"));
        }
        let Some(forward) = self.envelope.take() else {
            let forward = Forward::parse(&payload).map(Forward::into_owned);
            self.envelope = Some(forward.ok_or_else(|| io::Error::other("an envelope cannot be read"))?);
            return Ok(());
        };
        let own = self.shard.peers.own();
        let verdict = if forward.boot != own.boot {
            Verdict::AnotherBoot
        } else if let Some(verb) = forward.verb {
            match self.check_call(&forward) {
                Ok(()) => return self.serve(forward, verb.method(), payload),
                Err(verdict) => verdict,
            }
        } else if forward.shard == own.shard {
            deliver(&self.shard, &forward, payload)
        } else if self.kind == PeerKind::Shard {
            // No second hop: whoever asks within a process knows which shard it means.
            Verdict::NoSuchStream
        } else if self.passed_on.get() >= MAX_PASSED_ON {
            Verdict::Unreachable
        } else {
            self.pass_on(forward, payload);
            return Ok(());
        };
        count(&self.shard, verdict);
        answer(&self.wire, forward.forward, verdict)
    }

    fn check_call(&self, forward: &Forward<'_>) -> Result<(), Verdict> {
        let is_here = forward.shard == self.shard.peers.own().shard;
        if !is_here && self.kind == PeerKind::Shard {
            return Err(Verdict::NoSuchStream);
        }
        if self.calls.is_full() {
            return Err(Verdict::InFlight { limit: MAX_CALLS });
        }
        if self.calls.has(forward.forward) {
            return Err(Verdict::Refused);
        }
        if self.shard.has_memory() { Ok(()) } else { Err(Verdict::Memory) }
    }

    /// Asks the server, or the shard of this process that reaches it.
    fn serve(&self, forward: Forward<'static>, method: Method, body: Vec<u8>) -> io::Result<()> {
        let (shard, wire, call) = (self.shard.clone(), self.wire.clone(), forward.forward);
        let is_here = forward.shard == shard.peers.own().shard;
        if is_here {
            count(&shard, Verdict::Accepted);
            answer(&wire, call, Verdict::Accepted)?;
        }
        self.calls.start(call, |window| async move {
            let outlet = Outlet { wire, window, call, is_endless: method == Method::Get };
            let answered = if is_here {
                ask_here(&shard, &forward, method, &body).await
            } else {
                let Some(asked) = ask_on(&shard, &forward, &body, &outlet.wire).await else { return };
                drop(body);
                asked.told().await
            };
            match answered {
                Ok(told) => outlet.pass(&shard, Answer::Told(Box::new(told))).await,
                Err(failed) => outlet.end(Some(failed)),
            }
        });
        Ok(())
    }

    /// Brings what came over TLS to the right shard of this process.
    fn pass_on(&self, forward: Forward<'static>, body: Vec<u8>) {
        let counted = Counted::new(&self.shard.peers);
        let (shard, wire, passed_on) = (self.shard.clone(), self.wire.clone(), self.passed_on.clone());
        passed_on.set(passed_on.get() + 1);
        self.shard.core.tasks.spawn(|| async move {
            let _counted = counted;
            let owner = Owner { shard: forward.shard, ..shard.peers.own().clone() };
            let sent = match shard.peers.link(&shard.process, &owner) {
                Ok(link) => link.forward(&shard, &forward, &body).await,
                Err(failure) => Err(failure),
            };
            passed_on.set(passed_on.get() - 1);
            tell_verdict(&shard, &wire, forward.forward, sent);
        });
    }
}

/// Asks the shard of this process that is meant; `None` where it did not take the call, which is told.
async fn ask_on(shard: &Rc<Shard>, forward: &Forward<'_>, body: &[u8], wire: &Wire) -> Option<Asked> {
    let owner = Owner { shard: forward.shard, ..shard.peers.own().clone() };
    let sent = match shard.peers.link(&shard.process, &owner) {
        Ok(link) => link.call(shard, forward, body).await,
        Err(failure) => Err(Err(failure)),
    };
    let outcome = sent.as_ref().map_or_else(|outcome| *outcome, |_| Ok(Verdict::Accepted));
    tell_verdict(shard, wire, forward.forward, outcome);
    sent.ok()
}

/// Tells whoever asked what became of a message at another shard.
fn tell_verdict(shard: &Shard, wire: &Wire, forward: u64, sent: Result<Verdict, Failure>) {
    shard.metrics.peer_message(Direction::Out, result(&sent));
    let verdict = match sent {
        Ok(verdict) => verdict,
        // The asker finds out by itself that it is not told.
        Err(Failure::Silent) => return,
        Err(Failure::NoWay | Failure::Gone | Failure::Busy | Failure::Unreachable { .. }) => {
            Verdict::Unreachable
        }
    };
    count(shard, verdict);
    // Whoever asked may have gone, which its own connection knows.
    let _ = answer(wire, forward, verdict);
}

fn deliver(shard: &Rc<Shard>, forward: &Forward<'_>, body: Vec<u8>) -> Verdict {
    let scope = Scope::named(shard, &forward.server);
    let (Some(id), Some(scope)) = (forward.id(), scope) else { return Verdict::NoSuchStream };
    // The sender has looked at it; between releases, the two may see it differently.
    let Ok(Payload::Single(scan)) = scan(&body, &ScanLimits::default()) else { return Verdict::Refused };
    let taken = sse::take(shard, &id, scope, Arrived { body, scan, with: forward.with() });
    match taken {
        Ok(()) => Verdict::Accepted,
        Err(refusal) => Verdict::of(&refusal),
    }
}

fn count(shard: &Shard, verdict: Verdict) {
    let result = if verdict == Verdict::Accepted { PeerResult::Accepted } else { PeerResult::Refused };
    shard.metrics.peer_message(Direction::In, result);
}

fn answer(wire: &Wire, forward: u64, verdict: Verdict) -> io::Result<()> {
    let answer = Reply { forward, verdict }.write();
    wire.queue(&[(FrameKind::Response, &answer)]).map_err(io::Error::other)
}

/// Asks a server that this shard reaches.
async fn ask_here(
    shard: &Rc<Shard>,
    forward: &Forward<'_>,
    method: Method,
    body: &[u8],
) -> Result<Told, Failed> {
    let server = shard.setup().number(forward.server.as_bytes()).ok_or(Failed::Connect)?;
    let upstream = shard.upstream(server.into());
    let mut endpoints = upstream.candidates(shard, None, |_| true);
    let endpoint = endpoints.find(|endpoint| !matches!(endpoint.via, Via::Http)).ok_or(Failed::Connect)?;
    let ask = duplex::Ask {
        verb: method,
        session: forward.channel.as_deref().map(str::as_bytes),
        body,
        authorization: forward.authorization.as_deref().map(str::as_bytes),
        owner: None,
    };
    let by = shard.core.clock.after(upstream.timeout);
    let told = duplex::ask_local(shard, &endpoint, &ask, by).await;
    told.map_err(|error| Failed::of(&error))
}
