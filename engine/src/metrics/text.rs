//! The page that `/metrics` shows, in either of its formats: owns names, help lines and label escaping. Never a number of
//! its own.
//!
//! Prometheus' text format 0.0.4 and OpenMetrics 1.0 show the same series under the same names. In OpenMetrics a counter's
//! family is named without `_total`, a unit is told apart, exemplars stand beside buckets, and the page has an end, so that
//! one that was cut off is not taken for whole.

mod breakers;
mod channels;
mod doors;
mod peers;
mod process;
mod reloads;
mod requests;
mod store;
mod upstream;

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::Arc;
use std::time::Duration;

use mcp_protocol::mcp::METHOD_LABELS;

use crate::reload::Reloads;
use crate::shard::table::endpoints::Health;
use crate::tls::rotating::Rotating;
use crate::upstream::breaker::State;

use super::Snapshot;
use super::exemplars::Exemplar;
use super::latency::{BOUNDS_US, BUCKETS, Latency};

/// Units that a name can end with.
const UNITS: [&str; 2] = ["bytes", "seconds"];

/// How the page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// What the page needs besides the shards' snapshots.
pub(crate) struct Facts<'a> {
    /// Server names, by index, with their endpoints' texts.
    pub(crate) servers: &'a [(String, Vec<String>)],
    /// Running processes per server that is a stdio server, by its index.
    pub(crate) processes: Vec<(u16, u32)>,
    pub(crate) certificates: &'a [Arc<Rotating>],
    pub(crate) reloads: &'a Reloads,
    /// What all shards know of each server's endpoints, by their indices.
    pub(crate) endpoints: &'a [Vec<EndpointFacts>],
    pub(crate) uptime: Duration,
    pub(crate) version: &'a str,
    pub(crate) executor: &'a str,
}

/// What all shards know of an endpoint.
pub(crate) struct EndpointFacts {
    pub(crate) breaker: State,
    pub(crate) health: Health,
}

/// Renders one page of all shards.
pub(crate) fn render(format: Format, facts: &Facts<'_>, shards: &[Snapshot]) -> String {
    let mut page = Page { out: String::with_capacity(64 << 10), facts, format };
    page.process();
    page.certificates();
    page.reloads(facts.reloads);
    page.connections(shards);
    page.frames(shards);
    page.sockets(shards);
    page.peers(shards);
    page.requests(shards);
    page.upstream(shards);
    page.channels(shards);
    page.breakers(shards);
    page.shards(shards);
    page.store(shards);
    page.limits(shards);
    if format == Format::OpenMetrics {
        page.out.push_str("# EOF\n");
    }
    page.out
}

struct Page<'a> {
    out: String,
    facts: &'a Facts<'a>,
    format: Format,
}

impl<'a> Page<'a> {
    /// Begins a metric; an `info` is a gauge where the format has no such type.
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let (family, kind) = match (self.format, kind) {
            (Format::OpenMetrics, "counter") => (name.strip_suffix("_total").unwrap_or(name), kind),
            (Format::OpenMetrics, "info") => (name.strip_suffix("_info").unwrap_or(name), kind),
            (Format::Text, "info") => (name, "gauge"),
            _ => (name, kind),
        };
        // Writing to a String cannot fail.
        let _ = write!(self.out, "# HELP mcp_gateway_{family} {help}\n# TYPE mcp_gateway_{family} {kind}\n");
        let unit = UNITS.iter().find(|unit| family.rsplit('_').next() == Some(unit));
        if let Some(unit) = unit.filter(|_| self.format == Format::OpenMetrics) {
            let _ = writeln!(self.out, "# UNIT mcp_gateway_{family} {unit}");
        }
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.series(name, "", labels, value);
        self.out.push('\n');
    }

    /// A line without its end.
    fn series(&mut self, name: &str, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.out, "mcp_gateway_{name}{suffix}");
        for (position, (label, text)) in labels.iter().enumerate() {
            self.out.push(if position == 0 { '{' } else { ',' });
            let _ = write!(self.out, "{label}=\"");
            for character in text.chars() {
                match character {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    other => self.out.push(other),
                }
            }
            self.out.push('"');
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = write!(self.out, " {value}");
    }

    fn latency(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        latency: &Latency,
        exemplars: &[Option<&Exemplar>; BUCKETS],
    ) {
        self.histogram(name, labels, &BOUNDS_US, &latency.counts, latency.sum_us, exemplars);
    }

    /// A histogram of seconds; `counts` has one more than `bounds_us`, each without those below. `exemplars` are those of
    /// the first buckets.
    fn histogram(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        bounds_us: &[u64],
        counts: &[u64],
        sum_us: u64,
        exemplars: &[Option<&Exemplar>],
    ) {
        let mut total = 0;
        // Both formats' bounds are written as OpenMetrics wants them, so that they are the same series in both.
        let bounds = bounds_us.iter().map(|&bound| format!("{:?}", seconds(bound)));
        for (number, (bound, count)) in bounds.chain(["+Inf".to_owned()]).zip(counts).enumerate() {
            total += count;
            self.series(name, "_bucket", &[labels, &[("le", &bound)]].concat(), total);
            self.exemplar(exemplars.get(number).copied().flatten());
            self.out.push('\n');
        }
        self.series(name, "_sum", labels, seconds(sum_us));
        self.out.push('\n');
        self.series(name, "_count", labels, total);
        self.out.push('\n');
    }

    fn exemplar(&mut self, exemplar: Option<&Exemplar>) {
        let Some(exemplar) = exemplar.filter(|_| self.format == Format::OpenMetrics) else { return };
        let (trace, value) = (exemplar.traced.trace, seconds(exemplar.us));
        let (whole, thousandths) = (exemplar.traced.unix_ms / 1_000, exemplar.traced.unix_ms % 1_000);
        let _ = write!(self.out, " # {{trace_id=\"{}\"}} {value} {whole}.{thousandths:03}", trace.text());
    }

    fn server(&self, index: Option<u16>) -> &'a str {
        index.and_then(|index| self.facts.servers.get(usize::from(index))).map_or("none", |(name, _)| name)
    }

    fn endpoint(&self, server: u16, endpoint: u16) -> &'a str {
        self.facts
            .servers
            .get(usize::from(server))
            .and_then(|(_, endpoints)| endpoints.get(usize::from(endpoint)))
            .map_or("none", |text| text)
    }

    fn summed(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'static str, u64)>,
    ) {
        self.head(name, "counter", help);
        for (text, value) in values {
            self.line(name, &[(label, text)], value);
        }
    }
}

fn method_label(index: u8) -> &'static str {
    METHOD_LABELS.get(usize::from(index)).copied().unwrap_or("other")
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn merge<'a>(
    maps: impl Iterator<Item = &'a std::collections::HashMap<&'static str, u64>>,
) -> BTreeMap<&'static str, u64> {
    let mut sum = BTreeMap::new();
    for (&label, &count) in maps.flatten() {
        *sum.entry(label).or_default() += count;
    }
    sum
}

#[cfg(test)]
mod tests;
