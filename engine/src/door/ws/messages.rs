//! What each event of a socket means: owns the step from a text message to [`framed::serve`]. Never bytes on a wire, never
//! a socket's patience.

use std::rc::Rc;

use mcp_protocol::jsonrpc::{Kind, Payload, ScanLimits, scan};
use mcp_protocol::ws::{Event, write_pong};

use super::close::Close;
use super::{Ws, fail};
use crate::door::framed::{self, Message};
use crate::metrics::Direction;
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::conn::Conn;

/// Serves what came.
pub(super) fn serve(shard: &Rc<Shard>, conn: &Rc<Conn>, event: Event) {
    match event {
        // A client that is gone needs no answer; the connection has noticed. So it is with all that is sent here.
        Event::Ping(payload) => drop(framed::queue::<Ws>(shard, conn, |out| write_pong(out, &payload))),
        Event::Pong => {}
        Event::Close(code) => fail(shard, conn, Close::Client(code)),
        Event::Text(text) => {
            shard.metrics.ws_message(Direction::In);
            text_message(shard, conn, text);
        }
    }
}

fn text_message(shard: &Rc<Shard>, conn: &Rc<Conn>, body: Vec<u8>) {
    let (refusal, id) = match scan(&body, &ScanLimits::default()) {
        Ok(Payload::Single(scan)) => {
            let mut message = Message { body, scan, authorization: None, login: None };
            if message.scan.kind == Kind::Request && message.is("initialize") {
                message.login = Some(());
            }
            return framed::serve::<Ws>(shard, conn, message);
        }
        // One message is one text message here, in every revision.
        Ok(Payload::Batch(_)) => (Refusal::Batch, None),
        Err(failure) => (Refusal::Scan(failure.error), failure.id),
    };
    shard.metrics.refused(refusal.row().reason);
    let _ = framed::send_refusal::<Ws>(shard, conn, &refusal, id.map(|id| id.of(&body)));
}
