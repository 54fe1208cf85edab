//! A job's result as a table. Pure formatting.

use std::fmt;

use super::report::{CellReport, TargetReport};

/// The figure that has a column of its own.
const CPU: &str = "server.cpu_us_per_call";

impl fmt::Display for CellReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = if self.rounds == 1 { String::new() } else { format!("{} rounds of ", self.rounds) };
        let ended = if self.interrupted { " (interrupted)" } else { "" };
        writeln!(f, "{rounds}{}{ended}", self.load)?;
        if !self.cell.is_empty() {
            let parts: Vec<_> =
                self.cell.iter().map(|(key, value)| format!("{key}={}", bare(value))).collect();
            writeln!(f, "  {}", parts.join(" "))?;
        }
        writeln!(
            f,
            "\n  {:<14}{:>12}{:>8}{:>8}{:>11}{:>11}{:>10}{:>10}",
            "target", "CPU us/call", "user", "system", "p50 us", "p99 us", "calls/s", "failures"
        )?;
        for target in &self.targets {
            row(f, target)?;
        }
        if self.figure != CPU {
            self.figures(f)?;
        }
        self.ratios(f)?;
        self.idle(f)?;
        self.facts(f)
    }
}

impl CellReport {
    fn figures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n  median of {}", self.figure)?;
        for target in &self.targets {
            if let Some(figure) = target.median.figure {
                writeln!(f, "    {:<14}{figure:>10.2}", target.name)?;
            }
        }
        Ok(())
    }

    fn idle(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.targets.iter().all(|target| target.median.idle.is_none()) {
            return Ok(());
        }
        writeln!(f, "\n  bytes per idle connection  resident  with the kernel's")?;
        for target in &self.targets {
            let Some(idle) = target.median.idle else { continue };
            let group = idle.group.map_or("-".to_owned(), |bytes| format!("{bytes:.0}"));
            writeln!(f, "    {:<23}{:>10.0}{group:>19}", target.name, idle.resident)?;
        }
        Ok(())
    }

    fn ratios(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.targets.first().filter(|_| !self.ratio.is_empty()) else { return Ok(()) };
        writeln!(f, "\n  {} of {}, median of the rounds' ratios", self.figure, first.name)?;
        for name in self.targets.iter().map(|target| &target.name) {
            let Some(r) = self.ratio.get(name) else { continue };
            writeln!(
                f,
                "    to {name:<12}{:>7.3}  ({:.3} to {:.3} in {} rounds)",
                r.median, r.min, r.max, r.rounds
            )?;
        }
        Ok(())
    }

    fn facts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / 1048576.0;
        writeln!(f)?;
        for target in &self.targets {
            let version = target.version.as_deref().unwrap_or("");
            let threads = if target.threads == 1 { "thread" } else { "threads" };
            write!(f, "  {:<14}{} {threads}", target.name, target.threads)?;
            if let Some(tls) = &target.tls {
                write!(f, ", {}, {}", tls.suite, tls.key_exchange)?;
            }
            writeln!(f, "{}{version}", if version.is_empty() { "" } else { ", " })?;
            if let Some(m) = &target.memory {
                let part = |name: &str, bytes: Option<u64>| {
                    bytes.map_or(String::new(), |bytes| format!(", {name} {:.1}", mib(bytes)))
                };
                writeln!(
                    f,
                    "                memory peak {:.1} MiB of {:.0}; at most {:.1} MiB{}{}{}",
                    mib(m.peak_bytes),
                    mib(m.limit_bytes),
                    mib(m.at_most.usage_bytes),
                    part("resident", m.at_most.resident_bytes),
                    part("kernel", m.at_most.kernel_bytes),
                    part("socket buffers", m.at_most.socket_bytes),
                )?;
            }
            if let Some(why) = &target.no_group {
                writeln!(f, "                no memory limit: {why}")?;
            }
        }
        Ok(())
    }
}

fn row(f: &mut fmt::Formatter<'_>, target: &TargetReport) -> fmt::Result {
    write!(f, "  {:<14}", target.name)?;
    if let (true, Some(why)) = (target.turns.is_empty(), &target.cannot) {
        return writeln!(f, "cannot: {}", why.lines().next().unwrap_or(""));
    }
    let m = &target.median;
    let columns = [
        (m.cpu_us_per_call, 12, 1),
        (m.user_us_per_call, 8, 1),
        (m.system_us_per_call, 8, 1),
        (m.p50_us, 11, 1),
        (m.p99_us, 11, 1),
        (m.calls_per_s, 10, 0),
    ];
    for (value, width, digits) in columns {
        match value {
            Some(value) => write!(f, "{value:>width$.digits$}")?,
            None => write!(f, "{:>width$}", "-")?,
        }
    }
    writeln!(f, "{:>10}", target.failures)?;
    match &target.cannot {
        Some(why) => writeln!(f, "                ended after {} turns: {why}", target.turns.len()),
        None => Ok(()),
    }
}

/// A value without the quotation marks of JSON.
fn bare(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
