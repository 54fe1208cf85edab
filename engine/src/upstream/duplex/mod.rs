//! Servers on whose channel messages go both ways without a request of HTTP around them: owns the shard's channels, which of
//! them a message belongs to, and when one is opened and ended. Its server's answers are told in HTTP's terms, so that an
//! exchange is the same whatever the transport. What goes over a channel is the [`hub`]'s matter, how it gets there the
//! transport's ([`stdio`], [`ws`], [`sse`]).
//!
//! A legacy session has a *seat* at a hub. Where each session has a channel of its own, they begin and end together; where
//! all share one, the gateway itself has initialized the server, and each session is told what that said. Messages of the
//! modern era, which belong to no session, share a channel in either case: another one, because the first message on a channel
//! decides on its era.

mod flight;
mod greet;
mod hub;
mod open;
mod queue;
mod route;
mod seat;
mod sse;
pub(crate) mod stdio;
#[cfg(test)]
mod tests;
mod told;
mod ws;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;

use mcp_protocol::http1::Method;
use mcp_protocol::jsonrpc::{Kind, Payload, Scan, ScanLimits, scan};
use mcp_protocol::mcp::correlate::batch_elements;
use mcp_shard_store::Owner;

use super::answer::Told;
use super::call::CallError;
use super::{Endpoint, Via};
use crate::metrics::UpstreamLabels;
use crate::peer;
use crate::shard::Shard;
use crate::shard::clock::Millis;
use crate::shard::tasks::TaskId;
use flight::{Purpose, Stage};
use hub::Hub;
use hub::Outgoing;
use open::{Commons, Era};

/// Names a session's seat: 128 random bits, so that no record of another process names one of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SeatId(u128);

impl SeatId {
    fn random() -> Result<Self, CallError> {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits).map_err(|_| CallError::Connect(io::ErrorKind::Other.into()))?;
        Ok(SeatId(u128::from_ne_bytes(bits)))
    }

    fn parse(text: &[u8]) -> Option<Self> {
        u128::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok().map(SeatId)
    }
}

/// Why a channel is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// It could not be opened: nothing was sent.
    Connect,
    /// The server closed it, or its process ended.
    Gone,
    /// The gateway ended it.
    Ended,
    /// One client was too slow for the others.
    Slow,
    /// What came over it is beyond repair.
    Malformed(&'static str),
}

impl Closed {
    fn error(self) -> CallError {
        match self {
            Closed::Connect => CallError::Connect(io::ErrorKind::ConnectionRefused.into()),
            Closed::Gone | Closed::Ended | Closed::Slow => CallError::Closed,
            Closed::Malformed(what) => CallError::Malformed(what),
        }
    }
}

/// A message for a server, in HTTP's terms.
pub(crate) struct Ask<'a> {
    pub(crate) verb: Method,
    /// The seat, as [`Told`] named it in answer to `initialize`.
    pub(crate) session: Option<&'a [u8]>,
    pub(crate) body: &'a [u8],
    /// The client's `Authorization`, for a channel that is opened on its account.
    pub(crate) authorization: Option<&'a [u8]>,
    /// Who holds the session's seat; `None` without one: then it is whoever would hold it.
    pub(crate) owner: Option<&'a Owner>,
}

/// A shard's channels.
#[derive(Default)]
pub(crate) struct Duplex {
    seats: RefCell<HashMap<SeatId, Rc<Hub>>>,
    /// Per server: the channels that no session owns.
    commons: RefCell<Vec<Rc<Commons>>>,
    tasks: Rc<Cell<usize>>,
    processes: stdio::Processes,
}

impl Duplex {
    /// Has room for as many servers.
    pub(crate) fn grow(&self, servers: usize) {
        let mut commons = self.commons.borrow_mut();
        while commons.len() < servers {
            commons.push(Rc::default());
        }
    }

    /// Ends all channels of a server, which is gone or at another place now, and with them its sessions' seats.
    pub(crate) fn end_server(&self, server: u16) {
        let hubs: Vec<_> = self.seats.borrow().values().filter(|hub| hub.server == server).cloned().collect();
        hubs.iter().for_each(|hub| hub.end());
        let before = std::mem::take(&mut self.commons.borrow_mut()[usize::from(server)]);
        before.end();
        self.seats.borrow_mut().retain(|seat, hub| hub.has_seat(*seat));
    }

    fn commons(&self, server: u16) -> Rc<Commons> {
        self.commons.borrow()[usize::from(server)].clone()
    }

