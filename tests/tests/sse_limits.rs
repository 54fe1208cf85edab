//! Setup: clients of HTTP with SSE that ask for much, read nothing, say nothing, or are there when the gateway ends.
//! Claim: what a stream may have in flight, how long it may be silent and how far a reader may lag are bounded, and each bound
//! is told; a silent event stream of any kind gets comments; a session lives as long as its stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::h2::{H2Connection, kind};
use mcp_system_tests::http::BodyParts;
use mcp_system_tests::mcp::{LEGACY, in_session, open_session, request};
use mcp_system_tests::resources::{raise_open_files, resident_bytes};
use mcp_system_tests::sse::{Stream, post};
use mcp_system_tests::upstream::{After, answer, answer_json};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, eventually};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);
/// Messages of a stream that may be in flight.
const IN_FLIGHT: usize = 64;
/// Streams whose memory is looked at.
const IDLE_STREAMS: u64 = 1_000;

#[test]
fn a_stream_has_so_much_in_flight_and_no_more() {
    let release = Arc::new(AtomicBool::new(false));
    let released = release.clone();
    let fixture = Fixture::legacy(move |request, _| {
        if request.json()["method"] == "ping" {
            eventually("the calls are let go", LIMIT, || released.load(Ordering::SeqCst).then_some(()));
        }
        None
    });
    let gateway = start(&fixture, |config| config.set("gateway.connection_pool", "max_size = 100"));
    let mut stream = open(&gateway);
    let mut connection = connect(&gateway);
    stream.initialize(&mut connection, LEGACY);
    eventually("the handshake is over", LIMIT, || {
        (gateway.metrics().count("mcp_gateway_requests_in_flight", &[]) == 0.0).then_some(())
    });
    for number in 0..IN_FLIGHT {
        assert_eq!(stream.ping(&mut connection, number).status, 202);
    }
    let refused = stream.ping(&mut connection, IN_FLIGHT);
    assert_eq!((refused.status, &refused.json()["id"]), (429, &json!(IN_FLIGHT)), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    // What is no request gets through: a server may wait for it.
    let response = json!({"jsonrpc": "2.0", "id": 1, "result": {}});
    assert_eq!(post(&mut connection, &stream.endpoint, &response).status, 202);
    release.store(true, Ordering::SeqCst);
    for _ in 0..IN_FLIGHT {
        assert!(stream.message()["result"]["number"].is_u64());
    }
    eventually("there is room again", LIMIT, || {
        (stream.ping(&mut connection, 1).status == 202).then_some(())
    });
}

#[test]
fn a_reader_that_reads_nothing_is_cut() {
    let fixture = Fixture::legacy(|request, stream| {
        (request.json()["method"] == "ping").then(|| {
            let result = json!({"text": "x".repeat(1 << 20)});
            let response = mcp_system_tests::fixtures::response(&request.json(), result);
            answer_json(stream, "200 OK", &response)
        })
    });
    let gateway = start(&fixture, |config| config.set("gateway.server", "write_timeout = \"500ms\""));
    let mut stream = open(&gateway);
    let mut connection = connect(&gateway);
    stream.initialize(&mut connection, LEGACY);
    for number in 0..IN_FLIGHT {
        // The stream may be cut before all are sent.
        if stream.ping(&mut connection, number).status != 202 {
            break;
        }
    }
    eventually("the stream is cut", LIMIT, || {
        let labels = [("reason", "write_timeout")];
        (gateway.metrics().count("mcp_gateway_connections_rejected_total", &labels) >= 1.0).then_some(())
    });
    eventually("its session ends", LIMIT, || (stream.ping(&mut connection, 1).status == 404).then_some(()));
    eventually("the server is told", LIMIT, || {
        fixture.seen().iter().any(|request| request.is("DELETE")).then_some(())
    });
    eventually("nothing of it is held", LIMIT, || {
        (gateway.metrics().count("mcp_gateway_buffered_bytes", &[]) == 0.0).then_some(())
    });
}

#[test]
fn silent_streams_get_comments() {
    let silent = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let fixture = Fixture::legacy(move |request, stream| {
        let begins = request.is("GET") || request.json()["method"] == "ping";
        begins.then(|| {
            answer(stream, silent, After::KeepOpen);
            let _ = std::io::Read::read(stream, &mut [0]);
            After::Close
        })
    });
    let gateway = start(&fixture, |config| config.set("gateway.server", "sse_keep_alive = \"70ms\""));

    let mut of_sse = connect(&gateway);
    of_sse.send_request("GET", "/sse/one", &[], b"").expect("sent");
    let session = open_session(&mut connect(&gateway), "/mcp/one", LEGACY);
    let mut headers = in_session(&session, LEGACY).to_vec();
    headers.push(("accept", "text/event-stream"));
    let mut of_get = connect(&gateway);
    of_get.send_request("GET", "/mcp/one", &headers, b"").expect("sent");
    let mut of_post = connect(&gateway);
    of_post
        .send_post("/mcp/one", &in_session(&session, LEGACY), &request(1, "ping", json!({})))
        .expect("sent");
    let mut old = connect(&gateway);
    let text = format!("GET /sse/one HTTP/1.0\r\nHost: {}\r\n\r\n", gateway.addr);
    old.send(text.as_bytes()).expect("sent");
    let mut frames = H2Connection::open(&gateway).expect("a connection of HTTP/2");
    let stream = frames.request("GET", "/sse/one", &[], b"").expect("sent");
    let mut text = String::new();
    while text.matches(":\n\n").count() < 3 {
        let data =
            frames.read_until(|frame| frame.kind == kind::DATA && frame.stream == stream).expect("a frame");
        text += &String::from_utf8(data.payload).expect("text");
    }
    assert!(text.starts_with("event: endpoint\n"), "{text}");
    for connection in [of_sse, of_get, of_post, old] {
        let (status, mut parts) = connection.into_body().expect("a head");
        assert_eq!(status, 200);
        assert_comments(&mut parts, 3);
    }
}

#[test]
fn a_session_lives_as_long_as_its_stream() {
    let fixture = Fixture::legacy(nothing);
    let gateway = start(&fixture, |config| {
        config.set("gateway.session", "ttl = \"1s\"").set("gateway.server", "sse_keep_alive = \"100ms\"")
    });
    let mut connection = connect(&gateway);
    let mut listening = connect(&gateway);
    listening.send_request("GET", "/sse/one", &[], b"").expect("sent");
    let (_, mut parts) = listening.into_body().expect("a head");
    let first = parts.next_part().expect("read").expect("an event");
    let first = String::from_utf8(first).expect("text");
    let endpoint =
        first.lines().find_map(|line| line.strip_prefix("data: ")).expect("an endpoint").to_owned();
    assert_eq!(post(&mut connection, &endpoint, &mcp_system_tests::mcp::initialize(LEGACY)).status, 202);
    // Three seconds at least.
    assert_comments(&mut parts, 30);
    assert_eq!(post(&mut connection, &endpoint, &request(2, "ping", json!({}))).status, 202);
}

#[test]
fn a_stream_whose_client_says_nothing_is_ended() {
    let fixture = Fixture::legacy(nothing);
    let gateway = start(&fixture, |config| config.set("gateway.server", "idle_timeout = \"300ms\""));
    let mut stream = open(&gateway);
    assert_eq!(stream.events.next_event().expect("it ends in order"), None);
    let labels = [("reason", "idle_timeout")];
    assert_eq!(gateway.metrics().count("mcp_gateway_connections_rejected_total", &labels), 1.0);
}

#[test]
fn a_drain_ends_streams_when_their_calls_are_answered() {
    let called = Arc::new(AtomicBool::new(false));
    let told = called.clone();
    let release = Arc::new(AtomicBool::new(false));
    let released = release.clone();
    let fixture = Fixture::legacy(move |request, _| {
        if request.json()["method"] == "ping" {
            told.store(true, Ordering::SeqCst);
            eventually("the call is let go", LIMIT, || released.load(Ordering::SeqCst).then_some(()));
        }
        None
    });
    let gateway = start(&fixture, |config| config);
    let mut busy = open(&gateway);
    let mut idle = open(&gateway);
    let mut connection = connect(&gateway);
    busy.initialize(&mut connection, LEGACY);
    assert_eq!(busy.ping(&mut connection, 5).status, 202);
    eventually("the call is at the server", LIMIT, || called.load(Ordering::SeqCst).then_some(()));
    let ending = std::thread::spawn(move || gateway.stop(LIMIT).code());
    assert_eq!(idle.events.next_event().expect("it ends in order"), None);
    release.store(true, Ordering::SeqCst);
    assert_eq!(busy.message()["id"], 5);
    assert_eq!(busy.events.next_event().expect("it ends in order"), None);
    assert_eq!(ending.join().expect("no panic"), Some(0));
    let ended = fixture.seen().iter().filter(|request| request.is("DELETE")).count();
    assert_eq!(ended, 1, "the session's end was not told, or that of one that had not begun was");
}

#[test]
fn an_idle_stream_costs_little() {
    raise_open_files();
    let fixture = Fixture::legacy(nothing);
    let gateway = start(&fixture, |config| config.set("gateway.server", "max_connections_per_ip = 0"));
    // What the first ones warm up is no stream's cost.
    let mut streams: Vec<Stream> = (0..100).map(|_| open(&gateway)).collect();
    let mut connection = connect(&gateway);
    let before = resident_bytes(gateway.process.id());
    for _ in 0..IDLE_STREAMS {
        let mut stream = open(&gateway);
        stream.initialize(&mut connection, LEGACY);
        streams.push(stream);
    }
    let grown = resident_bytes(gateway.process.id()) - before;
    println!("{} bytes per idle stream with its session", grown / IDLE_STREAMS);
    assert!(grown / IDLE_STREAMS < 8 << 10, "{grown} bytes");
}

fn start(fixture: &Fixture, configure: impl Fn(GatewayConfig) -> GatewayConfig) -> Gateway {
    Gateway::start(&configure(GatewayConfig::new().server("one", &[&fixture.url()])))
}

fn connect(gateway: &Gateway) -> Connection {
    gateway.connect().expect("a connection")
}

fn open(gateway: &Gateway) -> Stream {
    Stream::open(connect(gateway), "/sse/one").expect("a stream")
}

/// Reads on until so many comments have come.
fn assert_comments(parts: &mut BodyParts, count: usize) {
    let mut text = String::new();
    while text.matches(":\n\n").count() < count {
        let part = parts.next_part().expect("the stream holds").expect("the stream goes on");
        text += &String::from_utf8(part).expect("text");
    }
}
