//! Setup: event streams over HTTP/2, clients that give streams up, that read too slowly, that stop in the middle of a preface, a
//! header block, a body, or say nothing, and a gateway that is asked to end.
//! Claim: events arrive as they come; a stream that is reset is cancelled at its server and its neighbours are not touched;
//! a window that stays closed holds up its own server only, and not for ever; each delay has its bound, its answer and its
//! count; the gateway says goodbye and finishes what has begun.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use mcp_system_tests::fixtures::Fixture;
use mcp_system_tests::h2::{ACK, END_HEADERS, Frame, H2Connection, Outcome, PREFACE, block, code, kind};
use mcp_system_tests::mcp::{LEGACY, POST_HEADERS, in_session, initialize, mirrored, modern, modern_call};
use mcp_system_tests::upstream::{After, ScriptedUpstream};
use mcp_system_tests::{Gateway, GatewayConfig, eventually, held_up_at};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const SSE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

/// What became of the streams that a server opened.
#[derive(Clone, Default)]
struct Streams {
    opened: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
}

impl Streams {
    fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    fn closed(&self) -> usize {
        self.closed.load(Ordering::SeqCst)
    }

    /// Begins a stream with `event`, or nothing, and waits until the other side closes.
    fn keep_open(&self, stream: &mut TcpStream, event: Option<&Value>) -> After {
        if let Some(event) = event {
            stream.write_all(format!("{SSE}data: {event}\n\n").as_bytes()).expect("taken");
        }
        self.opened.fetch_add(1, Ordering::SeqCst);
        stream.set_read_timeout(Some(LIMIT)).expect("a socket's option");
        let ended = stream.read(&mut [0; 1]);
        // Closed before all that was said was read, it is reset.
        if matches!(ended, Ok(0)) || ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset) {
            self.closed.fetch_add(1, Ordering::SeqCst);
        }
        After::Close
    }
}

#[test]
fn a_stream_that_is_reset_is_cancelled_and_no_other() {
    let (streams, _fixture, gateway) = start("");
    let mut connection = H2Connection::open(&gateway).expect("a connection");
    let kept = listen(&mut connection);
    assert_eq!(event(&mut connection, kept)["method"], "notifications/subscriptions/acknowledged");
    for number in 1..=4 {
        let stream =
            if number % 2 == 0 { listen(&mut connection) } else { send_call(&mut connection, "mute") };
        eventually("the request is with the server", LIMIT, || (streams.opened() > number).then_some(()));
        connection.send(kind::RST_STREAM, 0, stream, &code::CANCEL.to_be_bytes()).expect("sent");
        eventually("the server saw the end", LIMIT, || (streams.closed() == number).then_some(()));
    }
    let stream = send_call(&mut connection, "echo");
    assert_eq!(connection.answer(stream).expect("an answer").status, 200);
    drop(connection);
    eventually("the connection's own end ends the last one", LIMIT, || (streams.closed() == 5).then_some(()));
    eventually("nothing is in flight", LIMIT, || {
        (gateway.metrics().value("mcp_gateway_requests_in_flight", &[]) == Some(0.0)).then_some(())
    });
}

#[test]
fn a_session_s_stream_brings_what_the_server_says_unasked() {
    let streams = Streams::default();
    let held = streams.clone();
    let fixture = Fixture::legacy(move |request, stream| {
        request.is("GET").then(|| {
            held.keep_open(
                stream,
                Some(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}})),
            )
        })
    });
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&fixture.url()]));
    let mut connection = H2Connection::open(&gateway).expect("a connection");
    let stream = connection.post("/mcp/fixture", &[], &initialize(LEGACY)).expect("sent");
    let opened = connection.answer(stream).expect("an answer");
    let session = opened.header("mcp-session-id").expect("a session").to_owned();
    let mut headers = in_session(&session, LEGACY).to_vec();
    headers.push(("accept", "text/event-stream"));
    let stream = connection.request("GET", "/mcp/fixture", &headers, b"").expect("sent");
    let head = connection.head(stream).expect("a head");
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(head.header("x-accel-buffering"), Some("no"));
    assert_eq!(event(&mut connection, stream)["method"], "notifications/message");
}

