//! Owns MCPB version 1, the binary protocol: frames and the JSON payloads that the gateway itself reads or writes.
//!
//! It never looks into Request and Response payloads; those are JSON-RPC. The layout, all integers big-endian:
//!
//! ```text
//!  0               4       6       8              12
//! +---------------+-------+-------+---------------+- - - - - - -+
//! | 4D 43 50 42   | 00 01 | type  | payload length|   payload   |
//! | magic "MCPB"  | vers. |       | 0..10,485,760 |             |
//! +---------------+-------+-------+---------------+- - - - - - -+
//! ```

mod error;
mod frame;
mod payload;

pub use error::FrameError;
pub use frame::{FrameHeader, FrameKind, HEADER_LEN, MAX_PAYLOAD, VERSION, parse_header, write_frame};
pub use payload::{
    AuthWrapper, Control, HealthCheck, MAX_TOKEN_LEN, VersionNegotiation, is_valid_method, login_token,
    parse_version_ack, write_version_ack,
};
