//! A server of the transport "stdio": owns the meaning of its keys. It never starts a process.

use super::health;
use crate::limits::{BODY_BYTES, MAX_COMMAND_WORDS, MAX_ENV, MAX_TEXT_BYTES, PROCESSES};
use crate::names::STDIO_MODES;
use crate::reader::Reader;
use crate::types::{EnvVar, Stdio, StdioMode};

/// What only this transport takes.
pub(super) const KEYS: [&str; 6] = ["command", "env", "cwd", "mode", "max_processes", "max_line"];

/// What only the others take.
const REMOTE_KEYS: [&str; 10] = [
    "endpoints",
    "balance",
    "affinity",
    "discovery",
    "http",
    "connect_timeout",
    "tls.ca_file",
    "tls.cert_file",
    "tls.key_file",
    "tls.server_name",
];

pub(super) fn stdio(reader: &mut Reader<'_>, table: &str) -> Stdio {
    let key = |name: &str| format!("{table}.{name}");
    for other in REMOTE_KEYS.into_iter().chain(health::KEYS) {
        if reader.has(&key(other)) {
            reader.refuse(&key(other), "absent: the transport \"stdio\" doesn't take it");
        }
    }
    let max_processes = reader.integer(&key("max_processes"), Stdio::DEFAULT_MAX_PROCESSES, &PROCESSES);
    Stdio {
        command: command(reader, &key("command")),
        env: env(reader, &key("env")),
        cwd: reader.path(&key("cwd")),
        mode: reader.choice(&key("mode"), StdioMode::PerSession, STDIO_MODES),
        max_processes,
        max_line_bytes: reader.size(&key("max_line"), Stdio::DEFAULT_MAX_LINE_BYTES, &BODY_BYTES),
    }
}

fn command(reader: &mut Reader<'_>, key: &str) -> Vec<String> {
    let allowed = || {
        format!(
            "a list of a program and its arguments: 1 to {MAX_COMMAND_WORDS} strings without NUL, the first not empty"
        )
    };
    reader.require(key, &allowed());
    reader.read(key, Vec::new(), allowed, |raw| {
        let words = raw.list().filter(|words| (1..=MAX_COMMAND_WORDS).contains(&words.len()))?;
        let valid = words.iter().all(|word| is_word(word));
        (valid && !words[0].is_empty()).then_some(words)
    })
}

fn env(reader: &mut Reader<'_>, key: &str) -> Vec<EnvVar> {
    let allowed = || {
        format!(
            "a list of at most {MAX_ENV} variables, no name twice, each \"NAME=value\", or \"NAME\" to pass the gateway's \
             own one on"
        )
    };
    reader.read(key, Vec::new(), allowed, |raw| {
        let words = raw.list().filter(|words| words.len() <= MAX_ENV)?;
        let variables: Vec<EnvVar> = words.iter().map(|word| variable(word)).collect::<Option<_>>()?;
        let is_twice = |(at, variable): (usize, &EnvVar)| {
            variables[..at].iter().any(|other| other.name() == variable.name())
        };
        (!variables.iter().enumerate().any(is_twice)).then_some(variables)
    })
}

fn variable(word: &str) -> Option<EnvVar> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    let is_valid = is_word(word) && !name.is_empty() && !name.contains(char::is_whitespace);
    let name = name.to_owned();
    is_valid.then(|| match value {
        Some(value) => EnvVar::Set { name, value: value.to_owned() },
        None => EnvVar::Inherited { name },
    })
}

fn is_word(word: &str) -> bool {
    word.len() <= MAX_TEXT_BYTES && !word.contains('\0')
}
