//! The legacy era (2025-03-26 to 2025-11-25): owns the session rules of Streamable HTTP. The session id that a client sees
//! is the gateway's own; the server's stays in the record. Never bytes on a wire.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use mcp_protocol::Span;
use mcp_protocol::http1::Method;
use mcp_protocol::jsonrpc::{Kind, Scan};
use mcp_protocol::mcp::{self, Revision};
use mcp_shard_store::error::Change;
use mcp_shard_store::record::Client;
use mcp_shard_store::{Binding, Owner, Record, SessionId, SessionStore, StoreError};

use super::eras;
use super::forward::{self, Again, Request, Sent, Target};
use super::relay::{self, Opening};
use super::{Ended, Inbound, Message, Scope, cached, federation, identify, limit};
use crate::door::Reply;
use crate::metrics::AuthFailure;
use crate::respond::Refusal;
use crate::shard::tasks::{Stay, is_left};
use crate::shard::{Elapsed, Shard};
use crate::upstream::{Endpoint, Upstream, duplex};

/// How long a server may take to hear that a session has ended; the client is answered all the same.
const END_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of what a client says of itself in either member of `initialize`; what is longer is not kept.
const MAX_CLIENT_BYTES: usize = 4 << 10;

/// A session that a message belongs to.
struct Attached {
    id: SessionId,
    record: Rc<Record>,
    /// Where the record holds the session's part at the server that the message is for.
    place: usize,
}

impl Attached {
    fn binding(&self) -> &Binding {
        &self.record.upstreams[self.place]
    }

    fn target<'a>(&'a self, upstream: &'a Upstream, endpoint: &'a Rc<Endpoint>) -> Target<'a> {
        let Binding { session, owner, .. } = self.binding();
        Target { upstream, endpoint, session: session.as_deref(), owner: owner.as_deref() }
    }
}

/// A single message.
pub(super) async fn message(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    scan: &Scan,
    reply: &mut Reply,
) -> Result<(), Ended> {
    check_revision(&inbound.message)?;
    let is_initialize = scan.kind == Kind::Request
        && scan.method.is_some_and(|method| method.eq_str(&inbound.message.body, "initialize"));
    if is_initialize && inbound.message.session_id().is_none() {
        return initialize(shard, inbound, scan, None, reply).await;
    }
    let attached = attach(shard, inbound).await?;
    if is_initialize && attached.record.owner.is_some() && attached.record.revision.is_none() {
        return initialize(shard, inbound, scan, Some(&attached), reply).await;
    }
    let request_id = scan.id.filter(|_| scan.kind == Kind::Request).map(|id| id.of(&inbound.message.body));
    let ask = async |reply: &mut Reply| {
        let again = again(scan, &inbound.message.body);
        let opening = Opening {
            expects_answer: scan.kind == Kind::Request,
            listens: false,
            lists_tools: lists_tools(scan, &inbound.message.body),
            session: None,
        };
        in_session(shard, inbound, &attached, again, opening, request_id, reply).await
    };
    if let Some(list) = cached::asked(scan, &inbound.message.body) {
        let upstream = &shard.upstream(inbound.server());
        return Box::pin(cached::list(shard, inbound, upstream, (list, scan, false), reply, ask)).await;
    }
    ask(reply).await
}

/// A batch: only revision 2025-03-26 has them (transports.mdx, "Sending Messages to the Server").
pub(super) async fn batch(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    batch: &[Scan],
    reply: &mut Reply,
) -> Result<(), Ended> {
    check_revision(&inbound.message)?;
    let is_modern =
        inbound.message.protocol_version().and_then(Revision::parse).is_some_and(Revision::is_modern);
    if is_modern || batch.iter().any(|scan| scan.meta_protocol_version.is_some()) {
        return Err(Refusal::Batch.into());
    }
    if batch
        .iter()
        .any(|scan| scan.method.is_some_and(|method| method.eq_str(&inbound.message.body, "initialize")))
    {
        return Err(Refusal::BatchedInitialize.into());
    }
    let attached = attach(shard, inbound).await?;
    let has_batches =
        attached.record.revision.as_deref().and_then(|revision| Revision::parse(revision.as_bytes()));
    if !has_batches.is_some_and(Revision::has_batches) {
        return Err(Refusal::Batch.into());
    }
    let expects_answer = batch.iter().any(|scan| scan.kind == Kind::Request);
    let harmless = batch.iter().all(|scan| matches!(again(scan, &inbound.message.body), Again::Harmless));
    let again = if harmless { Again::Harmless } else { Again::Never };
    let opening = Opening { expects_answer, listens: false, lists_tools: false, session: None };
    in_session(shard, inbound, &attached, again, opening, None, reply).await
}

