//! RESP, the protocol of Redis (versions 2 and 3): owns reading replies and writing commands. Never IO, never what a command
//! means.
//!
//! ```text
//! scalar     type  text                                 CR LF        + - : , # _ (
//!            type  length                               CR LF
//!            bytes, as many as announced                CR LF        $ ! =
//! aggregate  type  count                                CR LF        * ~ > (count elements)  % | (count pairs)
//!            elements, each a scalar or an aggregate
//! RESP2      $-1 or *-1                                 CR LF        null
//! command    *count CR LF, and for each argument: $length CR LF bytes CR LF
//! ```

mod command;
mod error;
mod frame;
mod reader;
mod reply;
mod slot;

pub use command::write_command;
pub use error::ReadError;
pub use reader::{MAX_DEPTH, MAX_ELEMENTS, Reader};
pub use reply::Reply;
pub use slot::{SLOTS, key_slot};

#[cfg(test)]
mod tests;
