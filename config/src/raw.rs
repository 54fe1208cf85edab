//! The file's shape: TOML and environment variables flattened into `path → value as written`.
//!
//! Owns where each value came from and the refusal of keys that don't exist. It never interprets a value. Invariant:
//! every path in [`RawConfig`] is one of [`KEYS`](crate::keys::KEYS), and the environment has replaced the file's value.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::Problem;
use crate::keys::{self, Place};

/// Largest file read, in bytes.
pub(crate) const MAX_FILE_BYTES: usize = 1 << 20;

/// Most `[[servers]]`. An upstream costs each shard a route, a pool and a breaker per endpoint, a few KiB in all.
pub(crate) const MAX_SERVERS: usize = 256;

/// Most syntax errors reported for one file.
const MAX_SYNTAX_ERRORS: usize = 16;

/// What a variable's name must begin with, in lower case.
const ENV_PREFIX: &str = "mcp_gateway__";

/// A value before anyone has asked what it should be.
#[derive(Debug)]
pub(crate) enum Raw {
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML boolean.
    Bool(bool),
    /// A TOML array of strings.
    List(Vec<String>),
    /// An environment variable's text, which becomes what its key asks for.
    Env(String),
    /// Anything else; no key takes it.
    Other,
}

impl Raw {
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Env(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(integer) => Some(*integer),
            Self::Env(text) => text.parse().ok(),
            _ => None,
        }
    }

    pub(crate) fn bool(&self) -> Option<bool> {
        match self {
            Self::Bool(bool) => Some(*bool),
            Self::Env(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// An environment variable's list is separated by commas or written as a TOML array.
    pub(crate) fn list(&self) -> Option<Vec<String>> {
        match self {
            Self::List(list) => Some(list.clone()),
            Self::Env(text) if text.trim_start().starts_with('[') => {
                strings(DeValue::parse(text.trim()).ok()?.get_ref())
            }
            Self::Env(text) => Some(
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect(),
            ),
            _ => None,
        }
    }
}

/// A value with its origin.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) value: Raw,
    /// The value as it was written, for messages.
    pub(crate) shown: String,
    /// Where it was written, for messages.
    pub(crate) origin: String,
}

/// All values that were given.
#[derive(Debug, Default)]
pub(crate) struct RawConfig {
    /// By the key's path.
    pub(crate) entries: BTreeMap<String, Entry>,
    /// The tables that were given, by path, with their origins.
    pub(crate) sections: BTreeMap<String, String>,
    /// One more than the highest index in `servers`, at most [`MAX_SERVERS`].
    pub(crate) servers: usize,
}

impl RawConfig {
    /// Adds the file's values; `origin` names the file in messages.
    pub(crate) fn add_file(&mut self, origin: &str, text: &str, problems: &mut Vec<Problem>) {
        if text.len() > MAX_FILE_BYTES {
            let allowed = format!("at most {MAX_FILE_BYTES} bytes long, but it has {}", text.len());
            problems.push(Problem::new("", "", allowed, origin));
            return;
        }
        let file = File { origin, text };
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in errors.iter().take(MAX_SYNTAX_ERRORS) {
            let at = error.span().map_or(0, |span| span.start);
            let allowed = format!("valid TOML: {}", error.message());
            problems.push(Problem::new("", "", allowed, file.line(at)));
        }
        if errors.is_empty() {
            self.add_table(&file, "", root.get_ref(), problems);
        }
    }

    /// Adds the environment's values; variables without the prefix are none of ours.
    pub(crate) fn add_env(
        &mut self,
        env: impl Iterator<Item = (String, String)>,
        problems: &mut Vec<Problem>,
    ) {
        let mut seen = BTreeMap::new();
        let ours = env.filter(|(name, _)| name.to_ascii_lowercase().starts_with(ENV_PREFIX));
        let mut variables: Vec<_> = ours.collect();
        variables.sort();
        for (name, value) in variables {
            let path = env_path(&name);
            let origin = format!("environment variable {name}");
            if keys::place(&pattern(&path)) != Place::Leaf {
                problems.push(Problem::new(&path, &value, unknown_allowed(&path, env_name), origin));
                continue;
            }
            if let Some(other) = seen.insert(path.clone(), name) {
                let allowed = format!("set once, but {other} sets it too");
                problems.push(Problem::new(&path, &value, allowed, origin));
                continue;
            }
            self.note_server(&path);
            self.note_sections(&path, &origin);
            self.entries.insert(path, Entry { shown: value.clone(), value: Raw::Env(value), origin });
        }
    }

    fn add_table(&mut self, file: &File<'_>, path: &str, table: &DeTable<'_>, problems: &mut Vec<Problem>) {
        for (key, value) in table {
            let path =
                if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
            let origin = file.line(key.span().start);
            match (keys::place(&pattern(&path)), value.get_ref()) {
                (Place::Leaf, raw) => {
                    let entry = Entry { value: from_toml(raw), shown: file.shown(value), origin };
                    self.entries.insert(path, entry);
                }
                (Place::Section, DeValue::Table(table)) => {
                    self.sections.insert(path.clone(), origin);
                    self.add_table(file, &path, table, problems);
                }
                (Place::Section, _) => {
                    problems.push(Problem::new(path, &file.shown(value), "a table of keys", origin));
                }
                (Place::Unknown, DeValue::Array(servers)) if path == "servers" => {
                    self.add_servers(file, servers, problems);
                }
                (Place::Unknown, _) if path == "servers" => {
                    let allowed = "an array of tables, each begun by [[servers]]";
                    problems.push(Problem::new(path, &file.shown(value), allowed, origin));
                }
                (Place::Unknown, raw) => {
                    let allowed = match raw.get(0) {
                        Some(first) if first.get_ref().is_table() => {
                            "a known key; the only array of tables is [[servers]]".to_owned()
                        }
                        _ => unknown_allowed(&path, str::to_owned),
                    };
                    problems.push(Problem::new(path, &file.shown(value), allowed, origin));
                }
            }
        }
    }

    fn add_servers(
        &mut self,
        file: &File<'_>,
        servers: &[Spanned<DeValue<'_>>],
        problems: &mut Vec<Problem>,
    ) {
        if let Some(first_over) = servers.get(MAX_SERVERS) {
            let allowed = format!("one of at most {MAX_SERVERS} servers");
            let origin = file.line(first_over.span().start);
            problems.push(Problem::new(format!("servers[{MAX_SERVERS}]"), "a table", allowed, origin));
        }
        for (index, server) in servers.iter().enumerate().take(MAX_SERVERS) {
            let path = format!("servers[{index}]");
            let origin = file.line(server.span().start);
            match server.get_ref() {
                DeValue::Table(table) => {
                    self.servers = index + 1;
                    self.sections.insert(path.clone(), origin);
                    self.add_table(file, &path, table, problems);
                }
                _ => problems.push(Problem::new(path, &file.shown(server), "a table of keys", origin)),
            }
        }
    }

    fn note_server(&mut self, path: &str) {
        if let Some(index) = server_index(path) {
            self.servers = self.servers.max(index + 1);
        }
    }

    /// A key set by the environment brings its tables into being.
    fn note_sections(&mut self, path: &str, origin: &str) {
        for (at, _) in path.match_indices('.') {
            self.sections.entry(path[..at].to_owned()).or_insert_with(|| origin.to_owned());
        }
    }
}

/// The file's text, to quote from.
struct File<'a> {
    origin: &'a str,
    text: &'a str,
}

impl File<'_> {
    /// `file:line` of a byte offset.
    fn line(&self, at: usize) -> String {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        format!("{}:{}", self.origin, before.iter().filter(|byte| **byte == b'\n').count() + 1)
    }

    /// A value as it was written.
    fn shown(&self, value: &Spanned<DeValue<'_>>) -> String {
        match value.get_ref() {
            DeValue::Table(_) => "a table".to_owned(),
            _ => self.text.get(value.span()).unwrap_or_default().to_owned(),
        }
    }
}

