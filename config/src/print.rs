//! The effective configuration in the file's shape.
//!
//! Owns the text of `print-config`: every key that applies, in the example's order. What it prints loads to the same
//! configuration. Of secrets it holds only those that are written into a server's `env`,
//! which it prints.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use crate::names::{
    BALANCES, DISCOVERIES, DRIVERS, HEALTH_KINDS, HTTP_VERSIONS, LEVELS, LOG_FORMATS, RATE_KEYS, STDIO_MODES,
    STORES, TLS_VERSIONS, TRANSPORTS, TransportName, WHEN_STORE_DOWN, word,
};
use crate::types::{
    Config, EnvVar, Health, HealthKind, Password, Reach, Redis, RedisAuth, RedisTopology, Server, Shards,
    Stdio, Tls, Transport, Upstream, UpstreamTls,
};
use crate::units::{print_duration, print_size};

/// The whole file.
pub(crate) fn config(config: &Config) -> String {
    let mut out = Printer { text: String::new() };
    server(&mut out, &config.server);
    tls(&mut out, &config.server.tls);
    out.table("gateway.runtime");
    match config.runtime.shards {
        Shards::Auto => out.text("shards", "auto"),
        Shards::Count(count) => out.bare("shards", count),
    }
    out.text("driver", word(&config.runtime.driver, DRIVERS));
    out.bare("pin", config.runtime.pin);
    out.table("gateway.connection_pool");
    out.bare("max_size", config.connection_pool.max_size);
    out.duration("max_idle_time", config.connection_pool.max_idle_time);
    out.bare("max_waiting", config.connection_pool.max_waiting);
    out.duration("max_wait", config.connection_pool.max_wait);
    out.table("gateway.federation");
    out.duration("timeout", config.federation.timeout);
    out.table("gateway.list_cache");
    out.duration("ttl", config.list_cache.ttl.unwrap_or_default());
    out.table("gateway.overload");
    out.bare("max_in_flight", config.overload.max_in_flight);
    out.duration("target_delay", config.overload.target_delay);
    out.table("gateway.session");
    out.duration("ttl", config.session.ttl);
    out.text("store", word(&config.session.store, STORES));
    out.bare("max_sessions", config.session.max_sessions);
    out.bare("replicas", config.session.replicas.unwrap_or(0));
    out.duration("replicas_timeout", config.session.replicas_timeout);
    out.text("when_store_down", word(&config.session.when_store_down, WHEN_STORE_DOWN));
    out.bare("max_unwritten", config.session.max_unwritten);
    out.duration("orphan_timeout", config.session.orphan_timeout);
    out.table("gateway.rate_limit");
    out.bare("requests_per_second", config.rate_limit.requests_per_second.unwrap_or(0));
    out.bare("burst", config.rate_limit.burst.unwrap_or(0));
    out.text("key", word(&config.rate_limit.key, RATE_KEYS));
    match &config.redis {
        Some(given) => redis(&mut out, given),
        None => out.text.push_str("\n# gateway.redis is absent: sessions are kept in memory\n"),
    }
    match &config.peers {
        Some(peers) => {
            out.table("gateway.peers");
            out.text("listen", &peers.listen.to_string());
            out.text("advertise", &peers.advertise.to_string());
            out.path("cert_file", Some(&peers.files.cert_file));
            out.path("key_file", Some(&peers.files.key_file));
            out.text("server_name", peers.server_name.as_deref().unwrap_or_default());
            out.path("ca_file", Some(&peers.ca_file));
        }
        None => out.text.push_str("\n# gateway.peers is absent: gateways do not reach each other\n"),
    }
    out.table("gateway.dns");
    out.list_of("servers", &config.dns.servers);
    out.duration("min_ttl", config.dns.min_ttl);
    out.duration("max_ttl", config.dns.max_ttl);
    out.table("gateway.circuit_breaker");
    out.bare("failure_threshold", config.circuit_breaker.failure_threshold);
    out.bare("success_threshold", config.circuit_breaker.success_threshold);
    out.duration("open_time", config.circuit_breaker.open_time);
    out.duration("window", config.circuit_breaker.window);
    out.bare("half_open_max_requests", config.circuit_breaker.half_open_max_requests);
    out.table("gateway.retry");
    out.bare("budget_percent", config.retry.budget_percent);
    out.bare("min_per_second", config.retry.min_per_second);
    out.bare("max_attempts", config.retry.max_attempts);
    out.table("gateway.log");
    out.text("level", word(&config.log.level, LEVELS));
    out.text("format", word(&config.log.format, LOG_FORMATS));
    for given in &config.upstreams {
        upstream(&mut out, given);
    }
    out.text
}

