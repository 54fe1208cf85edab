//! What the doors of frames (WebSocket, MCPB) have in common: several messages of one connection are in flight, each an
//! exchange of its own, and answers come in any order. Owns what is in flight, what must wait, what leaves at the end of
//! the turn, the server's own stream and the streams that are resumed. Never bytes on a wire: those are the doors'
//! ([`FramedDoor`]).
//!
//! Invariants: no borrow of the door is held while bytes are sent or a task is cancelled, because both may close the
//! connection; input that cannot be served yet is bounded by one read and then left to TCP; an idle connection owns no
//! buffer.

mod answered;
mod flow;
mod messages;
mod patience;
mod recipient;
mod state;

use std::rc::Rc;

use mcp_protocol::Span;
use mcp_protocol::jsonrpc::Kind;
use mcp_shard_store::id::ID_CHARS;

use super::{Door, Reply};
use crate::metrics::Protocol;
use crate::shard::Shard;
use crate::shard::conn::{Conn, Gone};
use crate::shard::tasks::TaskId;
pub(crate) use answered::Answered;
pub(crate) use flow::{
    flush, keep, on_data, on_rested, open_session, queue, rest, send_refusal, set_deadline, stop, wait,
};
pub(crate) use messages::{Message, listen, serve};
pub(crate) use patience::Due;
pub(crate) use recipient::FramedReply;
pub(crate) use state::{Framed, Session};

/// A door of frames: what differs from one to the other.
pub(crate) trait FramedDoor: Sized + 'static {
    const PROTOCOL: Protocol;

    /// What is kept of an `initialize` until it succeeds.
    type Login;

    fn of(door: &mut Door) -> Option<&mut Self>;

    fn framed(&mut self) -> &mut Framed;

    fn reply(reply: FramedReply<Self>) -> Reply;

    /// Bytes held of a message that has begun, beside [`Framed::input`]; `None` when none has.
    fn begun(&self) -> Option<usize>;

    /// Forgets what has begun; says what else is to be cancelled when the connection ends.
    fn forget(&mut self) -> Option<TaskId>;

    /// The longest message that the client is sent, in bytes.
    fn longest(shard: &Shard) -> usize;

    /// Takes frames out of the input until it is used up or must wait.
    fn advance(shard: &Rc<Shard>, conn: &Rc<Conn>, input: &[u8]);

    /// Sends a message, together with all others of this turn of the loop.
    ///
    /// # Errors
    /// [`Gone`] when the connection is closed.
    fn send(shard: &Rc<Shard>, conn: &Rc<Conn>, kind: Kind, message: &[u8]) -> Result<(), Gone>;

    /// An `initialize` has succeeded: notes its session, and says the response that the client is to get.
    fn log_in(shard: &Rc<Shard>, conn: &Rc<Conn>, login: Self::Login, opened: Opened<'_>) -> Vec<u8>;

    /// An exchange is over; `false` when the connection is, too.
    fn on_answered(shard: &Rc<Shard>, conn: &Rc<Conn>, answered: &Answered) -> bool;

    /// Closes when the connection is leaving and all is said; whether it did.
    fn close_if_done(shard: &Rc<Shard>, conn: &Rc<Conn>) -> bool;

    /// Ends the connection because the gateway holds as many unfinished bytes as it may.
    fn out_of_memory(shard: &Rc<Shard>, conn: &Rc<Conn>);
}

/// The response of a server to an `initialize` that opened a session.
pub(crate) struct Opened<'a> {
    /// The request's raw id.
    pub(crate) request: &'a [u8],
    pub(crate) response: &'a [u8],
    /// Where the response holds its result, an object.
    pub(crate) result: Span,
    pub(crate) session: [u8; ID_CHARS],
    pub(crate) revision: Rc<str>,
}

/// Runs `work` on the door of a connection of this protocol. It must neither send nor cancel.
pub(crate) fn with_door<D: FramedDoor, T: Default>(conn: &Conn, work: impl FnOnce(&mut D) -> T) -> T {
    D::of(&mut conn.door.borrow_mut()).map_or_else(T::default, work)
}

/// Runs `work` on what all doors of frames have. It must neither send nor cancel.
pub(crate) fn with_framed<D: FramedDoor, T: Default>(conn: &Conn, work: impl FnOnce(&mut Framed) -> T) -> T {
    with_door(conn, |door: &mut D| work(door.framed()))
}
