//! The words of the keys that take one of several names, used for reading and for printing alike.
//!
//! Owns nothing else.

use crate::types::{
    Balance, Discovery, Driver, HealthKind, HttpVersion, Level, LogFormat, RateKey, StdioMode, Store,
    TlsVersion, WhenStoreDown,
};

pub(crate) const TLS_VERSIONS: &[(&str, TlsVersion)] =
    &[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)];

pub(crate) const DRIVERS: &[(&str, Driver)] =
    &[("auto", Driver::Auto), ("io_uring", Driver::IoUring), ("epoll", Driver::Epoll)];

pub(crate) const STORES: &[(&str, Store)] =
    &[("auto", Store::Auto), ("memory", Store::Memory), ("redis", Store::Redis)];

pub(crate) const WHEN_STORE_DOWN: &[(&str, WhenStoreDown)] =
    &[("keep", WhenStoreDown::Keep), ("refuse", WhenStoreDown::Refuse)];

pub(crate) const RATE_KEYS: &[(&str, RateKey)] =
    &[("principal", RateKey::Principal), ("address", RateKey::Address)];

pub(crate) const LEVELS: &[(&str, Level)] = &[
    ("error", Level::Error),
    ("warn", Level::Warn),
    ("info", Level::Info),
    ("debug", Level::Debug),
    ("trace", Level::Trace),
];

pub(crate) const LOG_FORMATS: &[(&str, LogFormat)] = &[("json", LogFormat::Json), ("text", LogFormat::Text)];

pub(crate) const HEALTH_KINDS: &[(&str, HealthKind)] = &[
    ("none", HealthKind::None),
    ("tcp", HealthKind::Tcp),
    ("http", HealthKind::Http),
    ("mcp", HealthKind::Mcp),
];

pub(crate) const BALANCES: &[(&str, Balance)] = &[
    ("round-robin", Balance::RoundRobin),
    ("least-in-flight", Balance::LeastInFlight),
    ("two-choices", Balance::TwoChoices),
];

pub(crate) const DISCOVERIES: &[(&str, Discovery)] =
    &[("name", Discovery::Name), ("addresses", Discovery::Addresses), ("srv", Discovery::Srv)];

pub(crate) const HTTP_VERSIONS: &[(&str, HttpVersion)] =
    &[("1.1", HttpVersion::V1_1), ("2", HttpVersion::V2), ("auto", HttpVersion::Auto)];

/// The transports of an upstream, without what belongs to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransportName {
    StreamableHttp,
    Sse,
    WebSocket,
    Stdio,
}

pub(crate) const TRANSPORTS: &[(&str, TransportName)] = &[
    ("streamable-http", TransportName::StreamableHttp),
    ("sse", TransportName::Sse),
    ("websocket", TransportName::WebSocket),
    ("stdio", TransportName::Stdio),
];

pub(crate) const STDIO_MODES: &[(&str, StdioMode)] =
    &[("per-session", StdioMode::PerSession), ("shared", StdioMode::Shared)];

/// The word for `value`; every table above lists all values of its type.
pub(crate) fn word<T: PartialEq>(value: &T, words: &[(&'static str, T)]) -> &'static str {
    words.iter().find(|(_, listed)| listed == value).map_or("", |(word, _)| word)
}
