//! Every key that the file and the environment may set, whether it changes while the gateway serves, and the nearest one to a
//! misspelt one.
//!
//! Owns the list; tests hold that it is exactly what [`Config::to_toml`](crate::Config::to_toml) prints and what the
//! committed example sets, and that the example marks what needs a restart. It never knows a value.

/// When another value of a key counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// When the configuration is read again.
    Live,
    /// When the process starts again: a socket, a thread or a store was made by it.
    Restart,
}

/// Every leaf key; `servers[]` stands for any index.
pub(crate) const KEYS: &[(&str, Change)] = &[
    ("gateway.server.listen", Change::Restart),
    ("gateway.server.https_port", Change::Restart),
    ("gateway.server.binary_port", Change::Restart),
    ("gateway.server.admin_listen", Change::Restart),
    ("gateway.server.max_connections", Change::Live),
    ("gateway.server.max_connections_per_ip", Change::Live),
    ("gateway.server.handshake_timeout", Change::Live),
    ("gateway.server.header_timeout", Change::Live),
    ("gateway.server.read_timeout", Change::Live),
    ("gateway.server.write_timeout", Change::Live),
    ("gateway.server.idle_timeout", Change::Live),
    ("gateway.server.max_body", Change::Live),
    ("gateway.server.max_header_bytes", Change::Live),
    ("gateway.server.allowed_origins", Change::Live),
    ("gateway.server.allowed_hosts", Change::Live),
    ("gateway.server.drain_delay", Change::Live),
    ("gateway.server.drain_timeout", Change::Live),
    ("gateway.server.sse_keep_alive", Change::Live),
    ("gateway.server.tls.cert_file", Change::Restart),
    ("gateway.server.tls.key_file", Change::Restart),
    ("gateway.server.tls.min_version", Change::Restart),
    ("gateway.runtime.shards", Change::Restart),
    ("gateway.runtime.driver", Change::Restart),
    ("gateway.runtime.pin", Change::Restart),
    ("gateway.connection_pool.max_size", Change::Live),
    ("gateway.connection_pool.max_idle_time", Change::Live),
    ("gateway.connection_pool.max_waiting", Change::Live),
    ("gateway.connection_pool.max_wait", Change::Live),
    ("gateway.federation.timeout", Change::Live),
    ("gateway.list_cache.ttl", Change::Live),
    ("gateway.overload.max_in_flight", Change::Live),
    ("gateway.overload.target_delay", Change::Live),
    ("gateway.session.ttl", Change::Restart),
    ("gateway.session.store", Change::Restart),
    ("gateway.session.max_sessions", Change::Restart),
    ("gateway.session.replicas", Change::Restart),
    ("gateway.session.replicas_timeout", Change::Restart),
    ("gateway.session.when_store_down", Change::Restart),
    ("gateway.session.max_unwritten", Change::Restart),
    ("gateway.session.orphan_timeout", Change::Live),
    ("gateway.rate_limit.requests_per_second", Change::Live),
    ("gateway.rate_limit.burst", Change::Live),
    ("gateway.rate_limit.key", Change::Live),
    ("gateway.redis.url", Change::Restart),
    ("gateway.redis.command_timeout", Change::Restart),
    ("gateway.redis.connect_timeout", Change::Restart),
    ("gateway.redis.tls.enabled", Change::Restart),
    ("gateway.redis.tls.skip_verify", Change::Restart),
    ("gateway.redis.tls.ca_file", Change::Restart),
    ("gateway.redis.tls.server_name", Change::Restart),
    ("gateway.redis.auth.username", Change::Restart),
    ("gateway.redis.auth.password_env", Change::Restart),
    ("gateway.redis.auth.password_file", Change::Restart),
    ("gateway.redis.sentinel.master", Change::Restart),
    ("gateway.redis.sentinel.addresses", Change::Restart),
    ("gateway.redis.sentinel.username", Change::Restart),
    ("gateway.redis.sentinel.password_env", Change::Restart),
    ("gateway.redis.sentinel.password_file", Change::Restart),
    ("gateway.redis.cluster.enabled", Change::Restart),
    ("gateway.redis.cluster.addresses", Change::Restart),
    ("gateway.peers.listen", Change::Restart),
    ("gateway.peers.advertise", Change::Restart),
    ("gateway.peers.cert_file", Change::Restart),
    ("gateway.peers.key_file", Change::Restart),
    ("gateway.peers.server_name", Change::Restart),
    ("gateway.peers.ca_file", Change::Restart),
    ("gateway.dns.servers", Change::Restart),
    ("gateway.dns.min_ttl", Change::Restart),
    ("gateway.dns.max_ttl", Change::Restart),
    ("gateway.circuit_breaker.failure_threshold", Change::Live),
    ("gateway.circuit_breaker.success_threshold", Change::Live),
    ("gateway.circuit_breaker.open_time", Change::Live),
    ("gateway.circuit_breaker.window", Change::Live),
    ("gateway.circuit_breaker.half_open_max_requests", Change::Live),
    ("gateway.retry.budget_percent", Change::Live),
    ("gateway.retry.min_per_second", Change::Live),
    ("gateway.retry.max_attempts", Change::Live),
    ("gateway.log.level", Change::Live),
    ("gateway.log.format", Change::Restart),
    ("servers[].name", Change::Live),
    ("servers[].transport", Change::Live),
    ("servers[].endpoints", Change::Live),
    ("servers[].balance", Change::Live),
    ("servers[].affinity", Change::Live),
    ("servers[].discovery", Change::Live),
    ("servers[].http", Change::Live),
    ("servers[].connect_timeout", Change::Live),
    ("servers[].tls.ca_file", Change::Live),
    ("servers[].tls.cert_file", Change::Live),
    ("servers[].tls.key_file", Change::Live),
    ("servers[].tls.server_name", Change::Live),
    ("servers[].health.kind", Change::Live),
    ("servers[].health.interval", Change::Live),
    ("servers[].health.timeout", Change::Live),
    ("servers[].health.path", Change::Live),
    ("servers[].health.unhealthy_after", Change::Live),
    ("servers[].health.healthy_after", Change::Live),
    ("servers[].command", Change::Live),
    ("servers[].env", Change::Live),
    ("servers[].cwd", Change::Live),
    ("servers[].mode", Change::Live),
    ("servers[].max_processes", Change::Live),
    ("servers[].max_line", Change::Live),
    ("servers[].timeout", Change::Live),
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
    if keys().any(|key| key == pattern) {
        Place::Leaf
    } else if sections().any(|section| section == pattern) {
        Place::Section
    } else {
        Place::Unknown
    }
}

