//! The report as a table for a terminal.

use std::fmt;

use super::{Report, mib};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.connections;
        let wanted = self.rate_wanted_per_s.map_or(String::new(), |r| format!(" at {r}/s"));
        writeln!(
            f,
            "{} {} over {} ({} loop{wanted}), {} threads",
            self.scenario, self.target, self.protocol, self.loop_kind, self.threads
        )?;
        writeln!(
            f,
            "  connections  {} of {} opened in {:.2} s, {} lost, {} reopened, {} up at the end",
            c.opened, c.wanted, c.setup_s, c.lost, c.reopened, c.up_at_end
        )?;
        writeln!(
            f,
            "  calls        {} right ({} measured over {:.1} s, {:.0}/s), {} failures",
            self.calls.ok, self.calls.measured, self.duration_s, self.calls.rate_per_s, self.failures.total
        )?;
        write!(f, "\n                  p50       p90       p99     p99.9       max   (us)\n  latency   ")?;
        self.latency.row(f)?;
        write!(f, "  from send ")?;
        self.from_send.row(f)?;
        writeln!(
            f,
            "\n  bytes        {} sent, {} received\n  client CPU   {:.1} us per call, {:.2} cores",
            self.bytes.sent, self.bytes.received, self.client.cpu_us_per_call, self.client.cores
        )?;
        if let Some(handshake) = &self.handshake {
            write!(f, "{handshake}")?;
        }
        if let Some(fairness) = &self.fairness {
            write!(f, "{fairness}")?;
        }
        if let Some(overload) = &self.overload {
            write!(f, "{overload}")?;
        }
        if let Some(stream) = &self.stream {
            write!(f, "{stream}")?;
        }
        if let Some(server) = &self.server {
            write!(f, "{server}")?;
        }
        if let Some(kernel) = &self.kernel {
            write!(f, "{kernel}")?;
        }
        let host = &self.host;
        writeln!(
            f,
            "  host         {}, {} cores ({}), {:.1} GiB, Linux {} {}, load {:.2}",
            host.cpu_model,
            host.cpus_online,
            host.affinity,
            mib(host.memory_bytes) / 1024.0,
            host.kernel,
            host.architecture,
            host.load_average[0]
        )?;
        if !self.failures.details.is_empty() {
            writeln!(f, "  failures")?;
        }
        for failure in &self.failures.details {
            writeln!(f, "    {:<14} {:>9}  {}", failure.kind, failure.count, failure.detail)?;
        }
        Ok(())
    }
}
