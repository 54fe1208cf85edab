//! The Redis client: one per shard, all commands of a turn in one write per node, replies matched in order. Owns
//! connections, topology and what happens to a command when either changes; it knows nothing of sessions.
//!
//! A [`Command`] goes through [`Client::call`]: the topology names the node, the node's connection appends it to what
//! leaves at the end of the turn, and the reader gives each reply to whoever waits for it.

mod bell;
mod breaker;
mod client;
mod cluster;
mod command;
mod commands;
mod connection;
mod kept;
mod layout;
mod link;
mod login;
mod node;
mod pause;
mod pipeline;
mod replicated;
mod router;
mod scout;
mod sentinel;
mod settings;
mod slots;
mod sources;
mod waiters;
mod watch;

pub use client::{Client, Events, Health, Origin};
pub use command::{Command, Effect, Lane};
pub use commands::Commands;
pub use settings::{Auth, Settings, Topology};

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
