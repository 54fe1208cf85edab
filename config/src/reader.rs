//! Typed reads of flattened values.
//!
//! Owns the wording of what is allowed and the collecting of problems: a read never fails, it notes a problem and gives
//! the default, so that all problems come out together. It never knows which keys exist.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::address;
use crate::error::Problem;
use crate::limits::{MAX_TEXT_BYTES, Range};
use crate::raw::{Raw, RawConfig};
use crate::units::{parse_duration, parse_size, print_duration, print_size};

/// Reads values and collects what is wrong with them.
pub(crate) struct Reader<'a> {
    raw: &'a RawConfig,
    /// Stands as the origin where neither a value nor its table was given.
    origin: &'a str,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(raw: &'a RawConfig, origin: &'a str, problems: Vec<Problem>) -> Self {
        Self { raw, origin, problems }
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// Whether `key` was given.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.raw.entries.contains_key(key)
    }

    /// Whether any key of the table at `path`, or the table itself, was given.
    pub(crate) fn has_section(&self, path: &str) -> bool {
        self.raw.sections.contains_key(path)
    }

    /// Whether the value of `key` is this word.
    pub(crate) fn is(&self, key: &str, word: &str) -> bool {
        self.raw.entries.get(key).is_some_and(|entry| entry.value.text() == Some(word))
    }

    /// Whether something is already known to be wrong with `key`.
    pub(crate) fn failed(&self, key: &str) -> bool {
        self.problems.iter().any(|problem| problem.key == key)
    }

    /// Notes that the value of `key`, or its absence, breaks a rule.
    pub(crate) fn refuse(&mut self, key: &str, allowed: impl Into<String>) {
        let problem = match self.raw.entries.get(key) {
            Some(entry) => Problem::new(key, &entry.shown, allowed, &entry.origin),
            None => Problem::new(key, "", allowed, self.nearest_origin(key)),
        };
        self.problems.push(problem);
    }

    /// The value that `parse` makes of the entry at `key`; a problem if it gives `None`; `default` without an entry.
    pub(crate) fn read<T>(
        &mut self,
        key: &str,
        default: T,
        allowed: impl FnOnce() -> String,
        parse: impl FnOnce(&Raw) -> Option<T>,
    ) -> T {
        let Some(entry) = self.raw.entries.get(key) else { return default };
        parse(&entry.value).unwrap_or_else(|| {
            self.refuse(key, allowed());
            default
        })
    }

    pub(crate) fn integer<T: TryFrom<u64>>(&mut self, key: &str, default: T, range: &Range) -> T {
        self.read(key, default, || integers(range), |raw| integer_in(raw, range))
    }

    /// An integer for which 0 means "none", with the words that explain it.
    pub(crate) fn integer_or_none<T: TryFrom<u64>>(
        &mut self,
        key: &str,
        default: Option<T>,
        range: &Range,
        zero_means: &str,
    ) -> Option<T> {
        let allowed = || format!("{}, or 0 for {zero_means}", integers(range));
        self.read(key, default, allowed, |raw| match raw.integer()? {
            0 => Some(None),
            _ => integer_in(raw, range).map(Some),
        })
    }

    pub(crate) fn bool(&mut self, key: &str, default: bool) -> bool {
        self.read(key, default, || "true or false".to_owned(), Raw::bool)
    }

    pub(crate) fn duration(&mut self, key: &str, default: Duration, range: &Range) -> Duration {
        self.read(
            key,
            default,
            || durations(range),
            |raw| {
                let duration = parse_duration(raw.text()?)?;
                range.contains(u64::try_from(duration.as_millis()).ok()?).then_some(duration)
            },
        )
    }

    /// A duration for which `"0s"` means "none", with the words that explain it.
    pub(crate) fn duration_or_none(
        &mut self,
        key: &str,
        default: Option<Duration>,
        range: &Range,
        zero_means: &str,
    ) -> Option<Duration> {
        let allowed = || format!("{}, or \"0s\" for {zero_means}", durations(range));
        self.read(key, default, allowed, |raw| {
            let duration = parse_duration(raw.text()?)?;
            if duration.is_zero() {
                return Some(None);
            }
            range.contains(u64::try_from(duration.as_millis()).ok()?).then_some(Some(duration))
        })
    }

    /// A number of bytes.
    pub(crate) fn size(&mut self, key: &str, default: usize, range: &Range) -> usize {
        let allowed = || {
            let (min, max) = (print_size(range.min), print_size(range.max));
            format!("a size such as \"64KiB\" or a number of bytes, from {min} to {max} ({})", range.why)
        };
        self.read(key, default, allowed, |raw| {
            let bytes = match raw.integer() {
                Some(integer) => u64::try_from(integer).ok()?,
                None => parse_size(raw.text()?)?,
            };
            if range.contains(bytes) { usize::try_from(bytes).ok() } else { None }
        })
    }

    /// One of several names.
    pub(crate) fn choice<T: Copy>(&mut self, key: &str, default: T, choices: &[(&str, T)]) -> T {
        self.read(key, default, || names(choices), |raw| chosen(raw.text()?, choices))
    }

    pub(crate) fn ip_addr(&mut self, key: &str, default: IpAddr) -> IpAddr {
        let allowed = || "an IP address such as \"0.0.0.0\" or \"::\"".to_owned();
        self.read(key, default, allowed, |raw| raw.text()?.parse().ok())
    }

    pub(crate) fn socket_addr(&mut self, key: &str, default: SocketAddr) -> SocketAddr {
        let allowed = || "an IP address and a port from 1 to 65535, such as \"127.0.0.1:9090\"".to_owned();
        self.read(key, default, allowed, |raw| {
            let addr: SocketAddr = raw.text()?.parse().ok()?;
            (addr.port() != 0).then_some(addr)
        })
    }

    /// A path; an empty one is an absent one.
    pub(crate) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let allowed = || format!("a path of at most {MAX_TEXT_BYTES} bytes without NUL, or \"\" for none");
        self.read(key, None, allowed, |raw| {
            let path = raw.text()?;
            let valid = path.len() <= MAX_TEXT_BYTES && !path.contains('\0');
            valid.then(|| (!path.is_empty()).then(|| path.into()))
        })
    }

    /// A list of `min` to `max` strings, each mapped by `parse`, no two of them equal.
    pub(crate) fn list<T: PartialEq>(
        &mut self,
        key: &str,
        (min, max): (usize, usize),
        item: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let allowed = || format!("a list of {min} to {max} different items, each {item}");
        self.read(key, Vec::new(), allowed, |raw| {
            let texts = raw.list().filter(|texts| (min..=max).contains(&texts.len()))?;
            let items: Vec<T> = texts.iter().map(|text| parse(text)).collect::<Option<_>>()?;
            let distinct = items.iter().enumerate().all(|(i, item)| !items[..i].contains(item));
            distinct.then_some(items)
        })
    }

    /// The name that a peer's certificate must prove instead of the host by which it is reached; `None` where it is absent
    /// or empty.
    pub(crate) fn server_name(&mut self, key: &str) -> Option<String> {
        let allowed = || {
            "a host name or address without a port, such as \"redis.example.com\", or \"\" for the host that is connected to"
                .to_owned()
        };
        self.read(key, None, allowed, |raw| {
            let name = raw.text()?;
            if name.is_empty() { Some(None) } else { address::bare_host(name).map(Some) }
        })
    }

    /// Notes a missing key that has no default.
    pub(crate) fn require(&mut self, key: &str, allowed: &str) {
        if !self.has(key) {
            self.refuse(key, allowed);
        }
    }

    /// The origin of the innermost table given around `key`.
    fn nearest_origin(&self, key: &str) -> String {
        let mut tables = key.rmatch_indices('.').map(|(at, _)| &key[..at]);
        let given = tables.find_map(|table| self.raw.sections.get(table));
        given.map_or(self.origin, String::as_str).to_owned()
    }
}

fn durations(range: &Range) -> String {
    let bound = |ms| print_duration(Duration::from_millis(ms));
    let (min, max) = (bound(range.min), bound(range.max));
    format!("a duration such as \"30s\", from {min} to {max} ({})", range.why)
}

fn integers(range: &Range) -> String {
    format!("an integer from {} to {} ({})", range.min, range.max, range.why)
}

fn integer_in<T: TryFrom<u64>>(raw: &Raw, range: &Range) -> Option<T> {
    let integer = u64::try_from(raw.integer()?).ok()?;
    if range.contains(integer) { T::try_from(integer).ok() } else { None }
}

/// `"a", "b" or "c"`.
pub(crate) fn names<T>(choices: &[(&str, T)]) -> String {
    let mut text = String::new();
    for (index, (name, _)) in choices.iter().enumerate() {
        let separator = match index {
            0 => "",
            _ if index + 1 == choices.len() => " or ",
            _ => ", ",
        };
        text.push_str(&format!("{separator}\"{name}\""));
    }
    text
}

fn chosen<T: Copy>(text: &str, choices: &[(&str, T)]) -> Option<T> {
    choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
}