/// GET: the session's stream, or one that is resumed by `Last-Event-ID`.
pub(super) async fn listen(shard: &Rc<Shard>, inbound: &Inbound, reply: &mut Reply) -> Result<(), Ended> {
    check_revision(&inbound.message)?;
    let attached = attach(shard, inbound).await?;
    let (upstream, endpoint) = locate(shard, inbound, &attached)?;
    let target = attached.target(&upstream, &endpoint);
    let request = request(Method::Get, inbound, Again::Harmless);
    let sent = forward::to_endpoint(shard, &request, &target).await?;
    let sent = check_alive(shard, &attached, sent).await?;
    relay::answer(
        shard,
        &upstream,
        sent,
        Opening { expects_answer: false, listens: true, lists_tools: false, session: None },
        None,
        reply,
    )
    .await
}

/// A session that a connection goes on with.
pub(crate) struct Resumed {
    pub(crate) id: SessionId,
    pub(crate) revision: Option<Box<str>>,
}

/// Finds the session that a connection names at its start.
///
/// # Errors
/// [`Refusal::SessionUnknown`] for one that is not known, not the client's own or not this server's; the store's; and
/// [`Refusal::RateLimited`], because looking is a request like others.
pub(crate) async fn resume(shard: &Rc<Shard>, inbound: &Inbound) -> Result<Resumed, Refusal> {
    limit::check(shard, inbound, 1).await?;
    let (id, record) = match inbound.scope {
        Scope::One(_) => {
            let attached = attach(shard, inbound).await?;
            (attached.id, attached.record)
        }
        Scope::All => federation::find(shard, inbound).await?,
    };
    Ok(Resumed { id, revision: record.revision.clone() })
}

/// Uses a session, which extends its life, and says whether it still is one. A store that does not answer is no reason to
/// take it for ended.
pub(crate) async fn is_session_alive(shard: &Rc<Shard>, id: &[u8]) -> bool {
    let Some(id) = SessionId::parse(id) else { return false };
    let found = in_time(shard, Change::None, shard.kept.sessions.get(&id, shard.core.clock.now())).await;
    if let Ok(Some(record)) = &found {
        federation::use_parts(shard, record).await;
    }
    shard.want_housekeeping();
    !matches!(found, Ok(None))
}

/// Uses a session, which extends its life.
pub(super) async fn use_session(shard: &Rc<Shard>, id: &SessionId) {
    // Whether it is there shows when it is needed.
    let _ = in_time(shard, Change::None, shard.kept.sessions.get(id, shard.core.clock.now())).await;
}

/// Opens the session of a stream, before its client says `initialize`.
///
/// # Errors
/// The sender sends too much; the store's.
pub(crate) async fn open_stream(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    owner: Owner,
) -> Result<SessionId, Refusal> {
    super::limit::check(shard, inbound, 1).await?;
    let binding = |server| Binding { server, endpoint: "".into(), session: None, owner: None };
    let record = Record {
        principal: principal(shard, inbound),
        client: None,
        created_unix_ms: shard.core.clock.unix_ms(),
        upstreams: inbound.scope.label().map(binding).into_iter().collect(),
        revision: None,
        owner: Some(Box::new(owner)),
    };
    open_session(shard, None, record).await
}

/// Finds the owner of the stream that a message is for.
///
/// # Errors
/// [`Refusal::SessionUnknown`] for a session that is not known, not the sender's own or no stream's; the store's.
pub(crate) async fn find_stream(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    id: &SessionId,
) -> Result<Owner, Refusal> {
    let record = find(shard, inbound, id).await?;
    record.owner.as_deref().cloned().ok_or(Refusal::SessionUnknown)
}

