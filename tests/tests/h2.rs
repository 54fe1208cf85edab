//! Setup: a client of HTTP/2 on the HTTPS port, with fixture servers behind it.
//! Claim: what a request is told does not depend on the version of HTTP; many are answered on one connection at a time,
//! in whatever order their answers come; a connection that did not ask for HTTP/2 gets HTTP/1.1.

use std::time::Duration;

use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::h2::{END_HEADERS, END_STREAM, Frame, H2Connection, Outcome, block, code, kind};
use mcp_system_tests::mcp::{LEGACY, POST_HEADERS, in_session, initialize, mirrored, modern_call, request};
use mcp_system_tests::upstream::{After, answer_json};
use mcp_system_tests::{Gateway, GatewayConfig, Response, eventually, fixtures};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const PAGE: &str = "https://app.example.com";

#[test]
fn both_eras_are_served() {
    let (modern, legacy, gateway) = start("");
    let mut connection = H2Connection::open(&gateway).expect("a connection");
    let answer = call(&mut connection, &[], json!({"text": "é"}));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.json()["result"]["arguments"]["text"], "é");
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    for name in ["connection", "transfer-encoding", "keep-alive"] {
        assert_eq!(answer.header(name), None);
    }
    let seen = &modern.seen()[0];
    // What the client's fields were, the server's are; the framing of each side is its own.
    assert_eq!(seen.header("mcp-method"), Some("tools/call"));
    assert_eq!(seen.header("transfer-encoding"), None);
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));

    let stream = connection.post("/mcp/legacy", &[], &initialize(LEGACY)).expect("sent");
    let opened = connection.answer(stream).expect("an answer");
    let session = opened.header("mcp-session-id").expect("a session").to_owned();
    let headers = in_session(&session, LEGACY);
    let stream = connection.post("/mcp/legacy", &headers, &request(2, "ping", json!({}))).expect("sent");
    assert_eq!(connection.answer(stream).expect("an answer").status, 200);
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let stream = connection.post("/mcp/legacy", &headers, &notification).expect("sent");
    let accepted = connection.answer(stream).expect("an answer");
    assert_eq!((accepted.status, accepted.body.len()), (202, 0));
    // The session is the same by any version of HTTP.
    let mut other = gateway.connect().expect("a connection");
    let answer = other.post("/mcp/legacy", &headers, &request(3, "ping", json!({}))).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let stream = connection.request("DELETE", "/mcp/legacy", &headers, b"").expect("sent");
    assert!((200..300).contains(&connection.answer(stream).expect("an answer").status));
    let stream = connection.post("/mcp/legacy", &headers, &request(4, "ping", json!({}))).expect("sent");
    assert_eq!(connection.answer(stream).expect("an answer").status, 404);
    assert!(legacy.seen().iter().all(|request| request.header("mcp-session-id") != Some(&session)));

    let metrics = gateway.metrics();
    let labels = [("server", "modern"), ("method", "tools/call"), ("status", "200"), ("protocol", "h2")];
    assert_eq!(metrics.count("mcp_gateway_requests_total", &labels), 1.0);
    assert_eq!(metrics.count("mcp_gateway_connections_active", &[("protocol", "h2")]), 1.0);
}

