//! The MCP revisions and header names that both ends of this tool speak.
//!
//! Words only: no state, no IO, no rule of routing.

/// A revision of the Model Context Protocol over Streamable HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revision {
    /// 2025-03-26: sessions, no version header.
    V2025_03_26,
    /// 2025-06-18: sessions and the version header.
    V2025_06_18,
    /// 2025-11-25: sessions and the version header.
    V2025_11_25,
    /// 2026-07-28: stateless, metadata with every request.
    V2026_07_28,
}

impl Revision {
    /// All, oldest first.
    pub const ALL: [Self; 4] = [Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25, Self::V2026_07_28];

    /// The revision's name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The revision with this name.
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.name().as_bytes() == name)
    }

    /// Stateless, with metadata in every request (2026-07-28, basic/versioning).
    pub const fn is_modern(self) -> bool {
        matches!(self, Self::V2026_07_28)
    }

    /// Requests after `initialize` carry `MCP-Protocol-Version` (since 2025-06-18, basic/transports).
    pub const fn has_version_header(self) -> bool {
        !matches!(self, Self::V2025_03_26)
    }
}

/// The member of `_meta` that names the revision of a modern request.
pub const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// The member of `_meta` that names the client's software.
pub const META_CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
/// The member of `_meta` that lists the client's capabilities.
pub const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
