//! The way from a shard to the store: owns what the store's client needs of the shard that it runs on, and what is built on
//! the client. Never a command.

pub(crate) mod names;
pub(crate) mod runtime;
pub(crate) mod sessions;
mod settings;
pub(crate) mod tls;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use mcp_config::{Config, RateLimit, Redis, Store, WhenStoreDown};
use mcp_shard_store::Millis;
use mcp_shard_store::limiter::{Limit, Limiter};
use mcp_shard_store::memory::MemoryStore;
use mcp_shard_store::redis::{Client, Events, Health};
use mcp_shard_store::sessions::{self as redis_sessions, Copies, RedisSessions};

use crate::metrics::StoreGauges;
use crate::process::Process;
use crate::setup::Setup;
use crate::shard::Neighbours;
use crate::shard::core::Core;
use names::{Lookups, Names};
use runtime::StoreRuntime;
use sessions::Sessions;
use settings::{SecretError, Secrets};
use tls::StoreTls;

/// What all shards share to reach Redis.
pub(crate) struct Reach {
    lookups: Lookups,
    tls: Option<StoreTls>,
    redis: Redis,
    secrets: Secrets,
    /// Sessions are there, not only counters.
    keeps_sessions: bool,
    unwritten: Arc<AtomicU64>,
}

