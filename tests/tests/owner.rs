//! Setup: two gateways on one Redis, which reach each other by TLS with certificates of one authority; clients of HTTP with SSE
//! whose stream is at one and whose messages come to the other.
//! Claim: what a client sends anywhere arrives on its stream; an owner that is gone, restarted or silent is told, never waited
//! for; nobody but a gateway gets in between.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::mcp::{LEGACY, initialize, request};
use mcp_system_tests::port::free_port;
use mcp_system_tests::redis::{Redis, RedisOptions};
use mcp_system_tests::sse::{Stream, post};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, Response, TempDir, TestCert, eventually, tls};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);
/// Enough connections that a shard of two without any is not to be expected (2 × 0.5²⁰ < 0.00001).
const CONNECTIONS: usize = 20;

#[test]
fn messages_reach_the_stream_from_another_pod() {
    let setup = Setup::new();
    let pods = [setup.start(0), setup.start(1)];
    // Streams on both shards, so that messages come to the right one and to the wrong one.
    let mut streams: Vec<Stream> = (0..8).map(|_| open(&pods[0])).collect();
    let mut connections: Vec<Connection> = (0..CONNECTIONS).map(|_| connect(&pods[1])).collect();
    for stream in &mut streams {
        stream.initialize(&mut connections[0], LEGACY);
        for (number, connection) in connections.iter_mut().enumerate() {
            let answer = stream.ping(connection, number);
            assert_eq!(answer.status, 202, "{}", answer.text());
            assert_eq!(stream.message()["result"]["number"], number);
        }
    }
    let count = |pod: &Gateway, direction| {
        let labels = [("direction", direction), ("result", "accepted")];
        pod.metrics().count("mcp_gateway_peer_messages_total", &labels)
    };
    let sent = (streams.len() * (CONNECTIONS + 2)) as f64;
    assert_eq!(count(&pods[1], "out"), sent);
    // What reached the wrong shard was passed on to the right one, and counts there once more.
    let passed_on = count(&pods[0], "out");
    assert_eq!(count(&pods[0], "in"), sent + passed_on);
    for pod in &pods {
        assert!(pod.metrics().count("mcp_gateway_peer_connections", &[("peer_kind", "pod")]) >= 1.0);
    }

    // The end of a stream is known at the other pod, too.
    let endpoint = streams.pop().expect("a stream").endpoint;
    eventually("the session is unknown", LIMIT, || {
        (post(&mut connections[0], &endpoint, &request(1, "ping", json!({}))).status == 404).then_some(())
    });
}

#[test]
fn a_large_message_takes_the_same_way() {
    let setup = Setup::new();
    let pods = [setup.start(0), setup.start(1)];
    let mut stream = open(&pods[0]);
    let mut connection = connect(&pods[1]);
    stream.initialize(&mut connection, LEGACY);
    let text = "x".repeat(3 << 20);
    let message = request(2, "ping", json!({"text": text}));
    assert_eq!(post(&mut connection, &stream.endpoint, &message).status, 202);
    assert_eq!(stream.message()["result"]["text"], text);
}

#[test]
fn pods_may_share_a_certificate_for_a_name_of_their_own() {
    let setup = Setup { peer_names: ["gateways.test", "gateways.test"], ..Setup::new() };
    let pods = [setup.start(0), setup.start(1)];
    let mut stream = open(&pods[0]);
    stream.initialize(&mut connect(&pods[1]), LEGACY);

    // The address alone proves nothing then.
    let setup = Setup { peer_names: ["gateways.test", "others.test"], ..Setup::new() };
    let pods = [setup.start(0), setup.start(1)];
    let stream = open(&pods[0]);
    let refused = post(&mut connect(&pods[1]), &stream.endpoint, &initialize(LEGACY));
    assert_retryable(&refused);
    assert!(refused.text().contains("cannot be reached"), "{}", refused.text());
}

#[test]
fn without_a_way_to_it_the_owner_is_named_as_elsewhere() {
    let setup = Setup::new();
    let start = || Gateway::start(&setup.config());
    let pods = [start(), start()];
    let mut stream = open(&pods[0]);
    stream.initialize(&mut connect(&pods[0]), LEGACY);
    let answer = stream.ping(&mut connect(&pods[1]), 1);
    assert_retryable(&answer);
    assert!(answer.text().contains("gateway.peers"), "{}", answer.text());
    let refused = pods[1].metrics();
    assert_eq!(refused.count("mcp_gateway_routing_errors_total", &[("reason", "owner_elsewhere")]), 1.0);
}

#[test]
fn an_owner_that_was_killed_is_told_and_its_streams_are_over() {
    let setup = Setup::new();
    let mut pods = [setup.start(0), setup.start(1)];
    let mut stream = open(&pods[0]);
    let mut connection = connect(&pods[1]);
    stream.initialize(&mut connection, LEGACY);
    pods[0].process.signal(libc::SIGKILL);
    let mut answers = 0;
    eventually("the stream is over", LIMIT, || {
        let answer = stream.ping(&mut connection, 1);
        answers += 1;
        if answer.status == 404 {
            return Some(());
        }
        assert_retryable(&answer);
        None
    });
    assert!(answers > 1, "an owner that is away for a moment is taken for dead");
}