#[test]
fn the_gateway_says_goodbye_and_finishes() {
    let (streams, _fixture, mut gateway) = start("");
    let mut idle = H2Connection::open(&gateway).expect("a connection");
    idle.ping().expect("an answer");
    // Says nothing to the goodbye: it is not waited for.
    let mut silent = H2Connection::open(&gateway).expect("a connection");
    silent.ping().expect("an answer");
    let mut busy = H2Connection::open(&gateway).expect("a connection");
    let subscription = listen(&mut busy);
    assert_eq!(event(&mut busy, subscription)["method"], "notifications/subscriptions/acknowledged");
    let slow = send_call(&mut busy, "slow");
    eventually("the call is with the server", LIMIT, || (streams.opened() == 2).then_some(()));
    gateway.process.signal(libc::SIGTERM);

    let goodbye = busy.read_until(|frame| frame.kind == kind::GOAWAY).expect("a goodbye");
    // The first names no stream, so that what is on its way is still taken (RFC 9113, section 6.8).
    assert_eq!((&goodbye.payload[..4], goodbye.code()), (&0x7fff_ffff_u32.to_be_bytes()[..], code::NO_ERROR));
    let last = busy.read_until(|frame| frame.kind == kind::GOAWAY).expect("the last goodbye");
    assert_eq!((&last.payload[..4], last.code()), (&slow.to_be_bytes()[..], code::NO_ERROR));
    assert_eq!(event(&mut busy, subscription)["id"], "sub");
    assert_eq!(busy.next_event(subscription).expect("an end in order"), None);
    assert_eq!(busy.answer(slow).expect("an answer").json()["result"]["done"], true);
    assert_eq!(busy.end().expect("closed in order"), None);

    idle.read_until(|frame| frame.kind == kind::PING && frame.flags & ACK == 0).expect("a ping");
    assert_eq!(idle.end().expect("closed in order"), Some(code::NO_ERROR));
    let Gateway { process, .. } = gateway;
    assert_eq!(process.finish(LIMIT).status.code(), Some(0));
    assert_eq!(silent.end().expect("closed in order"), Some(code::NO_ERROR));
}

/// A client that has nothing else in flight is not read before it may ask again; any other goes on.
#[test]
fn a_request_too_many_is_told_when_to_come_back() {
    let (streams, _fixture, gateway) = start_with(|config| {
        config.set("gateway.runtime", "shards = 1").set("gateway.overload", "max_in_flight = 1")
    });
    let mut busy = H2Connection::open(&gateway).expect("a connection");
    let held = send_call(&mut busy, "mute");
    eventually("the call is with the server", LIMIT, || (streams.opened() == 1).then_some(()));
    let mut other = H2Connection::open(&gateway).expect("a connection");
    for connection in [&mut busy, &mut other] {
        let stream = send_call(connection, "echo");
        let refused = connection.answer(stream).expect("an answer");
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{}", refused.text());
        assert_eq!(refused.json()["id"], 1);
        connection.ping().expect("the connection goes on");
    }
    busy.send(kind::RST_STREAM, 0, held, &code::CANCEL.to_be_bytes()).expect("sent");
    eventually("the call is over", LIMIT, || (streams.closed() == 1).then_some(()));
    let stream = send_call(&mut other, "echo");
    assert_eq!(other.answer(stream).expect("an answer").status, 200);
}

/// Half an answer must not look like a whole one.
#[test]
fn an_answer_that_breaks_off_is_an_error() {
    let upstream = ScriptedUpstream::modern(|_, stream| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"json";
        stream.write_all(head.as_bytes()).expect("taken");
        After::Close
    });
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&upstream.url()]));
    let mut connection = H2Connection::open(&gateway).expect("a connection");
    let stream = send_call(&mut connection, "any");
    let outcome = connection.outcome(stream).expect("an outcome");
    assert!(matches!(outcome, Outcome::Reset(code::INTERNAL_ERROR)), "{outcome:?}");
    connection.ping().expect("the connection goes on");
}

/// Bytes that the server has for each stream that nobody reads.
const FLOOD_BYTES: u64 = 64 << 20;
/// What may be on the way: the kernel's buffers between server and gateway, the windows, and the gateway's own.
const MAX_ON_THE_WAY: u64 = 16 << 20;

