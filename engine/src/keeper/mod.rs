//! The keeper of stdio servers' processes: a small process of its own that starts, ends and buries them. Owns their process
//! groups and that none outlives the gateway, whatever that dies of: the keeper holds one end of a socket whose other end
//! only the gateway has, and takes its end of file for the gateway's. It never sees a message: the shard made the sockets
//! that are the process's standard streams, and only their far ends pass through here.
//!
//! Why a process and not a thread: `fork` copies the page tables of all that the gateway has mapped, while its shard stands; a
//! thread that forks cannot see a shard's descriptors, and nothing in the gateway's process outlives its SIGKILL.
//! `PR_SET_PDEATHSIG` alone would not do: it is sent when a *thread* ends, and does not reach grandchildren.
//!
//! The keeper is the subreaper of all that its processes start, so even those that left their group are found when the
//! gateway ends. It is this binary, started again before there is any shard.

mod child;
mod descendants;
mod serve;
mod start;
mod wire;

pub(crate) use serve::main;
pub(crate) use start::{Keeper, ProcessPermit};
pub(crate) use wire::{Reply, Request, receive_reply, send_request};
