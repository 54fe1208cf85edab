//! Opening channels: owns the pause between two that fail, and the server's common channels. Never what goes over one.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use mcp_protocol::http1::write_field;

use super::hub::{Hub, Wire};
use super::{CallError, Closed};
use crate::connect::pace::Pace;
use crate::metrics::ChannelEvent;
use crate::shard::Shard;
use crate::shard::clock::Millis;
use crate::upstream::{Endpoint, Via};

/// A channel that held so long is taken for healthy: when it closes, the next one is opened at once.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// Sessions' connections to one server per shard, each a descriptor and some 10 KiB here and as much at the server; processes
/// have a limit of their own.
const MAX_CONNECTIONS: usize = 4096;
/// How long a message waits for a channel that is soon to be opened again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whose messages a common channel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Era {
    /// Of sessions that share it.
    Legacy,
    /// Of no session.
    Modern,
}

/// A server's channels that no session owns, one of each era.
#[derive(Default)]
pub(super) struct Commons {
    legacy: Common,
    modern: Common,
}

impl Commons {
    fn of(&self, era: Era) -> &Common {
        match era {
            Era::Legacy => &self.legacy,
            Era::Modern => &self.modern,
        }
    }

    pub(super) fn open_channels(&self) -> usize {
        let hubs = [self.legacy.hub(), self.modern.hub()];
        hubs.iter().flatten().filter(|hub| hub.is_open()).count()
    }

    /// Ends both.
    pub(super) fn end(&self) {
        [self.legacy.hub(), self.modern.hub()].iter().flatten().for_each(|hub| hub.end());
    }

    /// Ends channels that nobody has used since `before`; says whether one is open.
    pub(super) fn end_if_unused(&self, before: Millis) -> bool {
        let legacy = self.legacy.end_if_unused(before);
        self.modern.end_if_unused(before) || legacy
    }
}

/// A channel that no session owns.
#[derive(Default)]
struct Common {
    hub: RefCell<Option<Rc<Hub>>>,
    pace: RefCell<Option<Pace>>,
    opened_at: Cell<Millis>,
    /// Not before then is it opened again.
    due: Cell<Millis>,
}

impl Common {
    fn hub(&self) -> Option<Rc<Hub>> {
        self.hub.borrow().clone()
    }

    fn end_if_unused(&self, before: Millis) -> bool {
        let Some(hub) = self.hub().filter(|hub| hub.is_open()) else { return false };
        if hub.is_unused_since(before) {
            hub.end();
        }
        hub.is_open()
    }

    /// Notes that a channel is opened now, and when the next one may be.
    fn on_open(&self, shard: &Shard) {
        let now = shard.core.clock.now();
        let is_first = self.opened_at.get() == 0;
        if is_first || now.saturating_sub(self.opened_at.get()) >= HEALTHY_AFTER.as_millis() as Millis {
            *self.pace.borrow_mut() = None;
            self.due.set(now);
        } else {
            let pause = self.pace.borrow_mut().get_or_insert_with(Pace::new).next();
            self.due.set(shard.core.clock.after(pause));
        }
        self.opened_at.set(now.max(1));
    }
}

/// The server's common channel of an era, opened where it is not open.
///
/// # Errors
/// [`CallError::Connect`] while it is too soon to open it again.
pub(super) async fn common(
    shard: &Rc<Shard>,
    endpoint: &Rc<Endpoint>,
    era: Era,
    authorization: Option<&[u8]>,
    deadline: Millis,
) -> Result<Rc<Hub>, CallError> {
    let commons = shard.duplex.commons(endpoint.server);
    let common = commons.of(era);
    let new = || Hub::new(endpoint.server, true, shard.core.clock.now());
    let hub = common.hub.borrow_mut().get_or_insert_with(new).clone();
    if hub.is_open() {
        return Ok(hub);
    }
    let due = common.due.get();
    if due > shard.core.clock.now() {
        if due > deadline.min(shard.core.clock.after(PATIENCE)) {
            return Err(Closed::Connect.error());
        }
        // The wait is over when its time is.
        let _ = shard.deadline(due, pin!(pending::<()>())).await;
    }
    if !hub.is_open() {
        common.on_open(shard);
        open(shard, endpoint, authorization, &hub)?;
        shard.want_housekeeping();
    }
    Ok(hub)
}

/// A channel for one session.
///
/// # Errors
/// [`CallError::Processes`] or [`CallError::Exhausted`] where there are as many as may be.
pub(super) fn own(
    shard: &Rc<Shard>,
    endpoint: &Rc<Endpoint>,
    authorization: Option<&[u8]>,
) -> Result<Rc<Hub>, CallError> {
    let is_connection = matches!(endpoint.via, Via::WebSocket | Via::Sse);
    if is_connection && shard.duplex.channels(endpoint.server) >= MAX_CONNECTIONS {
        return Err(CallError::Exhausted);
    }
    let hub = Hub::new(endpoint.server, false, shard.core.clock.now());
    open(shard, endpoint, authorization, &hub)?;
    Ok(hub)
}

/// Has the transport open a channel. It does so in its own tasks: messages wait, and a channel that cannot be opened is
/// closed with [`Closed::Connect`].
fn open(
    shard: &Rc<Shard>,
    endpoint: &Rc<Endpoint>,
    authorization: Option<&[u8]>,
    hub: &Rc<Hub>,
) -> Result<(), CallError> {
    if !endpoint.is_current(shard) {
        // The server has moved or is gone meanwhile: its channels have been ended, and this would be one more.
        return Err(Closed::Connect.error());
    }
    let wire: Wire = hub.attach();
    let opened = match &endpoint.via {
        Via::Stdio(stdio) => super::stdio::open(shard, stdio, &wire),
        Via::WebSocket => {
            super::ws::open(shard, endpoint, fields(endpoint, hub, authorization), &wire);
            Ok(())
        }
        Via::Sse => {
            super::sse::open(shard, endpoint, fields(endpoint, hub, authorization), &wire);
            Ok(())
        }
        Via::Http => Err(Closed::Connect.error()),
    };
    match &opened {
        Ok(()) => shard.metrics.channel_event(endpoint.server, ChannelEvent::Opened),
        Err(_) => {
            shard.metrics.channel_event(endpoint.server, ChannelEvent::Refused);
            wire.abandon();
        }
    }
    opened
}

/// Header lines of the requests by which a channel is opened. One that is shared is nobody's: a client's credential on it
/// would speak for the others.
fn fields(endpoint: &Endpoint, hub: &Hub, authorization: Option<&[u8]>) -> Vec<u8> {
    let mut fields = Vec::new();
    write_field(&mut fields, b"Host", endpoint.authority.as_bytes());
    if let Some(authorization) = authorization.filter(|_| !hub.is_shared) {
        write_field(&mut fields, b"Authorization", authorization);
    }
    fields
}
