//! Claim: everything that is wrong is reported, once each, with the key, the value, what is allowed and where it stands.

#![allow(clippy::unwrap_used, reason = "in a test a failure is the message")]

mod common;

use common::{load, only_problem};

const SERVER: &str = "[[servers]]\nname = \"a\"\nendpoints = [\"http://h/\"]\n";

/// Table, key, a value outside its range, and words that must stand in `allowed`.
const OUT_OF_RANGE: &[(&str, &str, &str, &str)] = &[
    ("gateway.server", "listen", "\"localhost\"", "IP address"),
    ("gateway.server", "listen", "1", "IP address"),
    ("gateway.server", "https_port", "0", "1 to 65535"),
    ("gateway.server", "https_port", "65536", "1 to 65535"),
    ("gateway.server", "https_port", "-1", "1 to 65535"),
    ("gateway.server", "https_port", "\"8443\"", "integer"),
    ("gateway.server", "https_port", "8443.0", "integer"),
    ("gateway.server", "binary_port", "65536", "0 for off"),
    ("gateway.server", "binary_port", "-1", "0 for off"),
    ("gateway.server", "admin_listen", "\"127.0.0.1\"", "port"),
    ("gateway.server", "admin_listen", "\"127.0.0.1:0\"", "1 to 65535"),
    ("gateway.server", "admin_listen", "\"localhost:9090\"", "IP address"),
    ("gateway.server", "max_connections", "0", "1 to 1000000"),
    ("gateway.server", "max_connections", "1000001", "1 to 1000000"),
    ("gateway.server", "max_connections", "99999999999999999999", "1 to 1000000"),
    ("gateway.server", "max_connections_per_ip", "1000001", "0 for no limit"),
    ("gateway.server", "max_connections_per_ip", "true", "0 for no limit"),
    ("gateway.server", "handshake_timeout", "\"9ms\"", "10ms to 24h"),
    ("gateway.server", "header_timeout", "\"24h1ms\"", "10ms to 24h"),
    ("gateway.server", "read_timeout", "30", "duration such as"),
    ("gateway.server", "read_timeout", "\"30\"", "duration such as"),
    ("gateway.server", "write_timeout", "\"0s\"", "10ms to 24h"),
    ("gateway.server", "idle_timeout", "\"25h\"", "10ms to 24h"),
    ("gateway.server", "drain_delay", "\"61m\"", "0s to 1h"),
    ("gateway.server", "drain_delay", "0", "duration such as"),
    ("gateway.server", "drain_timeout", "\"1d\"", "10ms to 24h"),
    ("gateway.server", "sse_keep_alive", "\"0s\"", "10ms to 24h"),
    ("gateway.server", "max_body", "1023", "1KiB to 1GiB"),
    ("gateway.server", "max_body", "\"1025MiB\"", "1KiB to 1GiB"),
    ("gateway.server", "max_body", "\"10MB\"", "size such as"),
    ("gateway.server", "max_body", "-1", "1KiB to 1GiB"),
    ("gateway.server", "max_header_bytes", "\"512B\"", "1KiB to 1MiB"),
    ("gateway.server", "max_header_bytes", "\"2MiB\"", "1KiB to 1MiB"),
    ("gateway.server", "allowed_origins", "\"https://a\"", "list"),
    ("gateway.server", "allowed_origins", "[\"https://a/\"]", "origin"),
    ("gateway.server", "allowed_origins", "[\"*\"]", "origin"),
    ("gateway.server", "allowed_origins", "[\"null\"]", "origin"),
    ("gateway.server", "allowed_origins", "[\"https://a\", \"https://A\"]", "different"),
    ("gateway.server", "allowed_origins", "[1]", "list"),
    ("gateway.server", "allowed_hosts", "[\"https://a\"]", "host name"),
    ("gateway.server.tls", "min_version", "\"1.1\"", "\"1.2\" or \"1.3\""),
    ("gateway.server.tls", "min_version", "1.3", "\"1.2\" or \"1.3\""),
    ("gateway.server.tls", "cert_file", "[]", "path"),
    ("gateway.runtime", "shards", "0", "\"auto\" or an integer from 1 to 256"),
    ("gateway.runtime", "shards", "257", "1 to 256"),
    ("gateway.runtime", "shards", "\"all\"", "\"auto\""),
    ("gateway.runtime", "driver", "\"kqueue\"", "\"auto\", \"io_uring\" or \"epoll\""),
    ("gateway.runtime", "pin", "1", "true or false"),
    ("gateway.connection_pool", "max_size", "0", "1 to 10000"),
    ("gateway.connection_pool", "max_size", "10001", "1 to 10000"),
    ("gateway.connection_pool", "max_idle_time", "\"9ms\"", "10ms to 24h"),
    ("gateway.connection_pool", "max_waiting", "0", "1 to 100000"),
    ("gateway.connection_pool", "max_waiting", "100001", "1 to 100000"),
    ("gateway.connection_pool", "max_wait", "\"0s\"", "10ms to 24h"),
    ("gateway.federation", "timeout", "\"9ms\"", "10ms to 24h"),
    ("gateway.list_cache", "ttl", "\"9ms\"", "\"0s\" for asking the server every time"),
    ("gateway.list_cache", "ttl", "\"25h\"", "10ms to 24h"),
    ("gateway.overload", "max_in_flight", "0", "1 to 1000000"),
    ("gateway.overload", "max_in_flight", "1000001", "1 to 1000000"),
    ("gateway.overload", "target_delay", "\"9ms\"", "10ms to 24h"),
    ("gateway.session", "ttl", "\"999ms\"", "1s to 720h"),
    ("gateway.session", "ttl", "\"721h\"", "1s to 720h"),
    ("gateway.session", "store", "\"disk\"", "\"auto\", \"memory\" or \"redis\""),
    ("gateway.session", "store", "\"redis\"", "gateway.redis is absent"),
    ("gateway.session", "max_sessions", "0", "1 to 10000000"),
    ("gateway.session", "max_sessions", "10000001", "1 to 10000000"),
    ("gateway.session", "replicas", "6", "0 for not waiting"),
    ("gateway.session", "replicas_timeout", "\"61s\"", "10ms to 1m"),
    ("gateway.session", "when_store_down", "\"wait\"", "\"keep\" or \"refuse\""),
    ("gateway.session", "orphan_timeout", "\"0s\"", "10ms to 24h"),
    ("gateway.session", "max_unwritten", "0", "1 to 1000000"),
    ("gateway.rate_limit", "requests_per_second", "1000001", "0 for no limit"),
    ("gateway.rate_limit", "burst", "-1", "0 for as many"),
    ("gateway.rate_limit", "key", "\"session\"", "\"principal\" or \"address\""),
    ("gateway.redis", "url", "\"http://h\"", "redis://"),
    ("gateway.redis", "url", "\"redis://h/db\"", "redis://"),
    ("gateway.circuit_breaker", "failure_threshold", "0", "1 to 10000"),
    ("gateway.circuit_breaker", "success_threshold", "10001", "1 to 10000"),
    ("gateway.circuit_breaker", "half_open_max_requests", "0", "1 to 10000"),
    ("gateway.circuit_breaker", "open_time", "\"1ms\"", "10ms to 24h"),
    ("gateway.circuit_breaker", "window", "\"48h\"", "10ms to 24h"),
    ("gateway.retry", "budget_percent", "101", "0 to 100"),
    ("gateway.retry", "min_per_second", "10001", "0 to 10000"),
    ("gateway.retry", "max_attempts", "0", "1 to 10"),
    ("gateway.log", "level", "\"INFO\"", "\"info\""),
    ("gateway.log", "format", "\"xml\"", "\"json\" or \"text\""),
];

