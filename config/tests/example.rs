//! Claim: the committed example loads, sets every key, and says what the embedded defaults are.

#![allow(clippy::unwrap_used, reason = "in a test a failure is the message")]

mod common;

use common::{EXAMPLE, load, rich_files};
use mcp_config::{
    Config, Redis, RedisAuth, RedisTls, RedisTopology, RedisUrl, TlsFiles, Transport, Upstream, UpstreamTls,
};

#[test]
fn the_example_is_the_defaults_with_its_own_certificate_redis_and_server() {
    let mut expected = Config::default();
    expected.server.tls.files = Some(TlsFiles {
        cert_file: "/etc/mcp-gateway/tls/tls.crt".into(),
        key_file: "/etc/mcp-gateway/tls/tls.key".into(),
    });
    expected.redis = Some(Redis {
        topology: RedisTopology::Single {
            url: RedisUrl {
                host: "127.0.0.1".to_owned(),
                port: 6379,
                database: 0,
                tls: false,
                text: "redis://127.0.0.1:6379/0".to_owned(),
            },
        },
        tls: RedisTls::default(),
        auth: RedisAuth::default(),
        command_timeout: Redis::DEFAULT_COMMAND_TIMEOUT,
        connect_timeout: Redis::DEFAULT_CONNECT_TIMEOUT,
    });
    let config = load(EXAMPLE).unwrap();
    let [everything] = config.upstreams.as_slice() else { panic!("{:?}", config.upstreams) };
    let Transport::StreamableHttp { endpoints, tls } = &everything.transport else {
        panic!("{everything:?}")
    };
    assert_eq!((everything.name.as_str(), everything.timeout), ("everything", Upstream::DEFAULT_TIMEOUT));
    assert_eq!(tls, &UpstreamTls::default());
    assert_eq!(endpoints.len(), 1);
    assert_eq!(
        (endpoints[0].host.as_str(), endpoints[0].port, endpoints[0].path.as_str()),
        ("127.0.0.1", 3001, "/mcp")
    );
    assert_eq!(Config { upstreams: Vec::new(), ..config }, expected);
}

#[test]
fn the_example_with_its_alternatives_loads_too() {
    for topology in ["sentinel", "cluster"] {
        let mut in_topology = false;
        let mut text = String::new();
        for line in EXAMPLE.lines() {
            if line.starts_with('#') {
                in_topology = line.starts_with(&format!("#[gateway.redis.{topology}]"))
                    || line == "#[[servers]]"
                    || (in_topology && line.contains(" = "));
            } else {
                in_topology = false;
            }
            let kept = if in_topology { &line[1..] } else { line };
            if !kept.starts_with("url = ") {
                text.push_str(kept);
                text.push('\n');
            }
        }
        let config = load(&text).unwrap();
        assert_eq!(config.upstreams.len(), 2, "{text}");
        assert!(matches!(config.upstreams[1].transport, Transport::Stdio { .. }));
        let redis = config.redis.unwrap();
        match topology {
            "sentinel" => assert!(matches!(redis.topology, RedisTopology::Sentinel { .. })),
            _ => assert!(matches!(redis.topology, RedisTopology::Cluster { .. })),
        }
    }
}

#[test]
fn an_empty_file_and_no_file_are_the_defaults() {
    assert_eq!(load("").unwrap(), Config::default());
    assert_eq!(Config::load(None, std::iter::empty()).unwrap(), Config::default());
}

#[test]
fn every_key_alone_keeps_the_other_defaults() {
    let text = "[gateway.server]\nhttps_port = 1\n";
    let mut expected = Config::default();
    expected.server.https_port = 1;
    assert_eq!(load(text).unwrap(), expected);
}

#[test]
fn the_rich_files_share_no_value_with_the_defaults() {
    for file in rich_files() {
        let printed = load(&file).unwrap().to_toml();
        let default = Config::default().to_toml();
        let default_lines: Vec<_> = default.lines().filter(|line| line.contains(" = ")).collect();
        for line in printed.lines().filter(|line| line.contains(" = ")) {
            assert!(!default_lines.contains(&line), "{line}");
        }
    }
}
