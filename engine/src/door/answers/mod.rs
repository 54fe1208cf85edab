//! Answers on doors where an answer is messages and not HTTP's head and body (WebSocket, MCPB, HTTP with SSE): owns the step
//! from the one to the other, and what such a door does in its client's place: it resumes an answer's stream and opens
//! the server's own. Where the messages go is the door's ([`Recipient`]).

mod fields;
mod held;
mod listener;
mod position;
mod reply;

use std::borrow::Cow;
use std::rc::Rc;

use mcp_protocol::jsonrpc::{Kind, Scan};

use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::conn::Gone;
pub(crate) use fields::field;
pub(crate) use held::Held;
pub(crate) use listener::Listener;
pub(crate) use position::Position;
pub(crate) use reply::{About, MessageReply};

/// Who gets the messages of one answer: a client's connection or stream.
pub(crate) trait Recipient {
    /// The longest message that it takes, in bytes.
    fn longest(&self, shard: &Shard) -> usize;

    /// The server that the exchange is with, as it is called in errors.
    fn server_name(&self, shard: &Shard) -> String;

    /// The answer's head is here; `fields` are its header lines.
    fn begin(&mut self, fields: &[u8]);

    /// # Errors
    /// [`Gone`] when the client has left.
    fn send(&self, shard: &Rc<Shard>, kind: Kind, message: &[u8]) -> Result<(), Gone>;

    /// Waits while the client is slow.
    ///
    /// # Errors
    /// [`Gone`] when it has left.
    async fn drained(&self) -> Result<(), Gone>;

    /// Sends the gateway's own error in place of the response.
    fn send_refusal(&self, shard: &Rc<Shard>, refusal: &Refusal, id: &[u8]);

    /// Learns of the response before it is sent to the request with this id, and may put another in its place.
    fn on_response<'a>(
        &mut self,
        shard: &Rc<Shard>,
        id: &[u8],
        response: Cow<'a, [u8]>,
        scan: &Scan,
    ) -> Cow<'a, [u8]>;

    /// Whether it still wants the answer to this flight, whose stream broke.
    fn is_waiting(&self, flight: u32) -> bool;

    /// The exchange is over, or goes on with another stream.
    fn on_answered(self, shard: &Rc<Shard>, ended: Ended);
}

/// How an exchange ended.
pub(crate) struct Ended {
    /// The exchange's number on its connection or stream.
    pub(crate) flight: u32,
    pub(crate) status: u16,
    /// The session that the message belonged to is no more.
    pub(crate) session_ended: bool,
    /// How far its stream came.
    pub(crate) position: Position,
    /// The stream ended before the response to this request: it goes on elsewhere.
    pub(crate) resume: Option<Resume>,
}

/// A request whose answer's stream is to be resumed.
pub(crate) struct Resume {
    pub(crate) id: Rc<[u8]>,
    /// The message's own credential.
    pub(crate) authorization: Option<Rc<str>>,
    /// Streams in a row on which no message came.
    pub(crate) tries: u32,
}