/// Ends a session here at once, and at the server as well as it allows, for a client that waits for no answer: its stream
/// or its connection is over.
pub(crate) async fn end_unasked(shard: &Rc<Shard>, inbound: &Inbound) {
    if inbound.scope == Scope::All {
        return Box::pin(federation::end_unasked(shard, inbound)).await;
    }
    match attach(shard, inbound).await {
        Ok(attached) => {
            drop_session(shard, &attached.id).await;
            if let Ok((upstream, endpoint)) = locate(shard, inbound, &attached) {
                tell_end(shard, inbound, &attached.target(&upstream, &endpoint)).await;
            }
        }
        // It has ended before.
        Err(Refusal::SessionUnknown) => {}
        Err(refusal) => shard.metrics.refused(refusal.row().reason),
    }
}

/// Ends a session whose owner is no more. Where the store does not learn of it, it ends by its time to live.
pub(crate) async fn drop_session(shard: &Rc<Shard>, id: &SessionId) {
    if let Err(refusal) = settle_session(shard, id, None).await {
        shard.metrics.refused(refusal.row().reason);
    }
}

/// DELETE: the session ends here at once, and at the server as well as it allows.
pub(super) async fn end(shard: &Rc<Shard>, inbound: &Inbound, reply: &mut Reply) -> Result<(), Ended> {
    check_revision(&inbound.message)?;
    let attached = attach(shard, inbound).await?;
    let (upstream, endpoint) = locate(shard, inbound, &attached)?;
    let ended =
        in_time(shard, Change::Unknown, shard.kept.sessions.delete(&attached.id, shard.core.clock.now()))
            .await?;
    if !ended {
        return Err(Refusal::SessionUnknown.into());
    }
    tell_end(shard, inbound, &attached.target(&upstream, &endpoint)).await;
    reply.full(200, b"", b"");
    Ok(())
}

/// `initialize`: the server that answers holds the session, and the client gets an id of ours; that of a stream has one
/// already.
async fn initialize(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    scan: &Scan,
    stream: Option<&Attached>,
    reply: &mut Reply,
) -> Result<(), Ended> {
    if shard.is_draining() {
        return Err(Refusal::Draining.into());
    }
    let upstream = &shard.upstream(inbound.server());
    let requested = scan.init_protocol_version.map(|version| version.decode(&inbound.message.body));
    let requested: Box<str> = requested.unwrap_or_default().into();
    eras::check_legacy(shard, upstream, &requested)?;
    let request = request(Method::Post, inbound, Again::Harmless);
    // So that a session that the server opens for a client that has left can be ended.
    shard.core.tasks.set_stay(Stay::OnceSent);
    let sent = forward::to_any(shard, &request, upstream).await?;
    shard.core.tasks.sent();
    let (answer, endpoint) = (&sent.answer, sent.trial.endpoint().clone());
    let session: Option<Box<[u8]>> = answer.session_id().map(Into::into);
    let owner = duplex::owner(shard, &endpoint);
    let binding = Binding {
        server: inbound.server() as u16,
        endpoint: endpoint.label.clone(),
        session: session.clone(),
        owner: owner.clone().map(Box::new),
    };
    let record = Record {
        principal: principal(shard, inbound),
        client: client(scan, &inbound.message.body),
        created_unix_ms: shard.core.clock.unix_ms(),
        upstreams: [binding].into(),
        revision: None,
        owner: stream.and_then(|stream| stream.record.owner.clone()),
    };
    let new = NewSession { of_stream: stream.map(|stream| stream.id), requested, record };
    let opening = Opening { expects_answer: true, listens: false, lists_tools: false, session: Some(new) };
    let request_id = scan.id.map(|id| id.of(&inbound.message.body));
    let outcome = relay::answer(shard, upstream, sent, opening, request_id, reply).await;
    if let Err(Ended::Unclaimed | Ended::Refused(Refusal::Store(_))) = outcome {
        // The client never learns of the session that the server opened.
        let target =
            Target { upstream, endpoint: &endpoint, session: session.as_deref(), owner: owner.as_ref() };
        tell_end(shard, inbound, &target).await;
    }
    outcome
}

/// What the client says of itself, as far as it is to be kept.
pub(super) fn client(scan: &Scan, body: &[u8]) -> Option<Box<Client>> {
    let text = |span: Option<Span>| -> Box<str> {
        let raw = span.map(|span| span.of(body)).filter(|raw| raw.len() <= MAX_CLIENT_BYTES);
        raw.and_then(|raw| std::str::from_utf8(raw).ok()).unwrap_or_default().into()
    };
    let client = Client { info: text(scan.init_client_info), capabilities: text(scan.init_capabilities) };
    (!client.info.is_empty() || !client.capabilities.is_empty()).then(|| Box::new(client))
}

