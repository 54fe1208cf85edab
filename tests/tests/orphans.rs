//! Setup: legacy servers that take their time, and clients whose connections break in the middle: over HTTP/1.1, HTTP/2 and a
//! WebSocket, before the answer's head and after its first event.
//! Claim: the server's work goes on and the client can have it by its last event's id; bounds of time, bytes and number hold,
//! and so does `drain_timeout`; what nobody waits for takes nobody's place; a session that nobody can know of is ended.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mcp_system_tests::fixtures::{Fixture, nothing, response};
use mcp_system_tests::h2::{H2Connection, code, kind};
use mcp_system_tests::mcp::{LEGACY, in_session, initialize, open_session, post_in_session, request};
use mcp_system_tests::peers::Server;
use mcp_system_tests::upstream::{After, UpstreamRequest};
use mcp_system_tests::ws::Socket;
use mcp_system_tests::{Connection, Gateway, GatewayConfig, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
/// How often a server that works looks whether it may end.
const LOOK: Duration = Duration::from_millis(5);
const PATH: &str = "/mcp/fixture";
/// Orphans of a shard, as the gateway bounds them.
const MAX_ORPHANS: usize = 256;
const SSE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// What became of the calls that a server works on.
#[derive(Clone, Default)]
struct Work {
    begun: Arc<AtomicUsize>,
    /// Calls whose connection closed before they were done.
    broken: Arc<AtomicUsize>,
    /// Calls whose answer was taken in full.
    done: Arc<AtomicUsize>,
    may_end: Arc<AtomicBool>,
}

#[test]
fn a_call_goes_on_when_its_client_s_connection_breaks() {
    let work = Work::default();
    let (fixture, gateway) = start(&work, GatewayConfig::new());
    let session = open_session(&mut connect(&gateway), PATH, LEGACY);

    ask_and_leave(&gateway, &work, &session, PATH, "mute");
    hear_and_leave(&gateway, &session, PATH, "begun");

    let mut h2 = H2Connection::open(&gateway).expect("a connection");
    let mute = h2.post(PATH, &in_session(&session, LEGACY), &call("mute")).expect("sent");
    let begun = h2.post(PATH, &in_session(&session, LEGACY), &call("begun")).expect("sent");
    assert!(h2.next_event(begun).expect("an event").is_some());
    work.wait_for(4);
    // One stream alone, then the whole connection.
    h2.send(kind::RST_STREAM, 0, mute, &code::CANCEL.to_be_bytes()).expect("sent");
    eventually("three go on alone", LIMIT, || (orphans(&gateway) == 3.0).then_some(()));
    drop(h2);

    let mut socket = Socket::open(&gateway, "/ws/fixture", &[]);
    socket.ask(&initialize(LEGACY));
    socket.send_json(&call("mute"));
    socket.send_json(&request(8, "tools/call", json!({"name": "begun", "arguments": {}})));
    assert_eq!(socket.message()["method"], "notifications/progress");
    work.wait_for(6);
    drop(socket);

    eventually("all six go on alone", LIMIT, || (orphans(&gateway) == 6.0).then_some(()));
    assert_eq!(work.broken(), 0, "a server saw its connection close");
    work.end();
    eventually("all answers were taken", LIMIT, || (work.done() == 6).then_some(()));
    eventually("all are counted", LIMIT, || (ended(&gateway, "finished") == 6.0).then_some(()));
    assert_eq!((work.broken(), orphans(&gateway)), (0, 0.0));
    eventually("nothing is in flight", LIMIT, || {
        (gateway.metrics().value("mcp_gateway_requests_in_flight", &[]) == Some(0.0)).then_some(())
    });
    assert!(!fixture.seen().iter().any(|seen| seen.is("DELETE")), "a session was ended");
}

/// Other servers than these may do as they like: what the gateway must not do is end the work, or lose the way back to it.
#[test]
fn a_client_resumes_what_went_on_at_a_real_server() {
    let server = Server::legacy();
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&server.url]));
    let session = open_session(&mut connect(&gateway), PATH, LEGACY);
    let mut connection = connect(&gateway);
    let params = json!({"name": "test_tool_with_progress", "arguments": {}, "_meta": {"progressToken": 5}});
    let message = request(7, "tools/call", params);
    connection.send_post(PATH, &in_session(&session, LEGACY), &message).expect("sent");
    let mut events = connection.into_events().expect("a stream");
    let first = events.next_event().expect("an event").expect("an event");
    let seen = first.id.expect("an event's id");
    drop(events);
    eventually("the call went on to its end", LIMIT, || (ended(&gateway, "finished") == 1.0).then_some(()));

    let mut headers = in_session(&session, LEGACY).to_vec();
    headers.extend([("accept", "text/event-stream"), ("last-event-id", seen.as_str())]);
    let mut connection = connect(&gateway);
    connection.send_request("GET", PATH, &headers, b"").expect("sent");
    let mut events = connection.into_events().expect("a stream");
    let last = loop {
        let event = events.next_event().expect("an event").expect("the response is still to come");
        let message: Value = serde_json::from_str(&event.data).unwrap_or_default();
        if message["id"] == 7 {
            break message;
        }
    };
    assert_eq!(last["result"]["content"][0]["text"], "Done", "{last}");
}

