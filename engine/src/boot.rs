//! Boot: owns the order in which a process comes up and goes down. One readable function each way; whatever is decided
//! along the way is decided elsewhere.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use mcp_config::{Config, Shards};

use crate::keeper::Keeper;
use crate::peer::Identity;
use crate::process::Process;
use crate::reload::log::LogLevel;
use crate::reload::source::Source;
use crate::reload::{self, Alone, Reloader, Reloads};
use crate::runtime::{self, Plan, ShardDriver};
use crate::setup::Build;
use crate::shard::Shard;
use crate::shard::mailbox::{Mail, Mailbox};
use crate::shard::table::Table;
use crate::shard::turn::Driven;
use crate::signals::Signals;
use crate::store::Reach;
use crate::tls::rotating::Rotating;
use crate::upstream::resolver::Resolver;
use crate::{admin, banner, door, fatal, tls};

/// ALPN protocols on the HTTPS port, in our order of preference; without ALPN it is HTTP/1.1.
const ALPN: &[&[u8]] = &[door::h2::ALPN, b"http/1.1"];

/// Between `drain_delay` and the drain: who has begun to connect gets through, accepted, with its handshake and its first
/// request; who has not is not answered. A client asks again one second after it was not (RFC 6298), when the listeners are
/// closed and another process at the port, if there is one, has all that comes. So it is long for a handshake and shorter
/// than that second.
const LEAVING: Duration = Duration::from_millis(500);

/// Why the gateway did not come up.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BootError(String);

impl BootError {
    fn because(error: impl std::fmt::Display) -> Self {
        BootError(error.to_string())
    }
}

/// Serves `config`, which was read from `source`, until a signal ends it: 0 after a drain, also when the drain was cut at its
/// deadline.
pub(crate) fn serve(source: Source, config: Config, log: LogLevel) -> Result<ExitCode, BootError> {
    let (end_signals, reload_signals) = (Signals::of_end(), Signals::of_reload());
    fatal::install_panic_hook();
    let shards = shard_count(&config);
    let keeper = Keeper::start(&config, shards.get())
        .map_err(|error| BootError(format!("the keeper of stdio processes could not be started: {error}")))?;
    raise_open_file_limit(&config);
    let read = config.clone();
    let (mut config, mut alone) = (config, Alone::default());
    let is_demo = alone.fill(&mut config).map_err(BootError::because)?;

    let certificate = certificate(&config)?;
    let server_tls = tls::config::server(certificate.clone(), config.server.tls.min_version, ALPN)
        .map_err(BootError::because)?;
    let mut resolver = Resolver::new(&config.dns);
    let setup = Build::run(None, &config, &mut resolver).map_err(BootError::because)?;
    let identity = Identity::new(config.peers.as_ref()).map_err(BootError::because)?;
    let store = Reach::new(&config).map_err(BootError::because)?;

    let admin = admin::bind(config.server.admin_listen).map_err(BootError::because)?;
    let mailboxes = (0..shards.get())
        .map(|_| Mailbox::new().map(Arc::new))
        .collect::<Result<_, _>>()
        .map_err(BootError::because)?;
    let (listening, reports) = sync_channel(shards.get());
    let plan = Plan { shards, pin: config.runtime.pin, driver: config.runtime.driver };
    let process = Arc::new(Process {
        table: Table::new(&config.server),
        setup: ArcSwap::from_pointee(setup),
        start: Instant::now(),
        mailboxes,
        binary_tls: tls::config::without_alpn(&server_tls),
        server_tls,
        certificates: [Some(certificate), identity.certificate()].into_iter().flatten().collect(),
        store,
        keeper,
        identity,
        serving: AtomicBool::new(false),
        leaving: AtomicBool::new(false),
        reloads: Reloads::new(),
        listening,
    });

    let for_shards = process.clone();
    let running = runtime::run(&plan, move |index, ShardDriver(reactor)| {
        let shard = Shard::new(for_shards.clone(), index, reactor);
        let report = shard.as_ref().map(|_| ()).map_err(ToString::to_string);
        // The main thread waits for as many reports as there are shards.
        let _ = for_shards.listening.send(report);
        match shard {
            Ok(shard) => Driven(shard),
            // The main thread reads why and ends the process.
            Err(_) => loop {
                std::thread::park();
            },
        }
    })
    .map_err(BootError::because)?;
    for _ in 0..shards.get() {
        reports.recv().map_err(BootError::because)?.map_err(BootError)?;
    }
    let admin = admin::start(admin, process.clone(), running.executor).map_err(BootError::because)?;
    process.serving.store(true, Ordering::Release);
    start_probes(&process);
    banner::print(&process, running.executor, admin, is_demo);

    let reloader = Reloader { source, read, resolver, alone, log };
    reload::start(process.clone(), reloader, reload_signals).map_err(BootError::because)?;
    drain_on_signal(end_signals, process.clone()).map_err(BootError::because)?;
    running.join();
    if let Some(keeper) = &process.keeper {
        keeper.finish();
    }
    tracing::info!("drained");
    Ok(ExitCode::SUCCESS)
}