/// Tells the server that one of its sessions has ended, where there is one.
async fn tell_end(shard: &Rc<Shard>, inbound: &Inbound, target: &Target<'_>) {
    if target.session.is_none() {
        return;
    }
    let server = &*target.upstream.name;
    let request = request(Method::Delete, inbound, Again::Never);
    let told = pin!(forward::to_endpoint(shard, &request, target));
    match shard.deadline(shard.core.clock.after(END_DEADLINE), told).await {
        Ok(Ok(mut sent)) => sent.trial.passed(),
        Ok(Err(refusal)) => {
            let why = refusal.row().reason;
            tracing::debug!(why, server, "a server did not hear of a session's end");
        }
        Err(Elapsed) => tracing::debug!(server, "a server did not hear of a session's end in time"),
    }
}

async fn in_session(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    attached: &Attached,
    again: Again<'_>,
    opening: Opening,
    request_id: Option<&[u8]>,
    reply: &mut Reply,
) -> Result<(), Ended> {
    let (upstream, endpoint) = locate(shard, inbound, attached)?;
    let target = attached.target(&upstream, &endpoint);
    // A broken connection is no cancellation (transports.mdx, "Sending Messages to the Server"): what the server has got is
    // let finish, so that the client can resume it.
    shard.core.tasks.set_stay(Stay::OnceSent);
    let sent = forward::to_endpoint(shard, &request(Method::Post, inbound, again), &target).await?;
    shard.core.tasks.sent();
    let sent = check_alive(shard, attached, sent).await?;
    relay::answer(shard, &upstream, sent, opening, request_id, reply).await
}

/// A session's id is the client's claim; it must be known, the client's own, and this server's.
async fn attach(shard: &Rc<Shard>, inbound: &Inbound) -> Result<Attached, Refusal> {
    let text = inbound.message.session_id().ok_or(Refusal::SessionRequired)?;
    let id = SessionId::parse(text).ok_or(Refusal::SessionUnknown)?;
    let record = find(shard, inbound, &id).await?;
    if record.owner.is_some() != inbound.message.is_of_stream() {
        return Err(Refusal::SessionUnknown);
    }
    let server = inbound.server() as u16;
    let place = record.upstreams.iter().position(|binding| binding.server == server);
    let place = place.ok_or(Refusal::SessionUnknown)?;
    Ok(Attached { id, record, place })
}

/// Whom a session of the sender's belongs to.
pub(super) fn principal(shard: &Shard, inbound: &Inbound) -> Box<str> {
    let prefix = inbound.scope.principal_prefix();
    identify::with_principal(shard, &inbound.message, |principal| [prefix, principal].concat().into())
}

/// The session of this id, when it is the sender's own.
async fn find(shard: &Rc<Shard>, inbound: &Inbound, id: &SessionId) -> Result<Rc<Record>, Refusal> {
    find_in(shard, &inbound.message, inbound.scope, id).await
}

/// The session of this id, when it is the sender's own, and with one server or with all.
pub(super) async fn find_in(
    shard: &Rc<Shard>,
    message: &Message,
    scope: Scope,
    id: &SessionId,
) -> Result<Rc<Record>, Refusal> {
    let record = in_time(shard, Change::None, shard.kept.sessions.get(id, shard.core.clock.now()))
        .await?
        .ok_or(Refusal::SessionUnknown)?;
    shard.want_housekeeping();
    let owner = record.principal.strip_prefix(scope.principal_prefix()).ok_or(Refusal::SessionUnknown)?;
    if !identify::with_principal(shard, message, |principal| principal == owner) {
        shard.metrics.auth_failed(AuthFailure::Session);
        return Err(Refusal::SessionUnknown);
    }
    Ok(record)
}

fn locate(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    attached: &Attached,
) -> Result<(Rc<Upstream>, Rc<Endpoint>), Refusal> {
    let upstream = shard.upstream(inbound.server());
    let endpoint = upstream.endpoint(shard, &attached.binding().endpoint).ok_or(Refusal::SessionUnknown)?;
    Ok((upstream, endpoint))
}

