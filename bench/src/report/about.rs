//! Where a report comes from: the tool's version, the time, and the command without its secrets. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// What stands in place of a secret.
const HIDDEN: &str = "...";
/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// Where a report comes from.
#[derive(Clone, Debug, Serialize)]
pub struct About {
    /// Version of `mcp-bench`.
    pub version: &'static str,
    /// The run's begin, in UTC (RFC 3339).
    pub started_utc: String,
    /// The command line; tokens and values of header fields are left out.
    pub command: String,
}

impl About {
    /// A run begun at `started` by the command of these arguments.
    pub(crate) fn new(started: SystemTime, arguments: impl Iterator<Item = String>) -> Self {
        Self { version: env!("CARGO_PKG_VERSION"), started_utc: utc(started), command: command(arguments) }
    }
}

/// The arguments as one line that a shell would take, the program's path shortened to its name.
fn command(mut arguments: impl Iterator<Item = String>) -> String {
    let program = arguments.next().unwrap_or_default();
    let mut line = program.rsplit('/').next().unwrap_or_default().to_owned();
    let mut secret: fn(&str) -> String = str::to_owned;
    for argument in arguments {
        let shown = match argument.split_once('=') {
            Some(("--token", _)) => format!("--token={HIDDEN}"),
            Some(("--header", field)) => format!("--header={}", without_value(field)),
            _ => secret(&argument),
        };
        secret = match argument.as_str() {
            "--token" => |_| HIDDEN.to_owned(),
            "--header" => without_value,
            _ => str::to_owned,
        };
        line.push(' ');
        line.push_str(&quoted(&shown));
    }
    line
}

fn without_value(field: &str) -> String {
    format!("{}:{HIDDEN}", field.split(':').next().unwrap_or_default())
}

fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+[]".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (year, month, day) = civil(seconds / DAY_S);
    let of_day = seconds % DAY_S;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// Year, month and day of a number of days since 1970-01-01, by the Gregorian calendar. Counted from March, so that the
/// leap day ends a year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn secrets_are_left_out_and_the_rest_can_be_typed() {
        let line = ["/usr/bin/mcp-bench", "run", "--token", "t0p", "--token=t0p", "--header", "X-Key:t0p"];
        let more = ["--header=X-Key:t0p", "--expect", "it's", ""];
        let shown = command(line.into_iter().chain(more).map(str::to_owned));
        assert_eq!(
            shown,
            r"mcp-bench run --token ... --token=... --header X-Key:... --header=X-Key:... --expect 'it'\''s' ''"
        );
    }
}