#[test]
fn servers_whose_tools_could_have_one_name_are_refused() {
    let servers = |one: &str, other: &str| {
        format!(
            "{}\n{}",
            SERVER.replace("\"a\"", &format!("{one:?}")),
            SERVER.replace("\"a\"", &format!("{other:?}"))
        )
    };
    for (one, other) in [("a", "a_"), ("a__b", "a"), ("x", "x__")] {
        let problem = only_problem(&servers(one, other));
        assert!(problem.allowed.contains(&format!("{one:?} (servers[0])")), "{problem:?}");
    }
    for (one, other) in [("a", "a_b"), ("a-", "a"), ("a", "ab"), ("a__b", "a__c")] {
        assert!(load(&servers(one, other)).is_ok(), "{one} {other}");
    }
}

#[test]
fn each_violation_is_one_problem_that_names_key_value_allowed_and_line() {
    for (table, key, value, allowed) in OUT_OF_RANGE {
        let problem = only_problem(&format!("[{table}]\n\n{key} = {value}\n"));
        assert_eq!(problem.key, format!("{table}.{key}"));
        assert_eq!(problem.value, *value);
        assert!(problem.allowed.contains(allowed), "{problem}");
        assert_eq!(problem.origin, "gateway.toml:3", "{problem}");
        let line = problem.to_string();
        assert!(line.contains(value) && line.contains(key) && !line.contains('\n'), "{line}");
    }
}