/// Why Redis cannot even be tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReachError {
    #[error("gateway.redis.tls: {0}")]
    Trust(#[from] crate::tls::config::TrustError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("no thread for looking names up: {0}")]
    Thread(#[from] io::Error),
}

impl Reach {
    /// How Redis is reached; `None` where nothing is kept there.
    ///
    /// # Errors
    /// [`ReachError`].
    pub(crate) fn new(config: &Config) -> Result<Option<Self>, ReachError> {
        let keeps_sessions = config.session.store != Store::Memory;
        let is_used = keeps_sessions || config.rate_limit.requests_per_second.is_some();
        let Some(redis) = config.redis.as_ref().filter(|_| is_used) else { return Ok(None) };
        Ok(Some(Reach {
            lookups: Lookups::start()?,
            tls: tls(redis)?,
            redis: redis.clone(),
            secrets: Secrets::read(redis)?,
            keeps_sessions,
            unwritten: Arc::default(),
        }))
    }
}

fn tls(redis: &Redis) -> Result<Option<StoreTls>, ReachError> {
    let tls = &redis.tls;
    if !tls.enabled {
        return Ok(None);
    }
    if tls.skip_verify {
        tracing::warn!(
            "gateway.redis.tls.skip_verify: ANYBODY on the way to Redis can read and change every session; use \
             ca_file instead"
        );
    }
    Ok(Some(StoreTls::new(tls.ca_file.as_deref(), tls.skip_verify, tls.server_name.as_deref())?))
}

/// One shard's client, with the runtime that drives it.
pub(crate) struct Link {
    pub(crate) runtime: StoreRuntime,
    pub(crate) client: Rc<Client<StoreRuntime>>,
}

impl Link {
    /// Whether everything that is kept in Redis is served from there.
    pub(crate) fn is_healthy(&self) -> bool {
        self.client.health() == Health::Up
    }
}

/// Counts requests in Redis where it can.
type SharedLimiter = Limiter<Rc<Client<StoreRuntime>>>;

/// What one shard keeps beyond a connection.
pub(crate) struct Kept {
    pub(crate) sessions: Sessions,
    pub(crate) link: Option<Link>,
    /// Where requests are limited.
    limiter: RefCell<Option<Rc<SharedLimiter>>>,
}

impl Kept {
    /// Starts connecting to Redis, where that is configured.
    pub(crate) fn new(process: &Arc<Process>, setup: &Setup, core: &Rc<Core>, shard: usize) -> Self {
        let kept = Self::without_limit(process, setup, core, shard);
        kept.limit(&setup.config.rate_limit);
        kept
    }

    fn without_limit(process: &Arc<Process>, setup: &Setup, core: &Rc<Core>, shard: usize) -> Self {
        let limiter = RefCell::default();
        let Some(reach) = &process.store else {
            return Kept { sessions: in_memory(process, setup, shard), link: None, limiter };
        };
        let names = Names::new(reach.lookups.clone(), process.mailboxes[shard].clone());
        let runtime = StoreRuntime::new(core, names, reach.tls.clone());
        let copies = reach.keeps_sessions.then(|| Rc::new(Copies::new()));
        let events: Rc<dyn Events> = match &copies {
            Some(copies) => copies.clone(),
            None => Rc::new(Nothing),
        };
        let tracked = if reach.keeps_sessions { redis_sessions::PREFIX } else { b"" };
        let settings = settings::settings(&setup.config, &reach.redis, &reach.secrets, tracked);
        let client = Client::new(runtime.clone(), settings, events);
        runtime.on_flush(&client, Client::flush);
        let sessions = match copies {
            Some(copies) => in_redis(process, setup, reach, shard, (&runtime, &client, copies)),
            None => in_memory(process, setup, shard),
        };
        Kept { sessions, link: Some(Link { runtime, client }), limiter }
    }
}

impl Kept {
    /// Limits requests so from now on; what was counted before is forgotten here, not in Redis.
    pub(crate) fn limit(&self, config: &RateLimit) {
        let limiter = limit(config).map(|limit| match &self.link {
            Some(link) => Limiter::new(link.client.clone(), limit),
            None => Limiter::local(limit),
        });
        self.limiter.replace(limiter.map(Rc::new));
    }

    /// Who limits requests, where they are limited.
    pub(crate) fn limiter(&self) -> Option<Rc<SharedLimiter>> {
        self.limiter.borrow().clone()
    }

    /// Drops what has ended; says whether there is more to look after.
    pub(crate) fn keep_house(&self, now: Millis) -> bool {
        let mut more = self.sessions.keep_house(now);
        if let Some(limiter) = self.limiter() {
            limiter.expire(now);
            more |= limiter.keys() > 0;
        }
        more
    }

    /// Whether the process may end: nothing waits to be written to a Redis that could take it.
    pub(crate) fn is_settled(&self) -> bool {
        let Some(link) = &self.link else { return true };
        link.client.health() == Health::Down
            || self.sessions.stats().is_none_or(|sessions| sessions.unwritten == 0)
    }

    /// What Redis looks like from here.
    pub(crate) fn gauges(&self) -> Option<StoreGauges> {
        let client = &self.link.as_ref()?.client;
        Some(StoreGauges { client: client.stats(), health: client.health(), sessions: self.sessions.stats() })
    }
}

/// Hears of changes where nobody keeps copies.
struct Nothing;

impl Events for Nothing {
    fn invalidated(&self, _keys: Option<&[&[u8]]>) {}
}

fn limit(config: &RateLimit) -> Option<Limit> {
    let per_second = config.requests_per_second?;
    Some(Limit { per_second, burst: config.burst.unwrap_or(per_second) })
}

fn in_memory(process: &Arc<Process>, setup: &Setup, shard: usize) -> Sessions {
    let config = &setup.config.session;
    let most = (config.max_sessions as usize / process.mailboxes.len()).max(1);
    let peers = Neighbours::new(process);
    Sessions::Memory(MemoryStore::new(shard as u16, config.ttl.as_millis() as u64, most, peers))
}

fn in_redis(
    process: &Arc<Process>,
    setup: &Setup,
    reach: &Reach,
    shard: usize,
    (runtime, client, copies): (&StoreRuntime, &Rc<Client<StoreRuntime>>, Rc<Copies>),
) -> Sessions {
    let config = &setup.config.session;
    let settings = redis_sessions::Settings {
        ttl_ms: config.ttl.as_millis() as u64,
        replicas: config.replicas.unwrap_or(0),
        replicas_timeout_ms: config.replicas_timeout.as_millis() as u64,
        when_store_down: match config.when_store_down {
            WhenStoreDown::Keep => redis_sessions::WhenStoreDown::Keep,
            WhenStoreDown::Refuse => redis_sessions::WhenStoreDown::Refuse,
        },
        max_unwritten: (config.max_unwritten as usize / process.mailboxes.len()).max(1),
    };
    let parts = redis_sessions::Parts {
        runtime: runtime.clone(),
        client: client.clone(),
        copies,
        directory: sessions::directory(setup),
        peers: Neighbours::new(process),
        unwritten: reach.unwritten.clone(),
    };
    // A question is at most two commands, one after the other, both of which may wait for replicas.
    let patience = 2 * (reach.redis.command_timeout + config.replicas_timeout);
    Sessions::Redis { store: RedisSessions::new(shard as u16, settings, parts), patience }
}