#[test]
fn what_is_refused_is_refused_alike() {
    let (modern, _legacy, gateway) = start("allowed_origins = [\"https://app.example.com\"]");
    let json = [("content-type", "application/json")];
    let both = ("accept", "application/json, text/event-stream");
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [u8], u16);
    let table: &[Case<'_>] = &[
        ("GET", "/health", &[], b"", 200),
        ("HEAD", "/health", &[], b"", 200),
        ("GET", "/ready", &[], b"", 200),
        ("POST", "/health", &[], b"", 405),
        ("GET", "/", &[], b"", 404),
        ("GET", "/mcp/nobody", &[], b"", 404),
        ("PUT", "/mcp/modern", &[], b"{}", 405),
        ("OPTIONS", "/mcp/modern", &[], b"", 204),
        ("OPTIONS", "*", &[], b"", 404),
        ("POST", "/mcp/modern", &[both], b"{}", 415),
        ("POST", "/mcp/modern", &[both, ("content-type", "text/plain")], b"{}", 415),
        ("POST", "/mcp/modern", &[both, json[0], ("content-encoding", "gzip")], b"{}", 415),
        ("POST", "/mcp/modern", &json, b"{}", 406),
        ("POST", "/mcp/modern", &[json[0], ("accept", "application/json")], b"{}", 406),
        ("GET", "/mcp/legacy", &[("accept", "application/json")], b"", 406),
        ("POST", "/mcp/modern", &POST_HEADERS, b"{", 400),
        ("POST", "/mcp/modern", &POST_HEADERS, b"", 400),
        ("POST", "/mcp/modern", &[both, json[0], ("origin", "https://evil.com")], b"{}", 403),
        (
            "GET",
            "/mcp/legacy",
            &[("accept", "text/event-stream"), ("mcp-protocol-version", "2026-07-28")],
            b"",
            405,
        ),
        ("GET", "/mcp/legacy", &[("accept", "text/event-stream")], b"unexpected", 413),
        ("POST", "/mcp/modern", &[both, json[0], ("expect", "the-unexpected")], b"{}", 417),
        ("POST", "/mcp/modern", &[both, json[0], ("host", "other")], b"{}", 400),
        ("POST", "/mcp/modern", &[both, json[0], ("origin", "a"), ("origin", "b")], b"{}", 400),
        ("POST", "/mcp/modern", &[both, json[0], ("content-length", "99999999999")], b"", 413),
    ];
    let mut h2 = H2Connection::open(&gateway).expect("a connection");
    for (method, path, headers, body, status) in table {
        // A length without its body is not finished: the answer comes all the same.
        let unfinished = headers.iter().any(|(name, _)| *name == "content-length");
        let stream = if unfinished {
            let stream = h2.next_stream();
            let fields = block(&h2.fields(method, path, headers));
            h2.send(kind::HEADERS, END_HEADERS, stream, &fields).expect("sent");
            stream
        } else {
            h2.request(method, path, headers, body).expect("sent")
        };
        let told = h2.answer(stream).expect("an answer");
        assert_eq!(told.status, *status, "{method} {path} {headers:?}: {}", told.text());
        if *path == "*" || unfinished {
            continue;
        }
        let mut http1 = gateway.connect().expect("a connection");
        let alike = http1.request(method, path, headers, body).expect("an answer");
        assert_eq!(
            (alike.status, fields(&alike)),
            (told.status, fields(&told)),
            "{method} {path} {headers:?}"
        );
        if !path.starts_with("/health") && *path != "/ready" {
            assert_eq!(alike.text(), told.text(), "{method} {path} {headers:?}");
        }
    }
    assert!(modern.seen().is_empty(), "something that was refused reached the server");
}

#[test]
fn an_allowed_page_is_answered() {
    let (_modern, _legacy, gateway) = start("allowed_origins = [\"https://app.example.com\"]");
    let mut connection = H2Connection::open(&gateway).expect("a connection");
    let answer = call(&mut connection, &[("origin", PAGE)], json!({}));
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some(PAGE)));
    let asked = [("origin", PAGE), ("access-control-request-headers", "mcp-param-x")];
    let stream = connection.request("OPTIONS", "/mcp/modern", &asked, b"").expect("sent");
    let preflight = connection.answer(stream).expect("an answer");
    assert_eq!(
        (preflight.status, preflight.header("access-control-allow-headers")),
        (204, Some("mcp-param-x"))
    );
    assert_eq!(preflight.header("content-length"), None);
}