#[test]
fn the_ends_of_every_range_are_inside() {
    for (table, lines) in [
        (
            "gateway.server",
            "https_port = 65535\nbinary_port = 1\nmax_connections = 1\nmax_connections_per_ip = 1000000",
        ),
        (
            "gateway.server",
            "read_timeout = \"10ms\"\nwrite_timeout = \"24h\"\nmax_body = 1024\nmax_header_bytes = \"1MiB\"",
        ),
        ("gateway.server", "max_connections = 1000000\nmax_body = \"1GiB\"\nmax_header_bytes = \"1KiB\""),
        ("gateway.runtime", "shards = 1"),
        ("gateway.runtime", "shards = 256"),
        ("gateway.session", "ttl = \"1s\"\nmax_sessions = 10000000"),
        ("gateway.session", "ttl = \"720h\"\nmax_sessions = 1"),
    ] {
        let file = format!("[{table}]\n{lines}\n");
        assert!(load(&file).is_ok(), "{file}: {}", load(&file).unwrap_err());
    }
}

/// A server's lines, the key at fault, and words that must stand in `allowed`.
const BAD_SERVERS: &[(&str, &str, &str)] = &[
    ("endpoints = [\"http://h/\"]", "name", "[a-z0-9]"),
    ("name = \"\"\nendpoints = [\"http://h/\"]", "name", "[a-z0-9]"),
    ("name = \"A\"\nendpoints = [\"http://h/\"]", "name", "[a-z0-9]"),
    ("name = \"-a\"\nendpoints = [\"http://h/\"]", "name", "[a-z0-9]"),
    ("name = \"a/b\"\nendpoints = [\"http://h/\"]", "name", "[a-z0-9]"),
    ("name = \"metrics\"\nendpoints = [\"http://h/\"]", "name", "metrics"),
    ("name = \"a\"\ntransport = \"http\"\nendpoints = [\"http://h/\"]", "transport", "\"streamable-http\""),
    ("name = \"a\"", "endpoints", "1 to 64"),
    ("name = \"a\"\nendpoints = []", "endpoints", "1 to 64"),
    ("name = \"a\"\nendpoints = \"http://h/\"", "endpoints", "list"),
    ("name = \"a\"\nendpoints = [\"ws://h/\"]", "endpoints", "http://"),
    ("name = \"a\"\nendpoints = [\"http://h/\", \"http://h/\"]", "endpoints", "different"),
    ("name = \"a\"\ntransport = \"websocket\"\nendpoints = [\"http://h/\"]", "endpoints", "ws://"),
    ("name = \"a\"\ntransport = \"sse\"", "endpoints", "1 to 64"),
    ("name = \"a\"\nendpoints = [\"http://h/\"]\ncommand = [\"x\"]", "command", "stdio"),
    ("name = \"a\"\ntransport = \"stdio\"", "command", "program"),
    ("name = \"a\"\ntransport = \"stdio\"\ncommand = []", "command", "program"),
    ("name = \"a\"\ntransport = \"stdio\"\ncommand = [\"\"]", "command", "first not empty"),
    ("name = \"a\"\ntransport = \"stdio\"\ncommand = [\"a\\u0000\"]", "command", "NUL"),
    (
        "name = \"a\"\ntransport = \"stdio\"\ncommand = [\"x\"]\nendpoints = [\"http://h/\"]",
        "endpoints",
        "absent",
    ),
    ("name = \"a\"\ntransport = \"stdio\"\ncommand = [\"x\"]\ntls.ca_file = \"/x\"", "tls.ca_file", "absent"),
    ("name = \"a\"\nendpoints = [\"http://h/\"]\ntimeout = \"0s\"", "timeout", "10ms to 24h"),
    ("name = \"a\"\nendpoints = [\"http://h/\"]\nhealth.kind = \"ping\"", "health.kind", "\"mcp\""),
    (
        "name = \"a\"\nendpoints = [\"http://h/\"]\nhealth.interval = \"99ms\"",
        "health.interval",
        "100ms to 1h",
    ),
    (
        "name = \"a\"\nendpoints = [\"http://h/\"]\nhealth.timeout = \"11s\"",
        "health.timeout",
        "not longer than interval",
    ),
    (
        "name = \"a\"\nendpoints = [\"http://h/\"]\nhealth.interval = \"1s\"",
        "health.interval",
        "not longer than interval",
    ),
    ("name = \"a\"\nendpoints = [\"http://h/\"]\nhealth.path = \"/x\"", "health.path", "only kind \"http\""),
    (
        "name = \"a\"\nendpoints = [\"http://h/\"]\nhealth = { kind = \"http\", path = \"x\" }",
        "health.path",
        "begins with",
    ),
    (
        "name = \"a\"\nendpoints = [\"http://h/\"]\nhealth.healthy_after = 0",
        "health.healthy_after",
        "1 to 100",
    ),
    (
        "name = \"a\"\nendpoints = [\"http://h/\"]\nhealth.unhealthy_after = 101",
        "health.unhealthy_after",
        "1 to 100",
    ),
    (
        "name = \"a\"\ntransport = \"stdio\"\ncommand = [\"x\"]\nhealth.kind = \"tcp\"",
        "health.kind",
        "absent",
    ),
    (
        "name = \"a\"\nendpoints = [\"http://h/\"]\nconnect_timeout = \"25h\"",
        "connect_timeout",
        "10ms to 24h",
    ),
    ("name = \"a\"\nendpoints = [\"http://h/\"]\nbalance = \"random\"", "balance", "\"two-choices\""),
    ("name = \"a\"\nendpoints = [\"http://h/\"]\naffinity = 1", "affinity", "true or false"),
    ("name = \"a\"\nendpoints = [\"http://h/\"]\ndiscovery = \"dns\"", "discovery", "\"addresses\""),
    ("name = \"a\"\nendpoints = [\"http://10.0.0.1/\"]\ndiscovery = \"srv\"", "endpoints", "SRV"),
    ("name = \"a\"\nendpoints = [\"http://h/\"]\nhttp = \"3\"", "http", "\"auto\""),
    (
        "name = \"a\"\ntransport = \"sse\"\nendpoints = [\"http://h/\"]\nhttp = \"2\"",
        "http",
        "only the transport \"streamable-http\"",
    ),
    ("name = \"a\"\ntransport = \"stdio\"\ncommand = [\"x\"]\naffinity = true", "affinity", "absent"),
    ("name = \"a\"\nendpoints = [\"https://h/\"]\ntls.cert_file = \"/c\"", "tls.key_file", "both or neither"),
    ("name = \"a\"\nendpoints = [\"https://h/\"]\ntls.key_file = \"/k\"", "tls.cert_file", "both or neither"),
    (
        "name = \"a\"\nendpoints = [\"https://h/\"]\ntls.server_name = \"h:1\"",
        "tls.server_name",
        "without a port",
    ),
];

