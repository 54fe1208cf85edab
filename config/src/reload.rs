//! Another configuration while one is running: what of it counts at once, and what waits for a restart.
//!
//! Owns the comparison, key by key, and the mixture that runs from then on. It never reads a file, and never decides how a
//! value takes effect.

use std::collections::BTreeSet;

use crate::error::present;
use crate::raw::{Entry, RawConfig};
use crate::reader::Reader;
use crate::types::Config;
use crate::{Errors, convert, keys};

/// What becomes of a configuration that is read while another one runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// What runs from now on: the new configuration, but for the keys in `pending`, which are as they were.
    pub config: Config,
    /// The keys of `gateway` that have another value from now on, in order.
    pub changed: Vec<Difference>,
    /// The keys whose new value needs a restart, in order.
    pub pending: Vec<Difference>,
}

/// A key with two values, each as `print-config` shows it, with secrets hidden; empty where the key does not apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key's path, such as `gateway.server.https_port`.
    pub key: String,
    /// What ran until now.
    pub running: String,
    /// What the new configuration says.
    pub wanted: String,
}

impl Config {
    /// Takes over what can change while this configuration runs, and says what cannot.
    ///
    /// # Errors
    /// Where the mixture of new keys and those that stay breaks a rule between keys.
    pub fn reload(&self, wanted: &Config) -> Result<Reload, Errors> {
        let (running, mut mixed) = (raw(self), raw(wanted));
        let of_gateway = |key: &&String| key.starts_with("gateway.");
        let paths: BTreeSet<String> =
            running.entries.keys().chain(mixed.entries.keys()).filter(of_gateway).cloned().collect();
        let (mut changed, mut pending) = (Vec::new(), Vec::new());
        for key in paths {
            let shown = |entry: Option<&Entry>| entry.map_or("", |entry| &entry.shown).to_owned();
            let (runs, wants) = (shown(running.entries.get(&key)), shown(mixed.entries.get(&key)));
            if runs == wants {
                continue;
            }
            let difference =
                Difference { running: present(&key, &runs), wanted: present(&key, &wants), key: key.clone() };
            if keys::needs_restart(&key) { pending.push(difference) } else { changed.push(difference) }
        }
        mixed.entries.retain(|key, _| !keys::needs_restart(key));
        mixed.entries.extend(running.entries.into_iter().filter(|(key, _)| keys::needs_restart(key)));
        mixed.sections.retain(|path, _| !keys::is_of_restart(path));
        mixed.sections.extend(running.sections.into_iter().filter(|(path, _)| keys::is_of_restart(path)));

        let mut reader = Reader::new(&mixed, ORIGIN, Vec::new());
        let config = convert::config(&mut reader, mixed.servers);
        Errors::check(reader.into_problems())?;
        Ok(Reload { config, changed, pending })
    }
}

/// Where a value of the mixture stands, in a message about a rule between keys.
const ORIGIN: &str = "the new configuration with what needs a restart as it was";

/// A valid configuration's values, as they are printed.
fn raw(config: &Config) -> RawConfig {
    let mut raw = RawConfig::default();
    // What is printed loads again, so there is no problem to note.
    raw.add_file(ORIGIN, &config.to_toml(), &mut Vec::new());
    raw
}
