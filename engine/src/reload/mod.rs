//! The configuration while the gateway serves: owns when it is read again (SIGHUP, another file), and the taking over of what can
//! change, as a whole or not at all. What can change is `mcp_config`'s knowledge, what it means to a server [`crate::setup`]'s.
//!
//! One thread looks after all files: the configuration, what servers are trusted by, and the gateway's own certificates.

mod alone;
mod counts;
pub(crate) mod files;
pub(crate) mod log;
pub(crate) mod source;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mcp_config::{Config, Transport};

use crate::peer::Identity;
use crate::process::Process;
use crate::setup::{Build, Setup};
use crate::shard::mailbox::Mail;
use crate::signals::Signals;
use crate::tls::rotating::Watched;
use crate::upstream::resolver::Resolver;
pub(crate) use alone::Alone;
use counts::Outcome;
pub(crate) use counts::{OUTCOMES, Reloads};
use files::{Seen, Watch};
use log::LogLevel;
use source::Source;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Whatever is needed to take over another configuration.
pub(crate) struct Reloader {
    pub(crate) source: Source,
    /// What was read last, whether all of it is in force or not.
    pub(crate) read: Config,
    pub(crate) resolver: Resolver,
    pub(crate) alone: Alone,
    pub(crate) log: LogLevel,
}

/// Reads the configuration again when that is wanted, for the rest of the process's life, on a thread of its own.
///
/// # Errors
/// The system's, when it gives no thread.
pub(crate) fn start(process: Arc<Process>, reloader: Reloader, signals: Signals) -> io::Result<()> {
    let mut certificates: Vec<Watched> = process.certificates.iter().filter_map(Watched::new).collect();
    let mut authorities = Authorities::new(&process.identity);
    let mut watch = Watch::new(reloader.see(&process.setup()));
    let running = reloader.read.clone();
    let mut reloading = Reloading { process, reloader, running };
    std::thread::Builder::new().name("files".into()).spawn(move || {
        loop {
            let is_wanted = signals.wait_for(LOOK_EVERY).is_some();
            certificates.iter_mut().for_each(Watched::look);
            authorities.look(&reloading.process.identity);
            let seen = reloading.see();
            if is_wanted {
                watch = Watch::new(seen);
                reloading.run();
            } else if watch.is_news(seen) {
                reloading.run();
            }
        }
    })?;
    Ok(())
}

/// Who vouches for other gateways: the file, as it was seen.
struct Authorities(Watch);

impl Authorities {
    fn new(identity: &Identity) -> Self {
        Authorities(Watch::new(Self::see(identity)))
    }

    fn see(identity: &Identity) -> Vec<Seen> {
        identity.ca_file().into_iter().map(files::see).collect()
    }

    fn look(&mut self, identity: &Identity) {
        let (true, Some(certificate)) = (self.0.is_news(Self::see(identity)), identity.certificate()) else {
            return;
        };
        let trusted = identity.trust_again();
        certificate.count_authorities(trusted.is_ok());
        match trusted {
            Ok(()) => tracing::info!("other authorities vouch for gateways"),
            Err(error) => tracing::error!(%error, "new authorities are refused; the old ones serve on"),
        }
    }
}

impl Reloader {
    /// The files that the configuration in force comes from.
    fn see(&self, setup: &Setup) -> Vec<Seen> {
        let of_servers = setup.present().flat_map(|server| server.tls_files());
        let files: Vec<PathBuf> = self.source.file.clone().into_iter().chain(of_servers).collect();
        files.iter().map(|file| files::see(file)).collect()
    }
}

struct Reloading {
    process: Arc<Process>,
    reloader: Reloader,
    /// The configuration in force, without the demo server.
    running: Config,
}

impl Reloading {
    fn see(&self) -> Vec<Seen> {
        self.reloader.see(&self.process.setup())
    }

    /// Reads the configuration and takes it over.
    fn run(&mut self) {
        if self.process.leaving.load(Ordering::Acquire) {
            return;
        }
        let outcome = self.take_over().unwrap_or_else(|errors| {
            for error in errors.lines() {
                tracing::error!(error, "the configuration is refused; the old one serves on");
            }
            Outcome::Refused
        });
        self.process.reloads.note(outcome);
    }

    /// # Errors
    /// All that is wrong, one line each; then nothing has changed.
    fn take_over(&mut self) -> Result<Outcome, String> {
        let wanted = self.reloader.source.read()?;
        let before = self.process.setup();
        if wanted == self.reloader.read && !before.present().any(|server| server.has_other_files()) {
            tracing::info!("the configuration was read again and says what it said before");
            return Ok(Outcome::Unchanged);
        }
        let reload = self.running.reload(&wanted).map_err(|errors| errors.to_string())?;
        let mut running = reload.config;
        let held_back = self.hold_back(&mut running);
        let mut complete = running.clone();
        let io = |error: io::Error| error.to_string();
        self.reloader.alone.fill(&mut complete).map_err(io)?;
        let setup = Build::run(Some(&before), &complete, &mut self.reloader.resolver)
            .map_err(|error| error.to_string())?;
        self.tell_keeper(&before, &setup).map_err(io)?;

        for change in &reload.changed {
            tracing::info!(key = change.key, before = change.running, now = change.wanted, "changed");
        }
        tell_servers(&before, &setup);
        for change in &reload.pending {
            let (key, running, file) = (&change.key, &change.running, &change.wanted);
            tracing::warn!(key, running, file, "needs a restart");
        }
        for name in &held_back {
            tracing::warn!(
                server = name,
                "needs a restart: processes can be started only where there was such a server at the start"
            );
        }
        self.process.reloads.set_pending(reload.pending.len() + held_back.len());
        self.reloader.log.set(running.log.level);
        self.process.table.limit(&running.server);
        self.process.setup.store(Arc::new(setup));
        self.process.tell_shards(|| Mail::Setup);
        (self.running, self.reloader.read) = (running, wanted);
        tracing::info!("another configuration is in force");
        Ok(Outcome::Ok)
    }

    /// Leaves out what cannot be there without a keeper of processes, which is started before everything else; says whom.
    fn hold_back(&self, config: &mut Config) -> Vec<String> {
        let can_start = self.process.keeper.is_some();
        let wanted = std::mem::take(&mut config.upstreams).into_iter();
        let (kept, held_back): (Vec<_>, Vec<_>) =
            wanted.partition(|upstream| can_start || !matches!(upstream.transport, Transport::Stdio(_)));
        config.upstreams = kept;
        held_back.into_iter().map(|upstream| upstream.name).collect()
    }

    /// The keeper hears of other commands before any shard asks for them.
    fn tell_keeper(&self, before: &Setup, setup: &Setup) -> io::Result<()> {
        let Some(keeper) = &self.process.keeper else { return Ok(()) };
        for server in setup.present() {
            let old = before.servers.get(usize::from(server.number));
            if old.is_none_or(|old| !Arc::ptr_eq(old, server)) {
                keeper.know(server.number, &server.settings.transport)?;
            }
        }
        Ok(())
    }
}

/// Says which servers are others now.
fn tell_servers(before: &Setup, setup: &Setup) {
    for server in &setup.servers {
        let name = &*server.settings.name;
        let old = before.servers.get(usize::from(server.number)).filter(|old| !old.is_gone);
        match old {
            None if server.is_gone => {}
            None => tracing::info!(server = name, "a server was added"),
            Some(_) if server.is_gone => tracing::info!(server = name, "a server was removed"),
            Some(old) if !Arc::ptr_eq(old, server) => tracing::info!(server = name, "a server was changed"),
            Some(_) => {}
        }
    }
}
