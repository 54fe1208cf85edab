//! Claim: what `to_toml` prints loads to the same configuration, for whatever loads at all.
//!
//! Setup: the defaults, the example, one rich file per Redis topology, and files drawn at random from lists of good
//! values by a generator whose seed is printed with a failure.

#![allow(clippy::unwrap_used, reason = "in a test a failure is the message")]

mod common;

use common::{EXAMPLE, load, rich_files};
use mcp_config::Config;

const RANDOM_FILES: u64 = 2000;

#[test]
fn printed_configurations_load_to_themselves() {
    let mut files = rich_files();
    files.extend(["".to_owned(), EXAMPLE.to_owned()]);
    for file in files {
        assert_round_trip(&file, 0);
    }
}

#[test]
fn random_configurations_load_to_themselves() {
    for seed in 1..=RANDOM_FILES {
        assert_round_trip(&random_file(&mut Random(seed)), seed);
    }
}

#[test]
fn nothing_printed_is_a_secret() {
    let env = [("MCP_GATEWAY__REDIS__URL", "redis://h"), ("REDIS_AUTH_TOKEN", "hunter2")];
    let config = common::load_with("", &env).unwrap();
    assert!(!config.to_toml().contains("hunter2"));
    assert!(!format!("{config:?}").contains("hunter2"));
    let endpoint = "[[servers]]\nname = \"a\"\nendpoints = [\"https://h/mcp?key=hunter2\"]";
    assert!(!format!("{:?}", load(endpoint).unwrap()).contains("hunter2"));
}

fn assert_round_trip(file: &str, seed: u64) {
    let config = load(file).unwrap_or_else(|errors| panic!("seed {seed}: {errors}\n{file}"));
    let printed = config.to_toml();
    let again = load(&printed).unwrap_or_else(|errors| panic!("seed {seed}: {errors}\n{printed}"));
    assert_eq!(again, config, "seed {seed}\n{printed}");
    assert_eq!(again.to_toml(), printed, "seed {seed}");
}

