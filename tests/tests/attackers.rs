//! Setup: 2,000 attackers at once, from 20 addresses: stuck in the handshake, in a head, in a body with a length, in a body
//! of chunks that never ends, and reading nothing of a large answer. Beside them a few clients that behave.
//! Claim: memory stays inside its budget (256 MiB and what an idle gateway has), no call of the others fails, and every
//! attacker is cut for its own reason.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mcp_system_tests::fixtures::Fixture;
use mcp_system_tests::mcp::{call, mirrored, modern};
use mcp_system_tests::resources::{peak_resident_bytes, raise_open_files, resident_bytes};
use mcp_system_tests::tls::{self, TlsStream};
use mcp_system_tests::upstream::{After, answer};
use mcp_system_tests::{Gateway, GatewayConfig, eventually};
use rustls::ClientConfig;
use serde_json::json;

/// Attackers of each of five kinds.
const OF_EACH: usize = 400;
const ATTACKERS: usize = 5 * OF_EACH;
/// Attackers per source address, far below `max_connections_per_ip`.
const PER_ADDRESS: usize = 100;
/// What one shard after the other may hold for unfinished work, in all.
const BUDGET_BYTES: u64 = 256 << 20;
/// Bytes of its body that each body attacker sends at first.
const BODY_BYTES: usize = 128 << 10;
/// Bytes of the answer that slow readers ask for: more than the kernel takes for them.
const ANSWER_BYTES: usize = 8 << 20;
const WELL_BEHAVED: usize = 8;
/// How long each attack is borne.
const PATIENCE: &str = "6s";
const LIMIT: Duration = Duration::from_secs(90);

/// The kinds whose connections speak TLS, in the order in which they are made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Head,
    Body,
    Chunks,
    Reader,
}

#[test]
fn two_thousand_slow_attackers_hurt_nobody() {
    raise_open_files();
    let upstream = start_upstream();
    let gateway = start(&upstream);
    let idle = resident_bytes(gateway.process.id());

    let over = Arc::new(AtomicBool::new(false));
    let (answered, slowest) = std::thread::scope(|scope| {
        let behaved: Vec<_> =
            (0..WELL_BEHAVED).map(|_| scope.spawn(|| call_until(&gateway, &over))).collect();
        // However the attack ends, the others end, too.
        let _ended = SetOnDrop(over.clone());
        attack(&gateway);
        over.store(true, Ordering::SeqCst);
        let mut total = (0, Duration::ZERO);
        for client in behaved {
            let (calls, slowest) = client.join().expect("a client that behaves was failed");
            total = (total.0 + calls, total.1.max(slowest));
        }
        total
    });
    assert!(answered > WELL_BEHAVED * 10, "only {answered} calls were answered");

    let peak = peak_resident_bytes(gateway.process.id());
    println!("idle {} KiB, peak {} KiB, {answered} calls, the slowest {slowest:?}", idle >> 10, peak >> 10);
    assert!(peak < idle + BUDGET_BYTES, "{idle} bytes when idle, {peak} under attack");
    let buffered = gateway.metrics().value("mcp_gateway_buffered_bytes", &[]);
    assert!(buffered.is_none_or(|bytes| bytes < (1 << 20) as f64), "{buffered:?} bytes are still held");
}

