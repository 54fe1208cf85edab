//! Setup: a gateway whose configuration is replaced while it serves, by SIGHUP or by another file alone.
//! Claim: what can change changes, for new requests and without harm to what is under way; what needs a restart is named; what
//! is wrong changes nothing; however often it happens, nothing is left behind.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::gateway::beside_test;
use mcp_system_tests::mcp::{LEGACY, call, initialize, open_session, post_in_session, request};
use mcp_system_tests::upstream::{After, UpstreamRequest, answer, answer_json};
use mcp_system_tests::ws::Socket;
use mcp_system_tests::{Connection, Gateway, GatewayConfig, TempDir, TestCert, eventually};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

fn modern() -> Fixture {
    Fixture::modern(json!([]), nothing)
}

/// The status of a call at this server, over a new connection.
fn status(gateway: &Gateway, server: &str) -> u16 {
    let mut connection = gateway.connect().expect("a connection");
    call(&mut connection, &format!("/mcp/{server}"), "t", json!({})).expect("an answer").status
}

fn with(config: &GatewayConfig, servers: &[(&str, &Fixture)]) -> GatewayConfig {
    servers.iter().fold(config.clone(), |config, (name, server)| config.server(name, &[&server.url()]))
}

#[test]
fn servers_come_and_go() {
    let (first, second) = (modern(), modern());
    let config = GatewayConfig::new();
    let mut gateway = Gateway::start(&with(&config, &[("first", &first)]));
    assert_eq!((status(&gateway, "first"), status(&gateway, "second")), (200, 404));
    let mut kept = gateway.connect().expect("a connection");
    assert_eq!(call(&mut kept, "/mcp/first", "t", json!({})).expect("an answer").status, 200);

    gateway.reload(&with(&config, &[("first", &first), ("second", &second)]));
    assert_eq!((status(&gateway, "first"), status(&gateway, "second")), (200, 200));
    assert_eq!(call(&mut kept, "/mcp/second", "t", json!({})).expect("an answer").status, 200);

    gateway.reload(&with(&config, &[("second", &second)]));
    assert_eq!((status(&gateway, "first"), status(&gateway, "second")), (404, 200));
    assert_eq!(call(&mut kept, "/mcp/first", "t", json!({})).expect("an answer").status, 404);
    let metrics = gateway.metrics();
    for name in metrics.names() {
        assert_eq!(metrics.value(name, &[("server", "first")]), None, "{name}");
    }
    assert!(metrics.count("mcp_gateway_requests_total", &[("server", "second")]) >= 2.0);

    // One that comes back is itself again.
    gateway.reload(&with(&config, &[("first", &second), ("second", &second)]));
    let seen = second.seen().len();
    assert_eq!(status(&gateway, "first"), 200);
    assert_eq!(
        (second.seen().len(), gateway.metrics().count("mcp_gateway_requests_total", &[("server", "first")])),
        (seen + 1, 1.0)
    );
}

#[test]
fn a_session_outlives_every_change_but_that_of_its_server() {
    let (stays, leaves) = (Fixture::legacy(nothing), Fixture::legacy(nothing));
    let config = GatewayConfig::new();
    let mut gateway = Gateway::start(&with(&config, &[("stays", &stays), ("leaves", &leaves)]));
    let mut connection = gateway.connect().expect("a connection");
    let [one, other] =
        ["stays", "leaves"].map(|server| open_session(&mut connection, &format!("/mcp/{server}"), LEGACY));
    // What is refused by its head alone ends the connection.
    let ask = |gateway: &Gateway, server: &str, session: &str| {
        let mut connection = gateway.connect().expect("a connection");
        let message = request(1, "tools/call", json!({"name": "t"}));
        post_in_session(&mut connection, &format!("/mcp/{server}"), session, &message)
            .expect("an answer")
            .status
    };
    gateway.reload(&with(&config.clone().set("gateway.retry", "max_attempts = 1"), &[("stays", &stays)]));
    assert_eq!((ask(&gateway, "stays", &one), ask(&gateway, "leaves", &other)), (200, 404));
    // Its name brings the server's sessions back, where the server still has them.
    gateway.reload(&with(&config, &[("leaves", &leaves), ("stays", &stays)]));
    assert_eq!((ask(&gateway, "stays", &one), ask(&gateway, "leaves", &other)), (200, 200));
    // Another place is another server.
    gateway.reload(&with(&config, &[("leaves", &stays), ("stays", &stays)]));
    assert_eq!((ask(&gateway, "stays", &one), ask(&gateway, "leaves", &other)), (200, 404));
}