#[test]
fn each_violation_of_a_server_is_one_problem() {
    for (lines, key, allowed) in BAD_SERVERS {
        let problem = only_problem(&format!("[[servers]]\n{lines}\n"));
        assert_eq!(problem.key, format!("servers[0].{key}"), "{lines}");
        assert!(problem.allowed.contains(allowed), "{problem}");
        assert!(problem.origin.starts_with("gateway.toml:"), "{problem}");
    }
}

#[test]
fn server_names_are_unique_and_bounded() {
    let problem = only_problem(&SERVER.repeat(2));
    assert_eq!(problem.key, "servers[1].name");
    assert!(problem.allowed.contains("servers[0]"), "{problem}");
    let long = |length: usize| SERVER.replace("\"a\"", &format!("\"{}\"", "a".repeat(length)));
    assert!(load(&long(63)).is_ok());
    assert_eq!(only_problem(&long(64)).key, "servers[0].name");
    let many =
        |count: usize| (0..count).map(|i| SERVER.replace("\"a\"", &format!("\"s{i}\""))).collect::<String>();
    assert_eq!(load(&many(256)).unwrap().upstreams.len(), 256);
    assert_eq!(only_problem(&many(257)).key, "servers[256]");
}

#[test]
fn rules_that_span_keys() {
    for (file, key) in [
        ("[gateway.server.tls]\ncert_file = \"/c\"\n", "gateway.server.tls.key_file"),
        ("[gateway.server.tls]\nkey_file = \"/k\"\ncert_file = \"\"\n", "gateway.server.tls.cert_file"),
        ("[gateway.server]\nhttps_port = 9443\n", "gateway.server.https_port"),
        ("[gateway.server]\nbinary_port = 8443\n", "gateway.server.binary_port"),
        ("[gateway.server]\nhttps_port = 9090\n", "gateway.server.https_port"),
        ("[gateway.server]\nadmin_listen = \"10.0.0.1:9443\"\n", "gateway.server.admin_listen"),
        ("[gateway.redis]\n", "gateway.redis.url"),
        ("[gateway.redis.auth]\nusername = \"u\"\n", "gateway.redis.url"),
        ("[gateway.redis.cluster]\nenabled = false\naddresses = [\"h:1\"]\n", "gateway.redis.url"),
        ("[gateway.redis]\nurl = \"redis://h\"\ncluster.addresses = [\"h:1\"]\n", "gateway.redis"),
        ("[gateway.redis.cluster]\nenabled = true\n", "gateway.redis.cluster.addresses"),
        ("[gateway.redis.cluster]\naddresses = [\"h\"]\n", "gateway.redis.cluster.addresses"),
        ("[gateway.redis.sentinel]\naddresses = [\"h:1\"]\n", "gateway.redis.sentinel.master"),
        ("[gateway.redis.sentinel]\nmaster = \"m\"\n", "gateway.redis.sentinel.addresses"),
        ("[gateway.redis]\nurl = \"redis://h\"\ntls.ca_file = \"/x\"\n", "gateway.redis.tls.ca_file"),
        ("[gateway.redis]\nurl = \"redis://h\"\nauth.username = \"a\\nb\"\n", "gateway.redis.auth.username"),
        (
            "[gateway.redis]\nurl = \"redis://h\"\ncommand_timeout = \"9ms\"\n",
            "gateway.redis.command_timeout",
        ),
        (
            "[gateway.redis]\nurl = \"redis://h\"\nconnect_timeout = \"61s\"\n",
            "gateway.redis.connect_timeout",
        ),
        ("[gateway.redis]\nurl = \"redis://h\"\ntls.server_name = \"x\"\n", "gateway.redis.tls.server_name"),
        (
            "[gateway.redis]\nurl = \"rediss://h\"\ntls.server_name = \"x:1\"\n",
            "gateway.redis.tls.server_name",
        ),
        (
            "[gateway.redis]\nurl = \"redis://h\"\nauth = { password_env = \"P\", password_file = \"/p\" }\n",
            "gateway.redis.auth.password_file",
        ),
        (
            "[gateway.redis.sentinel]\nmaster = \"m\"\naddresses = [\"h:1\"]\npassword_env = \"1\"\n",
            "gateway.redis.sentinel.password_env",
        ),
        (
            "[gateway.redis]\nurl = \"redis://h\"\nauth.password_env = \"p@ss\"\n",
            "gateway.redis.auth.password_env",
        ),
    ] {
        assert_eq!(only_problem(file).key, key, "{file}");
    }
}

