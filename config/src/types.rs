//! The runtime's shape of the configuration: resolved durations, byte counts and names.
//!
//! Owns the types that the rest of the process reads. They never mention TOML, and none of them can hold a secret:
//! addresses with user information are refused before they get here. Every value that came through
//! [`Config::load`](crate::Config::load) is inside the range that its field's documentation names.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use crate::address::{self, Schemes};

/// The whole configuration. Its `Default` is what an empty file gives.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// The downstream side: listeners, connection limits, timeouts.
    pub server: Server,
    /// Threads and the kernel interface they use.
    pub runtime: Runtime,
    /// Upstream connections kept for reuse.
    pub connection_pool: ConnectionPool,
    /// All servers shown as one.
    pub federation: Federation,
    /// Servers' lists that are kept.
    pub list_cache: ListCache,
    /// When a shard refuses requests so that those it takes stay quick.
    pub overload: Overload,
    /// Downstream MCP sessions.
    pub session: Session,
    /// How many requests a client may send.
    pub rate_limit: RateLimit,
    /// The shared store; `None` when `gateway.redis` is absent.
    pub redis: Option<Redis>,
    /// How gateways reach each other; `None` when `gateway.peers` is absent.
    pub peers: Option<Peers>,
    /// Whom the names of upstreams are looked up with, and for how long an answer counts.
    pub dns: Dns,
    /// When an upstream endpoint is taken out of rotation.
    pub circuit_breaker: CircuitBreaker,
    /// How often what failed is sent again.
    pub retry: Retry,
    /// The process's log.
    pub log: Log,
    /// The upstream MCP servers, in the file's order; names are unique.
    pub upstreams: Vec<Upstream>,
}

/// The downstream side (`gateway.server`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The address that the HTTPS and the binary listener bind.
    pub listen: IpAddr,
    /// TCP port of the HTTPS listener, 1 to 65535.
    pub https_port: u16,
    /// TCP port of the binary protocol, 1 to 65535; `None` (0 in the file) turns it off.
    pub binary_port: Option<u16>,
    /// Where `/metrics` and the read-only status are served.
    pub admin_listen: SocketAddr,
    /// Downstream connections of the process over all shards, 1 to 1,000,000.
    pub max_connections: u32,
    /// Downstream connections of one client address, 1 to 1,000,000; `None` (0 in the file) means no limit per
    /// address, which leaves `max_connections` as the bound.
    pub max_connections_per_ip: Option<u32>,
    /// Longest time that a request's body or a frame may take from beginning to end, however steadily it trickles in; over
    /// the binary protocol also the longest silence. 10 ms to 24 h.
    pub read_timeout: Duration,
    /// Longest time that a downstream client may refuse to take bytes, 10 ms to 24 h.
    pub write_timeout: Duration,
    /// Largest message in bytes, 1 KiB to 1 GiB.
    pub max_body_bytes: usize,
    /// Largest HTTP head in bytes (request line and all fields), 1 KiB to 1 MiB.
    pub max_header_bytes: usize,
    /// Serialized origins that an `Origin` header may carry besides the gateway's own host, lower case. Empty: only
    /// requests without one, and the gateway's own host.
    pub allowed_origins: Vec<String>,
    /// Values that a `Host` header may carry besides addresses, `localhost` and the certificate's names, lower case; one
    /// without a port stands for every port.
    pub allowed_hosts: Vec<String>,
    /// How long after SIGTERM the listeners go on and everything is served as before, while `/ready` fails already; 0 to
    /// 1 h. Other signals to stop do not wait for it.
    pub drain_delay: Duration,
    /// Longest time from the beginning of the drain, which is when `drain_delay` is over, to the end of the process, 10 ms
    /// to 24 h.
    pub drain_timeout: Duration,
    /// Silence after which an event stream gets a comment, so that nobody on the way takes it for dead; 10 ms to 24 h.
    pub sse_keep_alive: Duration,
    /// Downstream TLS.
    pub tls: Tls,
    /// Longest time from `accept` to the end of the TLS handshake, 10 ms to 24 h.
    pub handshake_timeout: Duration,
    /// Longest time from the first byte of an HTTP head to its end, 10 ms to 24 h.
    pub header_timeout: Duration,
    /// How long a keep-alive connection may stay without a request, 10 ms to 24 h.
    pub idle_timeout: Duration,
}

/// Downstream TLS (`gateway.server.tls`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate and its key; `None` means a self-signed certificate made at start.
    pub files: Option<TlsFiles>,
    /// The oldest TLS version accepted.
    pub min_version: TlsVersion,
}

