//! What a wait brings: owns the one shape that both connection drivers give their news. It never touches a descriptor.

use rustix::io::Errno;

use super::token::Token;

/// Events taken per wait.
pub(crate) const EVENTS_PER_WAIT: usize = 512;

pub(crate) struct Event {
    pub(crate) token: Token,
    pub(crate) what: What,
}

pub(crate) enum What {
    /// The descriptor can be used without blocking.
    Ready(Ready),
    /// The ring has sent, in whole or in part, or could not.
    Sent(Sent),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) input: bool,
    pub(crate) output: bool,
    /// The peer hung up or the socket failed: reading never blocks again.
    pub(crate) hangup: bool,
    /// No more events of this kind come unless they are asked for again (the ring alone).
    pub(crate) last: bool,
}

/// One completion of a send. The buffer comes back with it.
pub(crate) struct Sent {
    pub(crate) buffer: Vec<u8>,
    /// Where in the buffer this send had begun.
    pub(crate) from: usize,
    /// How many bytes the socket took.
    pub(crate) result: Result<usize, Errno>,
}
