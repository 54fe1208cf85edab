//! Streams of several servers as one: owns what waits for the client, who feeds it, and which servers have been away. Never
//! the client's side of it.
//!
//! Invariant: a server's stream is not read while more than [`MAX_WAITING_BYTES`] wait for the client.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use mcp_protocol::http1::is_event_stream;
use mcp_protocol::mcp::federation::{Acknowledged, Asked};
use mcp_protocol::sse::{raw_events, write_event};

use super::reply::{is_response, write_joined};
use crate::door::answers::field;
use crate::shard::Shard;
use crate::shard::conn::Gone;

/// Bytes that wait for the client before servers wait, too.
const MAX_WAITING_BYTES: usize = 64 << 10;

/// What a server that was away may have changed meanwhile.
const CHANGES: [&str; 3] = ["tools", "prompts", "resources"];

/// The streams' meeting place.
pub(super) struct Merged {
    shard: Rc<Shard>,
    asked: Asked,
    /// Which changes the client wants to hear of, by [`CHANGES`].
    wanted: [bool; CHANGES.len()],
    /// The client's raw id of its subscription.
    subscription: Option<Box<[u8]>>,
    waiting: RefCell<Vec<u8>>,
    client: RefCell<Option<Waker>>,
    feeders: RefCell<Vec<Waker>>,
    /// Servers that may still say something.
    live: RefCell<Vec<usize>>,
    /// Servers that have not been tried yet, and those whose streams have been opened.
    untried: RefCell<Vec<usize>>,
    opened: RefCell<Vec<usize>>,
    acknowledged: RefCell<Acknowledged>,
}

/// What the client's side finds.
pub(super) enum Found {
    Events(Vec<u8>),
    /// Another setup is in force.
    Setup,
    /// No server will say anything any more.
    Over,
}

/// One server's answer on its way there.
pub(crate) struct Feed {
    merged: Rc<Merged>,
    server: usize,
    status: u16,
    opened: bool,
    /// The server was away, or missing from the beginning: when it speaks, it may have changed.
    was_away: bool,
    /// The server has ended its stream in good order.
    ended: bool,
    last_event_id: Option<Vec<u8>>,
}

impl Merged {
    pub(super) fn new(
        shard: &Rc<Shard>,
        servers: &[usize],
        asked: Asked,
        wanted: [bool; CHANGES.len()],
        subscription: Option<&[u8]>,
    ) -> Rc<Self> {
        Rc::new(Merged {
            shard: shard.clone(),
            asked,
            wanted,
            subscription: subscription.map(Into::into),
            waiting: RefCell::default(),
            client: RefCell::default(),
            feeders: RefCell::default(),
            live: RefCell::new(servers.to_vec()),
            untried: RefCell::new(servers.to_vec()),
            opened: RefCell::default(),
            acknowledged: RefCell::default(),
        })
    }

    /// Where a server's answer goes.
    pub(super) fn feed(self: &Rc<Self>, server: usize, was_away: bool) -> Feed {
        Feed {
            merged: self.clone(),
            server,
            status: 0,
            opened: false,
            was_away,
            ended: false,
            last_event_id: None,
        }
    }

    /// A server's first try is over, well or not.
    pub(super) fn on_tried(&self, server: usize) {
        self.untried.borrow_mut().retain(|other| *other != server);
        self.wake();
    }

    /// A server will say nothing more.
    pub(super) fn on_over(&self, server: usize) {
        self.live.borrow_mut().retain(|other| *other != server);
        self.wake();
    }

    /// Whether no server will say anything.
    pub(super) fn is_over(&self) -> bool {
        self.live.borrow().is_empty()
    }

    /// A server has come that may say something.
    pub(super) fn join(&self, server: usize) {
        self.live.borrow_mut().push(server);
    }

    /// Those of the servers that have not opened their streams.
    pub(super) fn missing(&self, servers: &[usize]) -> Vec<usize> {
        let opened = self.opened.borrow();
        servers.iter().copied().filter(|server| !opened.contains(server)).collect()
    }

