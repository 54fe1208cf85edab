//! Why a socket ends: owns the close frame's code and text, and the metric's label, of every reason there is. `docs/` has
//! the same table for clients.

use mcp_protocol::ws::FrameError;

/// The code by which a client says that it is done: its session ends with the socket. From the range that is an application's
/// own (RFC 6455, section 7.4.2), because 1000, with which many libraries end every socket, says nothing of the session.
pub(crate) const SESSION_OVER: u16 = 4000;

/// A reason to close.
#[derive(Clone, Copy, Debug)]
pub(super) enum Close {
    /// The client said goodbye, with this code; it gets it back.
    Client(Option<u16>),
    /// The client broke the protocol or a limit of messages.
    Frame(FrameError),
    /// A message that had begun did not arrive in time.
    Stalled,
    /// The session has ended; the client must open another one.
    SessionEnded,
    /// A ping got no answer, nor did anything else come.
    Silent,
    /// The socket has no session, and nothing was asked on it for long.
    Idle,
    /// The gateway holds as many unfinished bytes as it may.
    Memory,
    /// The gateway is shutting down.
    Draining,
}

impl Close {
    /// The code (RFC 6455, section 7.4.1, and its registry).
    pub(super) fn code(self) -> Option<u16> {
        match self {
            Close::Client(code) => code,
            Close::Frame(error) => Some(error.close_code()),
            Close::Stalled | Close::SessionEnded => Some(1008),
            Close::Silent | Close::Idle => Some(1001),
            Close::Memory => Some(1013),
            Close::Draining => Some(1012),
        }
    }

    /// The sentence for whoever reads the client's log.
    pub(super) fn text(self) -> String {
        match self {
            Close::Client(_) => String::new(),
            Close::Frame(error) => error.to_string(),
            Close::Stalled => "the message did not arrive in time".into(),
            Close::SessionEnded => "the session has ended".into(),
            Close::Silent => "the ping was not answered".into(),
            Close::Idle => "nothing was asked for long".into(),
            Close::Memory => "the gateway holds as many unfinished messages as it may".into(),
            Close::Draining => "shutting down".into(),
        }
    }

    /// The `reason` label.
    pub(super) fn label(self) -> &'static str {
        match self {
            Close::Client(_) => "client",
            Close::Frame(error) => error.label(),
            Close::Stalled => "stalled",
            Close::SessionEnded => "session_ended",
            Close::Silent => "silent",
            Close::Idle => "idle",
            Close::Memory => "memory",
            Close::Draining => "draining",
        }
    }
}
