//! The part of the page about the process: owns names and help lines of what runs, of certificates and of shards. Never a
//! number of its own.

use super::super::Snapshot;
use super::{Page, seconds};

impl Page<'_> {
    pub(super) fn process(&mut self) {
        self.head("build_info", "info", "Always 1; the labels say what runs.");
        let (version, executor) = (self.facts.version.to_owned(), self.facts.executor.to_owned());
        self.line("build_info", &[("version", &version), ("driver", &executor)], 1);
        self.head("uptime_seconds", "gauge", "Seconds since the process started.");
        self.line("uptime_seconds", &[], self.facts.uptime.as_secs());
    }

    pub(super) fn certificates(&mut self) {
        let certificates = self.facts.certificates;
        self.head(
            "certificate_expiry_seconds",
            "gauge",
            "When the certificate in force ends, in seconds since 1970.",
        );
        for certificate in certificates {
            let labels = [("certificate", certificate.label())];
            self.line("certificate_expiry_seconds", &labels, certificate.ends_unix_s());
        }
        self.head(
            "certificate_reloads_total",
            "counter",
            "Changed certificate files that were taken over or refused.",
        );
        for certificate in certificates {
            let (loaded, refused) = certificate.reloads();
            for (result, count) in [("loaded", loaded), ("refused", refused)] {
                let labels = [("certificate", certificate.label()), ("result", result)];
                self.line("certificate_reloads_total", &labels, count);
            }
        }
    }

    pub(super) fn shards(&mut self, shards: &[Snapshot]) {
        self.head("sessions_active", "gauge", "Legacy sessions in this process's memory.");
        self.line("sessions_active", &[], shards.iter().map(|shard| shard.gauges.sessions).sum::<u64>());
        self.per_shard(
            shards,
            "buffered_bytes",
            "gauge",
            "Bytes held for unfinished messages and slow readers.",
            |s| s.gauges.buffered_bytes as f64,
        );
        self.per_shard(
            shards,
            "shard_loop_lag_seconds",
            "gauge",
            "The longest turn since the last scrape.",
            |s| seconds(s.lag_us),
        );
        self.per_shard(
            shards,
            "shard_queue_delay_seconds",
            "gauge",
            "The longest that a ready socket waited for the shard since the last scrape.",
            |s| seconds(s.queue_delay_us),
        );
        self.per_shard(
            shards,
            "shard_in_flight_limit",
            "gauge",
            "Requests that the shard takes at a time; further ones are refused.",
            |s| s.gauges.in_flight_limit as f64,
        );
        self.per_shard(
            shards,
            "shard_cpu_seconds_total",
            "counter",
            "CPU time of the shard's thread.",
            |s| seconds(s.gauges.cpu_us),
        );
    }

    fn per_shard(
        &mut self,
        shards: &[Snapshot],
        name: &str,
        kind: &str,
        help: &str,
        value: impl Fn(&Snapshot) -> f64,
    ) {
        self.head(name, kind, help);
        for shard in shards {
            self.line(name, &[("shard", &shard.shard.to_string())], value(shard));
        }
    }
}
