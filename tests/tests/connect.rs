//! Setup: `mcp-gateway connect` with a client that writes lines, towards a server that behaves and, for single requests, does
//! not, or towards a gateway.
//! Claim: whatever the client writes and whatever happens to connection, session, token and gateway, each request is answered
//! once, what may have had an effect is not sent twice, and standard output carries messages only; the exit code says how
//! it ended.

use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mcp_system_tests::connect::{Bridge, command, first_times, seen, to};
use mcp_system_tests::fixtures::{Fixture, nothing, response};
use mcp_system_tests::gateway::binary;
use mcp_system_tests::mcp::modern_call;
use mcp_system_tests::upstream::{After, UpstreamRequest, answer, answer_json};
use mcp_system_tests::{Gateway, GatewayConfig, Process, TempDir, TestCert, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

#[test]
fn lines_that_are_no_messages_are_answered_and_forgotten() {
    let server = Fixture::legacy(nothing);
    let mut bridge = Bridge::start(&to(&server.url(), &["--max-message", "4KiB"]));
    for (line, code, id) in [
        ("nonsense", -32700, Value::Null),
        ("{\"jsonrpc\":\"2.0\",", -32700, Value::Null),
        ("[]", -32600, Value::Null),
        ("17", -32600, Value::Null),
        (r#"{"jsonrpc":"1.0","id":5,"method":"ping"}"#, -32600, json!(5)),
        (r#"{"jsonrpc":"2.0","id":6,"method":"ping","method":"pong"}"#, -32600, json!(6)),
        (r#"{"jsonrpc":"2.0","id":7,"params":{}}"#, -32600, json!(7)),
        (r#"{"jsonrpc":"2.0","id":8,"method":"ping"} {}"#, -32700, json!(8)),
        (&"x".repeat(5000), -32600, Value::Null),
        (&format!(r#"{{"jsonrpc":"2.0","id":9,"method":"{}"}}"#, "y".repeat(5000)), -32600, Value::Null),
    ] {
        bridge.write("");
        bridge.write(line);
        let answer = bridge.take("an error", |message| message.get("error").is_some());
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(code), &id), "{line:.60}: {answer}");
    }
    bridge.initialize();
    bridge.request(10, "tools/list", json!({}));
    assert_eq!(bridge.answer(10)["result"], json!({}));
    bridge.close_input();
    assert_eq!(bridge.rest(), Vec::<Value>::new());
    assert_eq!(bridge.finish(LIMIT).code(), Some(0));
}

#[test]
fn the_end_of_input_waits_for_answers_and_ends_the_session() {
    let closed = Arc::new(AtomicUsize::new(0));
    let awaited = closed.clone();
    let server = Fixture::legacy(move |request: &UpstreamRequest, stream: &mut TcpStream| {
        let message = request.json();
        if message["params"]["name"] != "slow" {
            return None;
        }
        eventually("the input ends", LIMIT, || (awaited.load(Ordering::SeqCst) > 0).then_some(()));
        Some(answer_json(stream, "200 OK", &response(&message, json!({"late": true}))))
    });
    let mut bridge = Bridge::start(&to(&server.url(), &[]));
    bridge.initialize();
    bridge.call(1, "slow", json!({}));
    eventually("the call is at the server", LIMIT, || (seen(&server, "tools/call") == 1).then_some(()));
    bridge.close_input();
    closed.store(1, Ordering::SeqCst);
    assert_eq!(bridge.rest(), [json!({"jsonrpc": "2.0", "id": 1, "result": {"late": true}})]);
    assert_eq!(bridge.finish(LIMIT).code(), Some(0));
    let seen = server.seen();
    let end = seen.iter().find(|request| request.is("DELETE")).expect("the session was ended");
    assert_eq!(end.header("mcp-session-id"), Some("upstream-1"));
    assert_eq!(end.header("mcp-protocol-version"), Some("2025-11-25"));
}

#[test]
fn a_signal_and_a_client_that_has_gone_end_it_in_order() {
    let server = Fixture::legacy(nothing);
    let mut bridge = Bridge::start(&to(&server.url(), &[]));
    bridge.initialize();
    bridge.request(1, "ping", json!({}));
    bridge.answer(1);
    bridge.signal(libc::SIGTERM);
    assert_eq!(bridge.finish(LIMIT).code(), Some(0));
    eventually("the session was ended", LIMIT, || {
        server.seen().iter().any(|request| request.is("DELETE")).then_some(())
    });

    // A pipeline whose right side ends first.
    let line = r#"{"jsonrpc":"2.0","id":1,"method":"server/discover"}"#;
    let script = format!(
        "(while echo '{line}'; do sleep 0.05; done) | ({} connect {}; echo ended $? >&2) | head -n 1",
        binary().display(),
        server.url()
    );
    let finished = Process::start("a pipeline", Command::new("sh").arg("-c").arg(script)).finish(LIMIT);
    assert!(finished.stderr.iter().any(|line| line == "ended 0"), "{finished:?}");
}

#[test]
fn a_token_comes_from_a_file_that_may_change_or_from_the_environment() {
    let server = Fixture::legacy(|request: &UpstreamRequest, stream: &mut TcpStream| {
        let good = request.header("authorization") == Some("Bearer good");
        let refusal = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer\r\ncontent-length: 0\r\n\r\n";
        (!good).then(|| answer(stream, refusal, After::KeepOpen))
    });
    let dir = TempDir::new();
    let file = dir.write("token", "bad\n");
    let file = file.display().to_string();
    let mut bridge = Bridge::start(&to(&server.url(), &["--token-file", &file]));
    bridge.request(1, "initialize", json!({"protocolVersion": "2025-11-25"}));
    let refused = bridge.answer(1);
    assert!(refused["error"]["message"].as_str().is_some_and(|text| text.contains("401")), "{refused}");
    assert!(refused["error"].get("data").is_none(), "the same token does no better: {refused}");
    assert_eq!(seen(&server, "initialize"), 1);
    dir.write("token", "good\n");
    bridge.initialize();
    drop(bridge);

    let mut bridge = Bridge::start_with(
        &to(&server.url(), &["--token-env", "GATEWAY_TOKEN"]),
        &[("GATEWAY_TOKEN", "good")],
    );
    bridge.initialize();
    bridge.close_input();
    assert_eq!(bridge.finish(LIMIT).code(), Some(0));
}

#[test]
fn a_session_that_ended_is_opened_again_without_the_client() {
    let ended = Arc::new(AtomicUsize::new(0));
    let ends = ended.clone();
    let server = Fixture::legacy(move |request: &UpstreamRequest, stream: &mut TcpStream| {
        let gone = request.header("mcp-session-id") == Some("upstream-1") && ends.load(Ordering::SeqCst) > 0;
        gone.then(|| answer(stream, NOT_FOUND, After::KeepOpen))
    });
    let mut bridge = Bridge::start(&to(&server.url(), &[]));
    bridge.initialize();
    bridge.call(1, "one", json!({}));
    assert_eq!(bridge.answer(1)["result"]["name"], "one");
    ended.store(1, Ordering::SeqCst);
    // A call is sent again, too: the refusal says that nothing was done.
    for id in 2..10 {
        bridge.call(id, "two", json!({"id": id}));
    }
    for id in 2..10 {
        assert_eq!(bridge.answer(id)["result"]["arguments"]["id"], id);
    }
    assert_eq!((seen(&server, "initialize"), seen(&server, "notifications/initialized")), (2, 2));
    let of_second = server.seen().iter().filter(|r| r.header("mcp-session-id") == Some("upstream-2")).count();
    assert!(of_second >= 9, "{of_second} requests in the second session");
    bridge.close_input();
    assert_eq!(bridge.rest(), Vec::<Value>::new(), "the client sees nothing of it");
}

#[test]
fn a_session_that_cannot_be_opened_again_is_told_in_the_answers() {
    let server = Fixture::legacy(|request: &UpstreamRequest, stream: &mut TcpStream| {
        let gone = request.json()["params"]["name"] == "after the end";
        gone.then(|| answer(stream, NOT_FOUND, After::KeepOpen))
    });
    let mut bridge = Bridge::start(&to(&server.url(), &[]));
    bridge.initialize();
    bridge.call(1, "after the end", json!({}));
    let answer = bridge.answer(1);
    assert_eq!(answer["error"]["data"]["retryable"], true, "{answer}");
    // Each session was tried once, and no more of them than may be.
    assert_eq!((seen(&server, "initialize"), seen(&server, "tools/call")), (3, 3));
}

#[test]
fn what_may_have_had_an_effect_is_not_sent_twice() {
    let server = Fixture::legacy(first_times(1, "tools/call", |_, _| After::Reset));
    let mut bridge = Bridge::start(&to(&server.url(), &[]));
    bridge.initialize();
    bridge.call(1, "pay", json!({}));
    let lost = bridge.answer(1);
    assert_eq!((&lost["error"]["code"], &lost["error"]["data"]["retryable"]), (&json!(-32000), &json!(true)));
    assert_eq!(seen(&server, "tools/call"), 1);
    bridge.call(2, "pay", json!({}));
    assert_eq!(bridge.answer(2)["result"]["name"], "pay");
}

#[test]
fn what_only_reads_is_sent_again_when_the_connection_broke() {
    let half = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"jsonrpc\"";
    let server =
        Fixture::legacy(first_times(2, "tools/list", move |_, stream| answer(stream, half, After::Close)));
    let mut bridge = Bridge::start(&to(&server.url(), &[]));
    bridge.initialize();
    bridge.request(1, "tools/list", json!({"cursor": "x"}));
    assert_eq!(bridge.answer(1)["result"], json!({"cursor": "x"}));
    assert_eq!(seen(&server, "tools/list"), 3);
}

#[test]
fn a_server_that_asks_to_wait_is_asked_later_and_refusals_pass() {
    let busy = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
    let server =
        Fixture::legacy(first_times(1, "tools/call", move |_, stream| answer(stream, busy, After::KeepOpen)));
    let mut bridge = Bridge::start(&to(&server.url(), &[]));
    bridge.initialize();
    bridge.call(1, "busy", json!({}));
    assert_eq!(bridge.answer(1)["result"]["name"], "busy");
    assert_eq!(seen(&server, "tools/call"), 2);
    drop(bridge);

    // More than anybody's patience: it is told at once.
    let far = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 3600\r\ncontent-type: application/json\r\n\
               content-length: 90\r\n\r\n";
    let body =
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"shutting down","data":{"a":1}}}"#;
    let text = format!("{}{body}", far.replace("90", &body.len().to_string()));
    let server = Fixture::legacy(first_times(1, "tools/call", move |_, stream| {
        answer(stream, &text, After::KeepOpen)
    }));
    let mut bridge = Bridge::start(&to(&server.url(), &[]));
    bridge.initialize();
    bridge.call(1, "busy", json!({}));
    let refused = bridge.answer(1);
    assert_eq!(refused["error"], json!({"code": -32000, "message": "shutting down", "data": {"a": 1}}));
}

#[test]
fn a_batch_and_an_answer_of_many_lines_pass() {
    let pretty = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n\
                  : hello\n\nid: 1\ndata:\n\ndata: {\ndata:   \"jsonrpc\": \"2.0\",\ndata:   \"method\": \"x\"\ndata: }\n\n\
                  event: other\ndata: none\n\ndata: {\"jsonrpc\":\"2.0\",\ndata: \"id\":1, \"result\":\ndata: {}}\n\n";
    let server =
        Fixture::legacy(first_times(1, "tools/list", move |_, stream| answer(stream, pretty, After::Close)));
    let mut bridge = Bridge::start(&to(&server.url(), &[]));
    bridge.initialize();
    bridge.request(1, "tools/list", json!({}));
    assert_eq!(bridge.answer(1)["result"], json!({}));
    assert_eq!(bridge.take("the notification", |message| message["method"] == "x")["jsonrpc"], "2.0");
    let one = |id: u64| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"id": id}});
    bridge.send(&json!([one(2), one(3)]));
    let batch = bridge.take("the batch", Value::is_array);
    assert_eq!((&batch[0]["result"]["id"], &batch[1]["result"]["id"]), (&json!(2), &json!(3)));
    bridge.close_input();
    assert_eq!(bridge.rest(), Vec::<Value>::new());
}

#[test]
fn an_answer_that_is_no_message_or_too_long_is_an_error() {
    let html = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>";
    let broken = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\n{,},";
    let garbage = "SSH-2.0-OpenSSH_9.2\r\n";
    let empty = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
    let other = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 37\r\n\r\n\
                 {\"jsonrpc\":\"2.0\",\"id\":77,\"result\":{}}\n";
    let long = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n\"{}\"", "x".repeat(5000));
    for text in [html, broken, garbage, empty, other, &long] {
        let text = text.to_owned();
        let server = Fixture::legacy(first_times(1, "tools/call", move |_, stream| {
            answer(stream, &text, After::Close)
        }));
        let mut bridge = Bridge::start(&to(&server.url(), &["--max-message", "4KiB"]));
        bridge.initialize();
        bridge.call(1, "any", json!({}));
        let answer = bridge.answer(1);
        assert_eq!(answer["error"]["code"], -32000, "{answer}");
        bridge.call(2, "any", json!({}));
        assert_eq!(bridge.answer(2)["result"]["name"], "any");
        bridge.close_input();
        assert_eq!(bridge.rest(), Vec::<Value>::new());
        assert_eq!(bridge.finish(LIMIT).code(), Some(0));
    }
}

#[test]
fn the_server_s_own_stream_is_resumed_where_it_broke() {
    let event = |id: u64| {
        format!(
            "id: {id}\nretry: 20\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"n\",\"params\":{{\"n\":{id}}}}}\n\n"
        )
    };
    let server = Fixture::legacy(move |request: &UpstreamRequest, stream: &mut TcpStream| {
        let next = match request.header("last-event-id") {
            _ if !request.is("GET") => return None,
            None => 1,
            Some(last) => last.parse::<u64>().ok()? + 1,
        };
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        let end = if next % 2 == 0 { After::Reset } else { After::Close };
        Some(answer(stream, &(head.to_owned() + &event(next)), end))
    });
    let mut bridge = Bridge::start(&to(&server.url(), &[]));
    bridge.initialize();
    for n in 1..5 {
        let told = bridge.take("a notification", |message| message["method"] == "n");
        assert_eq!(told["params"]["n"], n);
    }
}

#[test]
fn a_gateway_that_is_killed_and_comes_back_is_found_again() {
    let server = Fixture::legacy(|request: &UpstreamRequest, _: &mut TcpStream| {
        if request.json()["params"]["name"] != "slow" {
            return None;
        }
        std::thread::park_timeout(LIMIT);
        Some(After::Close)
    });
    // Both gateways prove to be the same one.
    let dir = TempDir::new();
    let cert = TestCert::generate(&dir);
    let config =
        GatewayConfig::new().server("peer", &[&server.url()]).showing(&cert.cert_file, &cert.key_file);
    let first = Gateway::start_unready(&config);
    let url = first.url("peer");
    let ca_file = cert.ca_file.display().to_string();
    // The gateway is not up yet: `initialize` waits for it.
    let mut bridge = Bridge::start(&to(&url, &["--ca-file", &ca_file]));
    bridge.initialize();
    bridge.call(1, "slow", json!({}));
    eventually("the call is at the server", LIMIT, || (seen(&server, "tools/call") == 1).then_some(()));
    drop(first);
    let lost = bridge.answer(1);
    assert_eq!(lost["error"]["data"]["retryable"], true, "{lost}");
    // What is sent while there is no gateway waits for the next one, which knows nothing of the session. A killed process's
    // other sockets may close later than it is gone, so a call comes second.
    bridge.request(2, "tools/list", json!({"cursor": "c"}));
    let second = Gateway::start_unready(&config);
    assert_eq!(bridge.answer(2)["result"]["cursor"], "c");
    bridge.call(3, "quick", json!({}));
    assert_eq!(bridge.answer(3)["result"]["name"], "quick");
    assert_eq!((seen(&server, "tools/call"), seen(&server, "initialize")), (2, 2));
    bridge.close_input();
    assert_eq!(bridge.rest(), Vec::<Value>::new());
    assert_eq!(bridge.finish(LIMIT).code(), Some(0));
    drop(second);
}

#[test]
fn a_tool_s_parameters_are_mirrored_though_the_client_never_asked_for_the_list() {
    let schema =
        json!({"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}});
    let server = Fixture::modern(json!([{"name": "query", "inputSchema": schema}]), nothing);
    let gateway = Gateway::start(&GatewayConfig::new().server("peer", &[&server.url()]));
    let mut bridge = Bridge::start(&command(&gateway, &gateway.url("peer"), &[]));
    for id in 1..3 {
        bridge.send(&modern_call(id, "query", json!({"region": "Zürich"})));
        assert_eq!(bridge.answer(id)["result"]["arguments"]["region"], "Zürich");
    }
    let calls: Vec<_> =
        server.seen().into_iter().filter(|request| request.json()["method"] == "tools/call").collect();
    assert_eq!(calls.len(), 2);
    assert!(calls.iter().all(|call| call.header("mcp-param-region") == Some("=?base64?WsO8cmljaA==?=")));
    bridge.close_input();
    assert_eq!(bridge.rest(), Vec::<Value>::new(), "the question was not the client's");
}

#[test]
fn a_gateway_that_nobody_vouches_for_is_not_spoken_to() {
    let server = Fixture::legacy(nothing);
    let gateway = Gateway::start(&GatewayConfig::new().server("peer", &[&server.url()]));
    let other = TempDir::new();
    let ca_file = TestCert::generate(&other).ca_file.display().to_string();
    let mut bridge = Bridge::start(&to(&gateway.url("peer"), &["--ca-file", &ca_file]));
    bridge.request(1, "initialize", json!({"protocolVersion": "2025-11-25"}));
    let answer = bridge.answer(1);
    assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("trusted")), "{answer}");
    assert!(answer["error"].get("data").is_none(), "trying again does not help: {answer}");
    assert_eq!(server.seen().len(), 0);
    drop(bridge);

    let mut bridge = Bridge::start(&command(&gateway, &gateway.url("no-such-server"), &[]));
    bridge.request(1, "initialize", json!({"protocolVersion": "2025-11-25"}));
    let answer = bridge.answer(1);
    assert!(
        answer["error"]["message"].as_str().is_some_and(|text| text.contains("no-such-server")),
        "{answer}"
    );
}

#[test]
fn a_wrong_command_line_is_told_before_anything_is_read() {
    let dir = TempDir::new();
    let empty = dir.write("empty", "\n").display().to_string();
    for (args, told) in [
        (&["http://gw.example.com/mcp"][..], "https://"),
        (&["gw.example.com"], "https://"),
        (&["https://gw/mcp", "--token-env", "MCP_CONNECT_NOT_SET"], "MCP_CONNECT_NOT_SET"),
        (&["https://gw/mcp", "--token-file", "/nowhere/token"], "/nowhere/token"),
        (&["https://gw/mcp", "--token-file", &empty], "no token"),
        (&["https://gw/mcp", "--ca-file", "/nowhere/ca.pem"], "/nowhere/ca.pem"),
        (&["https://gw/mcp", "--ca-file", &empty], "no certificate"),
        (&["https://gw/mcp", "--header", "Host: x"], "itself"),
        (&["https://gw/mcp", "--max-message", "1 parsec"], "256MiB"),
        (&["https://gw/mcp", "--max-message", "1GiB"], "256MiB"),
        (&[], "URL"),
    ] {
        let mut process = Command::new(binary());
        let finished = Process::start("connect", process.arg("connect").args(args)).finish(LIMIT);
        assert_eq!(finished.status.code(), Some(2), "{args:?}: {finished:?}");
        let stderr = finished.stderr.join("\n");
        assert!(stderr.contains(told) && finished.stdout.is_empty(), "{args:?}: {finished:?}");
    }
}
