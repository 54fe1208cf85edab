//! Setup: sockets that are sent malformed frames, too much, too little or nothing, byte by byte.
//! Claim: each ends with the close code that RFC 6455 and the gateway's own table name, or is answered with the JSON-RPC
//! error of the limit that it met; whatever happens is bounded and counted, and the gateway serves on.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mcp_system_tests::mcp::{LEGACY, initialize, request};
use mcp_system_tests::peers::Server;
use mcp_system_tests::upstream::{After, ScriptedUpstream, UpstreamRequest, answer, answer_json};
use mcp_system_tests::ws::{BINARY, CLOSE, PING, PONG, Socket, TEXT, frame};
use mcp_system_tests::{Gateway, GatewayConfig, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

/// A legacy server without streams that answers `ping` with its params, and leaves the rest to `script`.
fn scripted(
    script: impl Fn(&UpstreamRequest, &mut std::net::TcpStream) -> After + Send + Sync + 'static,
) -> ScriptedUpstream {
    ScriptedUpstream::start(move |request, stream| {
        let message = request.json();
        let result = match message["method"].as_str() {
            Some("initialize") => {
                let info = json!({"name": "s", "version": "1"});
                json!({"protocolVersion": LEGACY, "capabilities": {}, "serverInfo": info})
            }
            Some("ping") => json!({"params": message["params"]}),
            Some("notifications/initialized") => {
                return answer(stream, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", After::KeepOpen);
            }
            None if request.head[0].starts_with("GET") => {
                return answer(
                    stream,
                    "HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n",
                    After::KeepOpen,
                );
            }
            _ => return script(request, stream),
        };
        answer_json(stream, "200 OK", &json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
    })
}

fn simple() -> ScriptedUpstream {
    scripted(|_, stream| answer_json(stream, "200 OK", &json!({})))
}

fn before(server: &ScriptedUpstream) -> GatewayConfig {
    GatewayConfig::new().server("peer", &[&server.url()])
}

fn log_in(gateway: &Gateway) -> Socket {
    let mut socket = Socket::open(gateway, "/ws", &[]);
    let opened = socket.ask(&initialize(LEGACY));
    assert!(opened["result"].is_object(), "{opened}");
    socket
}

fn ping(id: impl Into<Value>) -> Value {
    request(id, "ping", json!({}))
}

#[test]
fn what_breaks_the_protocol_closes_the_socket() {
    let server = simple();
    let gateway = Gateway::start(&before(&server).set("gateway.server", "max_body = \"4KiB\""));
    let mask = [0x11, 0x22, 0x33, 0x44];
    let headed = |head: &[u8], payload: &[u8]| [head, &mask, payload].concat();
    let two = |first: Vec<u8>, second: Vec<u8>| [first, second].concat();
    let half = "é".as_bytes();
    let cases = [
        ("a reserved bit", frame(0xc1, b"{}"), 1002, "reserved_bit"),
        ("a reserved bit of a control frame", frame(0xa9, b""), 1002, "reserved_bit"),
        ("a reserved data opcode", frame(0x83, b""), 1002, "reserved_opcode"),
        ("a reserved control opcode", frame(0x8b, b""), 1002, "reserved_opcode"),
        ("no mask", b"\x81\x02{}".to_vec(), 1002, "unmasked"),
        ("a control frame without a mask", b"\x89\x00".to_vec(), 1002, "unmasked"),
        ("a length of two bytes that needs one", headed(&[0x81, 0xfe, 0, 2], b"\x6a\x5f"), 1002, "long_form"),
        (
            "a length of eight bytes that needs two",
            headed(&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 1, 0], b""),
            1002,
            "long_form",
        ),
        ("a ping in fragments", frame(0x09, b""), 1002, "fragmented_control"),
        ("a ping of 126 bytes", frame(PING, &[0; 126]), 1002, "long_control"),
        ("a close of 200 bytes", frame(CLOSE, &[0; 200]), 1002, "long_control"),
        ("a continuation of nothing", frame(0x80, b"{}"), 1002, "unexpected_continuation"),
        ("text within text", two(frame(0x01, b"{"), frame(TEXT, b"{}")), 1002, "unfinished_message"),
        ("binary within text", two(frame(0x01, b"{"), frame(BINARY, b"")), 1002, "unfinished_message"),
        ("a close of one byte", frame(CLOSE, b"\x03"), 1002, "malformed_close"),
        ("a close code that is never sent", frame(CLOSE, b"\x03\xee"), 1002, "malformed_close"),
        ("a close code below all", frame(CLOSE, b"\x00\x01"), 1002, "malformed_close"),
        ("a close reason that is not UTF-8", frame(CLOSE, b"\x03\xe8\xc3"), 1007, "not_utf8"),
        ("binary", frame(BINARY, b"{}"), 1003, "binary"),
        ("binary in fragments", frame(0x02, b"{}"), 1003, "binary"),
        ("text that is not UTF-8", frame(TEXT, b"{\"a\":\"\xff\"}"), 1007, "not_utf8"),
        (
            "text that stops within a character",
            two(frame(0x01, &half[..1]), frame(0x80, b"")),
            1007,
            "not_utf8",
        ),
        ("a surrogate", frame(TEXT, b"\"\xed\xa0\x80\""), 1007, "not_utf8"),
        ("a message beyond the limit", frame(TEXT, &[b' '; 4097]), 1009, "too_long"),
        (
            "a message beyond the limit in fragments",
            two(frame(0x01, &[b' '; 4000]), frame(0x80, &[b' '; 97])),
            1009,
            "too_long",
        ),
        (
            "a length beyond all",
            headed(&[0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], b""),
            1009,
            "too_long",
        ),
    ];
    for (name, bytes, code, label) in &cases {
        for pieces in [bytes.len(), 1] {
            let mut socket = Socket::open(&gateway, "/ws", &[]);
            let counted = || gateway.metrics().count("mcp_gateway_ws_closes_total", &[("reason", label)]);
            let so_far = counted();
            if pieces == 1 && bytes.len() < 300 {
                bytes.iter().for_each(|byte| socket.send_bytes(&[*byte]));
            } else {
                socket.send_bytes(bytes);
            }
            let (found, reason) = socket.expect_close();
            assert_eq!(found, *code, "{name}: {reason}");
            assert!(!reason.is_empty(), "{name}");
            assert_eq!(counted(), so_far + 1.0, "{name}");
        }
    }
    assert_eq!(server.requests(), 0);
    let mut socket = log_in(&gateway);
    assert!(socket.ask(&ping(2))["result"].is_object());
    // A message as long as may be.
    let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"ping\"{}}}", " ".repeat(4096 - 40));
    assert_eq!(text.len(), 4096);
    socket.send(TEXT, text.as_bytes());
    assert_eq!(socket.message()["id"], 3);
}

#[test]
fn what_is_no_message_is_answered() {
    let server = simple();
    let gateway = Gateway::start(&before(&server));
    let mut socket = log_in(&gateway);
    for (text, id, code) in [
        ("", json!(null), -32700),
        ("{", json!(null), -32700),
        ("null", json!(null), -32600),
        ("[]", json!(null), -32600),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, json!(null), -32600),
        (r#"{"jsonrpc":"1.0","id":"x","method":"ping"}"#, json!("x"), -32600),
        (r#"{"jsonrpc":"2.0","id":7,"id":8,"method":"ping"}"#, json!(null), -32600),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\"}{}", json!(null), -32700),
    ] {
        socket.send(TEXT, text.as_bytes());
        let answer = socket.message();
        assert_eq!(answer["error"]["code"], code, "{text}: {answer}");
        assert!(answer["id"] == id || id.is_null(), "{text}: {answer}");
    }
    assert!(socket.ask(&ping("after"))["result"].is_object());
}

#[test]
fn many_are_in_flight_and_answers_come_in_any_order() {
    let server = Server::everything();
    let gateway = Gateway::start(&GatewayConfig::new().server("peer", &[&server.url]));
    let mut socket = log_in(&gateway);
    let slow = json!({"name": "trigger-long-running-operation", "arguments": {"duration": 1, "steps": 1}});
    socket.send_json(&request("slow", "tools/call", slow));
    let mut bytes = Vec::new();
    for id in 0..200 {
        bytes.extend_from_slice(&frame(TEXT, ping(id).to_string().as_bytes()));
    }
    socket.send_bytes(&bytes);
    let mut ids = std::collections::HashSet::new();
    while ids.len() < 200 {
        let message = socket.message();
        if let Some(id) = message["id"].as_u64() {
            assert!(ids.insert(id), "twice: {message}");
        } else if message["id"] == "slow" {
            assert!(ids.len() > 60, "the slow one held up the others");
        }
    }
}

#[test]
fn silence_is_probed_and_then_ends() {
    let server = simple();
    let gateway = Gateway::start(&before(&server).set("gateway.server", "read_timeout = \"300ms\""));
    let mut socket = log_in(&gateway);
    for _ in 0..2 {
        assert_eq!(socket.receive().first, PING);
        socket.send(PONG, b"");
    }
    assert_eq!(socket.receive().first, PING);
    assert_eq!(socket.expect_close(), (1001, "the ping was not answered".to_owned()));

    let mut stalled = Socket::open(&gateway, "/ws", &[]);
    stalled.send(0x01, b"{\"jsonrpc\":");
    // Control frames, and fragments without an end, do not move the deadline.
    let (code, reason) = loop {
        let frame = stalled.receive();
        match frame.first {
            PING => {
                stalled.send(PONG, b"");
                stalled.send(0x00, b" ");
            }
            _ => {
                stalled.expect_end();
                let (code, reason) = frame.payload.split_first_chunk::<2>().expect("a code");
                break (u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned());
            }
        }
    };
    assert_eq!((code, reason.as_str()), (1008, "the message did not arrive in time"));
    let metrics = gateway.metrics();
    for (name, reason) in [
        ("mcp_gateway_connections_rejected_total", "idle_timeout"),
        ("mcp_gateway_connections_rejected_total", "read_timeout"),
        ("mcp_gateway_ws_closes_total", "silent"),
        ("mcp_gateway_ws_closes_total", "stalled"),
    ] {
        assert_eq!(metrics.count(name, &[("reason", reason)]), 1.0, "{name} {reason}");
    }
}

#[test]
fn a_socket_without_a_session_is_not_kept_for_ever() {
    let server = simple();
    let gateway = Gateway::start(&before(&server).set("gateway.server", "idle_timeout = \"600ms\""));
    let mut socket = Socket::open(&gateway, "/ws", &[]);
    let mut kept = log_in(&gateway);
    // A ping is no message.
    socket.send(PING, b"");
    assert_eq!(socket.expect_close(), (1001, "nothing was asked for long".to_owned()));
    assert!(kept.ask(&ping(2))["result"].is_object());
    assert_eq!(gateway.metrics().count("mcp_gateway_ws_closes_total", &[("reason", "idle")]), 1.0);
}

#[test]
fn a_client_that_does_not_read_is_bounded_and_then_cut() {
    let server = scripted(|request, stream| {
        let big =
            json!({"jsonrpc": "2.0", "id": request.json()["id"], "result": {"text": "x".repeat(1 << 20)}});
        answer_json(stream, "200 OK", &big)
    });
    let gateway = Gateway::start(&before(&server).set("gateway.server", "write_timeout = \"2s\""));
    let mut socket = log_in(&gateway);
    let mut bytes = Vec::new();
    for id in 0..2000 {
        bytes.extend_from_slice(&frame(TEXT, request(id, "big", json!({})).to_string().as_bytes()));
    }
    socket.send_bytes(&bytes);
    let mut most = 0.0_f64;
    eventually("the connection is cut", LIMIT, || {
        let metrics = gateway.metrics();
        most = most.max(metrics.count("mcp_gateway_buffered_bytes", &[]));
        (metrics.count("mcp_gateway_connections_active", &[("protocol", "ws")]) == 0.0).then_some(())
    });
    // 64 answers in flight at the most.
    assert!(most < 150e6, "{most} bytes were held");
    assert!(server.requests() < 500, "{} requests were sent", server.requests());
    let cut =
        gateway.metrics().count("mcp_gateway_connections_rejected_total", &[("reason", "write_timeout")]);
    assert_eq!(cut, 1.0);
}

#[test]
fn too_much_work_is_refused_before_and_after_the_upgrade() {
    let released = Arc::new(AtomicBool::new(false));
    let may_answer = released.clone();
    let server = scripted(move |request, stream| {
        eventually("the answers are released", LIMIT, || may_answer.load(Ordering::SeqCst).then_some(()));
        answer_json(stream, "200 OK", &json!({"jsonrpc": "2.0", "id": request.json()["id"], "result": {}}))
    });
    let config =
        before(&server).set("gateway.runtime", "shards = 1").set("gateway.overload", "max_in_flight = 2");
    let gateway = Gateway::start(&config);
    let mut socket = log_in(&gateway);
    for id in 0..4 {
        socket.send_json(&request(id, "tools/call", json!({"name": "slow"})));
    }
    let refused = socket.message();
    assert_eq!(refused["error"]["code"], -32000, "{refused}");
    assert_eq!(refused["error"]["data"]["retryable"], true);
    let late = Socket::upgrade(gateway.connect().expect("a connection"), "/ws", &[]).expect("an answer");
    let Err(late) = late else { panic!("upgraded under overload") };
    assert_eq!((late.status, late.header("retry-after").is_some()), (503, true), "{}", late.text());
    released.store(true, Ordering::SeqCst);
    let mut served = 0;
    while served < 2 {
        served += usize::from(socket.message()["result"].is_object());
    }
    assert!(socket.ask(&ping("after"))["result"].is_object());
}

#[test]
fn requests_beyond_the_rate_are_refused_and_the_socket_lives() {
    let server = simple();
    let config = before(&server)
        .set("gateway.rate_limit", "requests_per_second = 1")
        .set("gateway.rate_limit", "burst = 3")
        .set("gateway.runtime", "shards = 1");
    let gateway = Gateway::start(&config);
    let mut socket = log_in(&gateway);
    let answers: Vec<Value> = (0..6).map(|id| socket.ask(&ping(id))).collect();
    let refused = answers.iter().filter(|answer| answer["error"]["message"] == "too many requests").count();
    assert!((3..6).contains(&refused), "{answers:?}");
}

#[test]
fn unfinished_messages_of_all_clients_are_bounded() {
    // 256 MiB for all shards, so for the one here, are less than 32 messages of almost 10 MiB, which come in fragments.
    let server = simple();
    let gateway = Gateway::start(&before(&server).set("gateway.runtime", "shards = 1"));
    let mut sockets: Vec<Socket> = (0..32).map(|_| Socket::open(&gateway, "/ws", &[])).collect();
    let refused = || gateway.metrics().count("mcp_gateway_ws_closes_total", &[("reason", "memory")]);
    let fragment = [b' '; 128 << 10];
    for socket in &mut sockets {
        socket.send(0x01, &fragment);
    }
    for _ in 0..78 {
        if refused() > 0.0 {
            break;
        }
        for socket in &mut sockets {
            // One that was closed in this round may be gone when its turn comes.
            if !socket.is_over() {
                let _ = socket.try_send(0x00, &fragment);
            }
        }
    }
    eventually("some are closed", LIMIT, || (refused() > 0.0).then_some(()));
    let (mut alive, mut told) = (0, 0);
    for socket in &mut sockets {
        // What comes long after the goodbye is answered with a reset, which may take the goodbye along.
        if !socket.is_over() {
            let _ = socket.try_send(PING, b"");
        }
        match socket.try_receive() {
            Ok(frame) if frame.first == PONG => alive += 1,
            Ok(frame) => {
                assert_eq!((frame.first, &frame.payload[..2]), (CLOSE, &b"\x03\xf5"[..]));
                told += 1;
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}")
            }
        }
    }
    assert!((12..32).contains(&alive) && told > 0, "{alive} of 32 are alive, {told} have heard why not");
    drop(sockets);
    let mut socket = log_in(&gateway);
    assert!(socket.ask(&ping(2))["result"].is_object());
}
