//! WebSocket (RFC 6455), the server's side: owns the upgrade's rules, the way from bytes to whole messages, and the frames
//! that go back. Never a socket, never patience.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-------+-+-------------+-------------------------------+
//! |F|R|R|R| opcode|M| length (7)  | length (16 or 64), when 126,  |
//! |I|S|S|S|  (4)  |A|             | 127                           |
//! |N|V|V|V|       |S|             +-------------------------------+
//! | |1|2|3|       |K|             | masking key (32), when MASK   |
//! +-+-+-+-+-------+-+-------------+-------------------------------+
//! | payload                                                       |
//! +---------------------------------------------------------------+
//! ```
//!
//! Frame heads are read and written by `tungstenite`. Messages are put together here, because their memory is the
//! caller's, which counts it, and grows with what has arrived, not with what a head announces.

mod error;
mod reader;
mod upgrade;
mod writer;

pub use error::FrameError;
pub use reader::{Event, Reader};
pub use upgrade::{SUBPROTOCOL, Upgrade, UpgradeError, VERSION, accept_of, check_upgrade, write_switch};
pub use writer::{write_close, write_ping, write_pong, write_text};

/// The most bytes of a control frame's payload (RFC 6455, section 5.5).
pub const MAX_CONTROL_BYTES: usize = 125;
