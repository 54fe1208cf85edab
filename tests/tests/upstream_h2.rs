//! Setup: a gateway in front of servers that speak HTTP/2: the `h2` crate's own server without TLS, and another gateway with.
//! Claim: exchanges share a connection, within what the server allows; what a server says that it has not processed goes again
//! and what it may have processed does not; bodies pass as they are; ALPN decides where either HTTP may be spoken.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use h2::Reason;
use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::mcp::{call, mirrored, modern_call};
use mcp_system_tests::upstream_h2::{H2Answer, H2Request, H2Upstream};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, TempDir, TestCert, eventually, tls};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn exchanges_share_a_connection() {
    let server = H2Upstream::modern(100, echo);
    let gateway = start(&server, "");
    std::thread::scope(|scope| {
        let together = Arc::new(Barrier::new(8));
        for _ in 0..8 {
            let (gateway, together) = (&gateway, together.clone());
            scope.spawn(move || {
                let mut connection = gateway.connect().expect("a connection");
                together.wait();
                for number in 0..20 {
                    let answer = call(&mut connection, "/mcp/one", "any", json!({"n": number}));
                    let answer = answer.expect("an answer");
                    assert_eq!(answer.json()["result"]["arguments"]["n"], number, "{}", answer.text());
                }
            });
        }
    });
    assert_eq!(server.connections(), 1);
    let of = |state| [("server", "one"), ("state", state)];
    let count = |state| gateway.metrics().count("mcp_gateway_upstream_pool_connections", &of(state));
    eventually("the connection is idle", LIMIT, || {
        ((count("in_use"), count("idle")) == (0.0, 1.0)).then_some(())
    });
}

#[test]
fn a_request_says_what_it_says_over_http_1() {
    let seen = Arc::new(std::sync::Mutex::new(None));
    let kept = seen.clone();
    let server = H2Upstream::modern(100, move |request| {
        *kept.lock().expect("one at a time") = Some(request.clone());
        echo(request)
    });
    let gateway = start(&server, "");
    let mut connection = gateway.connect().expect("a connection");
    let headers = [&mirrored("tools/call", Some("any"))[..], &[("x-custom", "kept")]].concat();
    let answer = connection.post("/mcp/one", &headers, &modern_call(7, "any", json!({}))).expect("an answer");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let seen = seen.lock().expect("one at a time").take().expect("a request");
    assert_eq!(seen.line, format!("POST {}", server.url()));
    let header = |name| seen.headers.get(name).and_then(|value| value.to_str().ok());
    assert_eq!(header("x-custom"), Some("kept"));
    assert_eq!(header("mcp-method"), Some("tools/call"));
    assert_eq!(header("accept"), Some("application/json, text/event-stream"));
    assert_eq!(header("content-length"), Some(&*seen.body.len().to_string()));
    assert_eq!((header("host"), header("connection")), (None, None));
}

/// Far more than the windows hold, both ways.
#[test]
fn large_bodies_pass_both_ways() {
    let server = H2Upstream::modern(100, echo);
    let gateway = start(&server, "");
    let mut connection = gateway.connect().expect("a connection");
    let text: String = (0..3 << 20).map(|n: u32| char::from(b'a' + (n % 26) as u8)).collect();
    let answer = call(&mut connection, "/mcp/one", "any", json!({"text": text})).expect("an answer");
    assert_eq!(answer.status, 200);
    assert!(answer.json()["result"]["arguments"]["text"] == *text);
}

/// Clients that read nothing of their answers, on the one connection that all share.
#[test]
fn a_slow_reader_keeps_nobody_from_the_connection() {
    let big = "x".repeat(4 << 20);
    let server = H2Upstream::modern(100, move |request| {
        if request.json()["params"]["arguments"]["big"] == true {
            return H2Answer::Pieces("application/json", vec![big.clone().into_bytes()]);
        }
        echo(request)
    });
    let gateway = start(&server, "");
    let slow: Vec<_> = (0..20)
        .map(|_| {
            let mut connection = gateway.connect().expect("a connection");
            let message = modern_call(1, "any", json!({"big": true}));
            connection.send_post("/mcp/one", &mirrored("tools/call", Some("any")), &message).expect("sent");
            connection
        })
        .collect();
    let answered = || {
        let of = [("server", "one"), ("status", "200")];
        gateway.metrics().count("mcp_gateway_upstream_requests_total", &of)
    };
    // Two more are the gateway's own questions.
    eventually("all answers have begun", LIMIT, || (answered() >= 20.0).then_some(()));
    let mut connection = gateway.connect().expect("a connection");
    for _ in 0..50 {
        assert_eq!(status(&mut connection), 200);
    }
    assert_eq!(server.connections(), 1);
    drop(slow);
}

#[test]
fn events_pass_as_they_come() {
    let server = H2Upstream::modern(100, |request| {
        let response = json!({"jsonrpc": "2.0", "id": request.json()["id"], "result": {}});
        let pieces = ["data: {\"jsonrpc\":\"2.0\",\"method\":\"notifi", "cations/x\"}\n\n"].map(Vec::from);
        let last = format!("data: {response}\n\n").into_bytes();
        H2Answer::Pieces("text/event-stream", [&pieces[..], &[last]].concat())
    });
    let gateway = start(&server, "");
    let mut connection = gateway.connect().expect("a connection");
    let answer = call(&mut connection, "/mcp/one", "any", json!({})).expect("an answer");
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let text = answer.text();
    assert!(text.contains("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n"), "{text}");
    assert!(text.contains("\"result\""), "{text}");
}