    pub(super) fn take_acknowledged(&self) -> Acknowledged {
        self.acknowledged.take()
    }

    /// Waits until every server has been tried once.
    pub(super) async fn tried(&self) {
        poll_fn(|cx| if self.untried.borrow().is_empty() { Poll::Ready(()) } else { self.wait(cx) }).await;
    }

    /// Waits until a server has opened its stream, or every one has been tried once.
    pub(super) async fn begun(&self) {
        poll_fn(|cx| {
            let begun = !self.opened.borrow().is_empty() || self.untried.borrow().is_empty();
            if begun { Poll::Ready(()) } else { self.wait(cx) }
        })
        .await;
    }

    /// Looks for something for the client.
    pub(super) fn poll_found(&self, cx: &mut Context<'_>) -> Poll<Found> {
        let waiting = self.waiting.take();
        if !waiting.is_empty() {
            self.feeders.take().into_iter().for_each(Waker::wake);
            return Poll::Ready(Found::Events(waiting));
        }
        if self.is_over() { Poll::Ready(Found::Over) } else { self.wait(cx) }
    }

    fn wait<T>(&self, cx: &Context<'_>) -> Poll<T> {
        *self.client.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    fn wake(&self) {
        if let Some(client) = self.client.take() {
            client.wake();
        }
    }

    /// What a server that was away may have changed is told on its behalf; so is what becomes of the lists where servers come
    /// and go.
    pub(super) fn tell_changes(&self) {
        for (what, _) in CHANGES.iter().zip(self.wanted).filter(|(_, wanted)| *wanted) {
            let params = self.subscription.as_deref().map(|id| {
                let id = String::from_utf8_lossy(id);
                format!(r#","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}"#)
            });
            let message = format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/{what}/list_changed"{}}}"#,
                params.unwrap_or_default()
            );
            write_event(&mut self.waiting.borrow_mut(), Some("message"), None, message.as_bytes());
        }
        self.wake();
    }
}

impl Feed {
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    pub(super) fn has_opened(&self) -> bool {
        self.opened
    }

    /// Whether the server has said that there is nothing more to come.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The position after which the server's stream goes on.
    pub(super) fn last_event_id(&self) -> Option<&[u8]> {
        self.last_event_id.as_deref()
    }

    pub(super) fn begin(&mut self, status: u16, fields: &[u8]) {
        self.status = status;
        let is_stream = field(fields, "content-type").is_some_and(is_event_stream);
        self.opened = status == 200 && is_stream;
        // A subscription is open when it is acknowledged.
        if self.opened && self.merged.asked != Asked::Listen {
            self.on_opened();
        }
    }

    pub(super) async fn data(&mut self, data: &[u8]) -> Result<(), Gone> {
        for event in raw_events(data) {
            if let Some(id) = event.id() {
                self.last_event_id = Some(id.to_vec()).filter(|id| !id.is_empty());
            }
            let said = event.data.as_deref().unwrap_or_default();
            let merged = &self.merged;
            let setup = merged.shard.setup();
            let federation = &setup.federation;
            if merged.asked == Asked::Listen {
                if merged.acknowledged.borrow_mut().add(federation, self.server, said) {
                    self.on_opened();
                    continue;
                }
                if is_response(said) {
                    self.ended = true;
                    continue;
                }
            }
            write_joined(&merged.shard, self.server, merged.asked, &event, &mut merged.waiting.borrow_mut());
            merged.wake();
        }
        self.drained().await
    }

    pub(super) async fn drained(&self) -> Result<(), Gone> {
        poll_fn(|cx| {
            if self.merged.waiting.borrow().len() <= MAX_WAITING_BYTES {
                return Poll::Ready(Ok(()));
            }
            self.merged.feeders.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn on_opened(&mut self) {
        self.merged.opened.borrow_mut().push(self.server);
        if std::mem::take(&mut self.was_away) {
            self.merged.tell_changes();
        }
        self.merged.on_tried(self.server);
    }
}
