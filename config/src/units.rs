//! Durations and sizes as text: `"1h30m"`, `"250ms"`, `"10MiB"`.
//!
//! Owns both directions; what one prints the other reads back. It never checks a range.

use std::time::Duration;

/// Milliseconds per unit, largest first, which is also the order that a duration's parts must keep.
const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Bytes per unit, largest first.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads parts such as `1h30m`: whole numbers, each unit at most once, larger units first. `None` if it isn't one.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut units = DURATION_UNITS.iter();
    let mut rest = text;
    let mut total_ms: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let unit_len = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, tail) = after.split_at(unit_len);
        let (_, unit_ms) = units.find(|(name, _)| *name == unit)?;
        total_ms = total_ms.checked_add(number.checked_mul(*unit_ms)?)?;
        rest = tail;
    }
    Some(Duration::from_millis(total_ms))
}

/// The duration in its largest unit that divides it, in whole milliseconds.
pub(crate) fn print_duration(duration: Duration) -> String {
    let total_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if total_ms == 0 {
        return "0s".to_owned();
    }
    print_in(total_ms, &DURATION_UNITS)
}

/// Reads one whole number with a unit, or a bare number of bytes. `None` if it isn't one.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    if unit.is_empty() {
        return Some(number);
    }
    let (_, unit_bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*unit_bytes)
}

/// The size in its largest unit that divides it.
pub(crate) fn print_size(bytes: u64) -> String {
    print_in(bytes, &SIZE_UNITS)
}

fn print_in(amount: u64, units: &[(&str, u64)]) -> String {
    let unit = units.iter().find(|(_, per)| amount != 0 && amount.is_multiple_of(*per)).or(units.last());
    unit.map_or_else(|| amount.to_string(), |(name, per)| format!("{}{name}", amount / per))
}

/// Splits leading digits off; `None` without any or when they exceed 64 bits.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..digits].parse().ok()?;
    Some((number, &text[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        for (text, ms) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("300s", 300_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1h30m", 5_400_000),
            ("1m500ms", 60_500),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in [
            "",
            "30",
            "s",
            "1.5s",
            "-1s",
            " 1s",
            "1s ",
            "1S",
            "1d",
            "30m1h",
            "1s1s",
            "1h 30m",
            "99999999999999999999s",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(parse_duration(&format!("{}h", u64::MAX)), None);
    }

    #[test]
    fn reads_sizes() {
        for (text, bytes) in [
            ("512B", 512),
            ("64KiB", 65_536),
            ("10MiB", 10_485_760),
            ("1GiB", 1 << 30),
            ("4096", 4096),
            ("0", 0),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_size() {
        for text in
            ["", "KiB", "10MB", "10kib", "1.5MiB", "-1", "10 MiB", "1MiB1KiB", "18446744073709551616B"]
        {
            assert_eq!(parse_size(text), None, "{text}");
        }
        assert_eq!(parse_size("17179869184GiB"), None);
    }

    #[test]
    fn reads_back_what_it_prints() {
        for amount in [0, 1, 999, 1000, 1024, 60_000, 61_000, 90_000, 1 << 20, 3_600_000, 5_400_000, u64::MAX]
        {
            assert_eq!(
                parse_duration(&print_duration(Duration::from_millis(amount))).map(|d| d.as_millis()),
                Some(amount.into())
            );
            assert_eq!(parse_size(&print_size(amount)), Some(amount));
        }
        assert_eq!(print_duration(Duration::from_secs(3600)), "1h");
        assert_eq!(print_duration(Duration::from_secs(90)), "90s");
        assert_eq!(print_size(10 << 20), "10MiB");
    }
}
