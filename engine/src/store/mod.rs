//! The way from a shard to the store: owns what the store's client needs of the shard that it runs on, and what is built on
//! the client. Never a command.

pub(crate) mod names;
pub(crate) mod runtime;
pub(crate) mod sessions;
mod settings;
pub(crate) mod tls;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use mcp_config::{Config, RateLimit, Redis, Store, WhenStoreDown};
use mcp_shard_store::Millis;
use mcp_shard_store::limiter::{Limit, Limiter};
use mcp_shard_store::memory::MemoryStore;
use mcp_shard_store::record::Directory;
use mcp_shard_store::redis::{Client, Events, Health};
use mcp_shard_store::sessions::{self as redis_sessions, Copies, RedisSessions};

use crate::metrics::StoreGauges;
use crate::process::Process;
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

/// What one shard keeps beyond a connection.
pub(crate) struct Kept {
    pub(crate) sessions: Sessions,
    pub(crate) link: Option<Link>,
    /// Where requests are limited.
    pub(crate) limiter: Option<Limiter<Rc<Client<StoreRuntime>>>>,
}

impl Kept {
    /// Starts connecting to Redis, where that is configured.
    pub(crate) fn new(process: &Arc<Process>, core: &Rc<Core>, shard: usize) -> Self {
        let limit = limit(&process.config.rate_limit);
        let Some(reach) = &process.store else {
            return Kept {
                sessions: in_memory(process, shard),
                link: None,
                limiter: limit.map(Limiter::local),
            };
        };
        let names = Names::new(reach.lookups.clone(), process.mailboxes[shard].clone());
        let runtime = StoreRuntime::new(core, names, reach.tls.clone());
        let copies = reach.keeps_sessions.then(|| Rc::new(Copies::new()));
        let events: Rc<dyn Events> = match &copies {
            Some(copies) => copies.clone(),
            None => Rc::new(Nothing),
        };
        let tracked = if reach.keeps_sessions { redis_sessions::PREFIX } else { b"" };
        let settings = settings::settings(&process.config, &reach.redis, &reach.secrets, tracked);
        let client = Client::new(runtime.clone(), settings, events);
        runtime.on_flush(&client, Client::flush);
        let sessions = match copies {
            Some(copies) => in_redis(process, reach, shard, &runtime, &client, copies),
            None => in_memory(process, shard),
        };
        let limiter = limit.map(|limit| Limiter::new(client.clone(), limit));
        Kept { sessions, link: Some(Link { runtime, client }), limiter }
    }
}

impl Kept {
    /// Drops what has ended; says whether there is more to look after.
    pub(crate) fn keep_house(&self, now: Millis) -> bool {
        let mut more = self.sessions.keep_house(now);
        if let Some(limiter) = &self.limiter {
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

fn in_memory(process: &Arc<Process>, shard: usize) -> Sessions {
    let ttl_ms = process.config.session.ttl.as_millis() as u64;
    let peers = Neighbours::new(process);
    Sessions::Memory(MemoryStore::new(shard as u16, ttl_ms, process.shard_sessions(), peers))
}

fn in_redis(
    process: &Arc<Process>,
    reach: &Reach,
    shard: usize,
    runtime: &StoreRuntime,
    client: &Rc<Client<StoreRuntime>>,
    copies: Rc<Copies>,
) -> Sessions {
    let config = &process.config.session;
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
        directory: Rc::new(Directory::new(
            process.config.upstreams.iter().map(|server| server.name.clone()).collect(),
        )),
        peers: Neighbours::new(process),
        unwritten: reach.unwritten.clone(),
    };
    // A question is at most two commands, one after the other, both of which may wait for replicas.
    let patience = 2 * (reach.redis.command_timeout + config.replicas_timeout);
    Sessions::Redis { store: RedisSessions::new(shard as u16, settings, parts), patience }
}
