//! Owns the list of MCP revisions and what differs between them at the level of framing.

use std::fmt;

/// A published MCP revision; later ones are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Revision {
    /// 2024-11-05: HTTP+SSE.
    V2024_11_05,
    /// 2025-03-26: Streamable HTTP, batches.
    V2025_03_26,
    /// 2025-06-18: `MCP-Protocol-Version`, no batches.
    V2025_06_18,
    /// 2025-11-25: the last one with `initialize` and sessions.
    V2025_11_25,
    /// 2026-07-28: stateless.
    V2026_07_28,
}

impl Revision {
    /// All revisions, oldest first.
    pub const ALL: &[Self] =
        &[Self::V2024_11_05, Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25, Self::V2026_07_28];
    /// The revisions that begin with `initialize`.
    pub const LEGACY: &[Self] = &[Self::V2024_11_05, Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25];
    /// The stateless revisions.
    pub const MODERN: &[Self] = &[Self::V2026_07_28];

    /// The revision of this name; names are exact.
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL.iter().copied().find(|revision| revision.as_str().as_bytes() == name)
    }

    /// The revision's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// Whether requests carry their metadata themselves, without `initialize`.
    pub fn is_modern(self) -> bool {
        Self::MODERN.contains(&self)
    }

    /// Whether a message may be a JSON-RPC batch: only 2025-03-26 defines them (basic/index.mdx, "Batching").
    pub fn has_batches(self) -> bool {
        self == Self::V2025_03_26
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact_and_round_trip() {
        for &revision in Revision::ALL {
            assert_eq!(Revision::parse(revision.as_str().as_bytes()), Some(revision));
            assert_eq!(revision.to_string(), revision.as_str());
        }
        for wrong in ["", "2025-06-19", "2025-06-18 ", "DRAFT-2026-v1", "2025-6-18"] {
            assert_eq!(Revision::parse(wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    #[test]
    fn every_revision_belongs_to_one_era() {
        for &revision in Revision::ALL {
            assert_ne!(Revision::LEGACY.contains(&revision), revision.is_modern(), "{revision}");
        }
        assert!(Revision::ALL.is_sorted());
        let with_batches: Vec<_> = Revision::ALL.iter().filter(|r| r.has_batches()).collect();
        assert_eq!(with_batches, [&Revision::V2025_03_26]);
    }
}
