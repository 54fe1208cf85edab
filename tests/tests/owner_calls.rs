//! Setup: a server that is a process of one shard, and clients whose every message comes by a connection of its own, so that
//! most reach another shard, or another pod that shares the store.
//! Claim: wherever a message arrives, its answer comes back whole and in its order: progress as it is made, what the server asks
//! by itself, answers of any size. Who reads slowly holds little; who leaves is told to the server; an owner that is gone is
//! known, and nobody waits for it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mcp_system_tests::gateway::beside_test;
use mcp_system_tests::http::EventStream;
use mcp_system_tests::mcp::{LEGACY, in_session, mirrored, modern_call, open_session, request};
use mcp_system_tests::port::free_port;
use mcp_system_tests::redis::{Redis, RedisOptions};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, Response, TempDir, TestCert, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const PATH: &str = "/mcp/own";
/// Connections enough that a shard of two without any is not to be expected (0.5²⁰ < 0.000001).
const CONNECTIONS: usize = 20;

#[test]
fn every_shard_answers_for_a_process_of_one() {
    let gateway = Gateway::start(&config());
    let mut processes = Vec::new();
    for _ in 0..4 {
        let session = open(&gateway);
        let who = tool(&gateway, &session, "who", &json!({}));
        processes.push(who["structuredContent"]["process"].clone());
        for number in 2..=CONNECTIONS {
            let who = tool(&gateway, &session, "who", &json!({}));
            let wanted = json!({"process": processes.last(), "calls": number});
            assert_eq!(who["structuredContent"], wanted, "another process, or a call more or less");
        }
    }
    processes.dedup();
    assert_eq!(processes.len(), 4, "sessions share a process: {processes:?}");
    let calls = |direction| {
        let labels = [("direction", direction), ("result", "accepted")];
        gateway.metrics().count("mcp_gateway_peer_messages_total", &labels)
    };
    // About half of all, in either direction the same.
    assert!(calls("out") > 0.0 && calls("out") == calls("in"), "{} {}", calls("out"), calls("in"));
}

#[test]
fn progress_comes_in_its_order_and_before_the_result() {
    let gateway = Gateway::start(&config());
    let session = open(&gateway);
    for id in 0..CONNECTIONS {
        let mut events =
            call(&gateway, &session, id, "steps", &json!({"count": 50})).into_events().expect("events");
        for step in 1..=50 {
            let message = next(&mut events);
            assert_eq!(
                (&message["params"]["progress"], &message["params"]["progressToken"]),
                (&json!(step), &json!(id))
            );
        }
        assert_eq!(next(&mut events)["id"], id);
        assert!(events.next_event().expect("an end in order").is_none());
    }
}

#[test]
fn what_the_server_asks_is_answered_through_any_shard() {
    let gateway = Gateway::start(&config());
    let session = open(&gateway);
    for id in 0..CONNECTIONS {
        // Within a call, whose stream brings the question.
        let mut events = call(&gateway, &session, id, "ask", &json!({})).into_events().expect("events");
        assert_eq!(next(&mut events)["method"], "roots/list");
        answer(&gateway, &session, "ask", &json!({"roots": [], "number": id}));
        assert_eq!(next(&mut events)["result"]["structuredContent"]["number"], id);

        // And without one, on the stream that is open for that.
        let mut listener = listen(&gateway, &session);
        tool(&gateway, &session, "later", &json!({}));
        assert_eq!(next(&mut listener)["id"], "later");
        answer(&gateway, &session, "later", &json!({"roots": [], "number": id}));
        let heard = tool(&gateway, &session, "heard", &json!({}));
        assert_eq!(heard["structuredContent"]["answered"]["number"], id);
    }
}