/// Brings all attackers up, starts their attacks, and waits until the last is cut.
fn attack(gateway: &Gateway) {
    let config = gateway.cert.client_config();
    let mut attackers: Vec<(Kind, TlsStream)> = std::thread::scope(|scope| {
        let kinds = [Kind::Head, Kind::Body, Kind::Chunks, Kind::Reader];
        let halves: Vec<_> = (0..2)
            .map(|half| {
                let config = &config;
                scope.spawn(move || {
                    let numbers = (0..4 * OF_EACH).filter(move |number| number % 2 == half);
                    numbers
                        .map(|number| (kinds[number / OF_EACH], connect(gateway, config, number)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        halves.into_iter().flat_map(|half| half.join().expect("attackers come up")).collect()
    });
    let mut stuck: Vec<TcpStream> = (4 * OF_EACH..ATTACKERS)
        .map(|number| {
            let mut stream = tls::tcp_from(source(number), gateway.addr).expect("a connection");
            // Half of them say nothing at all, the others begin a ClientHello.
            if number % 2 == 0 {
                stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01").expect("sent");
            }
            stream
        })
        .collect();
    for (kind, stream) in &mut attackers {
        begin(*kind, gateway, stream);
    }
    let active = gateway.metrics().count("mcp_gateway_connections_active", &[]);
    assert!(active >= ATTACKERS as f64, "only {active} connections at once");

    eventually("all attackers are cut", LIMIT, || {
        // Chunks that never end: a little more each time.
        for (_, stream) in attackers.iter_mut().filter(|(kind, _)| *kind == Kind::Chunks) {
            // Whoever is cut already cannot be sent more, which is the aim.
            let _ = stream.write_all(b"1\r\n \r\n").and_then(|()| stream.flush());
        }
        let metrics = gateway.metrics();
        let cut = |reason| metrics.count("mcp_gateway_connections_rejected_total", &[("reason", reason)]);
        let wanted = [
            ("handshake_timeout", OF_EACH),
            ("header_timeout", OF_EACH),
            ("read_timeout", 2 * OF_EACH),
            ("write_timeout", OF_EACH),
        ];
        let all = wanted.iter().all(|(reason, count)| cut(reason) >= *count as f64);
        let gone = metrics.count("mcp_gateway_connections_active", &[]) <= WELL_BEHAVED as f64;
        (all && gone).then(|| wanted.map(|(reason, count)| assert_eq!(cut(reason), count as f64, "{reason}")))
    });
    for mut stream in stuck.drain(..) {
        let mut rest = Vec::new();
        assert!(matches!(stream.read_to_end(&mut rest), Ok(0)), "a stuck handshake was answered");
    }
    for (kind, mut stream) in attackers {
        let mut rest = Vec::new();
        // How the end looks depends on what was sent into a closed connection; what was said before it does not.
        let _ = stream.read_to_end(&mut rest);
        if matches!(kind, Kind::Head | Kind::Body) {
            assert!(rest.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&rest));
        }
    }
}

fn connect(gateway: &Gateway, config: &Arc<ClientConfig>, number: usize) -> TlsStream {
    let stream = tls::tcp_from(source(number), gateway.addr).expect("a connection");
    tls::handshake(stream, config, gateway.addr.ip()).expect("a handshake")
}

fn source(number: usize) -> IpAddr {
    let address = u8::try_from(1 + number / PER_ADDRESS).expect("few addresses");
    IpAddr::from([127, 0, 3, address])
}

/// The first part of an attack.
fn begin(kind: Kind, gateway: &Gateway, stream: &mut TlsStream) {
    let head = format!(
        "POST /mcp/fixture HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\n",
        gateway.addr
    );
    let bytes = match kind {
        Kind::Head => head[..head.len() - 10].to_owned(),
        Kind::Body => format!("{head}content-length: 10000000\r\n\r\n{{\"a\":\"{}", "x".repeat(BODY_BYTES)),
        Kind::Chunks => format!("{head}transfer-encoding: chunked\r\n\r\n2\r\n{{\"\r\n"),
        Kind::Reader => {
            let mirrored = mirrored("tools/call", Some("large"));
            let fields: String =
                mirrored.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let body = modern(1, "tools/call", json!({"name": "large", "arguments": {}})).to_string();
            format!("{head}{fields}content-length: {}\r\n\r\n{body}", body.len())
        }
    };
    stream.write_all(bytes.as_bytes()).and_then(|()| stream.flush()).expect("the attack begins");
}

/// Calls again and again until it is over; counts the calls, and the slowest of them.
fn call_until(gateway: &Gateway, over: &AtomicBool) -> (usize, Duration) {
    let mut connection = gateway.connect().expect("a connection");
    let (mut calls, mut slowest) = (0, Duration::ZERO);
    while !over.load(Ordering::SeqCst) {
        // Now and then a new connection, as clients come and go.
        if calls % 50 == 49 {
            connection = gateway.connect().expect("a new connection");
        }
        let begun = Instant::now();
        let answer = call(&mut connection, "/mcp/fixture", "small", json!({"n": calls})).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["result"]["arguments"]["n"], calls, "{}", answer.text());
        slowest = slowest.max(begun.elapsed());
        calls += 1;
        // A pace, so that the attackers have the processors, too; nothing depends on its length.
        std::thread::sleep(Duration::from_millis(5));
    }
    (calls, slowest)
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn start_upstream() -> Fixture {
    let large = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n\"{}\"",
        ANSWER_BYTES + 2,
        "x".repeat(ANSWER_BYTES)
    );
    Fixture::modern(json!([]), move |request, stream| {
        let message = request.json();
        (message["params"]["name"] == "large").then(|| answer(stream, &large, After::KeepOpen))
    })
}

fn start(upstream: &Fixture) -> Gateway {
    let mut config = GatewayConfig::new().server("fixture", &[&upstream.url()]);
    for timeout in ["handshake", "header", "read", "write"] {
        config = config.set("gateway.server", &format!("{timeout}_timeout = \"{PATIENCE}\""));
    }
    Gateway::start(&config)
}