#[test]
fn listeners_of_different_addresses_may_share_a_port() {
    let file = "[gateway.server]\nlisten = \"10.0.0.1\"\nadmin_listen = \"127.0.0.1:8443\"\n";
    assert!(load(file).is_ok());
}

#[test]
fn unknown_keys_are_named_with_the_nearest_one() {
    for (file, key, said) in [
        (
            "[gateway.server]\nmax_conections = 1\n",
            "gateway.server.max_conections",
            "gateway.server.max_connections?",
        ),
        ("[gateway.sever]\nlisten = \"x\"\n", "gateway.sever", "gateway.server?"),
        ("[server]\nlisten = \"x\"\n", "server", "gateway.server?"),
        ("[[server]]\nname = \"x\"\n", "server", "[[servers]]"),
        ("colour = 1\n", "colour", "a known key"),
        (
            "[[servers]]\nname = \"a\"\nendpoints = [\"http://h\"]\nurl = \"x\"\n",
            "servers[0].url",
            "a known key",
        ),
    ] {
        let problem = only_problem(file);
        assert_eq!(problem.key, key);
        assert!(problem.allowed.ends_with(said), "{problem}");
    }
}

#[test]
fn wrong_shapes_are_named() {
    for (file, key) in [
        ("gateway = 1\n", "gateway"),
        ("[gateway]\nserver = []\n", "gateway.server"),
        ("[gateway.server.listen]\na = 1\n", "gateway.server.listen"),
        ("servers = 1\n", "servers"),
        ("servers = [1]\n", "servers[0]"),
        ("[servers]\nname = \"a\"\n", "servers"),
    ] {
        assert_eq!(only_problem(file).key, key, "{file}");
    }
}