#[test]
fn a_call_at_one_of_all_servers_goes_on_as_well() {
    let work = Work::default();
    let other = Fixture::legacy(nothing);
    let (_fixture, gateway) = start(&work, GatewayConfig::new().server("other", &[&other.url()]));
    let session = open_session(&mut connect(&gateway), "/mcp", LEGACY);
    ask_and_leave(&gateway, &work, &session, "/mcp", "fixture__mute");
    hear_and_leave(&gateway, &session, "/mcp", "fixture__begun");
    eventually("both go on alone", LIMIT, || (orphans(&gateway) == 2.0).then_some(()));
    work.end();
    eventually("both are done", LIMIT, || (ended(&gateway, "finished") == 2.0).then_some(()));
    assert_eq!((work.done(), work.broken()), (2, 0));
}

#[test]
fn what_nobody_waits_for_takes_nobody_s_place() {
    let work = Work::default();
    let config = GatewayConfig::new()
        .set("gateway.runtime", "shards = 1")
        .set("gateway.overload", "max_in_flight = 1")
        .set("gateway.connection_pool", "max_size = 1");
    let (_fixture, gateway) = start(&work, config);
    let session = open_session(&mut connect(&gateway), PATH, LEGACY);
    ask_and_leave(&gateway, &work, &session, PATH, "mute");
    eventually("the call goes on alone", LIMIT, || (orphans(&gateway) == 1.0).then_some(()));
    let answer = post_in_session(&mut connect(&gateway), PATH, &session, &call("other")).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((work.done(), work.broken()), (0, 0));
}

#[test]
fn time_bytes_and_number_are_bounded() {
    let work = Work::default();
    let config = GatewayConfig::new()
        .set("gateway.runtime", "shards = 1")
        .set("gateway.connection_pool", "max_size = 1000")
        .set("gateway.session", "orphan_timeout = \"10ms\"");
    let (_fixture, gateway) = start(&work, config);
    let session = open_session(&mut connect(&gateway), PATH, LEGACY);
    ask_and_leave(&gateway, &work, &session, PATH, "mute");
    eventually("its time is over", LIMIT, || (work.broken() == 1).then_some(()));
    assert_eq!((ended(&gateway, "timeout"), orphans(&gateway)), (1.0, 0.0));

    let work = Work::default();
    let config = GatewayConfig::new()
        .set("gateway.runtime", "shards = 1")
        .set("gateway.connection_pool", "max_size = 1000");
    let (_fixture, gateway) = start(&work, config);
    let session = open_session(&mut connect(&gateway), PATH, LEGACY);
    hear_and_leave(&gateway, &session, PATH, "flood");
    eventually("it was too much", LIMIT, || (work.broken() == 1).then_some(()));
    eventually("it is counted", LIMIT, || (ended(&gateway, "too_large") == 1.0).then_some(()));

    let more = 44;
    let mut connections = Vec::new();
    for number in 0..3 {
        let mut h2 = H2Connection::open(&gateway).expect("a connection");
        for _ in 0..(MAX_ORPHANS + more) / 3 {
            h2.post(PATH, &in_session(&session, LEGACY), &call("mute")).expect("sent");
        }
        work.wait_for(1 + (number + 1) * (MAX_ORPHANS + more) / 3);
        connections.push(h2);
    }
    drop(connections);
    eventually("those too many were ended", LIMIT, || (work.broken() == 1 + more).then_some(()));
    assert_eq!((ended(&gateway, "no_room"), orphans(&gateway)), (more as f64, MAX_ORPHANS as f64));
    work.end();
    eventually("the others were not", LIMIT, || {
        (ended(&gateway, "finished") == MAX_ORPHANS as f64).then_some(())
    });
    assert_eq!((work.done(), work.broken()), (MAX_ORPHANS, 1 + more));
}

#[test]
fn a_drain_waits_for_no_orphan_beyond_its_time() {
    let work = Work::default();
    let config = GatewayConfig::new().set("gateway.server", "drain_timeout = \"600ms\"");
    let (_fixture, gateway) = start(&work, config);
    let session = open_session(&mut connect(&gateway), PATH, LEGACY);
    ask_and_leave(&gateway, &work, &session, PATH, "mute");
    eventually("the call goes on alone", LIMIT, || (orphans(&gateway) == 1.0).then_some(()));
    let Gateway { mut process, .. } = gateway;
    process.signal(libc::SIGTERM);
    assert_eq!(process.finish(LIMIT).status.code(), Some(0));
    eventually("the server saw the end", LIMIT, || (work.broken() == 1).then_some(()));
}

