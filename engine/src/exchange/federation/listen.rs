//! Streams on which servers speak by themselves, all of them as one: owns the client's side, and one task for each server that
//! keeps its stream open. A server that was away is told of by `list_changed` on its behalf when it is back.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use mcp_protocol::jsonrpc::{Payload, ScanLimits, scan};
use mcp_protocol::mcp::federation::{Asked, Federation, Route, write_acknowledged};
use mcp_protocol::sse::write_event;
use serde_json::Value;

use super::feed::{Feed, Found, Merged};
use super::reply::FederatedReply;
use super::{Bodies, Way, legacy, one, part};
use crate::door::Reply;
use crate::door::reply::Framing;
use crate::exchange::{Ended, Inbound, relay};
use crate::respond::Refusal;
use crate::setup::Server;
use crate::shard::tasks::TaskId;
use crate::shard::view::View;
use crate::shard::{Elapsed, Shard};

/// The pause before a server's stream is opened again, doubled after each try that failed.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(30);
const FIELDS: &[u8] =
    b"Content-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n";

/// GET: the session's streams at all servers, or the one stream that `Last-Event-ID` is of.
pub(in crate::exchange) async fn listen(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    reply: &mut Reply,
) -> Result<(), Ended> {
    legacy::check(shard, inbound).await?;
    let last = inbound.message.last_event_id().map(<[u8]>::to_vec);
    let last = last.and_then(|id| {
        let (server, asked, own) = shard.setup().federation.split_event_id(&id)?;
        Some((server, asked, own.to_vec()))
    });
    if let Some((server, asked, own)) = &last
        && *asked != Asked::Stream
    {
        let mut part = part::stream(shard, inbound, *server, Some(own))?;
        if let Reply::Federated(reply) = reply {
            reply.join(*server, *asked);
        }
        return one(shard, &mut part, Way::Legacy, reply).await;
    }
    let view = shard.setup();
    let servers: Vec<usize> = view.federation.numbers().collect();
    let merged = Merged::new(shard, &servers, Asked::Stream, [true; 3], None);
    let mut feeders = Feeders::new(shard, &merged, view, Way::Legacy);
    for server in servers {
        let after = last.as_ref().filter(|(of, ..)| *of == server).map(|(.., own)| own.as_slice());
        feeders.start(part::stream(shard, inbound, server, after)?);
    }
    in_time(shard, merged.begun()).await;
    if merged.is_over() {
        return Err(Refusal::MethodNotAllowed { allow: "POST, DELETE" }.into());
    }
    reply.begin(200, FIELDS, Framing::Stream);
    reply.flush_head()?;
    let newcomer = |server| part::stream(shard, inbound, server, None).ok();
    pump(shard, &merged, &mut feeders, newcomer, reply).await?;
    reply.end();
    Ok(())
}

/// `subscriptions/listen`: each server is asked for its part, and one acknowledgment is made of theirs.
pub(super) async fn subscribe(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    asked: Bodies<'_>,
    id: &[u8],
    reply: &mut Reply,
) -> Result<(), Ended> {
    if shard.is_draining() {
        return Err(Refusal::Draining.into());
    }
    let servers: Vec<usize> = asked.iter().map(|(server, _)| *server).collect();
    let wanted = wanted(&inbound.message.body);
    let merged = Merged::new(shard, &servers, Asked::Listen, wanted, Some(id));
    let mut feeders = Feeders::new(shard, &merged, shard.setup(), Way::Modern);
    for (server, body) in asked {
        feeders.start(part::message(shard, inbound, server, body.into_owned())?);
    }
    in_time(shard, merged.tried()).await;
    let missing = merged.missing(&servers);
    super::count_missing(shard, &missing, "subscriptions/listen");
    if missing.len() == servers.len() && merged.is_over() {
        return Err(Refusal::AllMissing.into());
    }
    reply.begin(200, FIELDS, Framing::Stream);
    let acknowledged =
        write_acknowledged(&shard.setup().federation, id, merged.take_acknowledged(), &missing);
    let mut event = Vec::new();
    write_event(&mut event, Some("message"), None, &acknowledged);
    reply.data(&event).await?;
    let newcomer = |server| {
        let body = asked_of(&shard.setup().federation, &inbound.message.body, server)?;
        part::message(shard, inbound, server, body).ok()
    };
    pump(shard, &merged, &mut feeders, newcomer, reply).await?;
    relay::graceful_end(reply, id).await?;
    reply.end();
    Ok(())
}

/// What a subscription asks of this server; `None` where it asks it nothing.
fn asked_of(federation: &Federation, body: &[u8], server: usize) -> Option<Vec<u8>> {
    let Ok(Payload::Single(scan)) = scan(body, &ScanLimits::default()) else { return None };
    let Ok(Route::Listen(asked)) = federation.route(body, &scan) else { return None };
    asked.into_iter().find(|(of, _)| *of == server).map(|(_, body)| body.into_owned())
}

/// Which changes a subscription is to, in the order of tools, prompts, resources.
fn wanted(body: &[u8]) -> [bool; 3] {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let filter = &body["params"]["notifications"];
    ["toolsListChanged", "promptsListChanged", "resourcesListChanged"].map(|flag| filter[flag] == true)
}

