//! All that the keeper's processes have started: owns finding them, also those that left their group, and their end. Never
//! called while the gateway lives.

use std::collections::HashMap;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};

/// Rounds until all are gone; new ones may be started while the old are killed.
const ROUNDS: usize = 500;
const BETWEEN_ROUNDS: Duration = Duration::from_millis(10);

/// Kills every descendant of this process and buries them. As the subreaper it inherits those whose parents die.
pub(super) fn kill_all() {
    for _ in 0..ROUNDS {
        for descendant in find(getpid(), &parents()) {
            // One that is gone already is what is wanted.
            let _ = kill_process(descendant, Signal::KILL);
        }
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                // There is no child left.
                Err(_) => return,
            }
        }
        std::thread::sleep(BETWEEN_ROUNDS);
    }
}

/// Each process's parent, by what /proc says.
fn parents() -> HashMap<i32, i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return HashMap::new() };
    entries
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parent(&stat)?))
        })
        .collect()
}

/// The parent in a line of /proc/PID/stat: behind the name, which may hold anything, and the state.
fn parent(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn find(of: Pid, parents: &HashMap<i32, i32>) -> Vec<Pid> {
    let mut found = vec![of.as_raw_nonzero().get()];
    let mut at = 0;
    while at < found.len() {
        let above = found[at];
        found.extend(parents.iter().filter(|(_, parent)| **parent == above).map(|(pid, _)| *pid));
        at += 1;
    }
    found.into_iter().skip(1).filter_map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        assert_eq!(parent("12 (a) b (c)) S 7 12 12 0 -1"), Some(7));
        assert_eq!(parent("12 (sh) Z 1 12"), Some(1));
        assert_eq!(parent("nonsense"), None);
    }

    #[test]
    fn descendants_of_descendants_are_found_and_others_are_not() {
        let parents = [(2, 1), (3, 2), (4, 3), (5, 1), (6, 99)].into_iter().collect();
        let mut found: Vec<_> =
            find(Pid::from_raw(2).unwrap(), &parents).iter().map(|pid| pid.as_raw_nonzero().get()).collect();
        found.sort_unstable();
        assert_eq!(found, [3, 4]);
    }
}