#[test]
fn answers_of_any_size_pass_through_the_window() {
    let gateway = Gateway::start(&config());
    let session = open(&gateway);
    // Around a window (64 KiB), a frame (32 KiB), and far above both.
    for bytes in [0, 1, 32_700, 32_768, 65_400, 65_536, 131_072, 9 << 20] {
        for _ in 0..4 {
            let result = tool(&gateway, &session, "big", &json!({"bytes": bytes}));
            let text = result["content"][0]["text"].as_str().expect("text");
            assert!(text.len() == bytes && text.bytes().all(|byte| byte == b'x'), "{bytes}: {}", text.len());
        }
    }
    // And as many at the same time as there are connections.
    let calls: Vec<Connection> =
        (0..CONNECTIONS).map(|id| call(&gateway, &session, id, "big", &json!({"bytes": 1 << 20}))).collect();
    for (id, mut call) in calls.into_iter().enumerate() {
        let answer = call.read_response(false).expect("an answer").json();
        assert_eq!(answer["id"], id);
        assert_eq!(answer["result"]["content"][0]["text"].as_str().map(str::len), Some(1 << 20));
    }
}

#[test]
fn the_end_of_a_session_is_its_process_s_wherever_it_is_said() {
    let gateway = Gateway::start(&config());
    for _ in 0..8 {
        let session = open(&gateway);
        let who = tool(&gateway, &session, "who", &json!({}));
        let process = who["structuredContent"]["process"].as_u64().expect("a number");
        let headers = in_session(&session, LEGACY);
        let ended = connect(&gateway).request("DELETE", PATH, &headers, b"").expect("an answer");
        assert_eq!(ended.status, 200, "{}", ended.text());
        eventually("the process has ended", LIMIT, || (!is_alive(process)).then_some(()));
        assert_eq!(post(&gateway, &session, &request(1, "ping", json!({}))).status, 404);
    }
}

#[test]
fn a_slow_reader_holds_no_more_than_its_windows() {
    const COUNT: usize = 1000;
    const BYTES: usize = 64 << 10;
    let gateway = Gateway::start(&config());
    let sessions: Vec<String> = (0..8).map(|_| open(&gateway)).collect();
    for session in &sessions {
        tool(&gateway, session, "who", &json!({}));
    }
    let before = gateway.process.resident_bytes();
    // 62 MiB for each, of which nobody reads anything.
    let arguments = json!({"count": COUNT, "bytes": BYTES});
    let mut slow: Vec<_> = sessions
        .iter()
        .map(|session| call(&gateway, session, 1, "flood", &arguments).into_events().expect("events"))
        .collect();
    let held = eventually("nothing moves any more", LIMIT, || {
        let first = gateway.process.resident_bytes();
        let until = Instant::now() + Duration::from_millis(500);
        eventually("a moment", LIMIT, || (Instant::now() > until).then_some(()));
        let second = gateway.process.resident_bytes();
        (first == second).then(|| second.saturating_sub(before))
    });
    println!("{} bytes per slow reader", held / sessions.len() as u64);
    assert!(held < sessions.len() as u64 * (2 << 20), "{held} bytes for {} readers", sessions.len());
    // Everybody else is served meanwhile, and what was held back is all there.
    let other = open(&gateway);
    for _ in 0..CONNECTIONS {
        tool(&gateway, &other, "who", &json!({}));
    }
    let events = &mut slow[0];
    for number in 0..COUNT {
        let message = next(events);
        assert_eq!(message["params"]["logger"], number.to_string());
        assert_eq!(message["params"]["data"].as_str().map(str::len), Some(BYTES));
    }
    assert_eq!(next(events)["result"]["content"][0]["text"], "done");
}

#[test]
fn a_process_that_all_share_is_one_for_every_shard() {
    let gateway = Gateway::start(&shared());
    let mut calls = 0;
    let mut processes = Vec::new();
    for _ in 0..8 {
        let session = open(&gateway);
        for _ in 0..4 {
            calls += 1;
            let who = tool(&gateway, &session, "who", &json!({}));
            assert_eq!(who["structuredContent"]["calls"], calls);
            processes.push(who["structuredContent"]["process"].clone());
        }
    }
    processes.dedup();
    assert_eq!(processes.len(), 1, "{processes:?}");
}

