//! Every key that the file and the environment may set, and the nearest one to a misspelt one.
//!
//! Owns the list; a test holds that it is exactly what [`Config::to_toml`](crate::Config::to_toml) prints and what the
//! committed example sets. It never knows a value.

/// Every leaf key; `servers[]` stands for any index.
pub(crate) const KEYS: &[&str] = &[
    "gateway.server.listen",
    "gateway.server.https_port",
    "gateway.server.binary_port",
    "gateway.server.admin_listen",
    "gateway.server.max_connections",
    "gateway.server.max_connections_per_ip",
    "gateway.server.handshake_timeout",
    "gateway.server.header_timeout",
    "gateway.server.read_timeout",
    "gateway.server.write_timeout",
    "gateway.server.idle_timeout",
    "gateway.server.max_body",
    "gateway.server.max_header_bytes",
    "gateway.server.allowed_origins",
    "gateway.server.allowed_hosts",
    "gateway.server.drain_delay",
    "gateway.server.drain_timeout",
    "gateway.server.sse_keep_alive",
    "gateway.server.tls.cert_file",
    "gateway.server.tls.key_file",
    "gateway.server.tls.min_version",
    "gateway.runtime.shards",
    "gateway.runtime.driver",
    "gateway.runtime.pin",
    "gateway.connection_pool.max_size",
    "gateway.connection_pool.max_idle_time",
    "gateway.connection_pool.max_waiting",
    "gateway.connection_pool.max_wait",
    "gateway.federation.timeout",
    "gateway.list_cache.ttl",
    "gateway.overload.max_in_flight",
    "gateway.overload.target_delay",
    "gateway.session.ttl",
    "gateway.session.store",
    "gateway.session.max_sessions",
    "gateway.session.replicas",
    "gateway.session.replicas_timeout",
    "gateway.session.when_store_down",
    "gateway.session.max_unwritten",
    "gateway.session.orphan_timeout",
    "gateway.rate_limit.requests_per_second",
    "gateway.rate_limit.burst",
    "gateway.rate_limit.key",
    "gateway.redis.url",
    "gateway.redis.command_timeout",
    "gateway.redis.connect_timeout",
    "gateway.redis.tls.enabled",
    "gateway.redis.tls.skip_verify",
    "gateway.redis.tls.ca_file",
    "gateway.redis.tls.server_name",
    "gateway.redis.auth.username",
    "gateway.redis.auth.password_env",
    "gateway.redis.auth.password_file",
    "gateway.redis.sentinel.master",
    "gateway.redis.sentinel.addresses",
    "gateway.redis.sentinel.username",
    "gateway.redis.sentinel.password_env",
    "gateway.redis.sentinel.password_file",
    "gateway.redis.cluster.enabled",
    "gateway.redis.cluster.addresses",
    "gateway.peers.listen",
    "gateway.peers.advertise",
    "gateway.peers.cert_file",
    "gateway.peers.key_file",
    "gateway.peers.server_name",
    "gateway.peers.ca_file",
    "gateway.dns.servers",
    "gateway.dns.min_ttl",
    "gateway.dns.max_ttl",
    "gateway.circuit_breaker.failure_threshold",
    "gateway.circuit_breaker.success_threshold",
    "gateway.circuit_breaker.open_time",
    "gateway.circuit_breaker.window",
    "gateway.circuit_breaker.half_open_max_requests",
    "gateway.retry.budget_percent",
    "gateway.retry.min_per_second",
    "gateway.retry.max_attempts",
    "gateway.log.level",
    "gateway.log.format",
    "servers[].name",
    "servers[].transport",
    "servers[].endpoints",
    "servers[].balance",
    "servers[].affinity",
    "servers[].discovery",
    "servers[].http",
    "servers[].connect_timeout",
    "servers[].tls.ca_file",
    "servers[].tls.cert_file",
    "servers[].tls.key_file",
    "servers[].tls.server_name",
    "servers[].health.kind",
    "servers[].health.interval",
    "servers[].health.timeout",
    "servers[].health.path",
    "servers[].health.unhealthy_after",
    "servers[].health.healthy_after",
    "servers[].command",
    "servers[].env",
    "servers[].cwd",
    "servers[].mode",
    "servers[].max_processes",
    "servers[].max_line",
    "servers[].timeout",
];

/// Most edits between a misspelt key and the one suggested for it.
const MAX_EDITS: usize = 3;

/// Longest key that is compared with the known ones, in bytes; bounds the work for a hostile one.
const MAX_COMPARED_KEY: usize = 128;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A key with a value.
    Leaf,
    /// A table of keys.
    Section,
    /// Nothing known.
    Unknown,
}

