//! From the file's shape to the runtime's: one function per table, then the rules that span keys.
//!
//! Owns which key becomes which field. It never stops at the first problem.

mod redis;
mod stdio;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;

use crate::address;
use crate::limits::{
    BODY_BYTES, BREAKER_COUNT, CONNECTIONS, HEADER_BYTES, IN_FLIGHT, MAX_ADDRESSES, MAX_ALLOWED, POOL_SIZE,
    POOL_WAITING, PORT, REPLICAS, REQUEST_RATE, SESSION_TTL_MS, SESSIONS, SHARDS, STORE_TIMEOUT_MS,
    TIMEOUT_MS, UNWRITTEN,
};
use crate::names::{
    DRIVERS, LEVELS, LOG_FORMATS, RATE_KEYS, STORES, TLS_VERSIONS, TRANSPORTS, TransportName, WHEN_STORE_DOWN,
};
use crate::reader::Reader;
use crate::types::{
    CircuitBreaker, Config, ConnectionPool, Log, Overload, Peers, RateLimit, Runtime, Server, Session,
    Shards, Store, Tls, TlsFiles, Transport, Upstream, UpstreamTls,
};

/// Longest name of an upstream, in bytes; it is a path segment and a metric label.
const MAX_NAME_BYTES: usize = 63;

/// Names that `/mcp/<name>` keeps for the gateway itself.
const RESERVED_NAMES: [&str; 8] = ["admin", "all", "gateway", "health", "mcp", "metrics", "ready", "status"];

/// The configuration that `reader`'s values describe, with `servers` upstreams; defaults stand in for what is wrong.
pub(crate) fn config(reader: &mut Reader<'_>, servers: usize) -> Config {
    let config = Config {
        server: server(reader),
        runtime: runtime(reader),
        connection_pool: connection_pool(reader),
        overload: overload(reader),
        session: session(reader),
        rate_limit: rate_limit(reader),
        redis: redis::redis(reader),
        peers: peers(reader),
        circuit_breaker: circuit_breaker(reader),
        log: log(reader),
        upstreams: upstreams(reader, servers),
    };
    check_ports(reader, &config.server);
    if config.session.store == Store::Redis && !reader.has_section("gateway.redis") {
        reader.refuse("gateway.session.store", "\"auto\" or \"memory\", because gateway.redis is absent");
    }
    config
}

fn server(reader: &mut Reader<'_>) -> Server {
    let key = |name: &str| format!("gateway.server.{name}");
    let default = Server::default();
    let origin = "a serialized origin such as \"https://app.example.com\" or \"http://localhost:3000\": no path, no \
                  default port, not \"null\" or \"*\"";
    let host = "a host name or address, optionally with a port, such as \"mcp.example.com:8443\"";
    Server {
        listen: reader.ip_addr(&key("listen"), default.listen),
        https_port: reader.integer(&key("https_port"), default.https_port, &PORT),
        binary_port: reader.integer_or_none(&key("binary_port"), default.binary_port, &PORT, "off"),
        admin_listen: reader.socket_addr(&key("admin_listen"), default.admin_listen),
        max_connections: reader.integer(&key("max_connections"), default.max_connections, &CONNECTIONS),
        max_connections_per_ip: reader.integer_or_none(
            &key("max_connections_per_ip"),
            default.max_connections_per_ip,
            &CONNECTIONS,
            "no limit per address",
        ),
        handshake_timeout: reader.duration(&key("handshake_timeout"), default.handshake_timeout, &TIMEOUT_MS),
        header_timeout: reader.duration(&key("header_timeout"), default.header_timeout, &TIMEOUT_MS),
        read_timeout: reader.duration(&key("read_timeout"), default.read_timeout, &TIMEOUT_MS),
        write_timeout: reader.duration(&key("write_timeout"), default.write_timeout, &TIMEOUT_MS),
        idle_timeout: reader.duration(&key("idle_timeout"), default.idle_timeout, &TIMEOUT_MS),
        max_body_bytes: reader.size(&key("max_body"), default.max_body_bytes, &BODY_BYTES),
        max_header_bytes: reader.size(&key("max_header_bytes"), default.max_header_bytes, &HEADER_BYTES),
        allowed_origins: reader.list(&key("allowed_origins"), (0, MAX_ALLOWED), origin, address::origin),
        allowed_hosts: reader.list(&key("allowed_hosts"), (0, MAX_ALLOWED), host, address::host_header),
        drain_timeout: reader.duration(&key("drain_timeout"), default.drain_timeout, &TIMEOUT_MS),
        sse_keep_alive: reader.duration(&key("sse_keep_alive"), default.sse_keep_alive, &TIMEOUT_MS),
        tls: tls(reader, &default.tls),
    }
}

