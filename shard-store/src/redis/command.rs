//! A command for Redis: owns what the client must know of it besides its bytes.

/// What a command does, and so whether the client may send it again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Reads: sent again once, within its deadline, when the connection broke under it.
    Read,
    /// Writes: once it may have reached the node, a failure is reported as "outcome unknown".
    Write,
}

/// Which of a node's connections a command takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The one that nearly everything takes; invalidations arrive there.
    Main,
    /// The one for writes that are followed by `WAIT`, which holds up whatever comes after it. Opened with its first use.
    Durable,
}

/// A command as the caller describes it; nothing of it is kept beyond the call.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// The `command` label of the metrics, in lower case; one of a closed set.
    pub name: &'static str,
    /// Name and arguments, as they are sent.
    pub args: &'a [&'a [u8]],
    /// The key that decides the node in a cluster; `None`: any master will do.
    pub key: Option<&'a [u8]>,
    /// What it does.
    pub effect: Effect,
}

impl<'a> Command<'a> {
    /// A command that reads.
    pub fn read(name: &'static str, key: &'a [u8], args: &'a [&'a [u8]]) -> Self {
        Command { name, args, key: Some(key), effect: Effect::Read }
    }

    /// A command that writes.
    pub fn write(name: &'static str, key: &'a [u8], args: &'a [&'a [u8]]) -> Self {
        Command { name, args, key: Some(key), effect: Effect::Write }
    }
}
