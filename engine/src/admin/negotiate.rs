//! Which format a scraper wants the page in: owns the reading of `Accept`. Never the page.

use crate::metrics::Format;

/// A weight in thousandths, as RFC 9110 has it (12.4.2).
type Weight = u16;
const FULL: Weight = 1_000;

/// OpenMetrics for those that ask for it and would not rather have the text format; the text format for all others, and for
/// those that ask for what there is not: a page in another format is of more use than none.
pub(super) fn format(accept: &str) -> Format {
    let (mut open_metrics, mut text) = (0, [None; 3]);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut version, mut weight) = (None, FULL);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "version" => version = Some(value),
                "q" => weight = parse_weight(value),
                _ => {}
            }
        }
        match (kind.as_str(), version) {
            ("application/openmetrics-text", None | Some("1.0.0")) => open_metrics = open_metrics.max(weight),
            ("text/plain", None | Some("0.0.4")) => text[0] = text[0].max(Some(weight)),
            ("text/*", _) => text[1] = Some(weight),
            ("*/*", _) => text[2] = Some(weight),
            _ => {}
        }
    }
    // The most specific range decides.
    let text = text.into_iter().flatten().next().unwrap_or(0);
    if open_metrics > 0 && open_metrics >= text { Format::OpenMetrics } else { Format::Text }
}

/// What cannot be read weighs nothing.
fn parse_weight(text: &str) -> Weight {
    let weight = text.parse::<f32>().unwrap_or(0.0);
    if (0.0..=1.0).contains(&weight) { (weight * f32::from(FULL)) as Weight } else { 0 }
}

/// The media type of a page in this format.
pub(super) fn content_type(format: Format) -> &'static str {
    match format {
        Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_ask_for_openmetrics_get_it() {
        for accept in [
            // Prometheus 2, 3, and what an operator types.
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8",
            "text/plain, application/openmetrics-text",
        ] {
            assert_eq!(format(accept), Format::OpenMetrics, "{accept}");
        }
    }

    #[test]
    fn all_others_get_text() {
        for accept in [
            "",
            "*/*",
            "text/plain",
            "application/json",
            "text/html, */*;q=0.8",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=nonsense",
            "application/openmetrics-text;q=7",
            "application/openmetrics-text;q=0.3,text/*;q=0.4",
            "application/openmetrics-text;q=0.3,text/plain;q=0.4,*/*;q=0.1",
            ";;=,=;q",
        ] {
            assert_eq!(format(accept), Format::Text, "{accept}");
        }
    }
}