#[test]
fn a_modern_client_that_leaves_is_told_to_the_server() {
    let gateway = Gateway::start(&shared());
    let modern = |tool: &str| {
        let message = modern_call(1, tool, json!({}));
        let mut connection = connect(&gateway);
        connection.send_post(PATH, &mirrored("tools/call", Some(tool)), &message).expect("sent");
        connection
    };
    let heard = || {
        let answer = modern("heard").read_response(false).expect("an answer").json();
        let heard = &answer["result"]["structuredContent"];
        (heard["hanging"].as_u64(), heard["cancelled"].as_array().map(Vec::len))
    };
    for left in 0..CONNECTIONS {
        let waiting = modern("hang");
        let number = left as u64 + 1;
        eventually("it has arrived", LIMIT, || (heard() == (Some(number), Some(left))).then_some(()));
        drop(waiting);
        eventually("the server has heard of it", LIMIT, || {
            (heard() == (Some(number), Some(left + 1))).then_some(())
        });
    }
}

#[test]
fn another_pod_is_as_good_as_the_owner() {
    let setup = Setup::new();
    let pods = [setup.start(0), setup.start(1)];
    let session = open(&pods[0]);
    let process = tool(&pods[0], &session, "who", &json!({}))["structuredContent"]["process"].clone();
    for number in 2..CONNECTIONS {
        let who = tool(&pods[1], &session, "who", &json!({}));
        assert_eq!(who["structuredContent"], json!({"process": process, "calls": number}));
    }
    let mut events = call(&pods[1], &session, 7, "ask", &json!({})).into_events().expect("events");
    assert_eq!(next(&mut events)["method"], "roots/list");
    answer(&pods[1], &session, "ask", &json!({"roots": [], "number": 5}));
    assert_eq!(next(&mut events)["result"]["structuredContent"]["number"], 5);
    let mut listener = listen(&pods[1], &session);
    tool(&pods[1], &session, "later", &json!({}));
    assert_eq!(next(&mut listener)["id"], "later");
    let big = tool(&pods[1], &session, "big", &json!({"bytes": 9 << 20}));
    assert_eq!(big["content"][0]["text"].as_str().map(str::len), Some(9 << 20));
    let ended =
        connect(&pods[1]).request("DELETE", PATH, &in_session(&session, LEGACY), b"").expect("an answer");
    assert_eq!(ended.status, 200, "{}", ended.text());
    let process = process.as_u64().expect("a number");
    eventually("the process has ended", LIMIT, || (!is_alive(process)).then_some(()));
}

#[test]
fn an_owner_that_was_killed_is_known_within_a_bound() {
    let setup = Setup::new();
    let mut pods = [setup.start(0), setup.start(1)];
    let sessions: Vec<String> = (0..4).map(|_| open(&pods[0])).collect();
    for session in &sessions {
        tool(&pods[1], session, "who", &json!({}));
    }
    let mut cut = call(&pods[1], &sessions[0], 9, "hang", &json!({}));
    let mut listener = listen(&pods[1], &sessions[1]);
    // A call that came later has been answered, so both have arrived.
    tool(&pods[1], &sessions[2], "who", &json!({}));
    let killed = Instant::now();
    pods[0].process.signal(libc::SIGKILL);
    let broken = cut.read_response(false).expect("an answer");
    assert_eq!((broken.status, &broken.json()["id"]), (502, &json!(9)), "{}", broken.text());
    assert_eq!(broken.json()["error"]["data"]["retryable"], true, "{}", broken.text());
    assert!(!matches!(listener.next_event(), Ok(Some(_))), "an event of a server that is gone");
    println!("those who waited knew after {:?}", killed.elapsed());
    for session in &sessions {
        eventually("the session is over", LIMIT, || {
            let answer = post(&pods[1], session, &request(1, "ping", json!({})));
            assert!(matches!(answer.status, 404 | 503), "{} {}", answer.status, answer.text());
            (answer.status == 404).then_some(())
        });
    }
    println!("every session was over after {:?}", killed.elapsed());
    // A client that begins anew is served.
    let session = open(&pods[1]);
    tool(&pods[1], &session, "who", &json!({}));
}