fn from_toml(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(integer) => {
            i64::from_str_radix(integer.as_str(), integer.radix()).map_or(Raw::Other, Raw::Integer)
        }
        DeValue::Boolean(bool) => Raw::Bool(*bool),
        DeValue::Array(_) => strings(value).map_or(Raw::Other, Raw::List),
        _ => Raw::Other,
    }
}

/// The items of an array of strings.
fn strings(value: &DeValue<'_>) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
}

fn unknown_allowed(path: &str, spell: fn(&str) -> String) -> String {
    match keys::nearest(&pattern(path)) {
        Some(near) => {
            let near =
                server_index(path).map_or(near.to_owned(), |index| near.replace("[]", &format!("[{index}]")));
            format!("a known key; did you mean {}?", spell(&near))
        }
        None => "a known key".to_owned(),
    }
}

/// `servers[3].name` → `servers[].name`; anything else as it is.
fn pattern(path: &str) -> String {
    match server_index(path) {
        Some(index) => path.replacen(&format!("[{index}]"), "[]", 1),
        None => path.to_owned(),
    }
}

/// The index in a path that begins with `servers[…]`.
fn server_index(path: &str) -> Option<usize> {
    let (index, _) = path.strip_prefix("servers[")?.split_once(']')?;
    index.parse().ok().filter(|index| *index < MAX_SERVERS)
}