#[test]
fn a_closed_window_holds_up_its_own_server_only() {
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let upstream = ScriptedUpstream::modern(move |request, stream| {
        let message = request.json();
        if message["params"]["name"] != "flood" {
            let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": {}});
            return mcp_system_tests::upstream::answer_json(stream, "200 OK", &answer);
        }
        let params = json!({"progressToken": 1, "progress": 1, "message": "x".repeat(8 << 10)});
        let event = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params});
        let event = format!("data: {event}\n\n");
        let mut written = stream.write_all(SSE.as_bytes());
        for _ in 0..FLOOD_BYTES / event.len() as u64 {
            written = written.and_then(|()| stream.write_all(event.as_bytes()));
            if written.is_err() {
                break;
            }
            counter.fetch_add(event.len() as u64, Ordering::SeqCst);
        }
        After::Close
    });
    let config = GatewayConfig::new()
        .server("flood", &[&upstream.url()])
        .set("gateway.runtime", "shards = 1")
        .set("gateway.server", "write_timeout = \"3s\"");
    let gateway = Gateway::start(&config);
    let before = gateway.process.resident_bytes();
    let mut connection = H2Connection::open(&gateway).expect("a connection");
    connection.replenish = false;
    let headers = mirrored("tools/call", Some("flood"));
    let flood = connection.post("/mcp/flood", &headers, &modern_call(1, "flood", json!({}))).expect("sent");
    let held_up_at = held_up_at(LIMIT, || sent.load(Ordering::SeqCst));
    assert!(held_up_at < MAX_ON_THE_WAY, "{held_up_at} bytes were taken");
    let grown = gateway.process.resident_bytes().saturating_sub(before);
    assert!(grown < MAX_ON_THE_WAY, "{grown} bytes were kept");
    // The connection's window is closed; one stream's worth of it is enough for another answer.
    connection.send(kind::WINDOW_UPDATE, 0, 0, &65_535_u32.to_be_bytes()).expect("sent");
    let headers = mirrored("tools/call", Some("other"));
    let other = connection.post("/mcp/flood", &headers, &modern_call(1, "other", json!({}))).expect("sent");
    assert_eq!(connection.answer(other).expect("an answer").status, 200);
    let outcome = connection.outcome(flood).expect("an outcome");
    assert!(matches!(outcome, Outcome::Reset(code::CANCEL)), "{outcome:?}");
    assert_eq!(connection.received(flood), 65_535, "a window's worth arrived");
    assert_eq!(rejected(&gateway, "write_timeout"), 1.0);
    connection.ping().expect("the connection goes on");
    eventually("the call is over", LIMIT, || {
        (gateway.metrics().value("mcp_gateway_requests_in_flight", &[]) == Some(0.0)).then_some(())
    });
    eventually("nothing is held for it", LIMIT, || {
        let held = gateway.metrics().value("mcp_gateway_buffered_bytes", &[]);
        (held.is_some_and(|bytes| bytes < (128 << 10) as f64)).then_some(())
    });
}

#[test]
fn a_large_answer_arrives_whole_through_small_windows() {
    let fixture = Fixture::modern(json!([]), |_, _| None);
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&fixture.url()]));
    let mut connection = H2Connection::open(&gateway).expect("a connection");
    let pads = [9 << 20, 100_000, 65_536, 16_384];
    let streams = pads.map(|bytes| {
        let message = modern_call(1, "echo", json!({"pad": "y".repeat(bytes)}));
        connection.post("/mcp/fixture", &mirrored("tools/call", Some("echo")), &message).expect("sent")
    });
    for (stream, bytes) in streams.into_iter().zip(pads) {
        let answer = connection.answer(stream).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["result"]["arguments"]["pad"].as_str().map(str::len), Some(bytes));
    }
}

#[test]
fn a_preface_that_does_not_come_is_not_waited_for() {
    let (_streams, _fixture, gateway) = start("handshake_timeout = \"400ms\"");
    for said in [&b""[..], &PREFACE[..10]] {
        let mut connection = H2Connection::open_silent(&gateway).expect("a connection");
        connection.send_raw(said).expect("sent");
        assert_eq!(connection.end().expect("closed in order"), None);
    }
    assert_eq!(rejected(&gateway, "handshake_timeout"), 2.0);
}

#[test]
fn a_header_block_that_does_not_end_is_cut() {
    let (_streams, _fixture, gateway) = start("header_timeout = \"400ms\"");
    for ends in [false, true] {
        let mut connection = H2Connection::open(&gateway).expect("a connection");
        let fields = block(&connection.fields("GET", "/health", &[]));
        // A frame that is not complete, or a block without its end.
        if ends {
            connection.send_raw(&[0, 0, 200, kind::HEADERS, END_HEADERS, 0, 0, 0, 1]).expect("sent");
        } else {
            connection.send(kind::HEADERS, 0, 1, &fields).expect("sent");
        }
        assert_eq!(connection.end().expect("closed in order"), Some(code::ENHANCE_YOUR_CALM));
    }
    assert_eq!(rejected(&gateway, "header_timeout"), 2.0);
}

