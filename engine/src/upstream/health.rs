//! Health checks: owns when an endpoint is taken out and in again, by how many checks in a row said the same. Pure; who
//! checks, and how, is [`crate::exchange`]'s.

use mcp_config::Health as Settings;

use crate::shard::table::endpoints::Health;

/// Checks in a row of one outcome.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Streak {
    failures: u32,
    successes: u32,
}

impl Streak {
    /// Takes a check's outcome; says what the endpoint is from now on, where that is another thing than `before`. The first
    /// success of all counts at once: a server that has just started is not to wait.
    pub(crate) fn note(&mut self, well: bool, before: Health, settings: &Settings) -> Option<Health> {
        let (same, other) = if well {
            (&mut self.successes, &mut self.failures)
        } else {
            (&mut self.failures, &mut self.successes)
        };
        *same = same.saturating_add(1);
        *other = 0;
        let now = match (well, before) {
            (true, Health::Unknown) => Health::Healthy,
            (true, Health::Unhealthy) if *same >= settings.healthy_after => Health::Healthy,
            (false, Health::Unknown | Health::Healthy) if *same >= settings.unhealthy_after => {
                Health::Unhealthy
            }
            (_, before) => before,
        };
        (now != before).then_some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(outcomes: &[bool]) -> Vec<Health> {
        let settings = Settings { unhealthy_after: 3, healthy_after: 2, ..Settings::default() };
        let (mut streak, mut health) = (Streak::default(), Health::Unknown);
        let changes = outcomes.iter().map(|&well| {
            health = streak.note(well, health, &settings).unwrap_or(health);
            health
        });
        changes.collect()
    }

    #[test]
    fn as_many_in_a_row_as_are_configured_change_it_and_the_first_success_at_once() {
        use Health::{Healthy as H, Unhealthy as U, Unknown as N};
        assert_eq!(run(&[true, false, false, true, false, false, false]), [H, H, H, H, H, H, U]);
        assert_eq!(run(&[false, false, false, true, false, true, true]), [N, N, U, U, U, U, H]);
    }
}