/// A certificate chain and its private key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, leaf first.
    pub cert_file: PathBuf,
    /// The private key.
    pub key_file: PathBuf,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2, RFC 5246.
    V1_2,
    /// TLS 1.3, RFC 8446.
    V1_3,
}

/// How gateways reach each other (`gateway.peers`), always over TLS with certificates on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    /// Where other gateways' connections are accepted.
    pub listen: SocketAddr,
    /// Where other gateways reach this one: an address and a port, which must not be another gateway's.
    pub advertise: SocketAddr,
    /// This gateway's certificate, for both sides of a connection; valid for `server_name`, or where that is `None` for the
    /// address of `advertise`.
    pub files: TlsFiles,
    /// The name that every gateway's certificate must prove instead of the address that it is reached at: pods can share a
    /// certificate then, which cannot know their addresses.
    pub server_name: Option<String>,
    /// The authority that vouches for all gateways and for nobody else, PEM.
    pub ca_file: PathBuf,
}

/// Threads (`gateway.runtime`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// How many shards to run.
    pub shards: Shards,
    /// The kernel interface that drives IO.
    pub driver: Driver,
    /// Whether each shard's thread is pinned to one CPU.
    pub pin: bool,
}

/// How many shards to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shards {
    /// As many as the CPUs that this process may use (cgroup quota and affinity).
    Auto,
    /// This many, 1 to 256.
    Count(NonZeroU16),
}

/// The kernel interface that drives IO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// `io_uring`, or epoll where the kernel refuses it.
    Auto,
    /// `io_uring`; the start fails where the kernel refuses it.
    IoUring,
    /// epoll.
    Epoll,
}

/// Upstream connections kept for reuse (`gateway.connection_pool`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionPool {
    /// Exchanges at a time per shard and endpoint, 1 to 10,000; over HTTP/1.1 each has a connection, over HTTP/2 up to 100
    /// share one.
    pub max_size: u32,
    /// How long an unused connection is kept, 10 ms to 24 h.
    pub max_idle_time: Duration,
    /// Exchanges that may wait for a connection, per shard and endpoint, 1 to 100,000; one more is refused at once. Each
    /// holds its message meanwhile, at most `max_body`, which counts towards the shard's memory.
    pub max_waiting: u32,
    /// Longest that an exchange may wait for a connection, at all endpoints together, before it is refused, 10 ms to 24 h;
    /// never longer than the server's `timeout`.
    pub max_wait: Duration,
}

/// All servers shown as one (`gateway.federation`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Federation {
    /// How long the servers may take for their parts of what all of them are asked, 10 ms to 24 h; a server's shorter
    /// `timeout` counts for itself. What has not come by then is missing from the answer.
    pub timeout: Duration,
}

/// Servers' lists that are kept (`gateway.list_cache`). Per server and shard at most 4 MiB.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ListCache {
    /// How long the lists of servers before 2026-07-28 are kept, 10 ms to 24 h, for each client apart; `None` ("0s" in the
    /// file): not at all. Later servers say it themselves.
    pub ttl: Option<Duration>,
}

/// When a shard refuses requests so that those it takes stay quick (`gateway.overload`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overload {
    /// Requests in flight per shard above which further ones are refused, 1 to 1,000,000; streams on which a server
    /// speaks by itself do not count. Each holds its message, at most `max_body`, which counts towards the shard's
    /// memory.
    pub max_in_flight: u32,
    /// How long a socket that is ready may wait for its shard, 10 ms to 24 h. While even the shortest wait of a tenth of
    /// a second is longer, the shard takes fewer requests at a time and accepts connections slowly.
    pub target_delay: Duration,
}

/// Downstream MCP sessions (`gateway.session`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// How long a session lives after its last message, 1 s to 720 h (30 days).
    pub ttl: Duration,
    /// Where session records are kept.
    pub store: Store,
    /// Most sessions in the memory store, 1 to 10,000,000. A record with its key, its index entry and the allocator's
    /// rounding is about 400 bytes, so the default of 1,000,000 bounds the store to about 400 MB when it is full.
    pub max_sessions: u32,
    /// Replicas that must have a new session before a client is told its id, 1 to 5; `None` (0 in the file): as
    /// asynchronous as Redis' own replication. Only in Redis.
    pub replicas: Option<u32>,
    /// How long they may take, 10 ms to 60 s.
    pub replicas_timeout: Duration,
    /// What becomes of new sessions while Redis cannot be asked.
    pub when_store_down: WhenStoreDown,
    /// Most sessions that wait to be written while Redis cannot be asked, over all shards, 1 to 1,000,000. They cost as
    /// much as those in the memory store: the default of 100,000 is about 40 MB.
    pub max_unwritten: u32,
    /// How long a request of a session goes on at its server when its client's connection breaks, 10 ms to 24 h, looked at
    /// once a second.
    pub orphan_timeout: Duration,
}