#[test]
fn a_stream_of_a_server_that_is_taken_off_ends_and_others_go_on() {
    let speaks = |request: &UpstreamRequest, stream: &mut std::net::TcpStream| {
        if !request.is("GET") {
            return None;
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n";
        answer(stream, head, After::KeepOpen);
        // The gateway's end of the connection is the end of the wait.
        let _ = std::io::copy(stream, &mut std::io::sink());
        Some(After::Close)
    };
    let (stays, leaves) = (Fixture::legacy(speaks), Fixture::legacy(speaks));
    let config = GatewayConfig::new().set("gateway.server", "sse_keep_alive = \"1s\"");
    let mut gateway = Gateway::start(&with(&config, &[("stays", &stays), ("leaves", &leaves)]));
    let [kept, ended] = ["stays", "leaves"].map(|server| {
        let path = format!("/mcp/{server}");
        let mut connection = gateway.connect().expect("a connection");
        let session = open_session(&mut connection, &path, LEGACY);
        let headers = [("mcp-session-id", &*session), ("accept", "text/event-stream")];
        connection.send_request("GET", &path, &headers, b"").expect("sent");
        connection.into_events().expect("a stream")
    });
    let (mut kept, mut ended) = (kept, ended);
    for stream in [&mut kept, &mut ended] {
        let event = stream.next_event().expect("an event").expect("not the end");
        assert!(event.data.contains("notifications/x"), "{event:?}");
    }
    gateway.reload(&with(&config, &[("stays", &stays)]));
    assert!(ended.next_event().expect("an end in good order").is_none());
    let mut connection = gateway.connect().expect("a connection");
    assert_eq!(connection.request("GET", "/ready", &[], b"").expect("an answer").status, 200);
    assert_eq!(
        gateway.metrics().count("mcp_gateway_requests_in_flight", &[]),
        1.0,
        "the other stream is there"
    );
}

#[test]
fn a_socket_of_a_server_that_is_taken_off_gets_its_goodbye() {
    let (stays, leaves) = (Fixture::legacy(nothing), Fixture::legacy(nothing));
    let config = GatewayConfig::new();
    let mut gateway = Gateway::start(&with(&config, &[("stays", &stays), ("leaves", &leaves)]));
    let [mut kept, mut ended] = ["stays", "leaves"].map(|server| {
        let mut socket = Socket::open(&gateway, &format!("/ws/{server}"), &[]);
        let opened = socket.ask(&initialize(LEGACY));
        assert!(opened["result"].is_object(), "{opened}");
        socket
    });
    gateway.reload(&with(&config, &[("stays", &stays)]));
    assert_eq!(ended.expect_close().0, 1012);
    let answer = kept.ask(&request(2, "tools/call", json!({"name": "t"})));
    assert_eq!(answer["result"]["name"], "t", "{answer}");
}

#[test]
fn processes_follow_their_command() {
    let command = [beside_test("mcp-stdio-faulty").display().to_string()];
    let config = |greeting: &str| {
        let lines = format!("env = [\"GREETING={greeting}\"]");
        GatewayConfig::new().stdio("process", &command, &lines)
    };
    let mut gateway = Gateway::start(&config("one"));
    let ask = |gateway: &Gateway, server: &str, session: &str, tool: &str| {
        let mut connection = gateway.connect().expect("a connection");
        let message = request(1, "tools/call", json!({"name": tool, "arguments": {}}));
        post_in_session(&mut connection, &format!("/mcp/{server}"), session, &message).expect("an answer")
    };
    let open = |gateway: &Gateway, server: &str| {
        let mut connection = gateway.connect().expect("a connection");
        open_session(&mut connection, &format!("/mcp/{server}"), LEGACY)
    };
    let greeting = |gateway: &Gateway, server: &str, session: &str| {
        let answer = ask(gateway, server, session, "environment").json();
        answer["result"]["variables"]["GREETING"].clone()
    };
    let first = open(&gateway, "process");
    assert_eq!(greeting(&gateway, "process", &first), "one");
    let pid = ask(&gateway, "process", &first, "pid").json()["result"].as_u64().expect("a number");

    // What says nothing of the process lets it be.
    gateway.reload(&config("one").set("gateway.retry", "max_attempts = 2"));
    assert_eq!(ask(&gateway, "process", &first, "pid").json()["result"], pid);
    gateway.reload(&config("two").stdio("shared", &command, "env = [\"GREETING=all\"]\nmode = \"shared\""));
    assert_eq!(ask(&gateway, "process", &first, "pid").status, 404);
    for (server, expected) in [("process", "two"), ("shared", "all")] {
        let session = open(&gateway, server);
        assert_eq!(greeting(&gateway, server, &session), expected, "{server}");
    }
    gateway.reload(&GatewayConfig::new());
    eventually("no process is left", LIMIT, || {
        let children = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let is_over = children.is_empty() || children.contains(") Z ");
        let counted = gateway.metrics().count("mcp_gateway_upstream_processes", &[]);
        (is_over && counted == 0.0).then_some(())
    });
    // A gateway without servers has the demo.
    assert_eq!(status(&gateway, "process"), 404);
    open(&gateway, "demo");
}

#[test]
fn traffic_does_not_notice_fifty_changes() {
    let (server, other) = (Fixture::legacy(quick), modern());
    let config = GatewayConfig::new();
    let base = |config: &GatewayConfig| with(config, &[("server", &server)]);
    let mut gateway = Gateway::start(&base(&config));
    let ending = Arc::new(AtomicBool::new(false));
    let made = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (ending, made) = (ending.clone(), made.clone());
            let mut connection = gateway.connect().expect("a connection");
            std::thread::spawn(move || {
                let session = open_session(&mut connection, "/mcp/server", LEGACY);
                while !ending.load(Ordering::Relaxed) {
                    let message = request(1, "tools/call", json!({"name": "t"}));
                    let answer = post_in_session(&mut connection, "/mcp/server", &session, &message);
                    let answer = answer.expect("an answer during the changes");
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    made.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..50 {
        let before = made.load(Ordering::Relaxed);
        eventually("calls are made", LIMIT, || (made.load(Ordering::Relaxed) >= before + 8).then_some(()));
        let config =
            config.clone().set("gateway.circuit_breaker", &format!("failure_threshold = {}", 5 + round));
        let config = config.set("gateway.connection_pool", &format!("max_size = {}", 10 + round % 3));
        let config = config.set("gateway.server", &format!("max_body = \"{}KiB\"", 100 + round));
        let names = [("server", &server), ("other", &other)];
        gateway.reload(&with(&config, &names[..1 + round % 2]));
    }
    ending.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.join().expect("no call failed");
    }
    assert_eq!(gateway.reloads("ok"), 50.0);
    assert_eq!(gateway.metrics().count("mcp_gateway_routing_errors_total", &[]), 0.0);
}

/// Answers calls without keeping them, as many as there are.
fn quick(request: &UpstreamRequest, stream: &mut std::net::TcpStream) -> Option<After> {
    let message = request.json();
    (request.is("POST") && message["method"] == "tools/call").then(|| {
        answer_json(
            stream,
            "200 OK",
            &json!({"jsonrpc": "2.0", "id": message["id"], "result": {"content": []}}),
        )
    })
}

#[test]
fn two_hundred_changes_leave_nothing_behind() {
    let server = modern();
    // The page says which shard has served.
    let config = GatewayConfig::new().set("gateway.runtime", "shards = 1");
    let mut gateway = Gateway::start(&with(&config, &[("server", &server)]));
    assert_eq!(status(&gateway, "server"), 200);
    let descriptors = |gateway: &Gateway| {
        let tasks = fs::read_dir(format!("/proc/{}/task", gateway.process.id())).expect("its threads");
        let tables = tasks.filter_map(|task| fs::read_dir(task.ok()?.path().join("fd")).ok());
        tables.map(Iterator::count).max().expect("a table")
    };
    let of_servers = |gateway: &Gateway| {
        let mut connection = Connection::plain(gateway.admin_addr).expect("a connection");
        let page = connection.request("GET", "/metrics", &[("connection", "close")], b"").expect("a page");
        let series = page
            .text()
            .lines()
            .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
            .collect::<Vec<_>>();
        series.into_iter().filter(|series| series.contains("server=\"")).collect::<Vec<_>>()
    };
    let (files_before, series_before) = (descriptors(&gateway), of_servers(&gateway));
    for round in 0..200 {
        let name = format!("other-{}", round % 20);
        gateway.reload(&with(&config, &[("server", &server), (&name, &server)]));
        if round % 10 == 0 {
            assert_eq!(status(&gateway, &name), 200);
        }
    }
    gateway.reload(&with(&config, &[("server", &server)]));
    assert_eq!(status(&gateway, "server"), 200);
    assert_eq!(of_servers(&gateway), series_before);
    // Its connections to servers that are gone are closed when their last exchange is.
    eventually("descriptors are given back", LIMIT, || {
        (descriptors(&gateway) <= files_before + 2).then_some(())
    });
}

#[test]
fn a_bad_file_changes_nothing_and_every_error_is_told() {
    let server = modern();
    let config = with(&GatewayConfig::new(), &[("server", &server)]);
    let mut gateway = Gateway::start(&config);
    let is_fine =
        |gateway: &Gateway| gateway.metrics().value("mcp_gateway_config_last_reload_successful", &[]);
    assert_eq!(is_fine(&gateway), Some(1.0));
    let bad = config
        .clone()
        .set("gateway.server", "max_body = \"much\"")
        .set("gateway.server", "max_connections = 0");
    let bad = bad.server("other", &["ftp://127.0.0.1/"]);
    for text in [None, Some("this is no TOML"), Some("[gateway.server]\nno_such_key = 1\n")] {
        let before = gateway.reloads("refused");
        match text {
            None => gateway.rewrite(&bad),
            Some(text) => gateway.rewrite_text(text),
        }
        gateway.process.signal(libc::SIGHUP);
        gateway.wait_reload("refused", before);
        assert_eq!((status(&gateway, "server"), status(&gateway, "other")), (200, 404));
        assert_eq!(is_fine(&gateway), Some(0.0));
    }
    let log = gateway.process.log();
    for told in [
        "gateway.server.max_body",
        "gateway.server.max_connections",
        "servers[1].endpoints",
        "no_such_key",
        "valid TOML",
    ] {
        assert!(log.contains(told), "{told} is not in\n{log}");
    }
    // A server that cannot be trusted is as bad.
    let before = gateway.reloads("refused");
    gateway.rewrite(&config.clone().server_with(
        "other",
        &["https://127.0.0.1:1/"],
        "tls.ca_file = \"/no/such/file\"",
    ));
    gateway.process.signal(libc::SIGHUP);
    gateway.wait_reload("refused", before);
    assert_eq!((status(&gateway, "server"), status(&gateway, "other")), (200, 404));

    // The old file again is nothing new.
    let before = gateway.reloads("unchanged");
    gateway.rewrite(&config);
    gateway.process.signal(libc::SIGHUP);
    gateway.wait_reload("unchanged", before);
    assert_eq!((is_fine(&gateway), gateway.reloads("ok")), (Some(1.0), 0.0));
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_is_taken_over() {
    let server = modern();
    let config = GatewayConfig::new();
    let mut gateway = Gateway::start(&with(&config, &[("server", &server)]));
    let other = config
        .clone()
        .https_port(1)
        .set("gateway.runtime", "shards = 3")
        .set("gateway.log", "level = \"debug\"");
    let command = ["/bin/cat".to_owned()];
    gateway.reload(&with(&other, &[("server", &server), ("second", &server)]).stdio("process", &command, ""));
    assert_eq!((status(&gateway, "second"), status(&gateway, "process")), (200, 404));
    let pending = |gateway: &Gateway| gateway.metrics().count("mcp_gateway_config_pending_restart", &[]);
    assert_eq!(pending(&gateway), 3.0);
    let log = gateway.process.log();
    let told = |words: &[&str]| log.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(told(&["needs a restart", "gateway.server.https_port", "\"file\":\"1\""]), "{log}");
    assert!(told(&["needs a restart", "gateway.runtime.shards", "\"running\":\"2\""]), "{log}");
    assert!(told(&["needs a restart", "\"server\":\"process\""]), "{log}");
    assert!(told(&["\"key\":\"gateway.log.level\""]), "{log}");
    gateway.reload(&with(&config, &[("server", &server)]));
    assert_eq!(pending(&gateway), 0.0);
}

#[test]
fn the_log_says_as_much_as_is_wanted_now() {
    let server = modern();
    let config = with(&GatewayConfig::new(), &[("server", &server)]);
    let mut gateway = Gateway::start(&config.clone().set("gateway.log", "level = \"error\""));
    let details = |gateway: &Gateway| gateway.process.log().matches("\"level\":\"DEBUG\"").count();
    assert_eq!((status(&gateway, "server"), details(&gateway)), (200, 0));
    gateway.reload(&config.clone().set("gateway.log", "level = \"debug\""));
    eventually("details are told", LIMIT, || {
        assert_eq!(gateway.get("/health").expect("an answer").status, 200);
        // A scrape that says nothing is told of in detail.
        drop(Connection::plain(gateway.admin_addr).expect("a connection"));
        (details(&gateway) > 0).then_some(())
    });
}

#[test]
fn limits_change_for_whoever_is_there() {
    let server = modern();
    let config = with(&GatewayConfig::new().set("gateway.runtime", "shards = 1"), &[("server", &server)]);
    let mut gateway = Gateway::start(&config);
    let mut connection = gateway.connect().expect("a connection");
    let mut ask = |argument: &str| {
        call(&mut connection, "/mcp/server", "t", json!({"argument": argument})).expect("an answer").status
    };
    let long = "x".repeat(3000);
    assert_eq!((ask(""), ask(&long)), (200, 200));
    gateway.reload(&config.clone().set("gateway.server", "max_body = \"2KiB\""));
    assert_eq!((ask(""), ask(&long)), (200, 413));

    let mut connection = gateway.connect().expect("a connection");
    let mut ask = || call(&mut connection, "/mcp/server", "t", json!({})).expect("an answer").status;
    let limited = config.clone().set("gateway.rate_limit", "requests_per_second = 1");
    gateway.reload(&limited.set("gateway.rate_limit", "burst = 1"));
    eventually("requests are limited", LIMIT, || (ask() == 429).then_some(()));
    gateway.reload(&config);
    assert_eq!([ask(), ask(), ask()], [200; 3]);

    let mut connections = vec![gateway.connect().expect("a connection")];
    gateway.reload(&config.clone().set("gateway.server", "max_connections_per_ip = 3"));
    eventually("connections are refused", LIMIT, || match gateway.connect() {
        Ok(connection) => {
            connections.push(connection);
            assert!(connections.len() < 20, "no limit");
            None
        }
        Err(_) => Some(()),
    });
    gateway.reload(&config);
    assert!(gateway.connect().is_ok());
}

#[test]
fn breakers_open_by_the_rules_of_the_moment() {
    let failing =
        Fixture::modern(json!([]), |request: &UpstreamRequest, stream: &mut std::net::TcpStream| {
            let is_call = request.is("POST") && request.json()["method"] == "tools/call";
            is_call.then(|| answer(stream, "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", After::KeepOpen))
        });
    let config = with(&GatewayConfig::new(), &[("server", &failing)])
        .set("gateway.circuit_breaker", "open_time = \"1h\"")
        .set("gateway.retry", "max_attempts = 1");
    let mut gateway =
        Gateway::start(&config.clone().set("gateway.circuit_breaker", "failure_threshold = 1000"));
    let first: Vec<_> = (0..10).map(|_| status(&gateway, "server")).collect();
    assert_eq!(first, [502; 10]);
    gateway.reload(&config.clone().set("gateway.circuit_breaker", "failure_threshold = 2"));
    eventually("the breaker opens", LIMIT, || (status(&gateway, "server") == 503).then_some(()));
    // The state outlives another change of the rules.
    gateway.reload(&config.set("gateway.circuit_breaker", "failure_threshold = 3"));
    assert_eq!(status(&gateway, "server"), 503);
}

#[test]
fn who_is_not_checked_any_more_is_asked_again() {
    let unwell = Fixture::modern(json!([]), |request: &UpstreamRequest, stream: &mut std::net::TcpStream| {
        let is_check = request.is("GET");
        is_check.then(|| answer(stream, "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", After::KeepOpen))
    });
    let config = |lines: &str| GatewayConfig::new().server_with("server", &[&unwell.url()], lines);
    let checked =
        "health = { kind = \"http\", interval = \"100ms\", timeout = \"50ms\", unhealthy_after = 1 }";
    let mut gateway = Gateway::start(&config(""));
    assert_eq!(status(&gateway, "server"), 200);
    gateway.reload(&config(checked));
    eventually("checks take it out", LIMIT, || (status(&gateway, "server") == 503).then_some(()));
    gateway.reload(&config(""));
    eventually("it is asked again", LIMIT, || (status(&gateway, "server") == 200).then_some(()));
    assert_eq!(gateway.metrics().value("mcp_gateway_endpoint_healthy", &[]), None);
}

#[test]
fn another_file_alone_is_taken_over_by_a_swapped_link_too() {
    let (first, second) = (modern(), modern());
    let dir = TempDir::new();
    let mounted = dir.path().join("mounted");
    fs::create_dir(&mounted).expect("a folder");
    let config = GatewayConfig::new();
    let gateway = Gateway::start(&with(&config, &[("first", &first)]));
    // As the kubelet mounts a ConfigMap: the file leads to `..data/gateway.toml`, and `..data` to the version in force.
    let text = gateway.config_text();
    let put = |version: &str, text: &str| {
        fs::create_dir(mounted.join(version)).expect("a folder");
        fs::write(mounted.join(version).join("gateway.toml"), text).expect("a file");
        let new = mounted.join("..data_tmp");
        symlink(version, &new).expect("a link");
        fs::rename(new, mounted.join("..data")).expect("a swap");
    };
    put("..1", &text);
    symlink("..data/gateway.toml", mounted.join("gateway.toml")).expect("a link");
    let mounted_file = mounted.join("gateway.toml");
    let before = gateway.reloads("unchanged");
    gateway.link_config(&mounted_file);
    gateway.wait_reload("unchanged", before);

    let before = gateway.reloads("ok");
    put("..2", &(text + &format!("\n[[servers]]\nname = \"second\"\nendpoints = [{:?}]\n", second.url())));
    gateway.wait_reload("ok", before);
    assert_eq!((status(&gateway, "first"), status(&gateway, "second")), (200, 200));
}

/// The authority that vouches for a server comes in another file's place, without a word to the gateway.
#[test]
fn what_a_server_is_trusted_by_is_read_again() {
    let fixture = modern();
    let behind = Gateway::start(&with(&GatewayConfig::new(), &[("one", &fixture)]));
    let (dir, elsewhere) = (TempDir::new(), TempDir::new());
    let (trusted, other) = (dir.path().join("ca.crt"), TestCert::generate(&elsewhere).ca_file);
    let put = |authority: &Path| {
        let new = dir.path().join("new");
        fs::copy(authority, &new).expect("a copy");
        fs::rename(&new, &trusted).expect("a swap");
    };
    put(&other);
    let lines = format!("tls.ca_file = {trusted:?}");
    // The breaker, which the server keeps, would answer instead of the server's certificate.
    let config = GatewayConfig::new().set("gateway.circuit_breaker", "failure_threshold = 1000");
    let gateway = Gateway::start(&config.server_with("one", &[&behind.url("one")], &lines));
    assert_eq!(status(&gateway, "one"), 502);
    for (authority, expected) in [(&behind.cert.ca_file, 200), (&other, 502)] {
        let before = gateway.reloads("ok");
        put(authority);
        gateway.wait_reload("ok", before);
        // Connections that were made by the authority before are used no more.
        assert_eq!(status(&gateway, "one"), expected);
    }
}

#[test]
fn clients_of_all_servers_are_told_and_hear_those_that_came() {
    let (first, second) = (Fixture::legacy(tells), Fixture::legacy(tells));
    let config = GatewayConfig::new();
    let base = with(&config, &[("first", &first), ("plain", &first)]);
    let mut gateway = Gateway::start(&base);
    let mut connection = gateway.connect().expect("a connection");
    let opened = connection.post("/mcp", &[], &initialize(LEGACY)).expect("an answer");
    let session = opened.header("mcp-session-id").expect("a session").to_owned();
    let mut listening = gateway.connect().expect("a connection");
    let headers = [("mcp-session-id", &*session), ("accept", "text/event-stream")];
    listening.send_request("GET", "/mcp", &headers, b"").expect("sent");
    let mut events = listening.into_events().expect("a stream");
    let mut next = |wanted: &str| loop {
        let event = events.next_event().expect("an event").expect("not the end");
        if event.data.contains(wanted) {
            return event.data;
        }
    };
    next("notifications/x");
    let mut tools = |gateway_says: &str| {
        let message = request(1, "tools/list", json!({}));
        let answer = post_in_session(&mut connection, "/mcp", &session, &message).expect("an answer");
        assert_eq!(answer.status, 200, "{gateway_says}: {}", answer.text());
        let names = answer.json()["result"]["tools"].as_array().expect("tools").clone();
        names.iter().map(|tool| tool["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(tools("at first"), ["first__t", "plain__t"]);
    gateway.reload(&with(&config, &[("first", &first), ("second", &second)]));
    next("notifications/tools/list_changed");
    // What the newcomer says by itself.
    next("notifications/x");
    assert_eq!(tools("afterwards"), ["first__t", "second__t"]);
}

/// A legacy server with one tool, which says something on its streams.
fn tells(request: &UpstreamRequest, stream: &mut std::net::TcpStream) -> Option<After> {
    if request.is("GET") {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n";
        answer(stream, head, After::KeepOpen);
        // The gateway's end of the connection is the end of the wait.
        let _ = std::io::copy(stream, &mut std::io::sink());
        return Some(After::Close);
    }
    let message = request.json();
    (message["method"] == "tools/list").then(|| {
        let result = json!({"tools": [{"name": "t", "inputSchema": {"type": "object"}}]});
        answer_json(stream, "200 OK", &json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
    })
}