/// A server that no longer knows the session says 404: then it has ended here, too.
async fn check_alive(shard: &Rc<Shard>, attached: &Attached, mut sent: Sent) -> Result<Sent, Refusal> {
    if sent.answer.status() == 404 && attached.binding().session.is_some() {
        sent.trial.passed();
        // Where the store does not learn of it, the session's next message comes here again.
        if let Err(refusal) = settle_session(shard, &attached.id, None).await {
            shard.metrics.refused(refusal.row().reason);
        }
        return Err(Refusal::SessionUnknown);
    }
    Ok(sent)
}

/// What `initialize` opens when it succeeds.
pub(super) struct NewSession {
    /// A stream's session is there before `initialize`, and stays when that fails.
    pub(super) of_stream: Option<SessionId>,
    /// The revision that the client asked for.
    pub(super) requested: Box<str>,
    pub(super) record: Record,
}

/// Keeps what a client that is still there has opened; says its id.
pub(super) async fn open_claimed(
    shard: &Rc<Shard>,
    of_stream: Option<SessionId>,
    record: Record,
) -> Result<SessionId, Ended> {
    if is_left() {
        return Err(Ended::Unclaimed);
    }
    let id = open_session(shard, of_stream, record).await?;
    if is_left() {
        drop_session(shard, &id).await;
        return Err(Ended::Unclaimed);
    }
    Ok(id)
}

/// Keeps a new session; says its id.
async fn open_session(
    shard: &Rc<Shard>,
    of_stream: Option<SessionId>,
    record: Record,
) -> Result<SessionId, Refusal> {
    if let Some(id) = of_stream {
        let now = shard.core.clock.now();
        let is_there = in_time(shard, Change::Unknown, shard.kept.sessions.update(&id, record, now)).await?;
        return if is_there { Ok(id) } else { Err(Refusal::SessionUnknown) };
    }
    let id =
        in_time(shard, Change::Unknown, shard.kept.sessions.create(record, shard.core.clock.now())).await?;
    shard.want_housekeeping();
    Ok(id)
}

/// Notes what `initialize` agreed on, or ends the session that it did not open after all.
pub(super) async fn settle_session(
    shard: &Rc<Shard>,
    id: &SessionId,
    record: Option<Record>,
) -> Result<(), Refusal> {
    let now = shard.core.clock.now();
    match record {
        Some(record) => in_time(shard, Change::Unknown, shard.kept.sessions.update(id, record, now)).await?,
        None => in_time(shard, Change::Unknown, shard.kept.sessions.delete(id, now)).await?,
    };
    Ok(())
}

/// The store's own deadlines are earlier; this is for an answer that got lost between shards. `change` is what such a
/// question may have brought about.
async fn in_time<T>(
    shard: &Rc<Shard>,
    change: Change,
    question: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, Refusal> {
    let by = shard.core.clock.after(shard.kept.sessions.patience());
    match shard.deadline(by, pin!(question)).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Refusal::Store(error)),
        Err(Elapsed) => Err(Refusal::Store(StoreError::Timeout(change))),
    }
}

/// `MCP-Protocol-Version`, where it is sent, must name a revision that has sessions (transports.mdx, "Protocol Version
/// Header").
pub(super) fn check_revision(message: &Message) -> Result<(), Refusal> {
    let Some(requested) = message.protocol_version() else { return Ok(()) };
    match Revision::parse(requested) {
        Some(_) => Ok(()),
        None => Err(Refusal::Revision { requested: String::from_utf8_lossy(requested).into_owned() }),
    }
}

fn request<'a>(verb: Method, inbound: &'a Inbound, again: Again<'a>) -> Request<'a> {
    Request { verb, message: &inbound.message, peer: inbound.peer, again }
}

/// Whether a message may be sent again when nobody knows what became of it.
pub(super) fn again<'a>(scan: &'a Scan, body: &[u8]) -> Again<'a> {
    match scan.method {
        Some(_) if scan.kind != Kind::Request => Again::Never,
        Some(method) if method.eq_str(body, "tools/call") => Again::Tool(scan),
        Some(method) if mcp::is_repeatable(&method.decode(body)) => Again::Harmless,
        Some(_) | None => Again::Never,
    }
}

pub(super) fn lists_tools(scan: &Scan, body: &[u8]) -> bool {
    scan.method.is_some_and(|method| method.eq_str(body, "tools/list"))
}