fn tls(reader: &mut Reader<'_>, default: &Tls) -> Tls {
    let (cert_key, key_key) = ("gateway.server.tls.cert_file", "gateway.server.tls.key_file");
    let files = match (reader.path(cert_key), reader.path(key_key)) {
        (Some(cert_file), Some(key_file)) => Some(TlsFiles { cert_file, key_file }),
        (None, None) => None,
        (Some(_), None) => {
            refuse_once(reader, key_key, "a path, because cert_file is set; both or neither");
            None
        }
        (None, Some(_)) => {
            refuse_once(reader, cert_key, "a path, because key_file is set; both or neither");
            None
        }
    };
    let min_version = reader.choice("gateway.server.tls.min_version", default.min_version, TLS_VERSIONS);
    Tls { files, min_version }
}

fn runtime(reader: &mut Reader<'_>) -> Runtime {
    let default = Runtime::default();
    let shards = || format!("\"auto\" or an integer from {} to {} ({})", SHARDS.min, SHARDS.max, SHARDS.why);
    Runtime {
        shards: reader.read("gateway.runtime.shards", default.shards, shards, |raw| {
            if raw.text() == Some("auto") {
                return Some(Shards::Auto);
            }
            let count = u64::try_from(raw.integer()?).ok().filter(|count| SHARDS.contains(*count))?;
            NonZeroU16::new(u16::try_from(count).ok()?).map(Shards::Count)
        }),
        driver: reader.choice("gateway.runtime.driver", default.driver, DRIVERS),
        pin: reader.bool("gateway.runtime.pin", default.pin),
    }
}

fn connection_pool(reader: &mut Reader<'_>) -> ConnectionPool {
    let default = ConnectionPool::default();
    ConnectionPool {
        max_size: reader.integer("gateway.connection_pool.max_size", default.max_size, &POOL_SIZE),
        max_idle_time: reader.duration(
            "gateway.connection_pool.max_idle_time",
            default.max_idle_time,
            &TIMEOUT_MS,
        ),
        max_waiting: reader.integer(
            "gateway.connection_pool.max_waiting",
            default.max_waiting,
            &POOL_WAITING,
        ),
        max_wait: reader.duration("gateway.connection_pool.max_wait", default.max_wait, &TIMEOUT_MS),
    }
}

fn overload(reader: &mut Reader<'_>) -> Overload {
    let default = Overload::default();
    Overload {
        max_in_flight: reader.integer("gateway.overload.max_in_flight", default.max_in_flight, &IN_FLIGHT),
        target_delay: reader.duration("gateway.overload.target_delay", default.target_delay, &TIMEOUT_MS),
    }
}

fn session(reader: &mut Reader<'_>) -> Session {
    let default = Session::default();
    Session {
        ttl: reader.duration("gateway.session.ttl", default.ttl, &SESSION_TTL_MS),
        store: reader.choice("gateway.session.store", default.store, STORES),
        max_sessions: reader.integer("gateway.session.max_sessions", default.max_sessions, &SESSIONS),
        replicas: reader.integer_or_none(
            "gateway.session.replicas",
            default.replicas,
            &REPLICAS,
            "not waiting for any",
        ),
        replicas_timeout: reader.duration(
            "gateway.session.replicas_timeout",
            default.replicas_timeout,
            &STORE_TIMEOUT_MS,
        ),
        when_store_down: reader.choice(
            "gateway.session.when_store_down",
            default.when_store_down,
            WHEN_STORE_DOWN,
        ),
        max_unwritten: reader.integer("gateway.session.max_unwritten", default.max_unwritten, &UNWRITTEN),
        orphan_timeout: reader.duration(
            "gateway.session.orphan_timeout",
            default.orphan_timeout,
            &TIMEOUT_MS,
        ),
    }
}

fn rate_limit(reader: &mut Reader<'_>) -> RateLimit {
    let default = RateLimit::default();
    RateLimit {
        requests_per_second: reader.integer_or_none(
            "gateway.rate_limit.requests_per_second",
            default.requests_per_second,
            &REQUEST_RATE,
            "no limit",
        ),
        burst: reader.integer_or_none(
            "gateway.rate_limit.burst",
            default.burst,
            &REQUEST_RATE,
            "as many as requests_per_second",
        ),
        key: reader.choice("gateway.rate_limit.key", default.key, RATE_KEYS),
    }
}

