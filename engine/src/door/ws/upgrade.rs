//! From HTTP/1.1 to a socket: owns what is decided before `101 Switching Protocols` beyond the head's own rules: whether
//! there is room, and whether the session that the client comes back to is there.

use std::rc::Rc;

use mcp_protocol::ws::{Upgrade, write_switch};

use super::{Ws, open};
use crate::door::framed::{Framed, Session};
use crate::door::reply::Http1Reply;
use crate::door::{self, Door, http1};
use crate::exchange::{self, HttpHead, Inbound, Message, Origin, Resumed, Scope};
use crate::metrics::Protocol;
use crate::policy::admission::Verb;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::conn::Conn;

/// What the request's head asked for.
pub(crate) struct Target {
    pub(crate) scope: Scope,
    pub(crate) upgrade: Upgrade,
}

/// Answers the request: the connection is a socket then, or still one of HTTP.
pub(crate) async fn upgrade(
    shard: Rc<Shard>,
    conn: Rc<Conn>,
    http: HttpHead,
    target: Target,
    mut reply: Http1Reply,
) {
    let authorization = http.head.authorization.map(|span| span.of(&http.bytes));
    let authorization = authorization.and_then(|value| std::str::from_utf8(value).ok()).map(Rc::from);
    let message = Message { origin: Origin::Http(http), body: Vec::new() };
    let inbound = Inbound { verb: Verb::Listen, scope: target.scope, peer: conn.peer, message, place: None };
    let session = admit(&shard, &inbound).await;
    inbound.message.give_back(&shard);
    match session {
        Ok(session) => {
            if answer(&shard, &conn, &target.upgrade, session.as_ref()) {
                let input = http1::take_input(&conn);
                let mut framed = Framed { scope: target.scope, authorization, session, ..Framed::default() };
                framed.patience.on_heard(shard.core.clock.after(shard.setup().config.server.read_timeout));
                let ws = Ws { framed, ..Ws::default() };
                conn.turn_to(&shard, Protocol::Ws, Door::Ws(Box::new(ws)));
                open(&shard, &conn, &input);
            }
        }
        Err(refusal) => {
            shard.metrics.refused(refusal.row().reason);
            reply.refuse(&refusal, None);
            reply.done().await;
        }
    }
}

/// The session that the socket goes on with, where the client names one.
async fn admit(shard: &Rc<Shard>, inbound: &Inbound) -> Result<Option<Session>, Refusal> {
    door::check_room(shard)?;
    let Origin::Http(http) = &inbound.message.origin else { return Ok(None) };
    if http.head.session_id.is_none() {
        return Ok(None);
    }
    let Resumed { id, revision } = exchange::resume(shard, inbound).await?;
    Ok(Some(Session { id: id.text(), revision: revision.map(Rc::from), authorization: None }))
}

/// Sends the head; `false` when the client is gone.
fn answer(shard: &Rc<Shard>, conn: &Rc<Conn>, upgrade: &Upgrade, session: Option<&Session>) -> bool {
    let mut fields = Vec::new();
    if let Some(session) = session {
        fields.extend_from_slice(b"Mcp-Session-Id: ");
        fields.extend_from_slice(&session.id);
        fields.extend_from_slice(b"\r\n");
    }
    shard.with_scratch(|head| {
        write_switch(head, upgrade, &fields);
        conn.send(shard, &[head]).is_ok()
    })
}