/// What becomes of new sessions while Redis cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenStoreDown {
    /// They are kept in this process, and written when Redis is back.
    Keep,
    /// They are refused, so that every session that a client was told of is known to all.
    Refuse,
}

/// How many requests a client may send (`gateway.rate_limit`), over all gateways that share a Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests per second in the long run, 1 to 1,000,000; `None` (0 in the file): no limit.
    pub requests_per_second: Option<u32>,
    /// Requests at once, 1 to 1,000,000; `None` (0 in the file): as many as in a second.
    pub burst: Option<u32>,
    /// Whose requests are counted together.
    pub key: RateKey,
}

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateKey {
    /// Those of one principal; of one address where nobody knows the principal.
    Principal,
    /// Those of one client address.
    Address,
}

/// Where session records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Redis when `gateway.redis` is set, else memory.
    Auto,
    /// In the process's memory; sessions end with it.
    Memory,
    /// In Redis; `Config::redis` is `Some`.
    Redis,
}

/// The shared store (`gateway.redis`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// Which nodes to ask, and how.
    pub topology: RedisTopology,
    /// TLS towards every node.
    pub tls: RedisTls,
    /// What to authenticate with at every node.
    pub auth: RedisAuth,
    /// Longest that a command may take, over all its tries, 10 ms to 60 s.
    pub command_timeout: Duration,
    /// Longest that a connection may take to come up, with TLS and login, 10 ms to 60 s.
    pub connect_timeout: Duration,
}

impl Redis {
    /// The `command_timeout` where none is given.
    pub const DEFAULT_COMMAND_TIMEOUT: Duration = Duration::from_millis(500);
    /// The `connect_timeout` where none is given.
    pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
}

/// How the Redis nodes are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisTopology {
    /// One node.
    Single {
        /// Its address.
        url: RedisUrl,
    },
    /// A master named by Sentinels.
    Sentinel {
        /// The master's name at the Sentinels.
        master: String,
        /// The Sentinels as `host:port`, 1 to 64 of them.
        addresses: Vec<String>,
        /// What to authenticate with at every Sentinel; they know neither the nodes' users nor their passwords.
        auth: RedisAuth,
    },
    /// Redis Cluster.
    Cluster {
        /// Nodes to learn the slot table from, as `host:port`, 1 to 64 of them.
        addresses: Vec<String>,
    },
}

/// A parsed `redis://` or `rediss://` address, free of user information.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisUrl {
    /// Host name or address; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port; 6379 where the URL names none.
    pub port: u16,
    /// Number of the logical database, 0 to 65535; 0 where the URL names none.
    pub database: u16,
    /// Whether the scheme was `rediss`.
    pub tls: bool,
    /// The URL as it was written.
    pub text: String,
}

/// TLS towards Redis (`gateway.redis.tls`).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RedisTls {
    /// Whether to use TLS; also true when the URL's scheme is `rediss`.
    pub enabled: bool,
    /// Whether to accept any certificate.
    pub skip_verify: bool,
    /// Trust anchors (PEM) instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The name that every node's certificate must prove, instead of the host that it is reached by.
    pub server_name: Option<String>,
}

/// What to authenticate with at Redis (`gateway.redis.auth`) or at its Sentinels (`gateway.redis.sentinel`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisAuth {
    /// The ACL user; `None` is Redis' `default` user.
    pub username: Option<String>,
    /// Where the password is.
    pub password: Password,
}

/// Where a password is; never the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// None is sent.
    None,
    /// In the environment variable of this name; where it is not set, none is sent.
    Env(String),
    /// In this file, but for the end of its line.
    File(PathBuf),
}

/// How the names of upstreams are looked up (`gateway.dns`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// The servers to ask, 0 to 64 of them; none: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// Shortest time for which an answer counts, whatever its records say, 10 ms to 24 h.
    pub min_ttl: Duration,
    /// Longest time for which an answer counts, whatever its records say, 10 ms to 24 h; at least `min_ttl`.
    pub max_ttl: Duration,
}