/// What `pattern` (with `servers[]` for any index) leads to.
pub(crate) fn place(pattern: &str) -> Place {
    if KEYS.contains(&pattern) {
        Place::Leaf
    } else if sections().any(|section| section == pattern) {
        Place::Section
    } else {
        Place::Unknown
    }
}

/// The known key or section that `pattern` was probably meant to be: the same name in the likest other table of the same
/// root, or one within [`MAX_EDITS`] edits.
pub(crate) fn nearest(pattern: &str) -> Option<&'static str> {
    if pattern.len() > MAX_COMPARED_KEY {
        return None;
    }
    let name = last_segment(pattern);
    let of_server = |path: &str| path.starts_with("servers[]");
    let known = || KEYS.iter().copied().chain(sections());
    let same_name = known()
        .filter(|key| last_segment(key) == name && of_server(key) == of_server(pattern))
        .min_by_key(|key| edits(pattern, key));
    same_name.or_else(|| {
        let (edits, key) = known().map(|key| (edits(pattern, key), key)).min_by_key(|(edits, _)| *edits)?;
        (edits <= MAX_EDITS.min(name.len() / 2)).then_some(key)
    })
}

/// Every proper prefix of a key, with repetitions.
fn sections() -> impl Iterator<Item = &'static str> {
    KEYS.iter().flat_map(|key| key.match_indices('.').map(|(at, _)| &key[..at]))
}

fn last_segment(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Levenshtein distance in bytes.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Config;

    /// The keys that a file sets, its commented-out lines included.
    fn keys_in(text: &str) -> BTreeSet<String> {
        let mut table = String::new();
        let mut keys = BTreeSet::new();
        for line in text.lines().map(|line| line.strip_prefix('#').unwrap_or(line)) {
            if line.starts_with("[[servers]]") {
                table = "servers[]".to_owned();
            } else if let Some((name, _)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                table = name.to_owned();
            } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.contains(' ')) {
                keys.insert(format!("{table}.{key}"));
            }
        }
        keys
    }

    #[test]
    fn the_example_and_the_printed_configurations_have_exactly_these_keys() {
        let known: BTreeSet<String> = KEYS.iter().map(|key| (*key).to_owned()).collect();
        assert_eq!(known.len(), KEYS.len());
        assert_eq!(keys_in(include_str!("../config.example.toml")), known);
        let mut printed = BTreeSet::new();
        for file in [
            "gateway.redis.url = 'redis://h'\n[[servers]]\nname = 'a'\nendpoints = ['http://h']\nhealth.kind = 'http'",
            "gateway.redis.sentinel = { master = 'm', addresses = ['h:1'] }",
            "gateway.peers = { listen = '[::]:1', advertise = '10.0.0.1:1', cert_file = 'c', key_file = 'k', ca_file = 'a' }",
            "gateway.redis.cluster.addresses = ['h:1']\n[[servers]]\nname = 'a'\ntransport = 'stdio'\ncommand = ['x']",
        ] {
            let config = Config::load(Some(("f", file)), std::iter::empty()).unwrap();
            printed.extend(keys_in(&config.to_toml()));
        }
        assert_eq!(printed, known);
    }

    #[test]
    fn places() {
        assert_eq!(place("gateway.server.tls"), Place::Section);
        assert_eq!(place("servers[]"), Place::Section);
        assert_eq!(place("servers[].name"), Place::Leaf);
        assert_eq!(place("gateway.serve"), Place::Unknown);
        assert_eq!(place(""), Place::Unknown);
    }

    #[test]
    fn suggests_the_nearest_key() {
        for (given, meant) in [
            ("gateway.server.max_conections", Some("gateway.server.max_connections")),
            ("gateway.server.https-port", Some("gateway.server.https_port")),
            ("gateway.sever", Some("gateway.server")),
            ("gateway.server.ttl", Some("gateway.session.ttl")),
            ("server", Some("gateway.server")),
            ("servers[].endpoint", Some("servers[].endpoints")),
            ("gateway.server.entirely_else", None),
            ("x", None),
        ] {
            assert_eq!(nearest(given), meant, "{given}");
        }
        assert_eq!(nearest(&"a".repeat(MAX_COMPARED_KEY + 1)), None);
    }

    #[test]
    fn counts_edits() {
        for (from, to, distance) in
            [("", "abc", 3), ("kitten", "sitting", 3), ("abc", "abc", 0), ("ab", "ba", 2)]
        {
            assert_eq!(edits(from, to), distance);
        }
    }
}
