//! Admission by the head alone: owns paths, `Host` and `Origin` (DNS rebinding, MCP "Security Warning"), and the
//! `Accept` and `Content-Type` rules of Streamable HTTP. Never looks at a body.

use mcp_protocol::http1::{Body, MediaKind, Method, RequestHead, accepts, is_json};
use mcp_protocol::mcp::Revision;
use mcp_protocol::ws::{Upgrade, check_upgrade};

use crate::exchange::Scope;
use crate::process::Process;
use crate::respond::Refusal;
use crate::setup::Setup;
use crate::shard::Shard;

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Health,
    Ready,
    /// A CORS preflight, or a plain `OPTIONS`.
    Preflight,
    Mcp {
        verb: Verb,
        scope: Scope,
    },
    /// HTTP with SSE: a stream is opened ([`Verb::Listen`]) or a message sent for one ([`Verb::Message`]).
    Sse {
        verb: Verb,
        scope: Scope,
    },
    /// A WebSocket.
    Socket {
        scope: Scope,
        upgrade: Upgrade,
    },
}

/// What is done at an MCP endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// POST: a message.
    Message,
    /// GET: the session's stream.
    Listen,
    /// DELETE: the session ends.
    End,
}

const JSON_AND_SSE: &str = "both application/json and text/event-stream";

/// Routes a request, or says why it is refused.
///
/// # Errors
/// The first rule that it breaks.
pub(crate) fn admit(shard: &Shard, head: &RequestHead, bytes: &[u8]) -> Result<Route, Refusal> {
    let path = head.path.of(bytes);
    if path == b"/health" || path == b"/ready" {
        return match head.method {
            Method::Get | Method::Head if path == b"/health" => Ok(Route::Health),
            Method::Get | Method::Head => Ok(Route::Ready),
            _ => Err(Refusal::MethodNotAllowed { allow: "GET, HEAD" }),
        };
    }
    let setup: &Setup = &shard.setup();
    let (place, scope) = find_server(setup, path)?;
    check_host(&shard.process, setup, head, bytes)?;
    check_origin(setup, head, bytes)?;
    if place == Place::Socket {
        let upgrade = check_upgrade(head, bytes).map_err(Refusal::Upgrade)?;
        return Ok(Route::Socket { scope, upgrade });
    }
    if place == Place::Sse {
        return admit_sse(setup, head, bytes).map(|route| match route {
            Some(verb) => Route::Sse { verb, scope },
            None => Route::Preflight,
        });
    }
    let verb = match head.method {
        Method::Post => Verb::Message,
        Method::Get => Verb::Listen,
        Method::Delete => Verb::End,
        Method::Options => return Ok(Route::Preflight),
        Method::Head | Method::Put | Method::Patch | Method::Other => {
            return Err(Refusal::MethodNotAllowed { allow: "GET, POST, DELETE, OPTIONS" });
        }
    };
    match verb {
        Verb::Message => check_message(setup, head, bytes)?,
        Verb::Listen | Verb::End => check_bodiless(head, bytes, verb)?,
    }
    Ok(Route::Mcp { verb, scope })
}

/// The same for HTTP with SSE; `None` for `OPTIONS`. Its revision, 2024-11-05, says nothing of `Accept`: a missing one means
/// anything, as in all of HTTP.
fn admit_sse(setup: &Setup, head: &RequestHead, bytes: &[u8]) -> Result<Option<Verb>, Refusal> {
    match head.method {
        Method::Post => {
            check_body(setup, head, bytes)?;
            Ok(Some(Verb::Message))
        }
        Method::Get if !matches!(head.body, Body::None | Body::Length(0)) => {
            Err(Refusal::BodyTooLarge { limit: 0 })
        }
        Method::Get if head.accept.is_some() && !accepts(head, bytes, MediaKind::EventStream) => {
            Err(Refusal::NotAcceptable { wanted: "text/event-stream" })
        }
        Method::Get => Ok(Some(Verb::Listen)),
        Method::Options => Ok(None),
        Method::Delete | Method::Head | Method::Put | Method::Patch | Method::Other => {
            Err(Refusal::MethodNotAllowed { allow: "GET, POST, OPTIONS" })
        }
    }
}

/// Whether a cross-origin page may read our answers: only what is configured; the gateway's own origin needs no header.
pub(crate) fn allowed_origin<'a>(setup: &Setup, head: &RequestHead, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let origin = head.origin?.of(bytes);
    setup.config.server.allowed_origins.iter().any(|allowed| allowed.as_bytes() == origin).then_some(origin)
}