    /// Tasks that live as long as their channels: no exchange is one of them.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks.get()
    }

    /// Counts a task among [`Duplex::tasks`] as long as the result lives.
    pub(crate) fn count_task(&self) -> Counted {
        self.tasks.set(self.tasks.get() + 1);
        Counted(self.tasks.clone())
    }

    /// Open channels per server index.
    pub(crate) fn channels(&self, server: u16) -> usize {
        let is_its = |hub: &&Rc<Hub>| hub.server == server && hub.is_open();
        let own = self.seats.borrow().values().filter(is_its).filter(|hub| !hub.is_shared).count();
        own + self.commons(server).open_channels()
    }

    /// Ends what nobody has used for as long as a session lives; says whether anything is left to look after.
    pub(crate) fn keep_house(&self, before: Millis) -> bool {
        let hubs: Vec<_> = self.seats.borrow().values().cloned().collect();
        hubs.iter().for_each(|hub| {
            hub.end_unused(before);
        });
        self.seats.borrow_mut().retain(|seat, hub| hub.has_seat(*seat));
        let mut more = !self.seats.borrow().is_empty();
        let commons = self.commons.borrow().clone();
        for commons in &commons {
            more |= commons.end_if_unused(before);
        }
        more
    }

    fn seat(&self, text: &[u8]) -> Option<(Rc<Hub>, SeatId)> {
        let id = SeatId::parse(text)?;
        let hub = self.seats.borrow().get(&id).cloned()?;
        if hub.has_seat(id) {
            return Some((hub, id));
        }
        self.seats.borrow_mut().remove(&id);
        None
    }
}

/// A counted task.
pub(crate) struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Who holds the seats of sessions that begin here: a channel that all share is on one shard, by its server's place in the
/// configuration. `None` for a server that needs no channel.
pub(crate) fn owner(shard: &Shard, endpoint: &Endpoint) -> Option<Owner> {
    let here = shard.peers.own();
    match &endpoint.via {
        Via::Http => None,
        via if via.is_shared() => {
            let shards = shard.process.mailboxes.len();
            Some(Owner { shard: (usize::from(endpoint.server) % shards) as u16, ..here.clone() })
        }
        _ => Some(here.clone()),
    }
}

/// Asks a server over its channel, wherever that is.
///
/// # Errors
/// As [`ask_local`]; [`CallError::Owner`] when the channel is elsewhere and its owner was not asked.
pub(crate) async fn ask(
    shard: &Rc<Shard>,
    endpoint: &Rc<Endpoint>,
    ask: &Ask<'_>,
    deadline: Millis,
) -> Result<Told, CallError> {
    let asked_at_us = shard.core.clock.precise_us();
    let here = shard.peers.own();
    let home = if ask.owner.is_none() { owner(shard, endpoint).filter(|home| home != here) } else { None };
    let outcome = match ask.owner.filter(|owner| *owner != here).or(home.as_ref()) {
        Some(owner) => peer::call(shard, owner, endpoint.server, ask, deadline).await,
        None => ask_local(shard, endpoint, ask, deadline).await,
    };
    let status = outcome.as_ref().map_or(0, Told::status);
    let labels = UpstreamLabels { server: endpoint.server, endpoint: endpoint.index, status };
    shard.metrics.upstream(labels, shard.core.clock.precise_us().saturating_sub(asked_at_us));
    outcome
}

/// Asks a server over its channel on this shard, and waits until `deadline` for what comes first. A session that this shard
/// does not know, or no longer, is answered with 404.
///
/// # Errors
/// [`CallError`]; after [`CallError::Connect`] and [`CallError::Exhausted`] nothing was sent.
pub(crate) async fn ask_local(
    shard: &Rc<Shard>,
    endpoint: &Rc<Endpoint>,
    ask: &Ask<'_>,
    deadline: Millis,
) -> Result<Told, CallError> {
    let Some(session) = ask.session else { return without_session(shard, endpoint, ask, deadline).await };
    let Some((hub, seat)) = shard.duplex.seat(session) else { return Ok(told::status(404)) };
    match ask.verb {
        Method::Get => {
            let now = shard.core.clock.now();
            let queue = hub.listen(seat, now);
            Ok(queue.map_or_else(
                || told::status(404),
                |queue| told::listening(told::Listening::new(&hub, seat, queue)),
            ))
        }
        Method::Delete => {
            hub.end_seat(seat);
            Ok(told::status(200))
        }
        _ => {
            if hub.is_shared {
                open::common(shard, endpoint, Era::Legacy, ask.authorization, deadline).await?;
                if greet::greet(&hub, shard, deadline).await?.is_err() || !hub.has_seat(seat) {
                    return Ok(told::status(404));
                }
            }
            post(shard, &hub, (Some(seat), Purpose::Legacy), ask.body, deadline).await
        }
    }
}

