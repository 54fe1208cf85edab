//! A message's part for one server: owns the copy that this server gets, in which what mirrors the body and what is the
//! server's own (names, the session, the position in a stream) is its own again. Never where it goes.

use std::cell::OnceCell;
use std::rc::Rc;

use mcp_protocol::Span;
use mcp_protocol::http1::{HeadLimits, parse_request_into};
use mcp_protocol::jsonrpc::{Payload, ScanLimits, scan};
use mcp_protocol::mcp::{decode_value, encode_value};
use mcp_shard_store::id::ID_CHARS;

use crate::exchange::{FrameOrigin, HttpHead, Inbound, Message, Origin, Scope};
use crate::metrics::Protocol;
use crate::policy::admission::Verb;
use crate::respond::Refusal;
use crate::shard::Shard;

/// Lines of a head: those that doors allow, and one of ours.
const MAX_HEADERS: usize = 101;

/// What is a server's own in its part of a message.
#[derive(Default)]
struct Own<'a> {
    name: Option<&'a [u8]>,
    last_event_id: Option<&'a [u8]>,
    /// The part begins a session.
    is_first: bool,
}

/// The part of a message whose body is `body` at this server.
///
/// # Errors
/// Where the head cannot be read again, which would be a mistake of ours.
pub(super) fn message(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    server: usize,
    body: Vec<u8>,
) -> Result<Inbound, Refusal> {
    let scan = match scan(&body, &ScanLimits::default()) {
        Ok(Payload::Single(scan)) => Some(scan),
        Ok(Payload::Batch(_)) | Err(_) => None,
    };
    let name = scan.and_then(|scan| scan.name.or(scan.uri)).map(|name| name.decode(&body).into_owned());
    let name =
        name.or_else(|| mirrored(shard, inbound)).map(|name| encode_value(name.as_bytes()).into_owned());
    let is_first = scan.and_then(|scan| scan.method).is_some_and(|method| method.eq_str(&body, "initialize"));
    copy(shard, inbound, server, body, &Own { name: name.as_deref(), last_event_id: None, is_first })
}

/// The server's own name for what `Mcp-Name` names, where that is neither `params.name` nor `params.uri`: a task.
fn mirrored(shard: &Shard, inbound: &Inbound) -> Option<String> {
    let Origin::Http(http) = &inbound.message.origin else { return None };
    let value = decode_value(http.head.mcp_name?.of(&http.bytes)).ok()?;
    let (_, own) = shard.setup().federation.split_name(std::str::from_utf8(&value).ok()?)?;
    Some(own.to_owned())
}

/// The same message for each of these servers.
///
/// # Errors
/// As of [`message`].
pub(super) fn for_each(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    servers: impl IntoIterator<Item = usize>,
) -> Result<Vec<(usize, Inbound)>, Refusal> {
    servers
        .into_iter()
        .map(|server| Ok((server, message(shard, inbound, server, inbound.message.body.clone())?)))
        .collect()
}

/// The stream of one server, from after this event on; `None` from now on.
///
/// # Errors
/// As of [`message`].
pub(super) fn stream(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    server: usize,
    last_event_id: Option<&[u8]>,
) -> Result<Inbound, Refusal> {
    let mut part = copy(shard, inbound, server, Vec::new(), &Own { last_event_id, ..Own::default() })?;
    part.verb = Verb::Listen;
    Ok(part)
}

/// A part once more, from after this event on.
///
/// # Errors
/// As of [`message`].
pub(super) fn again(
    shard: &Rc<Shard>,
    part: &Inbound,
    last_event_id: Option<&[u8]>,
) -> Result<Inbound, Refusal> {
    let own = Own { last_event_id, ..Own::default() };
    copy(shard, part, part.server(), part.message.body.clone(), &own)
}