#[test]
fn where_no_way_leads_to_it_the_session_is_over() {
    let setup = Setup::new();
    let start = || Gateway::start(&config().store(&setup.store));
    let pods = [start(), start()];
    let session = open(&pods[0]);
    let answer = post(&pods[1], &session, &request(1, "ping", json!({})));
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert!(answer.text().contains("gateway.peers"), "{}", answer.text());
    let refused = pods[1].metrics();
    assert_eq!(refused.count("mcp_gateway_routing_errors_total", &[("reason", "channel_elsewhere")]), 1.0);
    // It is still served where it is.
    tool(&pods[0], &session, "who", &json!({}));
}

struct Setup {
    store: Redis,
    cert: TestCert,
    ports: [u16; 2],
    _dir: TempDir,
}

impl Setup {
    fn new() -> Self {
        let dir = TempDir::new();
        Self {
            store: Redis::start(&RedisOptions::new()),
            cert: TestCert::generate(&dir),
            ports: [free_port(), free_port()],
            _dir: dir,
        }
    }

    fn start(&self, pod: usize) -> Gateway {
        let addr = SocketAddr::from(([127, 0, 0, 1], self.ports[pod]));
        Gateway::start(&config().store(&self.store).peers(addr, &self.cert, ""))
    }
}

fn config() -> GatewayConfig {
    let command = beside_test("mcp-stdio-fixture");
    GatewayConfig::new().stdio("own", &[command.display().to_string()], "")
}

/// All sessions share one process.
fn shared() -> GatewayConfig {
    let command = beside_test("mcp-stdio-fixture");
    GatewayConfig::new().stdio("own", &[command.display().to_string()], "mode = \"shared\"")
}

fn connect(gateway: &Gateway) -> Connection {
    gateway.connect().expect("a connection")
}

fn open(gateway: &Gateway) -> String {
    let session = open_session(&mut connect(gateway), PATH, LEGACY);
    let done = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(post(gateway, &session, &done).status, 202);
    session
}

/// Posts by a connection of its own.
fn post(gateway: &Gateway, session: &str, message: &Value) -> Response {
    connect(gateway).post(PATH, &in_session(session, LEGACY), message).expect("an answer")
}

/// Calls a tool by a connection of its own, and reads its result.
fn tool(gateway: &Gateway, session: &str, name: &str, arguments: &Value) -> Value {
    let answer =
        post(gateway, session, &request(1, "tools/call", json!({"name": name, "arguments": arguments})));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut answer = answer.json();
    assert!(answer["result"].is_object(), "{answer}");
    answer["result"].take()
}

/// Calls a tool by a connection of its own, whose answer is still to be read.
fn call(gateway: &Gateway, session: &str, id: usize, name: &str, arguments: &Value) -> Connection {
    let params = json!({"name": name, "arguments": arguments, "_meta": {"progressToken": id}});
    let mut connection = connect(gateway);
    let sent = connection.send_post(PATH, &in_session(session, LEGACY), &request(id, "tools/call", params));
    sent.expect("sent");
    connection
}

fn listen(gateway: &Gateway, session: &str) -> EventStream {
    let mut connection = connect(gateway);
    let headers = [&in_session(session, LEGACY)[..], &[("accept", "text/event-stream")]].concat();
    connection.send_request("GET", PATH, &headers, b"").expect("sent");
    connection.into_events().expect("a stream")
}

/// Answers what the server has asked.
fn answer(gateway: &Gateway, session: &str, id: &str, result: &Value) {
    let answer = post(gateway, session, &json!({"jsonrpc": "2.0", "id": id, "result": result}));
    assert_eq!(answer.status, 202, "{}", answer.text());
}

fn next(events: &mut EventStream) -> Value {
    let event = events.next_event().expect("the stream holds").expect("the stream goes on");
    serde_json::from_str(&event.data).unwrap_or_else(|error| panic!("{error}: {event:?}"))
}

fn is_alive(process: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The state stands behind the name; what nobody has waited for has ended all the same.
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}