/// `initialize`, which opens a session, or a message of the modern era.
async fn without_session(
    shard: &Rc<Shard>,
    endpoint: &Rc<Endpoint>,
    ask: &Ask<'_>,
    deadline: Millis,
) -> Result<Told, CallError> {
    let scanned = scan(ask.body, &ScanLimits::default());
    let Ok(Payload::Single(found)) = scanned else {
        return Err(CallError::Malformed("a message without a session"));
    };
    let is_initialize = found.method.is_some_and(|method| method.eq_str(ask.body, "initialize"));
    if !is_initialize || found.kind != Kind::Request {
        let hub = open::common(shard, endpoint, Era::Modern, ask.authorization, deadline).await?;
        return post(shard, &hub, (None, Purpose::Modern), ask.body, deadline).await;
    }
    if endpoint.via.is_shared() {
        let hub = open::common(shard, endpoint, Era::Legacy, ask.authorization, deadline).await?;
        return greet::initialize(shard, &hub, ask.body, &found, deadline).await;
    }
    let hub = open::own(shard, endpoint, ask.authorization)?;
    let seat = seat(shard, &hub)?;
    let messages = [Outgoing { bytes: ask.body, scan: found }];
    let (answering, stage) = hub.request(shard, (Some(seat), Purpose::Opens), &messages, deadline).await?;
    Ok(match stage {
        Stage::Whole => told::whole(Some(seat), answering.flight.take_whole()),
        Stage::Stream => told::events(Some(seat), answering),
    })
}

/// Gives a session its seat.
fn seat(shard: &Shard, hub: &Rc<Hub>) -> Result<SeatId, CallError> {
    let seat = SeatId::random()?;
    hub.add_seat(seat, shard.core.clock.now());
    shard.duplex.seats.borrow_mut().insert(seat, hub.clone());
    shard.want_housekeeping();
    Ok(seat)
}

/// Sends what a POST brought.
async fn post(
    shard: &Rc<Shard>,
    hub: &Rc<Hub>,
    (seat, purpose): (Option<SeatId>, Purpose),
    body: &[u8],
    deadline: Millis,
) -> Result<Told, CallError> {
    let messages = messages(body)?;
    let (asked, told): (Vec<_>, Vec<_>) =
        messages.into_iter().partition(|message| message.scan.kind == Kind::Request);
    for message in &told {
        hub.tell(shard, seat, message, deadline).await?;
    }
    if asked.is_empty() {
        return Ok(told::status(202));
    }
    if let Some(seat) = seat
        && asked.iter().any(|message| route::leaves_state(message.bytes, &message.scan))
    {
        hub.note_state(seat);
    }
    let (answering, stage) = hub.request(shard, (seat, purpose), &asked, deadline).await?;
    Ok(match stage {
        Stage::Whole => told::whole(None, answering.flight.take_whole()),
        Stage::Stream => told::events(None, answering),
    })
}

/// The messages of a body: one, or those of a batch, which only HTTP carries together.
fn messages(body: &[u8]) -> Result<Vec<Outgoing<'_>>, CallError> {
    let limits = ScanLimits::default();
    let single = |bytes| -> Option<Outgoing<'_>> {
        match scan(bytes, &limits) {
            Ok(Payload::Single(scan)) => Some(Outgoing { bytes, scan }),
            Ok(Payload::Batch(_)) | Err(_) => None,
        }
    };
    let found: Option<Vec<_>> = match scan(body, &limits) {
        Ok(Payload::Single(scan)) => Some(vec![Outgoing { bytes: body, scan }]),
        Ok(Payload::Batch(_)) => {
            let elements = batch_elements(body).unwrap_or_default();
            elements.into_iter().map(|element| single(element.of(body))).collect()
        }
        Err(_) => None,
    };
    // The exchange has scanned the body before.
    found.ok_or(CallError::Malformed("no message"))
}

fn is_response(scan: &Scan) -> bool {
    scan.kind == Kind::Response
}

/// A task that lives as long as the channel.
fn spawn<F: Future<Output = ()> + 'static>(shard: &Rc<Shard>, task: impl FnOnce(Rc<Shard>) -> F) -> TaskId {
    let counted = shard.duplex.count_task();
    let task = task(shard.clone());
    shard.core.tasks.spawn(|| async move {
        task.await;
        drop(counted);
    })
}

/// Lets others have their turn.
async fn breathe() {
    let mut breathed = false;
    poll_fn(|cx| {
        if breathed {
            return Poll::Ready(());
        }
        breathed = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