#[test]
fn a_successor_at_the_same_address_is_another_owner() {
    let setup = Setup::new();
    let (mut first, other) = (setup.start(0), setup.start(1));
    let mut stream = open(&first);
    let mut connection = connect(&other);
    stream.initialize(&mut connection, LEGACY);
    let (second_stream, third_stream) = (open(&first), open(&first));
    first.process.signal(libc::SIGKILL);
    drop(first);
    let successor = setup.start(0);
    // What is at the address says that it is not meant; so does it of itself.
    assert_eq!(stream.ping(&mut connection, 1).status, 404);
    assert_eq!(second_stream.ping(&mut connect(&successor), 1).status, 404);
    // Then the record is gone, and nobody asks the successor again.
    assert_eq!(third_stream.ping(&mut connection, 1).status, 404);
    let asked = || successor.metrics().count("mcp_gateway_peer_messages_total", &[("direction", "in")]);
    let before = asked();
    assert_eq!(stream.ping(&mut connection, 1).status, 404);
    assert_eq!(asked(), before);
}

#[test]
fn an_owner_that_says_nothing_is_not_waited_for() {
    let setup = Setup::new();
    let mut pods = [setup.start(0), setup.start(1)];
    let mut stream = open(&pods[0]);
    let mut connection = connect(&pods[1]);
    stream.initialize(&mut connection, LEGACY);
    pods[0].process.stop();
    let answer = stream.ping(&mut connection, 7);
    assert_retryable(&answer);
    // It may have arrived all the same.
    assert_eq!(answer.json()["error"]["data"]["outcome"], "unknown", "{}", answer.text());
    pods[0].process.signal(libc::SIGCONT);
    eventually("the owner is reached again", LIMIT, || {
        (stream.ping(&mut connection, 8).status == 202).then_some(())
    });
    while stream.message()["id"] != 8 {}
}

#[test]
fn strangers_are_not_let_in() {
    let setup = Setup::new();
    let pod = setup.start(0);
    let addr = setup.peer_addr(0);
    let elsewhere = TempDir::new();
    let other = TestCert::generate(&elsewhere);
    for config in [setup.cert.client_config(), Arc::new(tls::client_of(&other, rustls::ALL_VERSIONS))] {
        // With TLS 1.3 the refusal comes after the client's own end of the handshake.
        let refused = tls::connect(addr, &config).and_then(|mut stream| {
            stream.write_all(b"MCPB\0\x01\0\x01\0\0\0\0")?;
            stream.read(&mut [0])
        });
        match refused {
            Ok(read) => assert_eq!(read, 0, "a stranger was answered"),
            Err(error) => assert_ne!(error.kind(), ErrorKind::WouldBlock, "a stranger is still connected"),
        }
    }
    let name = shard_socket(&pod).expect("a shard's socket");
    let addr = UnixAddr::from_abstract_name(name).expect("a name");
    let mut stranger = UnixStream::connect_addr(&addr).expect("anybody can connect");
    stranger.set_read_timeout(Some(LIMIT)).expect("a limit");
    let ended = stranger.read(&mut [0]);
    assert!(ended.as_ref().is_ok_and(|read| *read == 0), "a stranger is still connected: {ended:?}");
    let failures = || pod.metrics().count("mcp_gateway_auth_failures_total", &[("reason", "peer")]);
    eventually("each stranger is counted", LIMIT, || (failures() >= 3.0).then_some(()));
    // Everybody else is served.
    open(&pod).initialize(&mut connect(&pod), LEGACY);
}

/// The name of a socket that one of a gateway's shards listens on: of this gateway, others are stopped by their tests.
fn shard_socket(pod: &Gateway) -> Option<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", pod.process.id())).ok()?;
    // A shard has a file table of its own.
    let open =
        tasks.flatten().filter_map(|task| std::fs::read_dir(task.path().join("fd")).ok()).flatten().flatten();
    let links = open.filter_map(|file| std::fs::read_link(file.path()).ok());
    let own: Vec<String> = links.map(|link| link.to_string_lossy().into_owned()).collect();
    let sockets = std::fs::read_to_string("/proc/net/unix").ok()?;
    sockets.lines().find_map(|line| {
        let (before, name) = line.split_once(" @mcp-gateway.")?;
        let inode = before.split_whitespace().last()?;
        own.contains(&format!("socket:[{inode}]")).then(|| format!("mcp-gateway.{name}"))
    })
}

struct Setup {
    store: Redis,
    fixture: Fixture,
    cert: TestCert,
    ports: [u16; 2],
    /// `server_name` of each.
    peer_names: [&'static str; 2],
    _dir: TempDir,
}

impl Setup {
    fn new() -> Self {
        let dir = TempDir::new();
        Self {
            store: Redis::start(&RedisOptions::new()),
            fixture: Fixture::legacy(nothing),
            cert: TestCert::generate_for(&dir, &["gateways.test".to_owned()]),
            ports: [free_port(), free_port()],
            peer_names: ["", ""],
            _dir: dir,
        }
    }

    fn config(&self) -> GatewayConfig {
        GatewayConfig::new().server("one", &[&self.fixture.url()]).store(&self.store)
    }

    fn start(&self, pod: usize) -> Gateway {
        Gateway::start(&self.config().peers(self.peer_addr(pod), &self.cert, self.peer_names[pod]))
    }

    fn peer_addr(&self, pod: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[pod]))
    }
}

fn connect(gateway: &Gateway) -> Connection {
    gateway.connect().expect("a connection")
}

fn open(gateway: &Gateway) -> Stream {
    Stream::open(connect(gateway), "/sse/one").expect("a stream")
}

/// A typed error that says that asking again may help, and when.
fn assert_retryable(answer: &Response) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.json()["error"]["data"]["retryable"], true, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
}
