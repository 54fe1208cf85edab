//! Durations, rates and sizes as people write them on a command line. Pure.

use std::time::Duration;

/// Reads `10s`, `250ms`, `100us`, `5m` or `1h`.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor_seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{text}` needs a unit: us, ms, s, m or h, as in 10s")),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is not a duration like 250ms"))?;
    Duration::try_from_secs_f64(number * factor_seconds).map_err(|e| format!("`{text}`: {e}"))
}

/// Reads a rate per second: `1000/s` or `1000`.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    match text.strip_suffix("/s").unwrap_or(text).parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 1e8 => Ok(rate),
        _ => Err(format!("`{text}` is not a rate like 1000/s (more than 0, at most 100000000)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        for bad in ["", "10", "s", "1.2.3s", "10 s", "-1s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_are_per_second() {
        assert_eq!(parse_rate("1000/s"), Ok(1000.0));
        assert_eq!(parse_rate("0.5"), Ok(0.5));
        for bad in ["0", "-1", "x", "1/m", "inf", "NaN"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }
}
