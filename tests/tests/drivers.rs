//! Setup: the gateway under real filters of system calls: one that refuses io_uring in each way there is, the profile that is
//! shipped in `deploy/seccomp`, and the same without its first rule, which is what container runtimes set by default.
//! Claim: with `driver = "auto"` every door serves under each of them, and one line of the log says on which driver and why;
//! `"io_uring"` means io_uring, or an end with cause and remedy; `"epoll"` does not so much as ask for a ring.

use std::time::Duration;

use mcp_engine::runtime::Executor;
use mcp_engine::standalone;
use mcp_system_tests::confine::{Confinement, IO_URING};
use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::gateway::beside_test;
use mcp_system_tests::h2::H2Connection;
use mcp_system_tests::mcp::{LEGACY, mirrored, modern_call, request};
use mcp_system_tests::mcpb::{Frames, REQUEST};
use mcp_system_tests::port::free_port;
use mcp_system_tests::sse::{Stream, post};
use mcp_system_tests::ws::Socket;
use mcp_system_tests::{Connection, Gateway, GatewayConfig, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
/// Less than glommio asks for.
const LITTLE_LOCKED_MEMORY: u64 = 256 << 10;
/// Connections of each kind, so that both shards serve.
const OF_EACH_DOOR: usize = 8;
/// How each way in which io_uring is refused is told.
const REFUSALS: [(&[&str], i32, &str); 5] = [
    (&IO_URING, libc::EPERM, "a seccomp profile forbids it"),
    (&IO_URING, libc::ENOSYS, "or a seccomp profile hides it"),
    (&["io_uring_setup"], libc::EPERM, "a seccomp profile forbids it"),
    (&["io_uring_enter"], libc::EPERM, "a seccomp profile forbids it"),
    (&["io_uring_register"], libc::EPERM, "a seccomp profile forbids it"),
];

#[test]
fn auto_runs_on_epoll_where_io_uring_is_refused() {
    if !has_io_uring() {
        return;
    }
    for (calls, errno, cause) in REFUSALS {
        let confinement = Confinement::default().refusing(calls, errno);
        let gateway = Gateway::start(&driver("auto").confined(confinement));
        assert_driver(&gateway, "epoll", cause);
        assert_eq!(gateway.get("/health").expect("an answer").status, 200);
    }
}

#[test]
fn auto_asks_once_where_the_ring_is_refused() {
    let confinement = Confinement::default()
        .killing(&["io_uring_enter", "io_uring_register"])
        .refusing(&["io_uring_setup"], libc::EPERM);
    let gateway = Gateway::start(&driver("auto").confined(confinement));
    assert_driver(&gateway, "epoll", "a seccomp profile forbids it");
}

#[test]
fn auto_runs_on_io_uring_where_it_may() {
    if has_io_uring() {
        assert_driver(&Gateway::start(&driver("auto")), "io_uring", "the kernel allows it");
    }
}

#[test]
fn epoll_does_not_ask_for_a_ring() {
    let gateway = Gateway::start(&driver("epoll").confined(Confinement::default().killing(&IO_URING)));
    assert_driver(&gateway, "epoll", "the configuration says so");
    assert_eq!(gateway.get("/health").expect("an answer").status, 200);
}

#[test]
fn io_uring_does_not_start_without_it() {
    for (calls, errno, cause) in REFUSALS {
        let remedy = "deploy/seccomp has one";
        assert_not_started(Confinement::default().refusing(calls, errno), &[cause, remedy]);
    }
}

/// The kernel gives a ring here, and the executors do not come up all the same.
#[test]
fn what_executors_lack_is_told() {
    if !has_io_uring() {
        return;
    }
    let confinement = Confinement::default().locked_memory(LITTLE_LOCKED_MEMORY);
    assert_not_started(confinement.clone(), &["an executor could not be made", "from 256 KiB to 512 KiB"]);
    let gateway = Gateway::start(&driver("auto").confined(confinement));
    assert_driver(&gateway, "epoll", "from 256 KiB to 512 KiB");
    assert_eq!(gateway.get("/health").expect("an answer").status, 200);
}

#[test]
fn every_door_serves_under_the_shipped_profile() {
    let expected = if has_io_uring() { "io_uring" } else { "epoll" };
    serve_through_every_door(&shipped_profile(), expected);
}

#[test]
fn every_door_serves_under_the_runtimes_default() {
    let mut profile = shipped_profile();
    let rules = profile["syscalls"].as_array_mut().expect("rules");
    let first = rules.remove(0);
    assert!(IO_URING.iter().all(|name| first["names"].as_array().expect("names").contains(&json!(name))));
    serve_through_every_door(&profile, "epoll");
}

fn serve_through_every_door(profile: &Value, name: &str) {
    let fixture = Fixture::modern(json!([]), nothing);
    let port = free_port();
    let gateway =
        start_under(profile, name, driver("auto").server("one", &[&fixture.url()]).binary_port(port));
    for number in 0..OF_EACH_DOOR {
        let message = modern_call(number, "greet", json!({"number": number}));
        let headers = mirrored("tools/call", Some("greet"));
        let mut connection = gateway.connect().expect("a connection");
        assert_answered(number, &connection.post("/mcp/one", &headers, &message).expect("an answer").json());
        let mut connection = H2Connection::open(&gateway).expect("a connection");
        let stream = connection.post("/mcp/one", &headers, &message).expect("sent");
        assert_answered(number, &connection.answer(stream).expect("an answer").json());
        assert_answered(number, &Socket::open(&gateway, "/ws/one", &[]).ask(&message));
        let mut frames = Frames::open(&gateway, port).expect("a connection");
        frames.send(REQUEST, message.to_string().as_bytes()).expect("sent");
        assert_answered(number, &frames.message().expect("an answer"));
    }
    assert_eq!(gateway.stop(LIMIT).code(), Some(0));

    // Streams that have an owner, and a server that is a process.
    let fixture = Fixture::legacy(nothing);
    let command = [beside_test("mcp-stdio-fixture").display().to_string()];
    let config = driver("auto").server("one", &[&fixture.url()]).stdio("process", &command, "");
    let gateway = start_under(profile, name, config);
    for number in 0..OF_EACH_DOOR {
        let mut stream =
            Stream::open(gateway.connect().expect("a connection"), "/sse/one").expect("a stream");
        let mut connection = gateway.connect().expect("a connection");
        stream.initialize(&mut connection, LEGACY);
        let call = json!({"name": "greet", "arguments": {"number": number}});
        let told = post(&mut connection, &stream.endpoint, &request(number, "tools/call", call));
        assert_eq!(told.status, 202, "{}", told.text());
        assert_answered(number, &stream.message());
        let call = modern_call(1, "echo", json!({}));
        let headers = mirrored("tools/call", Some("echo"));
        let answer = connection.post("/mcp/process", &headers, &call).expect("an answer");
        assert_eq!((answer.status, &answer.json()["id"]), (200, &json!(1)), "{}", answer.text());
    }
    assert_eq!(gateway.stop(LIMIT).code(), Some(0));
}

fn start_under(profile: &Value, name: &str, config: GatewayConfig) -> Gateway {
    let gateway = Gateway::start(&config.confined(Confinement::profile(profile)));
    assert_driver(&gateway, name, "");
    // Such profiles refuse a shard its own file table.
    assert_eq!(gateway.process.log().matches("unshare(CLONE_FILES) is refused").count(), 1);
    gateway
}

fn assert_answered(number: usize, answer: &Value) {
    let result = (&answer["id"], &answer["result"]["arguments"]["number"]);
    assert_eq!(result, (&json!(number), &json!(number)), "{answer}");
}

fn driver(name: &str) -> GatewayConfig {
    GatewayConfig::new().env("MCP_GATEWAY__RUNTIME__DRIVER", name)
}

/// Exactly one line of the log has the driver, and the reason.
fn assert_driver(gateway: &Gateway, name: &str, why: &str) {
    let log = eventually("the driver is told", LIMIT, || {
        Some(gateway.process.log()).filter(|log| log.contains("\"driver\":"))
    });
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let told: Vec<_> = lines.iter().filter(|line| line["fields"]["driver"].is_string()).collect();
    let [line] = told[..] else { panic!("not one line:\n{log}") };
    assert_eq!(line["fields"]["driver"], name, "{line}");
    assert!(line.to_string().contains(why), "{why:?} is not in {line}");
    let refused = name == "epoll" && line["level"] == "WARN";
    assert_eq!(
        refused,
        line["fields"]["cause"].is_string() && line["fields"]["remedy"].is_string(),
        "{line}"
    );
}

fn assert_not_started(confinement: Confinement, words: &[&str]) {
    let gateway = Gateway::start_unready(&driver("io_uring").confined(confinement));
    let addr = gateway.addr;
    let finished = gateway.process.finish(LIMIT);
    let last = finished.stderr.last().cloned().unwrap_or_default();
    assert_eq!(finished.status.code(), Some(1), "{last}");
    assert!(last.starts_with("mcp-gateway: io_uring is refused: "), "{last}");
    assert!(words.iter().all(|word| last.contains(word)), "not all of {words:?} in: {last}");
    assert!(last.ends_with("or set gateway.runtime.driver to \"auto\" or \"epoll\""), "{last}");
    assert!(finished.stdout.is_empty(), "{:?}", finished.stdout);
    assert!(Connection::plain(addr).is_err(), "somebody listens");
}

/// Whether this machine allows io_uring. Where it does not, there is one way less to go.
fn has_io_uring() -> bool {
    standalone::run(Executor::IoUring, None, |_| async {}).is_ok()
}

fn shipped_profile() -> Value {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/seccomp/mcp-gateway.json");
    let text = std::fs::read_to_string(file).expect("the profile");
    serde_json::from_str(&text).expect("JSON")
}
