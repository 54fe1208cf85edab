//! The report as one HTML page that needs nothing besides itself: no script, no font, no picture from elsewhere. It is
//! well-formed XML but for its first line, and every text in it is escaped.
//!
//! `charts` decides what is drawn and `chart` draws it as inline SVG over the axes of `axis`; `tables` shows all figures,
//! also those of sections that this page does not know by name, from the tree of `node`.

mod axis;
mod chart;
mod charts;
mod node;
mod tables;

use std::io::{self, Write};

use axis::{Unit, short};
use node::Node;

use super::Report;

/// The page's look.
const STYLE: &str = include_str!("style.css");

/// Writes the page.
///
/// # Errors
/// Those of `out`.
pub(super) fn write_page(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let json = serde_json::to_string(report)?;
    let tree: Node = serde_json::from_str(&json)?;
    let mut page = String::with_capacity(json.len() * 4);
    let title = format!("mcp-bench {}: {}", report.scenario, report.target);
    page.push_str(&format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
        escape(&title)
    ));
    push_head(&mut page, report, &title);
    push_tiles(&mut page, report);
    page.push_str("<section class=\"charts\">\n");
    charts::push_charts(&mut page, report);
    page.push_str("</section>\n<section class=\"tables\">\n");
    tables::push_sections(&mut page, &tree);
    page.push_str("</section>\n</body>\n</html>\n");
    out.write_all(page.as_bytes())
}

fn push_head(page: &mut String, report: &Report, title: &str) {
    let rate =
        report.rate_wanted_per_s.map_or(String::new(), |rate| format!(" at {}", Unit::PerSecond.text(rate)));
    let host = &report.host;
    let lines = [
        format!(
            "{} loop{rate}, {} of {} connections, client threads: {}, measured over {}",
            report.loop_kind,
            short(report.connections.opened as f64),
            short(report.connections.wanted as f64),
            report.threads,
            Unit::Seconds.text(report.duration_s)
        ),
        format!("{}, mcp-bench {}", report.about.started_utc, report.about.version),
        format!(
            "{}, {} cores, {}, Linux {} {}, {}",
            host.cpu_model,
            host.cpus_online,
            Unit::Bytes.text(host.memory_bytes as f64),
            host.kernel,
            host.architecture,
            host.distribution
        ),
    ];
    page.push_str(&format!("<header><h1>{}</h1>", escape(title)));
    for line in lines {
        page.push_str(&format!("<p>{}</p>", escape(&line)));
    }
    page.push_str(&format!("<code>{}</code></header>\n", escape(&report.about.command)));
}

/// The figures that are looked for first.
fn push_tiles(page: &mut String, report: &Report) {
    let bad = |count: u64| if count > 0 { "bad" } else { "good" };
    let count = |n: u64| short(n as f64);
    let us = |us: f64| Unit::Microseconds.text(us);
    let mut tiles = vec![
        ("good", "right answers per second", short(report.calls.rate_per_s)),
        ("good", "p50", us(report.latency.p50_us)),
        ("good", "p99", us(report.latency.p99_us)),
        (bad(report.failures.total), "failures", count(report.failures.total)),
        (bad(report.connections.lost), "lost connections", count(report.connections.lost)),
    ];
    if let Some(server) = &report.server {
        tiles.push(("good", "server CPU per call", us(server.cpu_us_per_call)));
        tiles.push(("good", "resident at the end", Unit::Bytes.text(server.resident_end_bytes as f64)));
        tiles.push(("good", "resident per connection", Unit::Bytes.text(server.bytes_per_connection)));
    }
    page.push_str("<ul class=\"tiles\">");
    for (class, name, value) in tiles {
        page.push_str(&format!("<li class=\"{class}\"><b>{}</b>{name}</li>", escape(&value)));
    }
    page.push_str("</ul>\n");
}

/// A text as it may stand between tags and in quoted attributes. Characters that XML does not have become `\u{fffd}`.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' => escaped.push(' '),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_can_become_markup() {
        assert_eq!(escape("<a b='\"&\u{1b}\n>"), "&lt;a b=&#39;&quot;&amp;\u{fffd} &gt;");
    }

    #[test]
    fn the_page_fetches_nothing() {
        for word in ["url(", "@import", "http:", "https:"] {
            assert!(!STYLE.contains(word), "{word}");
        }
    }
}