/// `MCP_GATEWAY__SERVER__TLS__KEY_FILE` → `gateway.server.tls.key_file`, `MCP_GATEWAY__SERVERS__0__NAME` →
/// `servers[0].name`. The name must begin with the prefix.
fn env_path(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    let segments = name.strip_prefix(ENV_PREFIX).unwrap_or(&name).replace("__", ".");
    match segments.strip_prefix("servers.") {
        Some(server) => match server.split_once('.') {
            Some((index, key)) => format!("servers[{index}].{key}"),
            None => format!("servers[{server}]"),
        },
        None => format!("gateway.{segments}"),
    }
}

/// The inverse of [`env_path`] for a known key or section.
fn env_name(path: &str) -> String {
    let path = path.strip_prefix("gateway.").unwrap_or(path);
    let segments = path.replace('[', "__").replace(']', "").replace('.', "__");
    format!("{ENV_PREFIX}{segments}").to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_names_lead_to_paths_and_back() {
        for (name, path) in [
            ("MCP_GATEWAY__SERVER__MAX_CONNECTIONS", "gateway.server.max_connections"),
            ("MCP_GATEWAY__REDIS__AUTH__PASSWORD_ENV", "gateway.redis.auth.password_env"),
            ("MCP_GATEWAY__SERVERS__12__TLS__CA_FILE", "servers[12].tls.ca_file"),
        ] {
            assert_eq!(env_path(name), path);
            assert_eq!(env_path(&name.to_ascii_lowercase()), path);
            assert_eq!(env_name(path), name);
        }
    }

    #[test]
    fn environment_lists_have_two_spellings() {
        for (text, list) in [
            ("", Some(vec![])),
            ("a", Some(vec!["a"])),
            (" a , b,", Some(vec!["a", "b"])),
            ("[\"a,b\", 'c']", Some(vec!["a,b", "c"])),
            ("[1]", None),
            ("[\"a\"", None),
        ] {
            let list = list.map(|items| items.into_iter().map(str::to_owned).collect());
            assert_eq!(Raw::Env(text.to_owned()).list(), list, "{text}");
        }
    }

    #[test]
    fn integers_keep_their_radix() {
        let mut raw = RawConfig::default();
        let mut problems = Vec::new();
        let text = "[gateway.server]\nhttps_port = 0x20_fb\nbinary_port = 9223372036854775808\n";
        raw.add_file("f", text, &mut problems);
        assert!(matches!(raw.entries["gateway.server.https_port"].value, Raw::Integer(8443)));
        assert!(matches!(raw.entries["gateway.server.binary_port"].value, Raw::Other));
        assert!(problems.is_empty());
    }
}
