//! RESP, the protocol of Redis (versions 2 and 3): owns reading replies and writing commands. Never IO, never what a command
//! means.

mod reply;

pub use reply::Reply;
