//! `servers[].health`: owns how its keys become [`Health`], and which rules span them.

use crate::limits::{CHECK_INTERVAL_MS, CHECKS, MAX_TEXT_BYTES, TIMEOUT_MS};
use crate::names::HEALTH_KINDS;
use crate::reader::Reader;
use crate::types::{Health, HealthKind};

/// The keys, within a server's table.
pub(super) const KEYS: [&str; 6] = [
    "health.kind",
    "health.interval",
    "health.timeout",
    "health.path",
    "health.unhealthy_after",
    "health.healthy_after",
];

pub(super) fn health(reader: &mut Reader<'_>, table: &str) -> Health {
    let key = |name: &str| format!("{table}.health.{name}");
    let default = Health::default();
    let path = || {
        format!(
            "a path that begins with \"/\", of at most {MAX_TEXT_BYTES} characters of ASCII without white space"
        )
    };
    let health = Health {
        kind: reader.choice(&key("kind"), default.kind, HEALTH_KINDS),
        interval: reader.duration(&key("interval"), default.interval, &CHECK_INTERVAL_MS),
        timeout: reader.duration(&key("timeout"), default.timeout, &TIMEOUT_MS),
        path: reader.read(&key("path"), default.path, path, |raw| {
            raw.text().filter(|path| is_path(path)).map(str::to_owned)
        }),
        unhealthy_after: reader.integer(&key("unhealthy_after"), default.unhealthy_after, &CHECKS),
        healthy_after: reader.integer(&key("healthy_after"), default.healthy_after, &CHECKS),
    };
    if health.timeout > health.interval && !reader.failed(&key("timeout")) && !reader.failed(&key("interval"))
    {
        let at = if reader.has(&key("timeout")) { key("timeout") } else { key("interval") };
        reader.refuse(&at, "a timeout that is not longer than interval, so that checks do not pile up");
    }
    if reader.has(&key("path")) && health.kind != HealthKind::Http && !reader.failed(&key("kind")) {
        reader.refuse(&key("path"), "absent: only kind \"http\" takes it");
    }
    health
}

/// Whether a request line can hold it.
fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.len() <= MAX_TEXT_BYTES && path.bytes().all(|byte| byte.is_ascii_graphic())
}
