//! The seam between messages and a wire: owns what a codec must do. A codec is sans-IO: bytes go in, values come out.

use crate::connect::message::{Fault, Message};

/// What a wire brings.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::connect) enum Event {
    /// The connection may be used.
    Open,
    /// A message of the server's.
    Message(Vec<u8>),
    /// The gateway takes no more requests on this connection.
    Leaving,
    /// The gateway ends the connection in order: the next one may do as well.
    Ended(String),
    /// The gateway ends the connection in order and has answered all that it took from it.
    Restarting(String),
    /// The gateway ends the connection because of something that was sent on it, or has no room.
    Refused(String),
    /// The gateway does not want this client, however often it comes.
    Denied(String),
    /// The session that the connection was to go on with has ended.
    SessionEnded,
}

/// One kind of wire.
pub(in crate::connect) trait Codec: 'static {
    /// Begins a new connection: what there was of the one before is forgotten. Appends what is said first.
    fn begin(&mut self, token: Option<&str>, out: &mut Vec<u8>);

    /// Whether a message can be carried at all.
    ///
    /// # Errors
    /// Why not.
    fn check(&self, message: &Message) -> Result<(), Fault>;

    /// Appends a message that was checked.
    ///
    /// # Errors
    /// Why it cannot be sent; nothing was appended.
    fn encode(&mut self, message: &Message, token: Option<&str>, out: &mut Vec<u8>) -> Result<(), Fault>;

    /// Takes the next event off the input's start; `None` when more is needed. What the wire itself wants answered is
    /// appended to `out`.
    ///
    /// # Errors
    /// The input breaks the wire's rules; the connection ends.
    fn decode(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<Option<Event>, String>;

    /// Appends the goodbye by which the session ends with the connection; nothing is sent after it.
    ///
    /// # Errors
    /// Why it cannot be said.
    fn part(&mut self, out: &mut Vec<u8>) -> Result<(), String>;

    /// Whether the open connection goes on with the session of the one before: then no handshake is needed.
    fn is_resumed(&self) -> bool {
        false
    }

    /// Learns from the answer to `initialize` how to go on with the session.
    fn learn(&mut self, _initialized: &[u8]) {}

    /// The session has ended.
    fn forget_session(&mut self) {}
}