/// `:authority` is what `Host` is over HTTP/1.1 (DNS rebinding).
#[test]
fn an_authority_of_somebody_else_is_refused() {
    let (modern, _legacy, gateway) = start("");
    let mut connection = H2Connection::open(&gateway).expect("a connection");
    let message = modern_call(1, "echo", json!({})).to_string();
    for (authority, status) in
        [("evil.example.com", 403), ("127.0.0.1:1", 200), ("localhost", 200), ("u@localhost", 400)]
    {
        let mut headers = POST_HEADERS.to_vec();
        headers.extend(mirrored("tools/call", Some("echo")));
        let mut fields = connection.fields("POST", "/mcp/modern", &headers);
        fields[3].1 = authority.to_owned();
        let stream = connection.next_stream();
        let frames = [
            Frame::new(kind::HEADERS, END_HEADERS, stream, &block(&fields)),
            Frame::new(kind::DATA, END_STREAM, stream, message.as_bytes()),
        ];
        connection.send_all(&frames).expect("sent");
        let answer = connection.answer(stream).expect("an answer");
        assert_eq!(answer.status, status, "{authority}: {}", answer.text());
    }
    assert_eq!(modern.seen().len(), 2);
}

#[test]
fn bodies_are_bounded_with_a_length_and_without() {
    let (modern, _legacy, gateway) = start("max_body = \"256KiB\"");
    let mut connection = H2Connection::open(&gateway).expect("a connection");
    let fits = call(&mut connection, &[], json!({"pad": "x".repeat(200 << 10)}));
    assert_eq!(fits.status, 200, "{}", fits.text());
    assert_eq!(fits.json()["result"]["arguments"]["pad"].as_str().map(str::len), Some(200 << 10));

    // What is refused need not be sent to its end: the stream is told so (RFC 9113, section 8.1).
    let stream = connection.request("POST", "/mcp/modern", &POST_HEADERS, &[b' '; 1 << 20]).expect("sent");
    let refused = connection.answer(stream).expect("an answer");
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (413, &json!(-32600)));
    let reset = connection.read_until(|frame| frame.kind == kind::RST_STREAM).expect("a reset");
    assert_eq!((reset.stream, reset.code()), (stream, code::NO_ERROR));
    assert_eq!(call(&mut connection, &[], json!({})).status, 200);
    assert_eq!(modern.seen().len(), 2);
}

#[test]
fn a_body_that_waits_for_leave_gets_it() {
    let (_modern, _legacy, gateway) = start("");
    let mut connection = H2Connection::open(&gateway).expect("a connection");
    let mut headers = POST_HEADERS.to_vec();
    headers.extend(mirrored("tools/call", Some("echo")));
    headers.push(("expect", "100-continue"));
    let stream = connection.next_stream();
    let head = block(&connection.fields("POST", "/mcp/modern", &headers));
    connection.send(kind::HEADERS, END_HEADERS, stream, &head).expect("sent");
    let interim = connection.read_until(|frame| frame.kind == kind::HEADERS).expect("leave");
    assert_eq!((interim.stream, interim.flags & END_STREAM), (stream, 0));
    let message = modern_call(1, "echo", json!({})).to_string();
    connection.send(kind::DATA, END_STREAM, stream, message.as_bytes()).expect("sent");
    assert_eq!(connection.answer(stream).expect("an answer").status, 200);
}

#[test]
fn answers_come_as_they_are_ready() {
    const STREAMS: usize = 100;
    let modern = Fixture::modern(json!([]), |request, stream| {
        let message = request.json();
        let wait = message["params"]["arguments"]["wait_ms"].as_u64()?;
        std::thread::sleep(Duration::from_millis(wait));
        Some(answer_json(stream, "200 OK", &fixtures::response(&message, message["params"].clone())))
    });
    let config = GatewayConfig::new()
        .server("modern", &[&modern.url()])
        .set("gateway.connection_pool", "max_size = 200")
        .set("gateway.runtime", "shards = 1");
    let gateway = Gateway::start(&config);
    let mut connection = H2Connection::open(&gateway).expect("a connection");
    let slow = send_call(&mut connection, "/mcp/modern", &[], json!({"wait_ms": 1500}));
    let others: Vec<u32> =
        (0..STREAMS).map(|n| send_call(&mut connection, "/mcp/modern", &[], json!({"number": n}))).collect();
    let mut before_slow = 0;
    for (number, stream) in others.into_iter().enumerate() {
        let answer = connection.answer(stream).expect("an answer");
        assert_eq!(answer.json()["result"]["arguments"]["number"], number);
        before_slow += usize::from(connection.received(slow) == 0);
    }
    assert_eq!(before_slow, STREAMS, "the slow call held others up");
    assert_eq!(connection.answer(slow).expect("an answer").status, 200);
}

