//! Where a value lies on an axis, and which values are labelled. Pure.

/// Ticks that a linear axis has about.
const LINEAR_TICKS: f64 = 5.0;
/// Decades that a logarithmic axis may have and still be labelled at 2 and 5 in each.
const FINE_DECADES: f64 = 2.5;

/// A share of 1 would lie at infinity.
const HIGHEST_SHARE: f64 = 0.999_999_999;

/// How values are spread along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// Evenly.
    Linear,
    /// By their logarithm.
    Log,
    /// Shares of calls, each step to the right leaving a tenth of what is above it: 0, 90 %, 99 %, 99.9 %.
    Percentile,
}

/// What the values are, which says how they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Microseconds,
    Bytes,
    PerSecond,
    Cores,
    Connections,
    Share,
}

/// An axis over a range of values, both ends included.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) label: &'static str,
    pub(super) unit: Unit,
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axis {
    /// An axis that has all of `values` on it; a linear one begins at 0, unless values lie below.
    pub(super) fn over(
        label: &'static str,
        unit: Unit,
        scale: Scale,
        values: impl Iterator<Item = f64>,
    ) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite() && (scale != Scale::Log || *value > 0.0)) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        match scale {
            Scale::Linear => {
                low = low.min(0.0);
                let step = nice_step((high - low).max(f64::MIN_POSITIVE), unit);
                // Time ends where the run ends; other values get room up to the next tick.
                if !matches!(unit, Unit::Seconds | Unit::Connections) {
                    high = (high / step).ceil() * step;
                }
                low = (low / step).floor() * step;
                if low >= high {
                    high = low + 1.0;
                }
            }
            Scale::Log => {
                low = one_two_five(low, false);
                high = one_two_five(high * 1.0001, true).max(low * 10.0);
            }
            Scale::Percentile => (low, high) = (0.0, high.clamp(0.9, HIGHEST_SHARE)),
        }
        Self { label, unit, scale, low, high }
    }

    /// Where a value lies, from 0 to 1; values beyond an end lie at it.
    pub(super) fn position(&self, value: f64) -> f64 {
        let (low, high, value) = (self.spread(self.low), self.spread(self.high), self.spread(value));
        ((value - low) / (high - low)).clamp(0.0, 1.0)
    }

    /// The values to be labelled.
    pub(super) fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = nice_step(self.high - self.low, self.unit);
                let count = ((self.high - self.low) / step + 1e-6) as u32;
                (0..=count).map(|i| self.low + f64::from(i) * step).collect()
            }
            Scale::Log => {
                let fine = self.high.log10() - self.low.log10() <= FINE_DECADES;
                let mut ticks = Vec::new();
                for decade in self.low.log10().floor() as i32..=self.high.log10().ceil() as i32 {
                    let factors: &[f64] = if fine { &[1.0, 2.0, 5.0] } else { &[1.0] };
                    ticks.extend(factors.iter().map(|factor| factor * 10f64.powi(decade)));
                }
                ticks.retain(|tick| (self.low * 0.999..=self.high * 1.001).contains(tick));
                ticks
            }
            Scale::Percentile => {
                let mut ticks = vec![0.0, 0.5];
                let nines = (1..=9).map(|n| 1.0 - 10f64.powi(-n));
                ticks.extend(nines.take_while(|tick| *tick <= self.high + 1e-12));
                ticks
            }
        }
    }

    fn spread(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(self.low).log10(),
            Scale::Percentile => -(1.0 - value.clamp(0.0, self.high)).log10(),
        }
    }
}

impl Unit {
    /// A value as people write it.
    pub(super) fn text(self, value: f64) -> String {
        match self {
            Self::Seconds => format!("{} s", short(value)),
            Self::Microseconds if value >= 999_500.0 => format!("{} s", short(value / 1e6)),
            Self::Microseconds if value >= 999.5 => format!("{} ms", short(value / 1e3)),
            Self::Microseconds => format!("{} µs", short(value)),
            Self::Bytes if value.abs() >= 1_073_741_824.0 => {
                format!("{} GiB", short(value / 1_073_741_824.0))
            }
            Self::Bytes if value.abs() >= 1_048_576.0 => format!("{} MiB", short(value / 1_048_576.0)),
            Self::Bytes if value.abs() >= 1024.0 => format!("{} KiB", short(value / 1024.0)),
            Self::Bytes => format!("{} B", short(value)),
            Self::PerSecond => format!("{}/s", short(value)),
            Self::Cores | Self::Connections => short(value),
            Self::Share => format!("{} %", trimmed(format!("{:.7}", value * 100.0))),
        }
    }
}

