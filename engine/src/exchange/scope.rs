//! Which servers a message is for: owns the difference between one server alone (`/mcp/<name>`) and all of them as one
//! (`/mcp`). Never the way to any of them.

use crate::process::Process;
use crate::shard::Shard;

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One server, by its index in the configuration.
    One(u16),
    /// All servers, shown as one.
    All,
}

/// The first server.
impl Default for Scope {
    fn default() -> Self {
        Scope::One(0)
    }
}

/// What stands for all servers where a server's name is expected; no name of a server has this character.
const ALL: &str = "*";

impl Scope {
    /// What is meant where no server is named: all of them, or the only one as it is.
    pub(crate) fn unnamed(process: &Process) -> Self {
        if process.config.upstreams.len() > 1 { Scope::All } else { Scope::One(0) }
    }

    /// What it is called in errors, logs and between gateways.
    pub(crate) fn name(self, shard: &Shard) -> &str {
        match self {
            Scope::One(server) => &shard.upstreams[usize::from(server)].name,
            Scope::All => ALL,
        }
    }

    /// What another gateway calls so; `None` where this one has no such server.
    pub(crate) fn named(shard: &Shard, name: &str) -> Option<Self> {
        if name == ALL {
            return Some(Scope::All);
        }
        let server = shard.upstreams.iter().position(|upstream| *upstream.name == *name)?;
        Some(Scope::One(server as u16))
    }

    /// What the principal of a session begins with, so that one server's session is unknown to all and the other way round.
    pub(crate) fn principal_prefix(self) -> &'static str {
        match self {
            Scope::One(_) => "",
            Scope::All => "all:",
        }
    }

    /// The `server` label.
    pub(crate) fn label(self) -> Option<u16> {
        match self {
            Scope::One(server) => Some(server),
            Scope::All => None,
        }
    }
}