/// What is served below a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Streamable HTTP.
    Mcp,
    /// WebSocket.
    Socket,
    /// HTTP with SSE.
    Sse,
}

const PLACES: [(&[u8], Place); 3] = [(b"/mcp", Place::Mcp), (b"/ws", Place::Socket), (b"/sse", Place::Sse)];

/// What a path stands for: `/mcp`, `/ws` and `/sse` for all servers, each followed by a name for the server of that name.
fn find_server(setup: &Setup, path: &[u8]) -> Result<(Place, Scope), Refusal> {
    let found = PLACES.iter().find_map(|(prefix, place)| Some((*place, path.strip_prefix(*prefix)?)));
    let (place, name) = match found {
        Some((place, b"" | b"/")) => return Ok((place, Scope::unnamed(setup))),
        Some((place, rest)) => (place, rest.strip_prefix(b"/").ok_or(Refusal::Path)?),
        None => return Err(Refusal::Path),
    };
    let server = setup.number(name);
    server
        .map(|server| (place, Scope::One(server)))
        .ok_or_else(|| Refusal::UnknownServer { name: shown(name) })
}

fn check_host(process: &Process, setup: &Setup, head: &RequestHead, bytes: &[u8]) -> Result<(), Refusal> {
    // Only HTTP/1.0 may come without; no browser speaks it.
    let Some(host) = head.host.map(|host| host.of(bytes)) else { return Ok(()) };
    if process.is_own_host(setup, host) { Ok(()) } else { Err(Refusal::Host { host: shown(host) }) }
}

fn check_origin(setup: &Setup, head: &RequestHead, bytes: &[u8]) -> Result<(), Refusal> {
    let Some(origin) = head.origin.map(|origin| origin.of(bytes)) else { return Ok(()) };
    if allowed_origin(setup, head, bytes).is_some() {
        return Ok(());
    }
    // The gateway's own pages: same authority as the Host, which was found to be ours.
    let authority = origin.strip_prefix(b"https://").or_else(|| origin.strip_prefix(b"http://"));
    match (authority, head.host.map(|host| host.of(bytes))) {
        (Some(authority), Some(host)) if authority.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(Refusal::Origin { origin: shown(origin) }),
    }
}

fn check_message(setup: &Setup, head: &RequestHead, bytes: &[u8]) -> Result<(), Refusal> {
    check_body(setup, head, bytes)?;
    // HTTP takes a missing Accept for "anything"; MCP requires the field.
    let both = accepts(head, bytes, MediaKind::Json) && accepts(head, bytes, MediaKind::EventStream);
    if head.accept.is_none() || !both {
        return Err(Refusal::NotAcceptable { wanted: JSON_AND_SSE });
    }
    Ok(())
}

fn check_body(setup: &Setup, head: &RequestHead, bytes: &[u8]) -> Result<(), Refusal> {
    let identity =
        head.content_encoding.is_none_or(|coding| coding.of(bytes).eq_ignore_ascii_case(b"identity"));
    if !identity {
        return Err(Refusal::ContentEncoding);
    }
    if !head.content_type.is_some_and(|kind| is_json(kind.of(bytes))) {
        return Err(Refusal::MediaType);
    }
    let limit = setup.config.server.max_body_bytes;
    match head.body {
        Body::Length(length) if length > limit as u64 => Err(Refusal::BodyTooLarge { limit }),
        Body::None | Body::Length(_) | Body::Chunked => Ok(()),
    }
}

fn check_bodiless(head: &RequestHead, bytes: &[u8], verb: Verb) -> Result<(), Refusal> {
    // 2026-07-28, "Earlier Streamable HTTP Revisions": no GET, no DELETE.
    let modern = head
        .protocol_version
        .and_then(|version| Revision::parse(version.of(bytes)))
        .is_some_and(Revision::is_modern);
    if modern {
        return Err(Refusal::MethodNotAllowed { allow: "POST" });
    }
    if !matches!(head.body, Body::None | Body::Length(0)) {
        return Err(Refusal::BodyTooLarge { limit: 0 });
    }
    let wants_events = head.accept.is_some() && accepts(head, bytes, MediaKind::EventStream);
    if verb == Verb::Listen && !wants_events {
        return Err(Refusal::NotAcceptable { wanted: "text/event-stream" });
    }
    Ok(())
}

/// A peer's bytes for a message: bounded and readable.
fn shown(bytes: &[u8]) -> String {
    const SHOWN_BYTES: usize = 100;
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]).into_owned()
}