fn server(out: &mut Printer, server: &Server) {
    out.table("gateway.server");
    out.text("listen", &server.listen.to_string());
    out.bare("https_port", server.https_port);
    out.bare("binary_port", server.binary_port.unwrap_or(0));
    out.text("admin_listen", &server.admin_listen.to_string());
    out.bare("max_connections", server.max_connections);
    out.bare("max_connections_per_ip", server.max_connections_per_ip.unwrap_or(0));
    out.duration("handshake_timeout", server.handshake_timeout);
    out.duration("header_timeout", server.header_timeout);
    out.duration("read_timeout", server.read_timeout);
    out.duration("write_timeout", server.write_timeout);
    out.duration("idle_timeout", server.idle_timeout);
    out.size("max_body", server.max_body_bytes);
    out.size("max_header_bytes", server.max_header_bytes);
    out.list("allowed_origins", server.allowed_origins.iter().map(String::as_str));
    out.list("allowed_hosts", server.allowed_hosts.iter().map(String::as_str));
    out.duration("drain_delay", server.drain_delay);
    out.duration("drain_timeout", server.drain_timeout);
    out.duration("sse_keep_alive", server.sse_keep_alive);
}

fn tls(out: &mut Printer, tls: &Tls) {
    out.table("gateway.server.tls");
    out.path("cert_file", tls.files.as_ref().map(|files| files.cert_file.as_path()));
    out.path("key_file", tls.files.as_ref().map(|files| files.key_file.as_path()));
    out.text("min_version", word(&tls.min_version, TLS_VERSIONS));
}

fn redis(out: &mut Printer, redis: &Redis) {
    out.table("gateway.redis");
    if let RedisTopology::Single { url } = &redis.topology {
        out.text("url", &url.text);
    }
    out.duration("command_timeout", redis.command_timeout);
    out.duration("connect_timeout", redis.connect_timeout);
    match &redis.topology {
        RedisTopology::Single { .. } => {}
        RedisTopology::Sentinel { master, addresses, auth } => {
            out.table("gateway.redis.sentinel");
            out.text("master", master);
            out.list("addresses", addresses.iter().map(String::as_str));
            credentials(out, auth);
        }
        RedisTopology::Cluster { addresses } => {
            out.table("gateway.redis.cluster");
            out.bare("enabled", true);
            out.list("addresses", addresses.iter().map(String::as_str));
        }
    }
    out.table("gateway.redis.tls");
    out.bare("enabled", redis.tls.enabled);
    out.bare("skip_verify", redis.tls.skip_verify);
    out.path("ca_file", redis.tls.ca_file.as_deref());
    out.text("server_name", redis.tls.server_name.as_deref().unwrap_or_default());
    out.table("gateway.redis.auth");
    credentials(out, &redis.auth);
}

fn credentials(out: &mut Printer, auth: &RedisAuth) {
    let (env, file) = match &auth.password {
        Password::None => ("", None),
        Password::Env(name) => (name.as_str(), None),
        Password::File(path) => ("", Some(path.as_path())),
    };
    out.text("username", auth.username.as_deref().unwrap_or_default());
    out.text("password_env", env);
    out.path("password_file", file);
}

fn upstream(out: &mut Printer, upstream: &Upstream) {
    out.text.push_str("\n[[servers]]\n");
    out.text("name", &upstream.name);
    let (name, remote) = match &upstream.transport {
        Transport::StreamableHttp { endpoints, tls } => {
            (TransportName::StreamableHttp, Some((endpoints, tls)))
        }
        Transport::Sse { endpoints, tls } => (TransportName::Sse, Some((endpoints, tls))),
        Transport::WebSocket { endpoints, tls } => (TransportName::WebSocket, Some((endpoints, tls))),
        Transport::Stdio(_) => (TransportName::Stdio, None),
    };
    out.text("transport", word(&name, TRANSPORTS));
    out.duration("timeout", upstream.timeout);
    if let Transport::Stdio(stdio) = &upstream.transport {
        stdio_keys(out, stdio);
    }
    if let Some((endpoints, tls)) = remote {
        out.list("endpoints", endpoints.iter().map(|endpoint| endpoint.text.as_str()));
        reach(out, &upstream.reach, name);
        upstream_tls(out, tls);
        health(out, &upstream.health);
    }
}