/// When an upstream endpoint is taken out of rotation (`gateway.circuit_breaker`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// Failures within `window` that open a closed breaker, 1 to 10,000.
    pub failure_threshold: u32,
    /// Successful probes that close a half-open breaker, 1 to 10,000.
    pub success_threshold: u32,
    /// How long an open breaker rejects before it probes, 10 ms to 24 h.
    pub open_time: Duration,
    /// How far back failures count, 10 ms to 24 h.
    pub window: Duration,
    /// Probes in flight while half-open, 1 to 10,000.
    pub half_open_max_requests: u32,
}

/// How often what failed is sent to a server again (`gateway.retry`). Sent again is only what does no harm twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Retries per hundred requests to a server, 0 to 100.
    pub budget_percent: u32,
    /// Retries per second to a server beyond those, over all shards, 0 to 10,000.
    pub min_per_second: u32,
    /// How often a message is sent in all, 1 to 10; 1 turns retries off.
    pub max_attempts: u32,
}

/// The process's log (`gateway.log`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least severe level written.
    pub level: Level,
    /// How a line looks.
    pub format: LogFormat,
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something failed that an operator must look at.
    Error,
    /// Something is wrong but handled.
    Warn,
    /// Starts, stops and changes of state.
    Info,
    /// One line per exchange.
    Debug,
    /// Everything.
    Trace,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for a terminal.
    Text,
}

/// One upstream MCP server (`[[servers]]`), reachable at `/mcp/<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Unique name, `[a-z0-9][a-z0-9_-]{0,62}`.
    pub name: String,
    /// How to reach it.
    pub transport: Transport,
    /// Longest wait for the first byte of an answer, 10 ms to 24 h; all attempts together.
    pub timeout: Duration,
    /// How one of its endpoints is chosen and connected to; of no meaning for a server without endpoints.
    pub reach: Reach,
    /// How its endpoints are checked; of no meaning for a server without endpoints.
    pub health: Health,
}

impl Upstream {
    /// The `timeout` of a server that names none.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
}

/// How a server's endpoints are checked while no request does (`servers.health`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is asked of an endpoint.
    pub kind: HealthKind,
    /// From one check to the next, 100 ms to 1 h, less or more by a tenth.
    pub interval: Duration,
    /// How long a check may take, 10 ms to `interval`.
    pub timeout: Duration,
    /// What [`HealthKind::Http`] asks for: begins with `/`.
    pub path: String,
    /// Checks in a row that must fail before an endpoint is taken out, 1 to 100.
    pub unhealthy_after: u32,
    /// Checks in a row that must succeed before it is taken in again, 1 to 100.
    pub healthy_after: u32,
}

/// What a check asks of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthKind {
    /// Nothing: there are no checks.
    None,
    /// A TCP connection.
    Tcp,
    /// A `GET` of `path`, which must be answered with a status from 200 to 399.
    Http,
    /// MCP's `server/discover`, which must be answered with a status below 500: a server of an earlier revision refuses it.
    Mcp,
}

/// How one of a server's endpoints is chosen and connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Which endpoint a new session, or a message without one, goes to.
    pub balance: Balance,
    /// Whether a client keeps to one endpoint while that one can serve: then `balance` is not asked.
    pub affinity: bool,
    /// What the host in an endpoint's URL stands for.
    pub discovery: Discovery,
    /// Which HTTP is spoken; of meaning for Streamable HTTP only.
    pub http: HttpVersion,
    /// Longest that a connection may take to come up, TLS included, 10 ms to 24 h.
    pub connect_timeout: Duration,
}

/// Which endpoint a new session, or a message without one, goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn.
    RoundRobin,
    /// The one with the fewest exchanges of this shard in flight.
    LeastInFlight,
    /// Of two drawn at random, the one with fewer exchanges of this shard in flight.
    TwoChoices,
}

/// What the host in an endpoint's URL stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// One endpoint, whose addresses are tried in order.
    Name,
    /// As many endpoints as it has addresses: a headless Kubernetes Service.
    Addresses,
    /// The name of SRV records, each of which names an endpoint; the URL's port does not count.
    Srv,
}

/// Which HTTP is spoken with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1.
    V1_1,
    /// HTTP/2, without TLS by prior knowledge (RFC 9113, 3.3).
    V2,
    /// With TLS what the server chooses by ALPN, else HTTP/1.1.
    Auto,
}