/// How gateways reach each other, if that is configured: then every key is needed.
fn peers(reader: &mut Reader<'_>) -> Option<Peers> {
    if !reader.has_section("gateway.peers") {
        return None;
    }
    let key = |name: &str| format!("gateway.peers.{name}");
    let anywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    for name in ["listen", "advertise"] {
        reader.require(&key(name), "an IP address and a port from 1 to 65535, such as \"10.0.0.7:9444\"");
    }
    let listen = reader.socket_addr(&key("listen"), anywhere);
    let advertise = reader.socket_addr(&key("advertise"), anywhere);
    if reader.has(&key("advertise")) && advertise.ip().is_unspecified() && advertise.port() != 0 {
        reader.refuse(&key("advertise"), "an address at which other gateways reach this one");
    }
    let mut file = |name: &str| {
        let given = reader.path(&key(name));
        if given.is_none() {
            refuse_once(reader, &key(name), "a path, because gateway.peers is there");
        }
        given
    };
    let (cert_file, key_file, ca_file) = (file("cert_file"), file("key_file"), file("ca_file"));
    let server_name = reader.server_name(&key("server_name"));
    Some(Peers {
        listen,
        advertise,
        files: TlsFiles { cert_file: cert_file?, key_file: key_file? },
        server_name,
        ca_file: ca_file?,
    })
}

fn circuit_breaker(reader: &mut Reader<'_>) -> CircuitBreaker {
    let key = |name: &str| format!("gateway.circuit_breaker.{name}");
    let default = CircuitBreaker::default();
    CircuitBreaker {
        failure_threshold: reader.integer(
            &key("failure_threshold"),
            default.failure_threshold,
            &BREAKER_COUNT,
        ),
        success_threshold: reader.integer(
            &key("success_threshold"),
            default.success_threshold,
            &BREAKER_COUNT,
        ),
        open_time: reader.duration(&key("open_time"), default.open_time, &TIMEOUT_MS),
        window: reader.duration(&key("window"), default.window, &TIMEOUT_MS),
        half_open_max_requests: reader.integer(
            &key("half_open_max_requests"),
            default.half_open_max_requests,
            &BREAKER_COUNT,
        ),
    }
}

fn log(reader: &mut Reader<'_>) -> Log {
    let default = Log::default();
    Log {
        level: reader.choice("gateway.log.level", default.level, LEVELS),
        format: reader.choice("gateway.log.format", default.format, LOG_FORMATS),
    }
}

fn upstreams(reader: &mut Reader<'_>, servers: usize) -> Vec<Upstream> {
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
        upstreams.push(upstream);
    }
    upstreams
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
    let tls = UpstreamTls { ca_file: reader.path(&key("tls.ca_file")) };
    match name {
        TransportName::Sse => Transport::Sse { endpoints, tls },
        TransportName::WebSocket => Transport::WebSocket { endpoints, tls },
        TransportName::StreamableHttp | TransportName::Stdio => Transport::StreamableHttp { endpoints, tls },
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

/// No two listeners may want one port of one address.
fn check_ports(reader: &mut Reader<'_>, server: &Server) {
    const HTTPS: &str = "gateway.server.https_port";
    const BINARY: &str = "gateway.server.binary_port";
    const ADMIN: &str = "gateway.server.admin_listen";
    if [HTTPS, BINARY, ADMIN, "gateway.server.listen"].iter().any(|key| reader.failed(key)) {
        return;
    }
    if server.binary_port == Some(server.https_port) {
        let key = if reader.has(BINARY) { BINARY } else { HTTPS };
        reader.refuse(key, "two different ports for https_port and binary_port");
    }
    let (listen, admin) = (server.listen, server.admin_listen);
    for (key, port) in [(HTTPS, Some(server.https_port)), (BINARY, server.binary_port)] {
        if port == Some(admin.port()) && overlap(listen, admin.ip()) {
            let key = if reader.has(ADMIN) { ADMIN } else { key };
            reader.refuse(
                key,
                "another port for admin_listen than https_port and binary_port, which listen there, too",
            );
            return;
        }
    }
}

/// Whether a listener on one address gets in the way of one on the other. An unspecified IPv6 address covers IPv4, too.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    a == b || a.is_unspecified() || b.is_unspecified()
}

/// Notes a rule that spans keys, unless the key is wrong by itself.
fn refuse_once(reader: &mut Reader<'_>, key: &str, allowed: &str) {
    if !reader.failed(key) {
        reader.refuse(key, allowed);
    }
}
