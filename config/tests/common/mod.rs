//! What the integration tests share: loading without an environment, and a file that sets every key.
//!
//! Owns no claim.

#![allow(dead_code, reason = "each test file uses a part")]

use mcp_config::{Config, Errors, Problem};

/// The committed example.
pub(crate) const EXAMPLE: &str = include_str!("../../config.example.toml");

/// Loads `text` as `gateway.toml` with no environment.
pub(crate) fn load(text: &str) -> Result<Config, Errors> {
    Config::load(Some(("gateway.toml", text)), std::iter::empty())
}

/// Loads `text` with `env`.
pub(crate) fn load_with(text: &str, env: &[(&str, &str)]) -> Result<Config, Errors> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(Some(("gateway.toml", text)), env)
}

/// The one problem that `text` has.
pub(crate) fn only_problem(text: &str) -> Problem {
    match load(text).unwrap_err().problems() {
        [problem] => problem.clone(),
        problems => panic!("{text}\ngave {problems:#?}"),
    }
}

/// One file per transport and Redis topology, none of its values a default.
pub(crate) fn rich_files() -> Vec<String> {
    let server = r#"
[gateway.server]
listen = "::1"
https_port = 1443
binary_port = 0
admin_listen = "[::1]:1090"
max_connections = 7
max_connections_per_ip = 0
handshake_timeout = "11s"
header_timeout = "12s"
read_timeout = "13s"
write_timeout = "1m30s"
idle_timeout = "2h"
max_body = "3MiB"
max_header_bytes = 5000
allowed_origins = ["https://app.example.com", "http://localhost:3000"]
allowed_hosts = ["mcp.example.com", "10.0.0.1:8443"]
drain_delay = "7s"
drain_timeout = "250ms"
sse_keep_alive = "20s"
[gateway.server.tls]
cert_file = "/a \"quoted\" \\ path/tls.crt"
key_file = "/ä/tls.key"
min_version = "1.2"
[gateway.runtime]
shards = 3
driver = "epoll"
pin = false
[gateway.connection_pool]
max_size = 8
max_idle_time = "9s"
max_waiting = 5
max_wait = "6s"
[gateway.federation]
timeout = "23ms"
[gateway.list_cache]
ttl = "24ms"
[gateway.overload]
max_in_flight = 21
target_delay = "22ms"
[gateway.session]
ttl = "48h"
store = "redis"
max_sessions = 10
replicas = 2
replicas_timeout = "31ms"
when_store_down = "refuse"
max_unwritten = 32
orphan_timeout = "35s"
[gateway.rate_limit]
requests_per_second = 33
burst = 34
key = "principal"
[gateway.peers]
listen = "0.0.0.0:9444"
advertise = "10.0.0.7:9444"
cert_file = "/peer.crt"
key_file = "/peer.key"
server_name = "gateways.example.com"
ca_file = "/peers-ca.pem"
[gateway.dns]
servers = ["10.0.0.53:53", "[::1]:5353"]
min_ttl = "37ms"
max_ttl = "38s"
[gateway.circuit_breaker]
failure_threshold = 11
success_threshold = 12
open_time = "13s"
window = "14s"
half_open_max_requests = 15
[gateway.retry]
budget_percent = 42
min_per_second = 43
max_attempts = 9
[gateway.log]
level = "trace"
format = "text"
[[servers]]
name = "a-1"
transport = "streamable-http"
endpoints = ["http://10.0.0.1:3001/mcp?key=1", "https://mcp.example.com"]
balance = "least-in-flight"
affinity = true
discovery = "addresses"
http = "auto"
connect_timeout = "39ms"
tls.ca_file = "/ca.pem"
tls.cert_file = "/client.crt"
tls.key_file = "/client.key"
tls.server_name = "mcp.internal"
health.kind = "http"
health.interval = "51s"
health.timeout = "52ms"
health.path = "/up?full=1"
health.unhealthy_after = 53
health.healthy_after = 54
timeout = "16s"
[[servers]]
name = "b_2"
transport = "sse"
endpoints = ["https://[::1]/sse"]
balance = "two-choices"
affinity = true
discovery = "name"
connect_timeout = "40ms"
tls.ca_file = "/ca2.pem"
timeout = "17s"
[[servers]]
name = "c"
transport = "websocket"
endpoints = ["wss://h/ws", "ws://h:81/ws"]
discovery = "srv"
connect_timeout = "41ms"
tls.ca_file = "/ca3.pem"
timeout = "18s"
[[servers]]
name = "0"
transport = "stdio"
command = ["npx", "-y", "a, b", ""]
env = ["A=b=c, d", "B=", "TOKEN"]
cwd = "/srv"
mode = "shared"
max_processes = 36
max_line = "37KiB"
timeout = "19s"
"#;
    let redis_rest = r#"
[gateway.redis.tls]
enabled = true
skip_verify = true
ca_file = "/redis-ca.pem"
server_name = "redis.example.com"
[gateway.redis.auth]
username = "gateway"
password_env = "OTHER_TOKEN"
"#;
    [
        "[gateway.redis]\nurl = \"rediss://cache.example.com/3\"\ncommand_timeout = \"35ms\"\nconnect_timeout = \"36ms\"",
        "[gateway.redis.sentinel]\nmaster = \"mymaster\"\naddresses = [\"10.0.0.1:26379\", \"[::1]:26379\"]\nusername = \"watcher\"\npassword_file = \"/sentinel.pass\"",
        "[gateway.redis.cluster]\nenabled = true\naddresses = [\"10.0.0.1:7000\", \"b:7001\"]",
    ]
    .iter()
    .map(|topology| format!("{topology}{redis_rest}{server}"))
    .collect()
}