/// How an upstream MCP server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Streamable HTTP.
    StreamableHttp {
        /// Equivalent endpoints, 1 to 64 of them.
        endpoints: Vec<Endpoint>,
        /// TLS towards endpoints whose scheme is `https`.
        tls: UpstreamTls,
    },
    /// HTTP with SSE, the transport of revision 2024-11-05.
    Sse {
        /// Equivalent endpoints, 1 to 64 of them.
        endpoints: Vec<Endpoint>,
        /// TLS towards endpoints whose scheme is `https`.
        tls: UpstreamTls,
    },
    /// WebSocket.
    WebSocket {
        /// Equivalent endpoints, 1 to 64 of them.
        endpoints: Vec<Endpoint>,
        /// TLS towards endpoints whose scheme is `wss`.
        tls: UpstreamTls,
    },
    /// A child process that speaks on its standard input and output.
    Stdio(Stdio),
}

/// How a server's processes are started and how many there may be.
#[derive(Clone, PartialEq, Eq)]
pub struct Stdio {
    /// The program and its arguments, 1 to 256 of them.
    pub command: Vec<String>,
    /// Variables of its environment besides the few that every process gets, at most 256.
    pub env: Vec<EnvVar>,
    /// Its working directory; the gateway's where there is none.
    pub cwd: Option<PathBuf>,
    /// Who shares a process.
    pub mode: StdioMode,
    /// Processes of this server at the same time, 1 to 10,000.
    pub max_processes: u32,
    /// Longest line that a process may write, 1 KiB to 1 GiB; each process may cost as much memory.
    pub max_line_bytes: usize,
}

impl Stdio {
    /// The `max_processes` of a server that names none: at some 60 MB for each process of a scripting language, 4 GB.
    pub const DEFAULT_MAX_PROCESSES: u32 = 64;
    /// The `max_line` of a server that names none: as large as a request may be by default.
    pub const DEFAULT_MAX_LINE_BYTES: usize = 10 << 20;
}

/// Leaves the values of variables out, because keys travel there.
impl fmt::Debug for Stdio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdio")
            .field("command", &self.command)
            .field("env", &self.env.iter().map(EnvVar::name).collect::<Vec<_>>())
            .field("cwd", &self.cwd)
            .field("mode", &self.mode)
            .field("max_processes", &self.max_processes)
            .field("max_line_bytes", &self.max_line_bytes)
            .finish()
    }
}

/// A variable of a process's environment.
#[derive(Clone, PartialEq, Eq)]
pub enum EnvVar {
    /// Set to this value.
    Set {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// Passed on from the gateway's own environment, where it is set there.
    Inherited {
        /// Its name.
        name: String,
    },
}

impl EnvVar {
    /// The variable's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Set { name, .. } | Self::Inherited { name } => name,
        }
    }
}

/// Who shares a process of a stdio server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StdioMode {
    /// Each legacy session has a process of its own.
    PerSession,
    /// All sessions share one.
    Shared,
}

impl Transport {
    /// The endpoints and the TLS towards them of a server that is reached over the network.
    pub fn remote(&self) -> Option<(&[Endpoint], &UpstreamTls)> {
        match self {
            Transport::StreamableHttp { endpoints, tls }
            | Transport::Sse { endpoints, tls }
            | Transport::WebSocket { endpoints, tls } => Some((endpoints, tls)),
            Transport::Stdio { .. } => None,
        }
    }
}

/// TLS towards an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct UpstreamTls {
    /// Trust anchors (PEM) instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// What the gateway shows of itself to a server that asks for a certificate.
    pub files: Option<TlsFiles>,
    /// The name that is asked for (SNI) and that every endpoint's certificate must prove, instead of the host that it is
    /// reached by.
    pub server_name: Option<String>,
}

/// A parsed endpoint URL, free of user information and fragment.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether the scheme was `https` or `wss`.
    pub tls: bool,
    /// Host name or address; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port; 80 or 443 by the scheme where the URL names none.
    pub port: u16,
    /// The request target: begins with `/` and includes the query.
    pub path: String,
    /// The URL as it was written.
    pub text: String,
}

impl Endpoint {
    /// Parses a URL of one of two schemes, the one without TLS first. `None` for other schemes, user information, a
    /// fragment, or characters that a request target can't hold (RFC 9112, 3.2.1).
    pub fn parse(text: &str, plain: &'static str, tls: &'static str) -> Option<Self> {
        address::endpoint(text, &Schemes { plain, tls })
    }
}

/// Leaves the query out, because keys travel there.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, hidden) = match self.text.split_once('?') {
            Some((before, _)) => (before, "?<redacted>"),
            None => (self.text.as_str(), ""),
        };
        write!(f, "Endpoint({shown}{hidden})")
    }
}
