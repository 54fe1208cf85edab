//! Owns the reading of Prometheus' text format, as far as tests ask values of it.

use std::collections::BTreeMap;

/// The samples of one scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads a scrape.
    ///
    /// # Panics
    /// When a line is not of the format: a scrape that Prometheus could not read fails the test.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self {
            samples: lines
                .map(|line| parse_sample(line).unwrap_or_else(|| panic!("not a sample: {line}")))
                .collect(),
        }
    }

    /// The sum of all samples of `name` that have all of `labels`; `None` when there is no such sample.
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut values = self
            .samples
            .iter()
            .filter(|sample| sample.name == name && labels.iter().all(|(key, value)| sample.has(key, value)))
            .map(|sample| sample.value)
            .peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// As [`Self::value`], with 0 for what is not there yet.
    #[must_use]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.value(name, labels).unwrap_or(0.0)
    }

    /// The names of all samples, each once, in order.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.samples.iter().map(|sample| sample.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Sample {
    fn has(&self, key: &str, value: &str) -> bool {
        self.labels.get(key).is_some_and(|held| held == value)
    }
}

fn parse_sample(line: &str) -> Option<Sample> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, after) = rest.split_once("=\"")?;
            let (value, after) = parse_label_value(after)?;
            labels.insert(key.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    // A timestamp may follow the value.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// The value up to its closing quote, unescaped, and what follows the quote.
fn parse_label_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let metrics = Metrics::parse(concat!(
            "# HELP requests_total Requests.\n# TYPE requests_total counter\n",
            "requests_total{server=\"a\",status=\"200\"} 3\n",
            "requests_total{server=\"b\",status=\"200\"} 4 1700000000\n",
            "up 1\nlag_bucket{le=\"+Inf\"} +Inf\nquoted{v=\"a\\\"b,c}\\\\\\n\"} 1e-3\n",
        ));
        assert_eq!(metrics.value("requests_total", &[("status", "200")]), Some(7.0));
        assert_eq!(metrics.value("requests_total", &[("server", "b")]), Some(4.0));
        assert_eq!(metrics.value("requests_total", &[("server", "c")]), None);
        assert_eq!(metrics.value("up", &[]), Some(1.0));
        assert_eq!(metrics.value("lag_bucket", &[("le", "+Inf")]), Some(f64::INFINITY));
        assert_eq!(metrics.value("quoted", &[("v", "a\"b,c}\\\n")]), Some(0.001));
        assert_eq!(metrics.names(), ["lag_bucket", "quoted", "requests_total", "up"]);
    }

    #[test]
    #[should_panic(expected = "not a sample")]
    fn what_is_not_a_sample_fails() {
        let _ = Metrics::parse("requests_total{server=\"a\"");
    }
}