/// Whether another value of the key that `pattern` names needs a restart.
pub(crate) fn needs_restart(pattern: &str) -> bool {
    KEYS.contains(&(pattern, Change::Restart))
}

/// Whether `section` is a table all of whose keys need a restart.
pub(crate) fn is_of_restart(section: &str) -> bool {
    let prefix = format!("{section}.");
    let mut within = KEYS.iter().filter(|(key, _)| key.starts_with(&prefix)).peekable();
    within.peek().is_some() && within.all(|(_, change)| *change == Change::Restart)
}

/// The known key or section that `pattern` was probably meant to be: the same name in the likest other table of the same
/// root, or one within [`MAX_EDITS`] edits.
pub(crate) fn nearest(pattern: &str) -> Option<&'static str> {
    if pattern.len() > MAX_COMPARED_KEY {
        return None;
    }
    let name = last_segment(pattern);
    let of_server = |path: &str| path.starts_with("servers[]");
    let known = || keys().chain(sections());
    let same_name = known()
        .filter(|key| last_segment(key) == name && of_server(key) == of_server(pattern))
        .min_by_key(|key| edits(pattern, key));
    same_name.or_else(|| {
        let (edits, key) = known().map(|key| (edits(pattern, key), key)).min_by_key(|(edits, _)| *edits)?;
        (edits <= MAX_EDITS.min(name.len() / 2)).then_some(key)
    })
}

fn keys() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|(key, _)| *key)
}

/// Every proper prefix of a key, with repetitions.
fn sections() -> impl Iterator<Item = &'static str> {
    keys().flat_map(|key| key.match_indices('.').map(|(at, _)| &key[..at]))
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
        let known: BTreeSet<String> = keys().map(str::to_owned).collect();
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

    /// The keys that the example marks by a `*` at the beginning of their comment, or of their table's.
    fn marked() -> BTreeSet<String> {
        let mut table = (String::new(), false);
        let mut marked = BTreeSet::new();
        for line in include_str!("../config.example.toml").lines() {
            let line = line.strip_prefix('#').unwrap_or(line);
            let is_marked = line.split_once('#').is_some_and(|(_, comment)| comment.starts_with(" *"));
            if let Some((name, _)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                table = (name.to_owned(), is_marked);
            } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.contains(' '))
                && (is_marked || table.1)
            {
                marked.insert(format!("{}.{key}", table.0));
            }
        }
        marked
    }

    #[test]
    fn the_example_marks_exactly_what_needs_a_restart() {
        let restart = KEYS.iter().filter(|(_, change)| *change == Change::Restart);
        let restart: BTreeSet<String> = restart.map(|(key, _)| (*key).to_owned()).collect();
        assert_eq!(marked(), restart);
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
