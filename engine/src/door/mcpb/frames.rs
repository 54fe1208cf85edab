//! What each kind of frame means: owns negotiation, health and control, and hands messages to [`framed::serve`]. Never
//! bytes on a wire, never a connection's patience.

use std::rc::Rc;

use mcp_protocol::mcpb::{
    Control, FrameError, FrameKind, HealthCheck, VersionNegotiation, write_version_ack,
};
use serde_json::{Value, json};

use super::login::INITIALIZED;
use super::request::{Read, read_request, read_response};
use super::{Mcpb, Stage, finish, send, with_door};
use crate::door::framed;
use crate::shard::Shard;
use crate::shard::conn::Conn;

/// Serves a whole frame.
///
/// # Errors
/// [`FrameError`]: the connection gets its text as an Error frame and closes.
pub(super) fn serve(
    shard: &Rc<Shard>,
    conn: &Rc<Conn>,
    kind: FrameKind,
    payload: Vec<u8>,
) -> Result<(), FrameError> {
    let stage = with_door(conn, |door| door.stage);
    match (stage, kind) {
        (_, FrameKind::HealthCheck) => health(shard, conn, &payload),
        (Stage::Fresh, FrameKind::VersionNegotiation) => negotiate(shard, conn, &payload),
        (_, FrameKind::Error) => {
            tracing::debug!(text = %String::from_utf8_lossy(&payload), "a client ended with an error");
            finish(shard, conn, false);
            Ok(())
        }
        (Stage::Open, FrameKind::Request) => request(shard, conn, payload),
        (Stage::Open, FrameKind::Response) => {
            framed::serve::<Mcpb>(shard, conn, read_response(payload)?);
            Ok(())
        }
        (Stage::Open, FrameKind::Control) => control(shard, conn, &payload),
        (Stage::Fresh, _) => {
            Err(FrameError::Unexpected { found: kind.label(), expected: "version_negotiation first" })
        }
        (Stage::Open, FrameKind::VersionNegotiation | FrameKind::VersionAck) => {
            Err(FrameError::Unexpected { found: kind.label(), expected: "request, response or control" })
        }
    }
}

fn negotiate(shard: &Rc<Shard>, conn: &Rc<Conn>, payload: &[u8]) -> Result<(), FrameError> {
    let agreed = VersionNegotiation::parse(payload)?.agree()?;
    let mut ack = Vec::new();
    write_version_ack(&mut ack, agreed);
    with_door(conn, |door| door.stage = Stage::Open);
    // A client that is gone needs no answer; the connection has noticed. So it is with all that is sent here.
    let _ = send(shard, conn, FrameKind::VersionAck, &ack);
    Ok(())
}

/// A probe, answered in kind; or the answer to ours, which needs none.
fn health(shard: &Rc<Shard>, conn: &Rc<Conn>, payload: &[u8]) -> Result<(), FrameError> {
    let is_answer = with_door(conn, |door| std::mem::take(&mut door.probe_unanswered)) && payload.is_empty();
    if is_answer || has_status(payload) {
        return Ok(());
    }
    let state = if shard.is_draining() { "draining" } else { "ok" };
    let answer = match HealthCheck::parse(payload)? {
        HealthCheck::Empty => Vec::new(),
        HealthCheck::Simple => json!({ "check": "simple", "status": state }).to_string().into_bytes(),
        HealthCheck::Detailed => json!({
            "check": "detailed",
            "status": state,
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": shard.core.clock.now() / 1000,
            "connections": shard.process.table.connections(),
            "shard": shard.index,
            "in_flight": shard.exchanges(),
            "store": match &shard.kept.link {
                None => "memory",
                Some(link) if link.is_healthy() => "ok",
                Some(_) => "degraded",
            },
        })
        .to_string()
        .into_bytes(),
    };
    let _ = send(shard, conn, FrameKind::HealthCheck, &answer);
    Ok(())
}

/// Whether a HealthCheck payload says how somebody is, rather than asking.
fn has_status(payload: &[u8]) -> bool {
    /// Longer payloads are no answers to a probe.
    const MAX_ANSWER_BYTES: usize = 4096;
    payload.len() <= MAX_ANSWER_BYTES
        && serde_json::from_slice::<Value>(payload).is_ok_and(|value| value.get("status").is_some())
}

fn control(shard: &Rc<Shard>, conn: &Rc<Conn>, payload: &[u8]) -> Result<(), FrameError> {
    let by = shard.core.clock.after(shard.setup().config.server.drain_timeout);
    match Control::parse(payload)? {
        Control::Shutdown => {
            with_door(conn, |door| {
                door.leave(by);
                door.agreed = true;
                // No other connection can go on with it: MCPB has no word for that.
                door.framed.session_is_over = true;
            });
            let _ = send(shard, conn, FrameKind::Control, Control::ShutdownAck.payload());
        }
        Control::ShutdownAck => with_door(conn, |door| {
            // One that answers nothing changes nothing.
            door.agreed |= door.framed.leaving;
        }),
    }
    Ok(())
}

fn request(shard: &Rc<Shard>, conn: &Rc<Conn>, payload: Vec<u8>) -> Result<(), FrameError> {
    match read_request(payload)? {
        Read::Message(message) => framed::serve::<Mcpb>(shard, conn, message),
        Read::Refused(refusal, id) => {
            shard.metrics.refused(refusal.row().reason);
            let _ = framed::send_refusal::<Mcpb>(shard, conn, &refusal, id.as_deref());
        }
    }
    Ok(())
}

/// Ends a bare login's handshake with the server.
pub(super) fn announce(shard: &Rc<Shard>, conn: &Rc<Conn>) {
    if let Ok(Read::Message(message)) = read_request(INITIALIZED.to_vec()) {
        framed::serve::<Mcpb>(shard, conn, message);
    }
}