/// For each key of a table the values to draw from; an undrawn key is left out.
type Table = (&'static str, &'static [(&'static str, &'static [&'static str])]);

const DURATIONS: &[&str] = &["\"10ms\"", "\"1s\"", "\"90s\"", "\"1h30m\"", "\"24h\"", "\"1m1ms\""];
const SHORT_DURATIONS: &[&str] = &["\"10ms\"", "\"60s\"", "\"1s1ms\""];
const COUNTS: &[&str] = &["1", "2", "999", "10_000", "0x10"];

const TABLES: &[Table] = &[
    (
        "gateway.server",
        &[
            ("listen", &["\"0.0.0.0\"", "\"::\"", "\"127.0.0.1\"", "\"fe80::1\""]),
            ("https_port", &["1", "443", "65535"]),
            ("binary_port", &["0", "9444", "7"]),
            ("admin_listen", &["\"0.0.0.0:9999\"", "\"[::]:9998\""]),
            ("max_connections", &["1", "1000000"]),
            ("max_connections_per_ip", &["0", "1", "1000000"]),
            ("handshake_timeout", DURATIONS),
            ("header_timeout", DURATIONS),
            ("read_timeout", DURATIONS),
            ("write_timeout", DURATIONS),
            ("idle_timeout", DURATIONS),
            ("max_body", &["1024", "\"1KiB\"", "\"1GiB\"", "\"4097B\"", "1_000_000"]),
            ("max_header_bytes", &["1024", "\"1MiB\"", "\"33KiB\""]),
            ("allowed_origins", &["[]", "[\"HTTPS://A.b\"]", "[\"http://a\", \"app://b:1\"]"]),
            ("allowed_hosts", &["[]", "[\"A.b\", \"a.b:1\"]", "[\"[::1]:8443\"]"]),
            ("drain_delay", &["\"0s\"", "\"10s\"", "\"1h\""]),
            ("drain_timeout", DURATIONS),
            ("sse_keep_alive", DURATIONS),
        ],
    ),
    ("gateway.server.tls", &[("min_version", &["\"1.2\"", "\"1.3\""])]),
    (
        "gateway.runtime",
        &[
            ("shards", &["\"auto\"", "1", "256"]),
            ("driver", &["\"auto\"", "\"io_uring\"", "\"epoll\""]),
            ("pin", &["true", "false"]),
        ],
    ),
    (
        "gateway.connection_pool",
        &[
            ("max_size", COUNTS),
            ("max_idle_time", DURATIONS),
            ("max_waiting", COUNTS),
            ("max_wait", DURATIONS),
        ],
    ),
    ("gateway.federation", &[("timeout", DURATIONS)]),
    ("gateway.list_cache", &[("ttl", &["\"0s\"", "\"10ms\"", "\"24h\""])]),
    ("gateway.overload", &[("max_in_flight", COUNTS), ("target_delay", DURATIONS)]),
    (
        "gateway.session",
        &[
            ("ttl", &["\"1s\"", "\"720h\""]),
            ("store", &["\"auto\"", "\"memory\""]),
            ("max_sessions", COUNTS),
            ("replicas", &["0", "1", "5"]),
            ("replicas_timeout", SHORT_DURATIONS),
            ("when_store_down", &["\"keep\"", "\"refuse\""]),
            ("max_unwritten", COUNTS),
            ("orphan_timeout", DURATIONS),
        ],
    ),
    (
        "gateway.rate_limit",
        &[
            ("requests_per_second", &["0", "1", "1000000"]),
            ("burst", &["0", "1", "1000000"]),
            ("key", &["\"principal\"", "\"address\""]),
        ],
    ),
    (
        "gateway.dns",
        &[
            ("servers", &["[]", "[\"10.0.0.53:53\"]", "[\"[::1]:53\", \"127.0.0.1:5353\"]"]),
            ("min_ttl", &["\"10ms\"", "\"1s\""]),
            ("max_ttl", &["\"1s\"", "\"24h\""]),
        ],
    ),
    (
        "gateway.circuit_breaker",
        &[
            ("failure_threshold", COUNTS),
            ("success_threshold", COUNTS),
            ("open_time", DURATIONS),
            ("window", DURATIONS),
            ("half_open_max_requests", COUNTS),
        ],
    ),
    (
        "gateway.retry",
        &[
            ("budget_percent", &["0", "100"]),
            ("min_per_second", &["0", "10000"]),
            ("max_attempts", &["1", "10"]),
        ],
    ),
    (
        "gateway.log",
        &[
            ("level", &["\"error\"", "\"warn\"", "\"info\"", "\"debug\"", "\"trace\""]),
            ("format", &["\"json\"", "\"text\""]),
        ],
    ),
];

const REDIS: &[&str] = &[
    "",
    "[gateway.redis]\nurl = \"redis://h:1/15\"\n",
    "[gateway.redis]\nurl = \"rediss://[::1]\"\ntls.ca_file = \"/x\"\ntls.server_name = \"::1\"\nauth.password_file = \"/p\"\n",
    "[gateway.redis.sentinel]\nmaster = \"m\"\naddresses = [\"a:1\"]\npassword_env = \"S\"\n[gateway.redis.auth]\npassword_env = \"\"\n",
    "[gateway.redis.cluster]\naddresses = [\"a:1\", \"b:2\"]\n[gateway.redis.tls]\nenabled = true\n",
    "[gateway.redis]\nurl = \"redis://h\"\ncluster.enabled = false\nauth.username = \"a \\\"b\\\"\"\n",
];

const SERVERS: &[&str] = &[
    "endpoints = [\"http://h\"]\n",
    "endpoints = [\"https://h\"]\nhttp = \"2\"\nbalance = \"two-choices\"\ntls.cert_file = \"/c\"\ntls.key_file = \"/k\"\n",
    "endpoints = [\"http://_a._tcp.h\"]\ndiscovery = \"srv\"\naffinity = true\ntls.server_name = \"::1\"\n",
    "transport = \"sse\"\nendpoints = [\"https://h?a=b\", \"http://[::1]:1/\"]\ntimeout = \"1s\"\n",
    "endpoints = [\"http://h\"]\nhealth = { kind = \"mcp\", interval = \"1s\", timeout = \"1s\" }\n",
    "transport = \"websocket\"\nendpoints = [\"WSS://h/a\"]\ntls.ca_file = \"/c \\\\ d\"\n",
    "transport = \"stdio\"\ncommand = [\"a\", \"\\u00e4\\n\", '']\n",
];

fn random_file(random: &mut Random) -> String {
    let mut file = String::new();
    for (table, keys) in TABLES {
        file.push_str(&format!("[{table}]\n"));
        for (key, values) in *keys {
            if random.below(3) != 0 {
                file.push_str(&format!("{key} = {}\n", values[random.below(values.len())]));
            }
        }
    }
    file.push_str(REDIS[random.below(REDIS.len())]);
    for index in 0..random.below(5) {
        file.push_str(&format!("[[servers]]\nname = \"s{index}\"\n{}", SERVERS[random.below(SERVERS.len())]));
    }
    file
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

#[test]
fn the_defaults_print_every_key_that_needs_no_redis_and_no_server() {
    let printed = Config::default().to_toml();
    for (table, keys) in TABLES {
        assert!(printed.contains(&format!("[{table}]\n")), "{table}");
        for (key, _) in *keys {
            assert!(printed.contains(&format!("\n{key} = ")), "{key}");
        }
    }
}