/// A number with three digits that count, or all of those before the point, in groups of three.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        _ if size < 1e-9 => 0,
        _ if size < 1.0 => 3,
        _ if size < 10.0 => 2,
        _ if size < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    if decimals > 0 { trimmed(text) } else { grouped(&text) }
}

/// Digits in groups of three, with narrow spaces that do not break.
fn grouped(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |rest| ("-", rest));
    let mut text = sign.to_owned();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) && digits.len() > 4 {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

fn trimmed(text: String) -> String {
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A step of 1, 2 or 5 times a power of ten (bytes: of 1024 as well) that gives about [`LINEAR_TICKS`] ticks.
fn nice_step(range: f64, unit: Unit) -> f64 {
    let rough = range / LINEAR_TICKS;
    let base = match unit {
        Unit::Bytes => 1024f64.powf(rough.max(1.0).log(1024.0).floor()),
        _ => 1.0,
    };
    let step = match base * one_two_five(rough / base, true) {
        step if unit == Unit::Bytes && step >= base * 1000.0 => base * 1024.0,
        step => step,
    };
    if unit == Unit::Connections { step.max(1.0) } else { step }
}

/// The next number of 1, 2 or 5 times a power of ten, upwards or downwards.
fn one_two_five(value: f64, up: bool) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let digit = value / power;
    let factors = [1.0, 2.0, 5.0, 10.0];
    let found = if up {
        factors.into_iter().find(|factor| digit <= factor * 1.000_001)
    } else {
        factors.into_iter().rev().find(|factor| *factor <= digit * 1.000_001)
    };
    found.unwrap_or(1.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_axis_begins_at_0_and_ends_on_a_tick() {
        let axis = Axis::over("", Unit::PerSecond, Scale::Linear, [310.0, 980.0].into_iter());
        assert_eq!(axis.ticks(), [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]);
        assert!((axis.position(500.0) - 0.5).abs() < 1e-9);
        let bytes = Axis::over("", Unit::Bytes, Scale::Linear, [9.0 * 1048576.0].into_iter());
        assert_eq!(bytes.ticks().last().map(|tick| Unit::Bytes.text(*tick)), Some("10 MiB".to_owned()));
        let few = Axis::over("", Unit::Bytes, Scale::Linear, [4.7 * 1048576.0].into_iter());
        assert_eq!(few.ticks().get(1).map(|tick| Unit::Bytes.text(*tick)), Some("1 MiB".to_owned()));
    }

    #[test]
    fn a_logarithmic_axis_is_labelled_by_decades() {
        let axis = Axis::over("", Unit::Microseconds, Scale::Log, [37.0, 2_100_000.0, 0.0].into_iter());
        assert_eq!(axis.ticks(), [100.0, 1e3, 1e4, 1e5, 1e6]);
        let fine = Axis::over("", Unit::Microseconds, Scale::Log, [37.0, 80.0].into_iter());
        assert_eq!(fine.ticks(), [20.0, 50.0, 100.0, 200.0]);
        assert!(axis.position(0.0).abs() < 1e-9);
    }

    #[test]
    fn percentiles_leave_a_tenth_at_each_step() {
        let axis = Axis::over("", Unit::Share, Scale::Percentile, [0.0, 0.9999].into_iter());
        assert!((axis.position(0.99) - 0.5).abs() < 1e-9);
        let labels: Vec<_> = axis.ticks().into_iter().map(|tick| Unit::Share.text(tick)).collect();
        assert_eq!(labels, ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }

    #[test]
    fn nothing_to_show_is_no_accident() {
        for scale in [Scale::Linear, Scale::Log, Scale::Percentile] {
            for values in [vec![], vec![0.0], vec![5.0, 5.0]] {
                let axis = Axis::over("", Unit::PerSecond, scale, values.into_iter());
                assert!(axis.ticks().len() < 20, "{axis:?}");
                assert!(axis.position(5.0).is_finite(), "{axis:?}");
            }
        }
    }

    #[test]
    fn numbers_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (0.0512, "0.051"),
            (1.5, "1.5"),
            (12.34, "12.3"),
            (1234.4, "1234"),
            (-12345.0, "-12\u{202f}345"),
            (1234567.0, "1\u{202f}234\u{202f}567"),
        ] {
            assert_eq!(short(value), expected);
        }
        assert_eq!(Unit::Microseconds.text(1500.0), "1.5 ms");
        assert_eq!(Unit::Microseconds.text(999.9), "1 ms");
    }
}
