//! The metrics of configurations that are read again: owns their names and help lines. Never a number of its own.

use super::Page;
use crate::reload::{OUTCOMES, Reloads};

impl Page<'_> {
    pub(super) fn reloads(&mut self, reloads: &Reloads) {
        self.head(
            "config_reloads_total",
            "counter",
            "Configurations read after the start, by what became of them.",
        );
        for (result, count) in OUTCOMES.iter().zip(reloads.outcomes()) {
            self.line("config_reloads_total", &[("result", result)], count);
        }
        self.head(
            "config_last_reload_successful",
            "gauge",
            "0 while the configuration that was read last is refused, else 1.",
        );
        self.line("config_last_reload_successful", &[], u8::from(reloads.is_fine()));
        self.head(
            "config_last_reload_success_timestamp_seconds",
            "gauge",
            "When a configuration was taken over last, in seconds since 1970; at first the start.",
        );
        self.line("config_last_reload_success_timestamp_seconds", &[], reloads.taken_unix_s());
        self.head(
            "config_pending_restart",
            "gauge",
            "Keys and servers of the configuration that was read last which a restart would change.",
        );
        self.line("config_pending_restart", &[], reloads.pending());
    }
}
