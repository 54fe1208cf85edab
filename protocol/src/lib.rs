//! The protocols of the gateway as pure functions: bytes (and, where it matters, `now`) go in, values come out.
//!
//! This crate owns no socket, no clock, no runtime and no log. It never allocates in the common path of a message:
//! what it finds are [`Span`]s, offsets into the caller's bytes.

pub mod http1;
pub mod jsonrpc;
pub mod mcp;
pub mod mcpb;
pub mod resp;
mod span;
pub mod sse;
pub mod ws;

pub use span::{Span, StrSpan};