/// Puts a part into a session of its server's, whose revision is this.
pub(super) fn enter(part: &mut Inbound, session: [u8; ID_CHARS], revision: Option<&str>) {
    match &mut part.message.origin {
        Origin::Http(http) => {
            put(&mut http.bytes, http.head.session_id, &session);
            put(&mut http.bytes, http.head.protocol_version, revision.unwrap_or_default().as_bytes());
        }
        Origin::Frame(frame) => {
            frame.session = Some(session);
            frame.revision = revision.map(Rc::from);
        }
    }
}

/// Writes a value over another one of the same length; ids and revisions are all of one length each.
fn put(bytes: &mut [u8], at: Option<Span>, value: &[u8]) {
    let place = at.and_then(|at| bytes.get_mut(at.start as usize..at.end as usize));
    if let Some(place) = place.filter(|place| place.len() == value.len()) {
        place.copy_from_slice(value);
    }
}

fn copy(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    server: usize,
    body: Vec<u8>,
    own: &Own<'_>,
) -> Result<Inbound, Refusal> {
    let origin = match &inbound.message.origin {
        Origin::Http(http) => Origin::Http(head(shard, http, own)?),
        Origin::Frame(frame) => Origin::Frame(Box::new(FrameOrigin {
            // A server's session is nobody's stream, whatever door the client's is at.
            protocol: Protocol::Http1,
            scan: None,
            session: frame.session.filter(|_| !own.is_first),
            revision: frame.revision.clone(),
            authorization: frame.authorization.clone(),
            last_event_id: own.last_event_id.map(Rc::from),
            fields: frame.fields.clone(),
            mirrored: OnceCell::new(),
        })),
    };
    let message = Message { origin, body };
    let scope = Scope::One(server as u16);
    Ok(Inbound { verb: inbound.verb, scope, peer: inbound.peer, message, place: None })
}

/// A head in which the fields that a server has its own values of have these.
fn head(shard: &Shard, http: &HttpHead, own: &Own<'_>) -> Result<HttpHead, Refusal> {
    let end = http.head.head_len.saturating_sub(2) as u32;
    let position = own.last_event_id.map(|id| [b"Last-Event-ID: ", id, b"\r\n"].concat());
    let mut changes: Vec<(Span, &[u8])> = Vec::new();
    changes.extend(http.head.mcp_name.zip(own.name));
    changes.extend(http.head.last_event_id.map(|span| (line_of(&http.bytes, span), &b""[..])));
    changes.extend(
        http.head.session_id.filter(|_| own.is_first).map(|span| (line_of(&http.bytes, span), &b""[..])),
    );
    changes.extend(position.as_deref().map(|line| (Span { start: end, end }, line)));
    changes.sort_by_key(|(span, _)| span.start);
    let mut bytes = shard.take_buffer();
    let mut from = 0;
    for (span, value) in changes {
        bytes.extend_from_slice(http.bytes.get(from..span.start as usize).unwrap_or_default());
        bytes.extend_from_slice(value);
        from = span.end as usize;
    }
    bytes.extend_from_slice(http.bytes.get(from..).unwrap_or_default());
    let mut head = shard.request_heads.take().unwrap_or_default();
    let limits = HeadLimits { max_bytes: bytes.len() + 1, max_headers: MAX_HEADERS };
    match parse_request_into(&mut head, &bytes, &limits) {
        Ok(true) => Ok(HttpHead { bytes, head, protocol: http.protocol }),
        Ok(false) => Err(Refusal::HeaderTimeout),
        Err(error) => Err(Refusal::Head(error)),
    }
}

/// The whole line that a field's value stands in, its end included.
fn line_of(bytes: &[u8], value: Span) -> Span {
    let (start, end) = (value.start as usize, value.end as usize);
    let before = bytes.get(..start).unwrap_or_default();
    let after = bytes.get(end..).unwrap_or_default();
    let start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
    let end = memchr::memchr(b'\n', after).map_or(bytes.len(), |at| end + at + 1);
    Span { start: start as u32, end: end as u32 }
}
