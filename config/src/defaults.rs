//! The embedded defaults: what an absent key means.
//!
//! Owns the `Default` of every section. It never validates; a test holds that the defaults lie inside their ranges.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::types::{
    Balance, CircuitBreaker, ConnectionPool, Discovery, Dns, Driver, Federation, Health, HealthKind,
    HttpVersion, Level, Log, LogFormat, Overload, Password, RateKey, RateLimit, Reach, RedisAuth, Retry,
    Runtime, Server, Session, Shards, Store, Tls, TlsVersion, WhenStoreDown,
};

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            https_port: 8443,
            binary_port: Some(9443),
            admin_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)),
            max_connections: 100_000,
            max_connections_per_ip: Some(1000),
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            max_body_bytes: 10 << 20,
            max_header_bytes: 32 << 10,
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(25),
            sse_keep_alive: Duration::from_secs(15),
            tls: Tls::default(),
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(3600),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self { files: None, min_version: TlsVersion::V1_3 }
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Self { shards: Shards::Auto, driver: Driver::Auto, pin: true }
    }
}

impl Default for ConnectionPool {
    fn default() -> Self {
        Self {
            max_size: 50,
            max_idle_time: Duration::from_secs(300),
            max_waiting: 1024,
            max_wait: Duration::from_secs(5),
        }
    }
}

impl Default for Federation {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(5) }
    }
}

impl Default for Overload {
    fn default() -> Self {
        Self { max_in_flight: 10_000, target_delay: Duration::from_millis(100) }
    }
}

impl Default for Session {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(3600),
            store: Store::Auto,
            max_sessions: 1_000_000,
            replicas: None,
            replicas_timeout: Duration::from_millis(100),
            when_store_down: WhenStoreDown::Keep,
            max_unwritten: 100_000,
            orphan_timeout: Duration::from_secs(60),
        }
    }
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { requests_per_second: None, burst: None, key: RateKey::Address }
    }
}

impl Default for RedisAuth {
    fn default() -> Self {
        Self { username: None, password: Password::Env("REDIS_AUTH_TOKEN".to_owned()) }
    }
}

impl Default for Dns {
    fn default() -> Self {
        Self { servers: Vec::new(), min_ttl: Duration::from_secs(1), max_ttl: Duration::from_secs(300) }
    }
}

impl Default for Reach {
    fn default() -> Self {
        Self {
            balance: Balance::RoundRobin,
            affinity: false,
            discovery: Discovery::Name,
            http: HttpVersion::V1_1,
            connect_timeout: Duration::from_secs(5),
        }
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            success_threshold: 2,
            open_time: Duration::from_secs(30),
            window: Duration::from_secs(60),
            half_open_max_requests: 1,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { budget_percent: 10, min_per_second: 10, max_attempts: 3 }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            kind: HealthKind::None,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            path: "/health".to_owned(),
            unhealthy_after: 3,
            healthy_after: 2,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: Level::Info, format: LogFormat::Json }
    }
}