fn stdio_keys(out: &mut Printer, stdio: &Stdio) {
    out.list("command", stdio.command.iter().map(String::as_str));
    let env: Vec<String> = stdio
        .env
        .iter()
        .map(|variable| match variable {
            EnvVar::Set { name, value } => format!("{name}={value}"),
            EnvVar::Inherited { name } => name.clone(),
        })
        .collect();
    out.list("env", env.iter().map(String::as_str));
    out.path("cwd", stdio.cwd.as_deref());
    out.text("mode", word(&stdio.mode, STDIO_MODES));
    out.bare("max_processes", stdio.max_processes);
    out.size("max_line", stdio.max_line_bytes);
}

fn reach(out: &mut Printer, reach: &Reach, transport: TransportName) {
    out.text("balance", word(&reach.balance, BALANCES));
    out.bare("affinity", reach.affinity);
    out.text("discovery", word(&reach.discovery, DISCOVERIES));
    if transport == TransportName::StreamableHttp {
        out.text("http", word(&reach.http, HTTP_VERSIONS));
    }
    out.duration("connect_timeout", reach.connect_timeout);
}

/// Dotted keys keep the server's table open for what follows.
fn upstream_tls(out: &mut Printer, tls: &UpstreamTls) {
    out.path("tls.ca_file", tls.ca_file.as_deref());
    out.path("tls.cert_file", tls.files.as_ref().map(|files| files.cert_file.as_path()));
    out.path("tls.key_file", tls.files.as_ref().map(|files| files.key_file.as_path()));
    out.text("tls.server_name", tls.server_name.as_deref().unwrap_or_default());
}

fn health(out: &mut Printer, health: &Health) {
    out.text("health.kind", word(&health.kind, HEALTH_KINDS));
    out.duration("health.interval", health.interval);
    out.duration("health.timeout", health.timeout);
    if health.kind == HealthKind::Http {
        out.text("health.path", &health.path);
    }
    out.bare("health.unhealthy_after", health.unhealthy_after);
    out.bare("health.healthy_after", health.healthy_after);
}

/// Writes tables and keys.
struct Printer {
    text: String,
}

impl Printer {
    fn table(&mut self, path: &str) {
        let blank = if self.text.is_empty() { "" } else { "\n" };
        self.text.push_str(&format!("{blank}[{path}]\n"));
    }

    fn bare(&mut self, key: &str, value: impl Display) {
        self.text.push_str(&format!("{key} = {value}\n"));
    }

    fn text(&mut self, key: &str, value: &str) {
        self.bare(key, quoted(value));
    }

    fn duration(&mut self, key: &str, value: Duration) {
        self.text(key, &print_duration(value));
    }

    fn size(&mut self, key: &str, bytes: usize) {
        self.text(key, &print_size(bytes as u64));
    }

    /// An absent path is an empty one.
    fn path(&mut self, key: &str, value: Option<&Path>) {
        self.text(key, &value.unwrap_or(Path::new("")).to_string_lossy());
    }

    fn list_of(&mut self, key: &str, values: &[impl ToString]) {
        let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
        self.list(key, texts.iter().map(String::as_str));
    }

    fn list<'a>(&mut self, key: &str, values: impl Iterator<Item = &'a str>) {
        let values: Vec<String> = values.map(quoted).collect();
        self.bare(key, format_args!("[{}]", values.join(", ")));
    }
}

/// A TOML basic string.
fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            _ if c.is_control() => text.push_str(&format!("\\u{:04X}", u32::from(c))),
            _ => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_every_character() {
        for value in ["", "plain", "a\"b\\c", "line\nbreak\ttab\u{7f}\u{85}\0", "ä世🦀"] {
            let document = format!("k = {}", quoted(value));
            let (table, errors) = toml::de::DeTable::parse_recoverable(&document);
            assert!(errors.is_empty(), "{errors:?}");
            assert_eq!(table.get_ref()["k"].get_ref().as_str(), Some(value));
        }
    }
}