#[test]
fn a_session_that_nobody_can_know_of_is_ended() {
    let work = Work::default();
    let own = work.clone();
    let fixture = Fixture::legacy(move |request, stream| {
        // The answer is the fixture's own, but late.
        if request.json()["method"] == "initialize" && !own.wait(stream) {
            return Some(After::Close);
        }
        None
    });
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&fixture.url()]));
    let mut leaving = connect(&gateway);
    leaving.send_post(PATH, &[], &initialize(LEGACY)).expect("sent");
    work.wait_for(1);
    drop(leaving);
    eventually("it goes on alone", LIMIT, || (orphans(&gateway) == 1.0).then_some(()));
    work.end();
    let ended = eventually("the session is ended", LIMIT, || {
        fixture.seen().into_iter().find(|request| request.is("DELETE"))
    });
    assert_eq!(ended.header("mcp-session-id"), Some("upstream-1"));
    eventually("nothing is in flight", LIMIT, || {
        (gateway.metrics().value("mcp_gateway_requests_in_flight", &[]) == Some(0.0)).then_some(())
    });
    assert_eq!(gateway.metrics().value("mcp_gateway_sessions_active", &[]), Some(0.0));
    assert_eq!(work.broken(), 0);
}

impl Work {
    fn broken(&self) -> usize {
        self.broken.load(Ordering::SeqCst)
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    /// Lets all work end.
    fn end(&self) {
        self.may_end.store(true, Ordering::SeqCst);
    }

    /// Waits until so many calls have begun.
    fn wait_for(&self, count: usize) {
        eventually("the calls are with the server", LIMIT, || {
            (self.begun.load(Ordering::SeqCst) == count).then_some(())
        });
    }

    /// The tools `mute`, which says nothing until it is done, `begun`, which tells its progress first, and `flood`, which
    /// does nothing else and never ends.
    fn answer(&self, request: &UpstreamRequest, stream: &mut TcpStream) -> Option<After> {
        let message = request.json();
        let tool = message["params"]["name"].as_str()?;
        if !matches!(tool, "mute" | "begun" | "flood") {
            return None;
        }
        let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {}});
        if tool != "mute" {
            stream.write_all(format!("{SSE}{}", chunk(&progress)).as_bytes()).expect("taken");
        }
        if tool == "flood" {
            let padding = "x".repeat(64 << 10);
            let much =
                chunk(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": padding}));
            self.begun.fetch_add(1, Ordering::SeqCst);
            while stream.write_all(much.as_bytes()).is_ok() {}
            self.broken.fetch_add(1, Ordering::SeqCst);
            return Some(After::Close);
        }
        if !self.wait(stream) {
            return Some(After::Close);
        }
        let last = response(&message, json!({"content": []}));
        let text = if tool == "begun" {
            format!("{}0\r\n\r\n", chunk(&last))
        } else {
            let body = last.to_string();
            let length = body.len();
            format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
            )
        };
        stream.write_all(text.as_bytes()).expect("taken");
        self.done.fetch_add(1, Ordering::SeqCst);
        Some(After::KeepOpen)
    }

    /// Waits until work may end; `false` when the other side closed before.
    fn wait(&self, stream: &mut TcpStream) -> bool {
        self.begun.fetch_add(1, Ordering::SeqCst);
        stream.set_read_timeout(Some(LOOK)).expect("a socket's option");
        while !self.may_end.load(Ordering::SeqCst) {
            if is_closed(stream.read(&mut [0; 1])) {
                self.broken.fetch_add(1, Ordering::SeqCst);
                return false;
            }
        }
        stream.set_read_timeout(None).expect("a socket's option");
        true
    }
}

fn is_closed(read: Result<usize>) -> bool {
    !matches!(read, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

fn chunk(message: &Value) -> String {
    let event = format!("data: {message}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len())
}

fn start(work: &Work, config: GatewayConfig) -> (Fixture, Gateway) {
    let own = work.clone();
    let fixture = Fixture::legacy(move |request, stream| own.answer(request, stream));
    let gateway = Gateway::start(&config.server("fixture", &[&fixture.url()]));
    (fixture, gateway)
}

fn connect(gateway: &Gateway) -> Connection {
    gateway.connect().expect("a connection")
}

/// Calls a tool, the first with this work, and leaves as soon as the server has the call.
fn ask_and_leave(gateway: &Gateway, work: &Work, session: &str, path: &str, tool: &str) {
    let mut waiting = connect(gateway);
    waiting.send_post(path, &in_session(session, LEGACY), &call(tool)).expect("sent");
    work.wait_for(1);
}

/// Calls a tool and leaves after the first event of the answer.
fn hear_and_leave(gateway: &Gateway, session: &str, path: &str, tool: &str) {
    let mut streaming = connect(gateway);
    streaming.send_post(path, &in_session(session, LEGACY), &call(tool)).expect("sent");
    let mut events = streaming.into_events().expect("a stream");
    assert!(events.next_event().expect("an event").is_some());
}

fn call(tool: &str) -> Value {
    request(7, "tools/call", json!({"name": tool, "arguments": {}}))
}

/// Exchanges that go on without their client.
fn orphans(gateway: &Gateway) -> f64 {
    gateway.metrics().value("mcp_gateway_orphans_active", &[]).expect("the gauge")
}

/// Those that are over, by what became of them.
fn ended(gateway: &Gateway, result: &str) -> f64 {
    gateway.metrics().count("mcp_gateway_orphans_total", &[("result", result)])
}
