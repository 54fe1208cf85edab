//! Boot: owns the order in which a process comes up and goes down. One readable function each way; whatever is decided
//! along the way is decided elsewhere.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use mcp_config::{Config, Endpoint, HttpVersion, Shards, Transport, Upstream};
use mcp_protocol::mcp::federation::Federation;

use crate::demo::{self, Demo};
use crate::keeper::Keeper;
use crate::net::reactor::DriverKind;
use crate::peer::Identity;
use crate::process::Process;
use crate::runtime::{self, Executor, Plan};
use crate::shard::Shard;
use crate::shard::mailbox::{Mail, Mailbox};
use crate::shard::table::Table;
use crate::shard::turn::Driven;
use crate::signals::EndSignals;
use crate::store::Reach;
use crate::tls::rotating::{self, Rotating};
use crate::upstream::h2;
use crate::upstream::resolver::Resolver;
use crate::upstream::resolver::sites::Sites;
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

/// Serves until a signal ends it: 0 after a drain, also when the drain was cut at its deadline.
pub(crate) fn serve(mut config: Config) -> Result<ExitCode, BootError> {
    let signals = EndSignals::block();
    fatal::install_panic_hook();
    let shards = shard_count(&config);
    let keeper = Keeper::start(&config, shards.get())
        .map_err(|error| BootError(format!("the keeper of stdio processes could not be started: {error}")))?;
    raise_open_file_limit(&config);
    let demo = start_demo_if_alone(&mut config)?;

    let certificate = certificate(&config)?;
    let host_names = config.server.allowed_hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
    let server_tls = tls::config::server(certificate.clone(), config.server.tls.min_version, ALPN)
        .map_err(BootError::because)?;
    let client_tls = config.upstreams.iter().map(client_tls).collect::<Result<_, _>>()?;
    let mut resolver = Resolver::new(&config.dns);
    let sites = config
        .upstreams
        .iter()
        .map(|upstream| match upstream.transport.remote() {
            Some((urls, _)) => resolver.add(&upstream.name, upstream.reach.discovery, urls),
            None => Sites::local("stdio"),
        })
        .collect();
    resolver.start().map_err(BootError::because)?;

    let identity = Identity::new(config.peers.as_ref()).map_err(BootError::because)?;
    let certificates: Vec<_> = [Some(certificate), identity.certificate()].into_iter().flatten().collect();
    rotating::watch(&certificates).map_err(BootError::because)?;
    let store = Reach::new(&config).map_err(BootError::because)?;

    let admin = admin::bind(config.server.admin_listen).map_err(BootError::because)?;
    let mailboxes = (0..shards.get())
        .map(|_| Mailbox::new().map(Arc::new))
        .collect::<Result<_, _>>()
        .map_err(BootError::because)?;
    let (listening, reports) = sync_channel(shards.get());
    let plan = Plan { shards, pin: config.runtime.pin, driver: config.runtime.driver };
    let process = Arc::new(Process {
        table: Table::new(&config),
        start: Instant::now(),
        mailboxes,
        binary_tls: tls::config::without_alpn(&server_tls),
        server_tls,
        certificates,
        host_names,
        federation: Federation::new(config.upstreams.iter().map(|server| &*server.name)),
        list_changes: config.upstreams.iter().map(|_| Arc::default()).collect(),
        sites,
        client_tls,
        store,
        keeper,
        identity,
        serving: AtomicBool::new(false),
        leaving: AtomicBool::new(false),
        listening,
        config,
    });

    let for_shards = process.clone();
    let running = runtime::run(&plan, move |index, executor| {
        let driver = match executor {
            Executor::IoUring => DriverKind::Ring,
            Executor::Epoll => DriverKind::Epoll,
        };
        let shard = Shard::new(for_shards.clone(), index, driver);
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
    banner::print(&process, running.executor, admin, demo.is_some());

    drain_on_signal(signals, process.clone()).map_err(BootError::because)?;
    running.join();
    if let Some(keeper) = &process.keeper {
        keeper.finish();
    }
    tracing::info!("drained");
    drop(demo);
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
fn drain_on_signal(signals: EndSignals, process: Arc<Process>) -> std::io::Result<()> {
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let signal = signals.wait();
        process.leaving.store(true, Ordering::Release);
        let delay = process.config.server.drain_delay;
        if signal == libc::SIGTERM && !delay.is_zero() {
            tracing::info!(signal, ?delay, "not ready any more, draining after the delay");
            take_leave(&signals, &process, delay);
        }
        tracing::info!(signal, "draining");
        tell_shards(&process, || Mail::Drain);
        let signal = signals.wait();
        tracing::warn!(signal, "a second signal: ending at once");
        std::process::exit(128 + signal);
    })?;
    Ok(())
}

/// Goes on for the delay, in whose second half answers end their connections: who asks `/ready` has noticed by then, so that
/// clients come back elsewhere. Then takes no new connections until those that are being made are served. A signal ends
/// each.
fn take_leave(signals: &EndSignals, process: &Process, delay: Duration) {
    if signals.wait_for(delay / 2).is_some() {
        return;
    }
    tell_shards(process, || Mail::Part);
    if signals.wait_for(delay - delay / 2).is_some() {
        return;
    }
    tell_shards(process, || Mail::Leave);
    // A signal is all that could come.
    let _ = signals.wait_for(LEAVING);
}

fn tell_shards(process: &Process, mail: impl Fn() -> Mail) {
    for mailbox in &process.mailboxes {
        while mailbox.send(mail()).is_err() {
            // The shard empties its mailbox every turn.
            std::thread::yield_now();
        }
    }
}

/// With no server configured, the gateway brings its own.
fn start_demo_if_alone(config: &mut Config) -> Result<Option<Demo>, BootError> {
    if !config.upstreams.is_empty() {
        return Ok(None);
    }
    let demo = demo::start().map_err(BootError::because)?;
    let endpoint = Endpoint {
        tls: false,
        host: demo.addr.ip().to_string(),
        port: demo.addr.port(),
        path: demo::PATH.to_owned(),
        text: format!("http://{}{}", demo.addr, demo::PATH),
    };
    config.upstreams.push(Upstream {
        name: "demo".to_owned(),
        transport: Transport::StreamableHttp { endpoints: vec![endpoint], tls: Default::default() },
        timeout: Upstream::DEFAULT_TIMEOUT,
        health: Default::default(),
        reach: mcp_config::Reach::default(),
    });
    Ok(Some(demo))
}

fn certificate(config: &Config) -> Result<Arc<Rotating>, BootError> {
    let files = config.server.tls.files.as_ref();
    if files.is_none() {
        tracing::warn!("no certificate is configured: serving with a self-signed one made for this run");
    }
    Rotating::new("server", files).map_err(BootError::because)
}

/// How an upstream's certificates are verified, by its own CA file or by the system's roots, and what is shown to it.
fn client_tls(upstream: &Upstream) -> Result<Option<Arc<rustls::ClientConfig>>, BootError> {
    let Some((endpoints, tls)) = upstream.transport.remote() else { return Ok(None) };
    if !endpoints.iter().any(|endpoint| endpoint.tls) {
        return Ok(None);
    }
    let mut config = tls::config::trusting(tls.ca_file.as_deref(), tls.files.as_ref())
        .map_err(|error| BootError(format!("server {:?}: {error}", upstream.name)))?;
    let offered: &[&[u8]] = match (&upstream.transport, upstream.reach.http) {
        // A WebSocket begins with HTTP/1.1.
        (Transport::WebSocket { .. }, _) | (_, HttpVersion::V1_1) => &[],
        (_, HttpVersion::V2) => &[h2::ALPN],
        (_, HttpVersion::Auto) => &[h2::ALPN, b"http/1.1"],
    };
    config.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Some(Arc::new(config)))
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
