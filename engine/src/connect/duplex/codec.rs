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
    /// The gateway ends the connection, and says why.
    Refused(String),
}

/// One kind of wire.
pub(in crate::connect) trait Codec: 'static {
    /// Begins a new connection: what there was of the one before is forgotten. Appends what is said first.
    fn begin(&mut self, out: &mut Vec<u8>);

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
}