#[test]
fn a_body_that_does_not_end_is_answered() {
    let (_streams, fixture, gateway) = start("read_timeout = \"400ms\"");
    let mut connection = H2Connection::open(&gateway).expect("a connection");
    for length in [&[("content-length", "100")][..], &[]] {
        let mut headers = POST_HEADERS.to_vec();
        headers.extend_from_slice(length);
        let stream = connection.next_stream();
        let head = block(&connection.fields("POST", "/mcp/fixture", &headers));
        let frames = [
            Frame::new(kind::HEADERS, END_HEADERS, stream, &head),
            Frame::new(kind::DATA, 0, stream, b"{\"jsonrpc\""),
        ];
        connection.send_all(&frames).expect("sent");
        let answer = connection.answer(stream).expect("an answer");
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (408, &json!(-32600)));
        let reset = connection.read_until(|frame| frame.kind == kind::RST_STREAM).expect("a reset");
        assert_eq!((reset.stream, reset.code()), (stream, code::NO_ERROR));
    }
    assert_eq!(rejected(&gateway, "read_timeout"), 2.0);
    // The connection is sound; a frame that does not end is not.
    connection.ping().expect("the connection goes on");
    connection.send_raw(&[0, 0, 200, kind::DATA, 0, 0, 0, 0, 1, b'x']).expect("sent");
    assert_eq!(connection.end().expect("closed in order"), Some(code::ENHANCE_YOUR_CALM));
    assert!(fixture.seen().is_empty(), "half a message reached the server");
}

#[test]
fn an_idle_connection_is_closed_in_order() {
    let (_streams, _fixture, gateway) = start("idle_timeout = \"400ms\"");
    let mut silent = H2Connection::open(&gateway).expect("a connection");
    let mut used = H2Connection::open(&gateway).expect("a connection");
    let stream = used.request("GET", "/health", &[], b"").expect("sent");
    assert_eq!(used.answer(stream).expect("an answer").status, 200);
    assert_eq!(silent.end().expect("closed in order"), Some(code::NO_ERROR));
    assert_eq!(used.end().expect("closed in order"), Some(code::NO_ERROR));
    eventually("both were counted", LIMIT, || (rejected(&gateway, "idle_timeout") >= 2.0).then_some(()));
}

fn start(line: &str) -> (Streams, Fixture, Gateway) {
    start_with(|config| if line.is_empty() { config } else { config.set("gateway.server", line) })
}

fn start_with(more: impl FnOnce(GatewayConfig) -> GatewayConfig) -> (Streams, Fixture, Gateway) {
    let streams = Streams::default();
    let held = streams.clone();
    let fixture = Fixture::modern(json!([]), move |request, stream| {
        let message = request.json();
        match (message["method"].as_str(), message["params"]["name"].as_str()) {
            (Some("subscriptions/listen"), _) => {
                let method = "notifications/subscriptions/acknowledged";
                let params = json!({"_meta": {"io.modelcontextprotocol/subscriptionId": message["id"]}, "notifications": {}});
                let event = json!({"jsonrpc": "2.0", "method": method, "params": params});
                Some(held.keep_open(stream, Some(&event)))
            }
            (_, Some("mute")) => Some(held.keep_open(stream, None)),
            (_, Some("slow")) => {
                held.opened.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(500));
                let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": {"done": true}});
                Some(mcp_system_tests::upstream::answer_json(stream, "200 OK", &answer))
            }
            _ => None,
        }
    });
    let gateway = Gateway::start(&more(GatewayConfig::new().server("fixture", &[&fixture.url()])));
    (streams, fixture, gateway)
}

fn listen(connection: &mut H2Connection) -> u32 {
    let message = modern("sub", "subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
    connection.post("/mcp/fixture", &mirrored("subscriptions/listen", None), &message).expect("sent")
}

fn send_call(connection: &mut H2Connection, tool: &str) -> u32 {
    let headers = mirrored("tools/call", Some(tool));
    connection.post("/mcp/fixture", &headers, &modern_call(1, tool, json!({}))).expect("sent")
}

fn event(connection: &mut H2Connection, stream: u32) -> Value {
    connection.next_event(stream).expect("an event").expect("the stream has ended")
}

fn rejected(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metrics().count("mcp_gateway_connections_rejected_total", &[("reason", reason)])
}
