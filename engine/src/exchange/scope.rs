//! Which servers a message is for: owns the difference between one server alone (`/mcp/<name>`) and all of them as one
//! (`/mcp`). Never the way to any of them.

use std::rc::Rc;

use crate::setup::Setup;
use crate::shard::Shard;

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One server, by its number.
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
    pub(crate) fn unnamed(setup: &Setup) -> Self {
        let mut present = setup.present();
        match (present.next(), present.next()) {
            (Some(only), None) => Scope::One(only.number),
            _ => Scope::All,
        }
    }

    /// Whether the server was taken off.
    pub(crate) fn is_gone(self, shard: &Shard) -> bool {
        match self {
            Scope::One(server) => shard.upstream(server.into()).server().is_gone,
            Scope::All => false,
        }
    }

    /// What it is called in errors, logs and between gateways.
    pub(crate) fn name(self, shard: &Shard) -> Rc<str> {
        match self {
            Scope::One(server) => shard.upstream(usize::from(server)).name.clone(),
            Scope::All => ALL.into(),
        }
    }

    /// What another gateway calls so; `None` where this one has no such server.
    pub(crate) fn named(shard: &Shard, name: &str) -> Option<Self> {
        if name == ALL {
            return Some(Scope::All);
        }
        shard.setup().number(name.as_bytes()).map(Scope::One)
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
