//! Sessions with all servers (2025-03-26 to 2025-11-25): owns the client's session, which holds one ordinary session of ours
//! for each server, opened when the client says `initialize` or, where the server was missing then, when it is first needed.
//! What one server's session is and does is `exchange::legacy`'s.
//!
//! Invariants: the record of such a session names servers' sessions that the client never sees; its principal begins with
//! `all:`, so that its id is unknown at any single server, as a server's session is here.

use std::rc::Rc;

use mcp_protocol::jsonrpc::Scan;
use mcp_protocol::mcp::Revision;
use mcp_shard_store::id::ID_CHARS;
use mcp_shard_store::{Binding, Record, SessionId};

use super::gather::{Outcome, gather};
use super::{Way, part};
use crate::door::Reply;
use crate::exchange::legacy;
use crate::exchange::{Ended, Inbound, Scope};
use crate::policy::admission::Verb;
use crate::respond::Refusal;
use crate::setup::Setup;
use crate::shard::Shard;

/// What the gateway says of a client that said nothing that could be kept.
const UNKNOWN_CLIENT: &str =
    concat!(r#"{"name":"mcp-gateway","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);

/// A session that `initialize` opens.
pub(super) struct Opening {
    /// A stream's session is there before `initialize`.
    of_stream: Option<SessionId>,
    record: Record,
}

impl Opening {
    pub(super) async fn begin(shard: &Rc<Shard>, inbound: &Inbound, scan: &Scan) -> Result<Self, Refusal> {
        if shard.is_draining() {
            return Err(Refusal::Draining);
        }
        let stream = match inbound.message.session_id() {
            None => None,
            Some(_) => Some(find(shard, inbound).await?),
        };
        // Of a session that is there, only a stream's that has only just begun can be opened.
        let of_stream = match &stream {
            Some((_, record)) if record.owner.is_none() || record.revision.is_some() => {
                return Err(Refusal::SessionUnknown);
            }
            Some((id, _)) => Some(*id),
            None => None,
        };
        let record = Record {
            principal: legacy::principal(shard, inbound),
            client: legacy::client(scan, &inbound.message.body),
            created_unix_ms: shard.core.clock.unix_ms(),
            upstreams: Box::default(),
            revision: None,
            owner: stream.and_then(|(_, record)| record.owner.clone()),
        };
        Ok(Opening { of_stream, record })
    }

    pub(super) async fn finish(
        self,
        shard: &Rc<Shard>,
        sessions: Box<[Binding]>,
        revision: Revision,
    ) -> Result<SessionId, Ended> {
        let revision = Some(revision.as_str().into());
        let record = Record { upstreams: sessions, revision, ..self.record };
        legacy::open_claimed(shard, self.of_stream, record).await
    }
}

/// The sessions that servers' answers to `initialize` opened.
pub(super) fn sessions(outcomes: &[(usize, Outcome)]) -> Box<[Binding]> {
    let opened = outcomes.iter().filter_map(|(server, outcome)| match outcome {
        Outcome::Said { session: Some(session), .. } => Some(binding(*server, session)),
        Outcome::Said { .. } | Outcome::Answered { .. } | Outcome::Refused(_) | Outcome::Silent => None,
    });
    opened.collect()
}

fn binding(server: usize, session: &[u8]) -> Binding {
    Binding { server: server as u16, endpoint: "".into(), session: Some(session.into()), owner: None }
}

/// Checks that a message belongs to a session of its sender's, and uses one of the session's parts, so that servers that are
/// seldom asked keep theirs as long as the client keeps its own.
pub(super) async fn check(shard: &Rc<Shard>, inbound: &Inbound) -> Result<Rc<Record>, Refusal> {
    let (_, record) = find(shard, inbound).await?;
    let turn = shard.core.clock.now() as usize;
    let part = record.upstreams.get(turn % record.upstreams.len().max(1));
    if let Some(id) = part.and_then(session_of) {
        legacy::use_session(shard, &id).await;
    }
    Ok(record)
}

/// The servers at which a session is open, but for those that are gone.
pub(super) fn servers(setup: &Setup, record: &Record) -> Vec<usize> {
    let open = record.upstreams.iter().map(|binding| usize::from(binding.server));
    open.filter(|server| setup.is_there(*server)).collect()
}

/// Uses the sessions at servers that one with all servers holds, where it is one.
pub(in crate::exchange) async fn use_parts(shard: &Rc<Shard>, record: &Record) {
    if record.principal.starts_with(Scope::All.principal_prefix()) {
        for id in record.upstreams.iter().filter_map(session_of) {
            legacy::use_session(shard, &id).await;
        }
    }
}

/// The client's session.
pub(in crate::exchange) async fn find(
    shard: &Rc<Shard>,
    inbound: &Inbound,
) -> Result<(SessionId, Rc<Record>), Refusal> {
    legacy::check_revision(&inbound.message)?;
    let id = named(inbound)?;
    let record = legacy::find_in(shard, &inbound.message, Scope::All, &id).await?;
    if record.owner.is_some() != inbound.message.is_of_stream() {
        return Err(Refusal::SessionUnknown);
    }
    Ok((id, record))
}

/// A part goes to its server in the session that the client's session has there; where there is none, or the server does not
/// know it any more, one is opened.
pub(super) async fn message(
    shard: &Rc<Shard>,
    part: &mut Inbound,
    scan: Option<&Scan>,
    reply: &mut Reply,
) -> Result<(), Ended> {
    let id = named(part)?;
    let session = bound(shard, part, &id, None).await?;
    part::enter(part, session.id, session.revision.as_deref());
    match hand_on(shard, part, scan, reply).await {
        Err(Ended::Refused(Refusal::SessionUnknown)) => {
            let session = bound(shard, part, &id, Some(&session.id)).await?;
            part::enter(part, session.id, session.revision.as_deref());
            hand_on(shard, part, scan, reply).await
        }
        outcome => outcome,
    }
}

/// DELETE: the session ends here at once, and at each server as well as it allows.
pub(in crate::exchange) async fn end(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    reply: &mut Reply,
) -> Result<(), Ended> {
    let (id, record) = find(shard, inbound).await?;
    legacy::settle_session(shard, &id, None).await?;
    end_parts(shard, inbound, &record).await?;
    reply.full(200, b"", b"");
    Ok(())
}

/// The same for a client that waits for no answer: its stream or its connection is over.
pub(in crate::exchange) async fn end_unasked(shard: &Rc<Shard>, inbound: &Inbound) {
    let ended = async {
        let (id, record) = find(shard, inbound).await?;
        legacy::settle_session(shard, &id, None).await?;
        end_parts(shard, inbound, &record).await
    };
    match ended.await {
        // It has ended before.
        Ok(()) | Err(Refusal::SessionUnknown) => {}
        Err(refusal) => shard.metrics.refused(refusal.row().reason),
    }
}

async fn end_parts(shard: &Rc<Shard>, inbound: &Inbound, record: &Record) -> Result<(), Refusal> {
    let mut parts = Vec::new();
    for binding in &record.upstreams {
        let Some(session) = session_of(binding) else { continue };
        let server = usize::from(binding.server);
        if !shard.setup().is_there(server) {
            legacy::drop_session(shard, &session).await;
            continue;
        }
        let mut part = part::message(shard, inbound, server, Vec::new())?;
        part.verb = Verb::End;
        part::enter(&mut part, session.text(), None);
        parts.push((server, part));
    }
    // A server that does not hear of it ends the session by itself.
    gather(shard, parts, Way::Entered).await;
    Ok(())
}

/// The ordinary way of a message to one server.
pub(super) async fn hand_on(
    shard: &Rc<Shard>,
    part: &Inbound,
    scan: Option<&Scan>,
    reply: &mut Reply,
) -> Result<(), Ended> {
    match (part.verb, scan) {
        (Verb::Message, Some(scan)) => legacy::message(shard, part, scan, reply).await,
        (Verb::Listen, _) => legacy::listen(shard, part, reply).await,
        (Verb::End | Verb::Message, _) => legacy::end(shard, part, reply).await,
    }
}

/// A session at one server.
struct Bound {
    id: [u8; ID_CHARS],
    revision: Option<Box<str>>,
}

/// The session that the client's has at the part's server; it is opened where there is none, or only the `lost` one.
async fn bound(
    shard: &Rc<Shard>,
    part: &Inbound,
    id: &SessionId,
    lost: Option<&[u8; ID_CHARS]>,
) -> Result<Bound, Refusal> {
    let record = legacy::find_in(shard, &part.message, Scope::All, id).await?;
    if let Some(bound) = alive(shard, part, &record, lost).await? {
        return Ok(bound);
    }
    let opened = open(shard, part, &record).await?;
    // Another message may have opened one meanwhile: the first one counts.
    let record = legacy::find_in(shard, &part.message, Scope::All, id).await?;
    if let Some(bound) = alive(shard, part, &record, lost).await? {
        legacy::drop_session(shard, &opened).await;
        return Ok(bound);
    }
    let server = part.server();
    let others = record.upstreams.iter().filter(|binding| usize::from(binding.server) != server).cloned();
    let upstreams = others.chain([binding(server, &opened.text())]).collect();
    legacy::settle_session(shard, id, Some(Record { upstreams, ..(*record).clone() })).await?;
    let revision = legacy::find_in(shard, &part.message, part.scope, &opened).await?.revision.clone();
    Ok(Bound { id: opened.text(), revision })
}

/// The session that a record names for the part's server, while it is there.
async fn alive(
    shard: &Rc<Shard>,
    part: &Inbound,
    record: &Record,
    lost: Option<&[u8; ID_CHARS]>,
) -> Result<Option<Bound>, Refusal> {
    let binding = record.upstreams.iter().find(|binding| usize::from(binding.server) == part.server());
    let session = binding.and_then(session_of).filter(|session| lost != Some(&session.text()));
    let Some(session) = session else { return Ok(None) };
    match legacy::find_in(shard, &part.message, part.scope, &session).await {
        Ok(record) => Ok(Some(Bound { id: session.text(), revision: record.revision.clone() })),
        Err(Refusal::SessionUnknown) => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

fn session_of(binding: &Binding) -> Option<SessionId> {
    SessionId::parse(binding.session.as_deref()?)
}

/// Opens a session at the part's server with what the client said of itself.
async fn open(shard: &Rc<Shard>, part: &Inbound, record: &Record) -> Result<SessionId, Refusal> {
    let server = part.server();
    let text = |text: Option<&str>, unknown: &'static str| match text {
        Some(text) if !text.is_empty() => text.to_owned(),
        Some(_) | None => unknown.to_owned(),
    };
    let client = record.client.as_deref();
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":"mcp-gateway-initialize","method":"initialize","params":{{"protocolVersion":"{}","capabilities":{},"clientInfo":{}}}}}"#,
        record.revision.as_deref().unwrap_or(Revision::V2025_11_25.as_str()),
        text(client.map(|client| &*client.capabilities), "{}"),
        text(client.map(|client| &*client.info), UNKNOWN_CLIENT),
    );
    let first = message_of(shard, part, body)?;
    let outcome = gather(shard, vec![(server, first)], Way::Entered).await.pop().map(|(_, outcome)| outcome);
    let opened = match outcome {
        Some(Outcome::Said { session: Some(session), .. }) => SessionId::parse(&session),
        Some(Outcome::Refused(refusal)) => return Err(refusal),
        Some(Outcome::Silent) => {
            return Err(Refusal::UpstreamTimeout { server: shard.upstream(server).name.to_string() });
        }
        Some(Outcome::Said { .. } | Outcome::Answered { .. }) | None => None,
    };
    let opened = opened.ok_or_else(|| Refusal::UpstreamMalformed {
        server: shard.upstream(server).name.to_string(),
        what: "no session",
    })?;
    let body = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned();
    let mut second = message_of(shard, part, body)?;
    let revision = legacy::find_in(shard, &part.message, part.scope, &opened).await?.revision.clone();
    part::enter(&mut second, opened.text(), revision.as_deref());
    // A server that does not take it says so when it is asked something.
    gather(shard, vec![(server, second)], Way::Entered).await;
    Ok(opened)
}

/// Another message to the part's server.
fn message_of(shard: &Rc<Shard>, part: &Inbound, body: String) -> Result<Inbound, Refusal> {
    let mut message = part::message(shard, part, part.server(), body.into_bytes())?;
    message.verb = Verb::Message;
    Ok(message)
}

/// The session that a message names.
fn named(inbound: &Inbound) -> Result<SessionId, Refusal> {
    let text = inbound.message.session_id().ok_or(Refusal::SessionRequired)?;
    SessionId::parse(text).ok_or(Refusal::SessionUnknown)
}
