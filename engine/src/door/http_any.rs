//! What the doors of HTTP share, whatever its version: owns the gateway's own whole answers (health, preflight, refusals) as
//! status, header lines and body, the CORS lines, and the step from an admitted request to an exchange's inbound. Never
//! framing, never a connection.

use std::io::Write;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use mcp_protocol::Span;

use crate::exchange::{HttpHead, Inbound, Message, Origin, Scope};
use crate::policy::admission::Verb;
use crate::policy::overload;
use crate::respond::Refusal;
use crate::shard::Shard;

/// What a page may send when its preflight does not say what it wants to.
const DEFAULT_ALLOWED_HEADERS: &[u8] =
    b"Accept, Authorization, Content-Type, Last-Event-ID, MCP-Protocol-Version, \
    Mcp-Method, Mcp-Name, Mcp-Session-Id";

/// An answer of the gateway's own.
pub(crate) struct Whole {
    pub(crate) status: u16,
    /// Header lines, each with its CR LF.
    pub(crate) fields: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// A refusal; `id` is the request's raw id.
pub(crate) fn refusal(refusal: &Refusal, id: Option<&[u8]>) -> Whole {
    let row = refusal.row();
    let mut fields = b"Content-Type: application/json\r\n".to_vec();
    // Writing to a Vec cannot fail.
    if row.retryable {
        let _ = write!(fields, "Retry-After: {}\r\n", refusal.retry_after_s());
    }
    if let Refusal::MethodNotAllowed { allow } = refusal {
        let _ = write!(fields, "Allow: {allow}\r\n");
    }
    if let Refusal::Upgrade(error) = refusal {
        fields.extend_from_slice(error.fields());
    }
    let mut body = Vec::new();
    refusal.write_json(id, &mut body);
    Whole { status: row.status, fields, body }
}

/// `/health` and `/ready`.
pub(crate) fn health(shard: &Shard, ready: bool) -> Whole {
    let draining = shard.is_draining() || shard.process.leaving.load(Ordering::Acquire);
    let serving = shard.process.serving.load(Ordering::Acquire);
    // As this shard sees it; the next probe may reach another one.
    let degraded = shard.kept.link.as_ref().is_some_and(|link| !link.is_healthy());
    let setup = shard.setup();
    let (down, of) = setup.servers_down(shard.core.clock.now());
    let (status, state) = match (ready, draining, serving) {
        (true, true, _) => (503, "draining"),
        (true, false, false) => (503, "starting"),
        (true, false, true) if down.len() == of => (503, "unavailable"),
        (true, false, true) if degraded || !down.is_empty() => (200, "degraded"),
        (true, false, true) => (200, "ready"),
        (false, _, _) => (200, "ok"),
    };
    let mut parts = if ready && degraded { "\"degraded\":[\"store\"],".to_owned() } else { String::new() };
    if ready && !down.is_empty() {
        // Names of servers need no escaping.
        parts += &format!("\"unavailable\":[\"{}\"],", down.join("\",\""));
    }
    let body = format!(
        "{{\"status\":\"{state}\",{parts}\"version\":\"{}\",\"uptime_seconds\":{}}}\n",
        env!("CARGO_PKG_VERSION"),
        shard.core.clock.now() / 1000,
    );
    let fields = b"Content-Type: application/json\r\nCache-Control: no-store\r\n".to_vec();
    Whole { status, fields, body: body.into_bytes() }
}

/// The answer to `OPTIONS`. `asked` is `Access-Control-Request-Headers`: a page that is `allowed` may send what it asks to
/// send, since `Mcp-Param-*` names are the servers' own.
pub(crate) fn preflight(allowed: bool, asked: Option<&[u8]>) -> Whole {
    let mut fields = b"Allow: GET, POST, DELETE, OPTIONS\r\n".to_vec();
    if allowed {
        fields.extend_from_slice(
            b"Access-Control-Allow-Methods: GET, POST, DELETE\r\nAccess-Control-Max-Age: 7200\r\n\
              Access-Control-Allow-Headers: ",
        );
        fields.extend_from_slice(asked.unwrap_or(DEFAULT_ALLOWED_HEADERS));
        fields.extend_from_slice(b"\r\n");
    }
    Whole { status: 204, fields, body: Vec::new() }
}

/// Writes the lines that let an allowed page read the answer.
pub(crate) fn write_cors(out: &mut Vec<u8>, origin: &[u8]) {
    out.extend_from_slice(b"Access-Control-Allow-Origin: ");
    out.extend_from_slice(origin);
    out.extend_from_slice(
        b"\r\nVary: Origin\r\nAccess-Control-Expose-Headers: Mcp-Session-Id, MCP-Protocol-Version, \
          WWW-Authenticate, Retry-After\r\n",
    );
}

/// Why a request cannot be served in time, with the id for the answer. Counted.
pub(crate) fn overloaded(shard: &Shard, verb: Verb, body: &[u8]) -> Option<(Refusal, Option<Span>)> {
    if verb != Verb::Message {
        return None;
    }
    let why = shard.overload.refuses()?;
    let id = overload::refusable(body)?;
    let refusal = Refusal::Overloaded { why };
    shard.metrics.refused(refusal.row().reason);
    Some((refusal, id))
}

/// Makes an admitted request an exchange's own.
pub(crate) fn inbound(
    shard: &Rc<Shard>,
    peer: IpAddr,
    (verb, scope): (Verb, Scope),
    http: HttpHead,
    body: Vec<u8>,
) -> Inbound {
    // A subscription has no end of its own: clients that listen must not keep those that call from being served.
    let endless = verb != Verb::Message
        || http.head.mcp_method.is_some_and(|method| method.of(&http.bytes) == b"subscriptions/listen");
    let place = (!endless).then(|| shard.overload.enter());
    Inbound { verb, scope, peer, message: Message { origin: Origin::Http(http), body }, place }
}