/// Gives servers their time to open their streams; who comes later is told of then.
async fn in_time(shard: &Rc<Shard>, opened: impl Future<Output = ()>) {
    let by = shard.core.clock.after(shard.setup().config.federation.timeout);
    let _ = shard.deadline(by, pin!(opened)).await;
}

/// Passes on what servers say until none of them will say more, or the gateway shuts down. Servers that come join in, as
/// `newcomer` asks them; those that are gone leave.
async fn pump(
    shard: &Rc<Shard>,
    merged: &Merged,
    feeders: &mut Feeders,
    newcomer: impl Fn(usize) -> Option<Inbound>,
    reply: &mut Reply,
) -> Result<(), Ended> {
    loop {
        let found = {
            let found = pin!(poll_fn(|cx| {
                if shard.is_draining() {
                    return Poll::Ready(Found::Over);
                }
                if feeders.is_outdated() {
                    return Poll::Ready(Found::Setup);
                }
                merged.poll_found(cx)
            }));
            shard.deadline(relay::comment_after(shard, reply), found).await
        };
        match found {
            Ok(Found::Events(events)) => reply.data(&events).await?,
            Ok(Found::Setup) => feeders.follow(&newcomer),
            Ok(Found::Over) => return Ok(()),
            Err(Elapsed) => reply.comment()?,
        }
    }
}

/// The tasks that feed a stream; they end with it.
struct Feeders {
    shard: Rc<Shard>,
    merged: Rc<Merged>,
    way: Way,
    /// What the tasks were started for.
    view: Rc<View>,
    /// By server.
    tasks: Vec<(usize, TaskId)>,
}

impl Feeders {
    fn new(shard: &Rc<Shard>, merged: &Rc<Merged>, view: Rc<View>, way: Way) -> Self {
        Feeders { shard: shard.clone(), merged: merged.clone(), way, view, tasks: Vec::new() }
    }

    fn start(&mut self, first: Inbound) {
        let (shard, merged, way) = (self.shard.clone(), self.merged.clone(), self.way);
        let server = first.server();
        let task = self.shard.core.tasks.spawn(move || feed(shard, merged, first, way));
        self.tasks.push((server, task));
    }

    fn is_outdated(&self) -> bool {
        !Rc::ptr_eq(&self.view, &self.shard.setup())
    }

    /// Goes on with the servers of the moment. The client is told where other lists may follow from it.
    fn follow(&mut self, newcomer: impl Fn(usize) -> Option<Inbound>) {
        let before = std::mem::replace(&mut self.view, self.shard.setup());
        let view = self.view.clone();
        let (stay, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.tasks).into_iter().partition(|(server, _)| view.is_there(*server));
        self.tasks = stay;
        for (server, task) in gone {
            self.shard.core.tasks.cancel(task);
            self.merged.on_over(server);
        }
        for server in view.federation.numbers().filter(|server| !before.is_there(*server)) {
            if let Some(first) = newcomer(server) {
                self.merged.join(server);
                self.start(first);
            }
        }
        let is_same = |server: &Arc<Server>| {
            let old = before.servers.get(usize::from(server.number));
            old.map_or(server.is_gone, |old| old.is_same_place(server))
        };
        if !view.servers.iter().all(is_same) {
            self.merged.tell_changes();
        }
    }
}

impl Drop for Feeders {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|(_, task)| self.shard.core.tasks.cancel(*task));
    }
}

/// Keeps one server's stream open.
async fn feed(shard: Rc<Shard>, merged: Rc<Merged>, first: Inbound, way: Way) {
    let server = first.server();
    let mut pause = FIRST_PAUSE;
    let mut was_away = false;
    let mut last: Option<Vec<u8>> = first.message.last_event_id().map(<[u8]>::to_vec);
    loop {
        let Ok(mut part) = part::again(&shard, &first, last.as_deref()) else { break };
        let mut reply = Reply::Federated(FederatedReply::Feed(merged.feed(server, was_away)));
        let ended = Box::pin(one(&shard, &mut part, way, &mut reply)).await;
        part.message.give_back(&shard);
        merged.on_tried(server);
        let Some(feed) = fed(&reply) else { break };
        if is_over(feed, &ended) || shard.is_draining() {
            break;
        }
        if feed.has_opened() {
            pause = FIRST_PAUSE;
            last = feed.last_event_id().map(<[u8]>::to_vec);
        }
        was_away = true;
        // Nothing comes in the pause; its end is what is waited for.
        let _ = shard.deadline(shard.core.clock.after(pause), std::future::pending::<()>()).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
    merged.on_over(server);
}

fn fed(reply: &Reply) -> Option<&Feed> {
    match reply {
        Reply::Federated(FederatedReply::Feed(feed)) => Some(feed),
        _ => None,
    }
}

/// Whether a server will not open its stream again: it has none for this client, or has ended it in good order.
fn is_over(feed: &Feed, ended: &Result<(), Ended>) -> bool {
    let refused = matches!(
        ended,
        Err(Ended::Refused(
            Refusal::SessionUnknown | Refusal::LegacyServer { .. } | Refusal::ModernServer { .. }
        ))
    );
    refused || feed.has_ended() || (!feed.has_opened() && matches!(feed.status(), 400..=499))
}
