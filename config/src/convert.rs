//! From the file's shape to the runtime's: one function per table, then the rules that span keys.
//!
//! Owns which key becomes which field. It never stops at the first problem.

mod health;
mod redis;
mod stdio;
mod upstream;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;

use crate::address;
use crate::limits::{
    ATTEMPTS, BODY_BYTES, BREAKER_COUNT, CONNECTIONS, DRAIN_DELAY_MS, HEADER_BYTES, IN_FLIGHT, MAX_ADDRESSES,
    MAX_ALLOWED, POOL_SIZE, POOL_WAITING, PORT, REPLICAS, REQUEST_RATE, RETRY_PERCENT, RETRY_RATE,
    SESSION_TTL_MS, SESSIONS, SHARDS, STORE_TIMEOUT_MS, TIMEOUT_MS, UNWRITTEN,
};
use crate::names::{DRIVERS, LEVELS, LOG_FORMATS, RATE_KEYS, STORES, TLS_VERSIONS, WHEN_STORE_DOWN};
use crate::reader::Reader;
use crate::types::{
    CircuitBreaker, Config, ConnectionPool, Dns, Federation, ListCache, Log, Overload, Peers, RateLimit,
    Retry, Runtime, Server, Session, Shards, Store, Tls, TlsFiles,
};

/// The configuration that `reader`'s values describe, with `servers` upstreams; defaults stand in for what is wrong.
pub(crate) fn config(reader: &mut Reader<'_>, servers: usize) -> Config {
    let config = Config {
        server: server(reader),
        runtime: runtime(reader),
        connection_pool: connection_pool(reader),
        federation: federation(reader),
        list_cache: list_cache(reader),
        overload: overload(reader),
        session: session(reader),
        rate_limit: rate_limit(reader),
        redis: redis::redis(reader),
        peers: peers(reader),
        dns: dns(reader),
        circuit_breaker: circuit_breaker(reader),
        retry: retry(reader),
        log: log(reader),
        upstreams: upstream::upstreams(reader, servers),
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
        drain_delay: reader.duration(&key("drain_delay"), default.drain_delay, &DRAIN_DELAY_MS),
        drain_timeout: reader.duration(&key("drain_timeout"), default.drain_timeout, &TIMEOUT_MS),
        sse_keep_alive: reader.duration(&key("sse_keep_alive"), default.sse_keep_alive, &TIMEOUT_MS),
        tls: tls(reader, &default.tls),
    }
}

fn tls(reader: &mut Reader<'_>, default: &Tls) -> Tls {
    let files = tls_files(reader, "gateway.server.tls");
    let min_version = reader.choice("gateway.server.tls.min_version", default.min_version, TLS_VERSIONS);
    Tls { files, min_version }
}

/// The certificate and its key in the table at `path`: both or neither.
fn tls_files(reader: &mut Reader<'_>, path: &str) -> Option<TlsFiles> {
    let (cert_key, key_key) = (format!("{path}.cert_file"), format!("{path}.key_file"));
    match (reader.path(&cert_key), reader.path(&key_key)) {
        (Some(cert_file), Some(key_file)) => Some(TlsFiles { cert_file, key_file }),
        (None, None) => None,
        (Some(_), None) => {
            refuse_once(reader, &key_key, "a path, because cert_file is set; both or neither");
            None
        }
        (None, Some(_)) => {
            refuse_once(reader, &cert_key, "a path, because key_file is set; both or neither");
            None
        }
    }
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

fn federation(reader: &mut Reader<'_>) -> Federation {
    let default = Federation::default();
    Federation { timeout: reader.duration("gateway.federation.timeout", default.timeout, &TIMEOUT_MS) }
}

fn list_cache(reader: &mut Reader<'_>) -> ListCache {
    let default = ListCache::default();
    ListCache {
        ttl: reader.duration_or_none(
            "gateway.list_cache.ttl",
            default.ttl,
            &TIMEOUT_MS,
            "asking the server every time",
        ),
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

fn dns(reader: &mut Reader<'_>) -> Dns {
    let default = Dns::default();
    let server = "an IP address and a port from 1 to 65535, such as \"10.0.0.53:53\"";
    let dns = Dns {
        servers: reader.list("gateway.dns.servers", (0, MAX_ADDRESSES), server, |text| {
            text.parse().ok().filter(|server: &SocketAddr| server.port() != 0)
        }),
        min_ttl: reader.duration("gateway.dns.min_ttl", default.min_ttl, &TIMEOUT_MS),
        max_ttl: reader.duration("gateway.dns.max_ttl", default.max_ttl, &TIMEOUT_MS),
    };
    if dns.max_ttl < dns.min_ttl {
        let key =
            if reader.has("gateway.dns.max_ttl") { "gateway.dns.max_ttl" } else { "gateway.dns.min_ttl" };
        refuse_once(reader, key, "a max_ttl that is not shorter than min_ttl");
    }
    dns
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

fn retry(reader: &mut Reader<'_>) -> Retry {
    let key = |name: &str| format!("gateway.retry.{name}");
    let default = Retry::default();
    Retry {
        budget_percent: reader.integer(&key("budget_percent"), default.budget_percent, &RETRY_PERCENT),
        min_per_second: reader.integer(&key("min_per_second"), default.min_per_second, &RETRY_RATE),
        max_attempts: reader.integer(&key("max_attempts"), default.max_attempts, &ATTEMPTS),
    }
}

fn log(reader: &mut Reader<'_>) -> Log {
    let default = Log::default();
    Log {
        level: reader.choice("gateway.log.level", default.level, LEVELS),
        format: reader.choice("gateway.log.format", default.format, LOG_FORMATS),
    }
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