#[test]
fn all_problems_come_together() {
    let mut file = String::new();
    let mut expected = Vec::new();
    for (table, key, value, _) in OUT_OF_RANGE {
        // One line per key, each table opened once; redis is left out because its absence is one of the problems.
        let path = format!("{table}.{key}");
        if !expected.contains(&path) && *table != "gateway.redis" && *key != "cert_file" {
            file.push_str(&format!("{path} = {value}\n"));
            expected.push(path);
        }
    }
    for (index, (lines, key, _)) in BAD_SERVERS.iter().enumerate() {
        let name = format!("name = \"s{index}\"");
        file.push_str(&format!("[[servers]]\n{}\n", lines.replace("name = \"a\"", &name)));
        expected.push(format!("servers[{index}].{key}"));
    }
    let errors = load(&file).unwrap_err();
    let mut keys: Vec<_> = errors.problems().iter().map(|problem| problem.key.clone()).collect();
    keys.sort();
    expected.sort();
    assert_eq!(keys, expected, "{errors}");
    assert_eq!(errors.to_string().lines().count(), expected.len());
}

#[test]
fn syntax_errors_name_their_lines() {
    let errors = load("[gateway.server]\nlisten = \nhttps_port = 1\nhttps_port = 2\n").unwrap_err();
    let origins: Vec<_> = errors.problems().iter().map(|problem| problem.origin.as_str()).collect();
    assert_eq!(origins, ["gateway.toml:2", "gateway.toml:4"], "{errors}");
    assert!(errors.to_string().contains("valid TOML"), "{errors}");
}

#[test]
fn an_oversized_file_is_refused() {
    let problem = only_problem(&"#\n".repeat(1 << 20));
    assert!(problem.allowed.contains("1048576 bytes"), "{problem}");
}

#[test]
fn deep_nesting_is_refused_without_harm() {
    let file = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(load(&file).is_err());
}

#[test]
fn messages_hide_secrets() {
    for file in [
        "[gateway.redis]\nurl = \"redis://:hunter2@h\"\n",
        "[gateway.redis]\nurl = \"redis://h\"\nauth.password = \"hunter2\"\n",
        "[gateway.redis]\nurl = \"redis://h\"\nauth.password_env = \"hunter2!\"\n",
        "[[servers]]\nname = \"a\"\nendpoints = [\"https://u:hunter2@h/\"]\n",
    ] {
        let message = only_problem(file).to_string();
        assert!(message.contains("<hidden>") && !message.contains("hunter2"), "{message}");
    }
}
