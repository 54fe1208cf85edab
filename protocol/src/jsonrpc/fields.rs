//! Owns the keys that decide something, by the object they stand in.
//!
//! Invariant: a key is compared by its decoded value, so that an escaped spelling is the same key. All names are ASCII.

use crate::StrSpan;

/// A member that is read; each may stand once in its object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Field {
    Jsonrpc,
    Id,
    Method,
    Params,
    Result,
    Error,
    Name,
    Uri,
    Cursor,
    Arguments,
    Meta,
    InitProtocolVersion,
    InitCapabilities,
    InitClientInfo,
    RequestId,
    MetaProtocolVersion,
    MetaClientCapabilities,
    MetaClientInfo,
    ProgressToken,
    ResultProtocolVersion,
    Code,
}

/// The keys of one object.
pub(super) type Table = &'static [(&'static str, Field)];

pub(super) const TOP: Table = &[
    ("jsonrpc", Field::Jsonrpc),
    ("id", Field::Id),
    ("method", Field::Method),
    ("params", Field::Params),
    ("result", Field::Result),
    ("error", Field::Error),
];

pub(super) const PARAMS: Table = &[
    ("name", Field::Name),
    ("arguments", Field::Arguments),
    ("_meta", Field::Meta),
    ("uri", Field::Uri),
    ("cursor", Field::Cursor),
    ("protocolVersion", Field::InitProtocolVersion),
    ("capabilities", Field::InitCapabilities),
    ("clientInfo", Field::InitClientInfo),
    ("requestId", Field::RequestId),
];

pub(super) const META: Table = &[
    ("io.modelcontextprotocol/protocolVersion", Field::MetaProtocolVersion),
    ("io.modelcontextprotocol/clientCapabilities", Field::MetaClientCapabilities),
    ("io.modelcontextprotocol/clientInfo", Field::MetaClientInfo),
    ("progressToken", Field::ProgressToken),
];

pub(super) const RESULT: Table = &[("protocolVersion", Field::ResultProtocolVersion)];

pub(super) const ERROR: Table = &[("code", Field::Code)];

/// The table's entry for `key`.
#[inline]
pub(super) fn find(table: Table, bytes: &[u8], key: StrSpan) -> Option<(&'static str, Field)> {
    table.iter().find(|(name, _)| key.eq_str(bytes, name)).copied()
}