/// Refused, or begun after a goodbye: nothing was processed, so even a call that must not run twice goes again.
#[test]
fn what_was_not_processed_goes_again() {
    let refused = AtomicUsize::new(0);
    let server = H2Upstream::modern(100, move |request| {
        if refused.fetch_add(1, Ordering::SeqCst) == 0 {
            return H2Answer::Reset(Reason::REFUSED_STREAM);
        }
        echo(request)
    });
    let gateway = start(&server, "");
    let mut connection = gateway.connect().expect("a connection");
    assert_eq!(status(&mut connection), 200);

    let goodbyes = H2Upstream::modern(100, |request| H2Answer::LastOne(response(request)));
    let gateway = start(&goodbyes, "");
    let mut connection = gateway.connect().expect("a connection");
    for _ in 0..5 {
        assert_eq!(status(&mut connection), 200);
    }
    assert!(goodbyes.connections() >= 5, "{}", goodbyes.connections());
}

#[test]
fn what_may_have_been_processed_does_not_go_again() {
    for (answer, code) in [
        (H2Answer::Drop, -32000),
        (H2Answer::Reset(Reason::INTERNAL_ERROR), -32000),
        (H2Answer::Reset(Reason::CANCEL), -32000),
    ] {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let given = answer.clone();
        let server = H2Upstream::modern(100, move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            given.clone()
        });
        let gateway = start(&server, "");
        let mut connection = gateway.connect().expect("a connection");
        let got = call(&mut connection, "/mcp/one", "any", json!({})).expect("an answer");
        assert_eq!((got.status, &got.json()["error"]["code"]), (502, &json!(code)), "{answer:?}");
        assert_eq!(calls.load(Ordering::SeqCst), 1, "{answer:?}");
    }
}

/// A server that always refuses is no reason to ask for ever.
#[test]
fn a_server_that_refuses_everything_is_told_of() {
    let server = H2Upstream::modern(100, |_| H2Answer::Reset(Reason::REFUSED_STREAM));
    let gateway = start(&server, "");
    let mut connection = gateway.connect().expect("a connection");
    assert_eq!(status(&mut connection), 502);
}

/// The other server is a gateway, which lets its clients choose in the handshake.
#[test]
fn alpn_decides_where_either_may_be_spoken() {
    let fixture = Fixture::modern(json!([]), nothing);
    let behind = Gateway::start(&GatewayConfig::new().server("one", &[&fixture.url()]));
    let url = behind.url("one");
    // Over HTTP/1.1 the question for the server's era, asked in the background, may be under way beside the first call.
    for (http, protocol, at_most) in [("auto", "h2", 1.0), ("2", "h2", 1.0), ("1.1", "http1", 2.0)] {
        let lines = format!("http = {http:?}\ntls.ca_file = {:?}", behind.cert.ca_file);
        let before = connections(&behind, protocol);
        let gateway = Gateway::start(&one_shard().server_with("one", &[&url], &lines));
        let mut connection = gateway.connect().expect("a connection");
        for _ in 0..5 {
            assert_eq!(status(&mut connection), 200);
        }
        let connected = connections(&behind, protocol) - before;
        assert!((1.0..=at_most).contains(&connected), "{http}: {connected}");
    }

    // A server that knows HTTP/1.1 only: found out in the handshake.
    let dir = TempDir::new();
    let cert = TestCert::generate(&dir);
    let addr = tls::serve_https(&cert, [127, 0, 0, 1].into(), |_| {
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 36\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}".to_vec()
    });
    let url = format!("https://{addr}/mcp");
    for (http, expected) in [("auto", 200), ("2", 502)] {
        let lines = format!("http = {http:?}\ntls.ca_file = {:?}", cert.ca_file);
        let gateway = Gateway::start(&one_shard().server_with("one", &[&url], &lines));
        let mut connection = gateway.connect().expect("a connection");
        assert_eq!(status(&mut connection), expected, "{http}: {}", gateway.process.log());
    }
}

/// In-flight exchanges end with their answers when the gateway drains, and idle connections do not hold it up.
#[test]
fn an_idle_connection_does_not_hold_a_drain_up() {
    let server = H2Upstream::modern(100, echo);
    let gateway = start(&server, "");
    let mut connection = gateway.connect().expect("a connection");
    assert_eq!(status(&mut connection), 200);
    drop(connection);
    assert!(gateway.stop(Duration::from_secs(15)).success());
}

fn one_shard() -> GatewayConfig {
    // A drain that has to be cut takes longer than any test waits for it.
    GatewayConfig::new().set("gateway.runtime", "shards = 1").set("gateway.server", "drain_timeout = \"60s\"")
}

fn start(server: &H2Upstream, lines: &str) -> Gateway {
    Gateway::start(&one_shard().server_with("one", &[&server.url()], &format!("http = \"2\"\n{lines}")))
}

fn response(request: &H2Request) -> Value {
    let message = request.json();
    json!({"jsonrpc": "2.0", "id": message["id"], "result": message["params"]})
}

fn echo(request: &H2Request) -> H2Answer {
    H2Answer::Json(response(request))
}

fn status(connection: &mut Connection) -> u16 {
    call(connection, "/mcp/one", "any", json!({})).expect("an answer").status
}

fn connections(gateway: &Gateway, protocol: &str) -> f64 {
    gateway.metrics().count("mcp_gateway_connections_total", &[("protocol", protocol)])
}