/// More than the limit are refused one by one, and may be sent again (RFC 9113, section 8.7).
#[test]
fn streams_are_bounded() {
    const MAX_STREAMS: usize = 128;
    let modern = Fixture::modern(json!([]), |request, _| {
        (request.json()["params"]["name"] == "mute").then(|| {
            std::thread::sleep(Duration::from_millis(1000));
            After::Close
        })
    });
    let config = GatewayConfig::new()
        .server("modern", &[&modern.url()])
        .set("gateway.connection_pool", "max_size = 200")
        // All of the answers break off.
        .set("gateway.circuit_breaker", "failure_threshold = 10000");
    let gateway = Gateway::start(&config);
    let mut connection = H2Connection::open(&gateway).expect("a connection");
    let settings = connection.read_until(|frame| frame.kind == kind::SETTINGS).expect("settings");
    let told = settings.payload.chunks(6).find(|setting| setting[..2] == [0, 3]).expect("a limit");
    assert_eq!(told[2..], (MAX_STREAMS as u32).to_be_bytes());
    let streams: Vec<u32> = (0..MAX_STREAMS + 2).map(|_| send_mute(&mut connection)).collect();
    for stream in &streams[MAX_STREAMS..] {
        let outcome = connection.outcome(*stream).expect("an outcome");
        assert!(matches!(outcome, Outcome::Reset(code::REFUSED_STREAM)), "{outcome:?}");
    }
    for stream in &streams[..MAX_STREAMS] {
        assert_eq!(connection.answer(*stream).expect("an answer").status, 502);
    }
    assert_eq!(call(&mut connection, &[], json!({})).status, 200);
}

#[test]
fn without_alpn_it_is_http_1() {
    let (_modern, _legacy, gateway) = start("");
    // The plain client offers no protocol at all.
    assert_eq!(gateway.get("/health").expect("an answer").status, 200);
    assert_eq!(gateway.metrics().count("mcp_gateway_connections_total", &[("protocol", "h2")]), 0.0);
    let connection = H2Connection::open(&gateway).expect("a connection");
    drop(connection);
    eventually("its end is counted", LIMIT, || {
        let active = gateway.metrics().count("mcp_gateway_connections_active", &[("protocol", "h2")]);
        (active == 0.0).then_some(())
    });
    assert_eq!(gateway.metrics().count("mcp_gateway_connections_total", &[("protocol", "h2")]), 1.0);
}

fn start(line: &str) -> (Fixture, Fixture, Gateway) {
    let modern = Fixture::modern(json!([]), nothing);
    let legacy = Fixture::legacy(nothing);
    let mut config =
        GatewayConfig::new().server("modern", &[&modern.url()]).server("legacy", &[&legacy.url()]);
    if !line.is_empty() {
        config = config.set("gateway.server", line);
    }
    let gateway = Gateway::start(&config);
    (modern, legacy, gateway)
}

fn call(connection: &mut H2Connection, headers: &[(&str, &str)], arguments: Value) -> Response {
    let stream = send_call(connection, "/mcp/modern", headers, arguments);
    connection.answer(stream).expect("an answer")
}

fn send_call(connection: &mut H2Connection, path: &str, headers: &[(&str, &str)], arguments: Value) -> u32 {
    let mut all = mirrored("tools/call", Some("echo"));
    all.extend_from_slice(headers);
    connection.post(path, &all, &modern_call(1, "echo", arguments)).expect("sent")
}

fn send_mute(connection: &mut H2Connection) -> u32 {
    let headers = mirrored("tools/call", Some("mute"));
    connection.post("/mcp/modern", &headers, &modern_call(1, "mute", json!({}))).expect("sent")
}

/// The fields of an answer that do not belong to the version of HTTP.
fn fields(answer: &Response) -> Vec<(String, String)> {
    let own = ["connection", "transfer-encoding"];
    let mut fields: Vec<_> =
        answer.headers.iter().filter(|(name, _)| !own.contains(&name.as_str())).cloned().collect();
    fields.sort();
    fields
}