/// One shard checks servers for all.
fn start_probes(process: &Process) {
    if process.mailboxes[0].send(Mail::Probe).is_err() {
        tracing::warn!("the first shard's mailbox is full: servers are not checked");
    }
}

/// The first signal drains, SIGTERM after `drain_delay`, which a second one cuts short; one in the drain ends the process at
/// once.
fn drain_on_signal(signals: Signals, process: Arc<Process>) -> std::io::Result<()> {
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let signal = signals.wait();
        process.leaving.store(true, Ordering::Release);
        let delay = process.setup().config.server.drain_delay;
        if signal == libc::SIGTERM && !delay.is_zero() {
            tracing::info!(signal, ?delay, "not ready any more, draining after the delay");
            take_leave(&signals, &process, delay);
        }
        tracing::info!(signal, "draining");
        process.tell_shards(|| Mail::Drain);
        let signal = signals.wait();
        tracing::warn!(signal, "a second signal: ending at once");
        std::process::exit(128 + signal);
    })?;
    Ok(())
}

/// Goes on for the delay, in whose second half answers end their connections: who asks `/ready` has noticed by then, so that
/// clients come back elsewhere. Then takes no new connections until those that are being made are served. A signal ends
/// each.
fn take_leave(signals: &Signals, process: &Process, delay: Duration) {
    if signals.wait_for(delay / 2).is_some() {
        return;
    }
    process.tell_shards(|| Mail::Part);
    if signals.wait_for(delay - delay / 2).is_some() {
        return;
    }
    process.tell_shards(|| Mail::Leave);
    // A signal is all that could come.
    let _ = signals.wait_for(LEAVING);
}

fn certificate(config: &Config) -> Result<Arc<Rotating>, BootError> {
    let files = config.server.tls.files.as_ref();
    if files.is_none() {
        tracing::warn!("no certificate is configured: serving with a self-signed one made for this run");
    }
    Rotating::new("server", files).map_err(BootError::because)
}

fn shard_count(config: &Config) -> NonZeroUsize {
    match config.runtime.shards {
        Shards::Count(count) => count.into(),
        // Respects the affinity mask and the cgroup's CPU quota.
        Shards::Auto => std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
    }
}

/// Each shard has a file table of its own, so the limit counts per shard.
fn raise_open_file_limit(config: &Config) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files could not be raised");
        return;
    }
    let per_shard = limit.current.unwrap_or(u64::MAX);
    let wanted = u64::from(config.server.max_connections) / shard_count(config).get() as u64;
    if per_shard < wanted {
        tracing::warn!(
            per_shard,
            wanted,
            "the limit of open files is lower than max_connections needs: raise it (ulimit -n) or use more shards"
        );
    }
}
