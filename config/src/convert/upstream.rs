//! `[[servers]]` from the file's shape to the runtime's.
//!
//! Owns the rules between a server's keys: which of them its transport takes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{health, stdio};
use crate::address;
use crate::limits::{MAX_ADDRESSES, TIMEOUT_MS};
use crate::names::{BALANCES, DISCOVERIES, HTTP_VERSIONS, TRANSPORTS, TransportName};
use crate::reader::Reader;
use crate::types::{Endpoint, Reach, Transport, Upstream, UpstreamTls};

/// Longest name of an upstream, in bytes; it is a path segment and a metric label.
const MAX_NAME_BYTES: usize = 63;

/// Names that `/mcp/<name>` keeps for the gateway itself.
const RESERVED_NAMES: [&str; 8] = ["admin", "all", "gateway", "health", "mcp", "metrics", "ready", "status"];

pub(super) fn upstreams(reader: &mut Reader<'_>, servers: usize) -> Vec<Upstream> {
    let mut first_with_name = BTreeMap::new();
    let mut upstreams = Vec::with_capacity(servers);
    for index in 0..servers {
        let table = format!("servers[{index}]");
        if !reader.has_section(&table) {
            reader.refuse(&table, "set: servers are numbered from 0 without a gap");
            continue;
        }
        let upstream = upstream(reader, &table);
        let name_key = format!("{table}.name");
        if !reader.failed(&name_key)
            && let Some(first) = first_with_name.insert(upstream.name.clone(), index)
        {
            reader.refuse(&name_key, format!("another name than that of servers[{first}]"));
        }
        let clashing = upstreams.iter().position(|other: &Upstream| clash(&other.name, &upstream.name));
        if !reader.failed(&name_key)
            && let Some(other) = clashing
        {
            let name = &upstreams[other].name;
            reader.refuse(
                &name_key,
                format!(
                    "a name that cannot be mixed up with {name:?} (servers[{other}]): with \"__\" behind both, neither may \
                     begin with the other"
                ),
            );
        }
        upstreams.push(upstream);
    }
    upstreams
}

/// Whether a tool of the one server could be called as one of the other where all are shown as one: `a__b__c` would be
/// `b__c` of `a` and `c` of `a__b`.
fn clash(one: &str, other: &str) -> bool {
    let (one, other) = (format!("{one}__"), format!("{other}__"));
    one != other && (one.starts_with(&other) || other.starts_with(&one))
}

fn upstream(reader: &mut Reader<'_>, table: &str) -> Upstream {
    let name_key = format!("{table}.name");
    let name_allowed = format!(
        "a lower-case name [a-z0-9][a-z0-9_-]*, at most {MAX_NAME_BYTES} characters, none of {}",
        RESERVED_NAMES.join(", ")
    );
    reader.require(&name_key, &name_allowed);
    Upstream {
        name: reader.read(
            &name_key,
            String::new(),
            || name_allowed,
            |raw| raw.text().filter(|name| is_upstream_name(name)).map(str::to_owned),
        ),
        transport: transport(reader, table),
        timeout: reader.duration(&format!("{table}.timeout"), Upstream::DEFAULT_TIMEOUT, &TIMEOUT_MS),
        reach: reach(reader, table),
        health: health::health(reader, table),
    }
}

fn transport(reader: &mut Reader<'_>, table: &str) -> Transport {
    let key = |name: &str| format!("{table}.{name}");
    let name = reader.choice(&key("transport"), TransportName::StreamableHttp, TRANSPORTS);
    let schemes = match name {
        TransportName::StreamableHttp | TransportName::Sse => &address::HTTP,
        TransportName::WebSocket => &address::WEBSOCKET,
        TransportName::Stdio => return Transport::Stdio(stdio::stdio(reader, table)),
    };
    let (plain, tls) = (schemes.plain, schemes.tls);
    let item =
        format!("a URL such as \"{plain}://127.0.0.1:3001/mcp\" or \"{tls}://…\", without user and fragment");
    // With an unknown transport nothing can be said about the keys that belong to it.
    if !reader.failed(&key("transport")) {
        let required = format!("a list of 1 to {MAX_ADDRESSES} different items, each {item}");
        reader.require(&key("endpoints"), &required);
        for name in stdio::KEYS {
            if reader.has(&key(name)) {
                reader.refuse(&key(name), "absent: only the transport \"stdio\" takes it");
            }
        }
    }
    let endpoints = if reader.failed(&key("transport")) {
        Vec::new()
    } else {
        reader.list(&key("endpoints"), (1, MAX_ADDRESSES), &item, |text| address::endpoint(text, schemes))
    };
    if name != TransportName::StreamableHttp && !reader.failed(&key("transport")) && reader.has(&key("http"))
    {
        reader.refuse(&key("http"), "absent: only the transport \"streamable-http\" takes it");
    }
    let is_address = |endpoint: &Endpoint| endpoint.host.parse::<IpAddr>().is_ok();
    if reader.is(&key("discovery"), "srv") && endpoints.iter().any(is_address) {
        reader.refuse(
            &key("endpoints"),
            "URLs whose hosts are names of SRV records, because discovery is \"srv\"",
        );
    }
    let tls = upstream_tls(reader, table);
    match name {
        TransportName::Sse => Transport::Sse { endpoints, tls },
        TransportName::WebSocket => Transport::WebSocket { endpoints, tls },
        TransportName::StreamableHttp | TransportName::Stdio => Transport::StreamableHttp { endpoints, tls },
    }
}

fn reach(reader: &mut Reader<'_>, table: &str) -> Reach {
    let key = |name: &str| format!("{table}.{name}");
    let default = Reach::default();
    Reach {
        balance: reader.choice(&key("balance"), default.balance, BALANCES),
        affinity: reader.bool(&key("affinity"), default.affinity),
        discovery: reader.choice(&key("discovery"), default.discovery, DISCOVERIES),
        http: reader.choice(&key("http"), default.http, HTTP_VERSIONS),
        connect_timeout: reader.duration(&key("connect_timeout"), default.connect_timeout, &TIMEOUT_MS),
    }
}

fn upstream_tls(reader: &mut Reader<'_>, table: &str) -> UpstreamTls {
    let key = |name: &str| format!("{table}.tls.{name}");
    let allowed =
        "a host name or address without a port, or \"\" for the host that an endpoint is reached by";
    UpstreamTls {
        ca_file: reader.path(&key("ca_file")),
        files: super::tls_files(reader, &format!("{table}.tls")),
        server_name: reader.read(
            &key("server_name"),
            None,
            || allowed.to_owned(),
            |raw| match raw.text()? {
                "" => Some(None),
                name => address::bare_host(name).map(Some),
            },
        ),
    }
}

fn is_upstream_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && !name.starts_with(['_', '-'])
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte))
        && !RESERVED_NAMES.contains(&name)
}
