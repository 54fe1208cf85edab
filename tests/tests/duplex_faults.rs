//! Setup: scripted servers that are reached by WebSocket or by HTTP with SSE, legacy ones; each tool of theirs is a fault.
//! Claim: whatever a server does to its channel, each request in flight is answered, the session ends, and the client can
//! open another; what is wrong with one message alone costs no more than that; credentials and messages go to no other
//! origin, and a client's credential to no channel that others share.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use mcp_system_tests::fixtures::response;
use mcp_system_tests::mcp::{LEGACY, call, in_session, initialize, open_session, post_in_session, request};
use mcp_system_tests::upstream::{After, ScriptedUpstream, UpstreamRequest, answer, answer_json};
use mcp_system_tests::ws::{BINARY, CLOSE, PING};
use mcp_system_tests::ws_server::ServerSocket;
use mcp_system_tests::{Connection, Gateway, GatewayConfig, Response, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const PATH: &str = "/mcp/fixture";
/// `max_body` of the gateways here, and what is too long for it.
const MAX_BODY: usize = 4 << 10;
const LONG: usize = 8 << 10;
const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";

/// What servers were told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[test]
fn a_websocket_that_breaks_ends_its_session_and_no_more() {
    let told = Told::default();
    let own = told.clone();
    let server = ScriptedUpstream::start(move |request, stream| serve_socket(&own, request, stream));
    let gateway = start("websocket", &server.url().replace("http:", "ws:"));
    for (tool, reason) in [
        ("close", "upstream_closed"),
        ("end", "upstream_closed"),
        ("reset", "upstream_closed"),
        ("masked", "upstream_malformed"),
        ("binary", "upstream_malformed"),
        ("not UTF-8", "upstream_malformed"),
        ("long", "upstream_malformed"),
    ] {
        breaks(&gateway, tool, reason);
    }
    let session = open_session(&mut connect(&gateway), PATH, LEGACY);
    for tool in ["echo", "fragments", "no message"] {
        let answer = call_tool(&gateway, &session, tool);
        assert_eq!((answer.status, &answer.json()["result"]), (200, &json!({"did": tool})), "{tool}");
    }
    let ended =
        connect(&gateway).request("DELETE", PATH, &in_session(&session, LEGACY), b"").expect("an answer");
    assert_eq!(ended.status, 200, "{}", ended.text());
    eventually("the server hears the goodbye", LIMIT, || {
        told.all().contains(&"goodbye 1000".to_owned()).then_some(())
    });
}

#[test]
fn a_websocket_that_is_refused_is_a_server_that_cannot_be_reached() {
    for (head, status, reason) in [
        ("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", 502, "upstream_connect"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", 502, "upstream_connect"),
        ("HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: AAAA\r\n\r\n", 502, "upstream_malformed"),
        ("SSH-2.0-OpenSSH\r\n\r\n", 502, "upstream_malformed"),
        ("", 502, "upstream_connect"),
    ] {
        let server = ScriptedUpstream::start(move |_, stream| answer(stream, head, After::Close));
        let gateway = start("websocket", &server.url().replace("http:", "ws:"));
        refused(&gateway, status, reason, head);
    }
}

#[test]
fn credentials_go_with_their_session_and_on_no_shared_channel() {
    let told = Told::default();
    let own = told.clone();
    let server = ScriptedUpstream::start(move |request, stream| serve_socket(&own, request, stream));
    let gateway = start("websocket", &server.url().replace("http:", "ws:"));
    let headers = [("authorization", "Bearer a-secret")];
    let opened = connect(&gateway).post(PATH, &headers, &initialize(LEGACY)).expect("an answer");
    assert_eq!(opened.status, 200, "{}", opened.text());
    let offered = told.all();
    assert_eq!(offered, ["socket mcp Bearer a-secret"]);
    // Of the modern era, and so on the channel that all share.
    for _ in 0..2 {
        let mut connection = connect(&gateway);
        let answer = call(&mut connection, PATH, "echo", json!({})).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(told.all()[1..], ["socket mcp -"]);
}

#[test]
fn a_stream_that_breaks_ends_its_session_and_no_more() {
    let server = SseServer::start("/message?stream=");
    let gateway = start("sse", &server.url());
    for (tool, reason) in
        [("close", "upstream_closed"), ("gone", "upstream_closed"), ("long", "upstream_malformed")]
    {
        breaks(&gateway, tool, reason);
    }
    let session = open_session(&mut connect(&gateway), PATH, LEGACY);
    for tool in ["echo", "no message", "other event", "late"] {
        let answer = call_tool(&gateway, &session, tool);
        assert_eq!((answer.status, &answer.json()["result"]), (200, &json!({"did": tool})), "{tool}");
    }
    // What the server did not take is answered, and the session goes on.
    let answer = call_tool(&gateway, &session, "refuse");
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (200, &json!(-32000)), "{}", answer.text());
    assert!(answer.text().contains("status 418"), "{}", answer.text());
    // A POST that the server holds holds up no other.
    let mut waiting = connect(&gateway);
    let message = request(7, "tools/call", json!({"name": "hold", "arguments": {}}));
    waiting.send_post(PATH, &in_session(&session, LEGACY), &message).expect("sent");
    eventually("the server holds it", LIMIT, || server.holds().then_some(()));
    assert_eq!(call_tool(&gateway, &session, "release").status, 200);
    let answer = waiting.read_response(false).expect("an answer");
    assert_eq!(
        (answer.status, &answer.json()["result"]),
        (200, &json!({"did": "hold"})),
        "{}",
        answer.text()
    );
}

#[test]
fn a_stream_that_does_not_begin_is_a_server_that_cannot_be_reached() {
    let sse = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let endpoint = |uri: &str| format!("{sse}event: endpoint\ndata: {uri}\n\n");
    for (head, reason) in [
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(), "upstream_connect"),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
            "upstream_connect",
        ),
        (sse.to_owned(), "upstream_closed"),
        (format!("{sse}data: {{}}\n\n"), "upstream_connect"),
        (format!("{sse}data: {}\n\n", "x".repeat(LONG)), "upstream_malformed"),
        (endpoint("http://127.0.0.2/message"), "upstream_malformed"),
        (endpoint("//127.0.0.1:1/message"), "upstream_malformed"),
        (endpoint("ftp:message"), "upstream_malformed"),
    ] {
        let told = Told::default();
        let (own, said) = (told.clone(), head.clone());
        let server = ScriptedUpstream::start(move |request, stream| {
            own.note(request.head[0].split(' ').next().unwrap_or_default());
            answer(stream, &said, After::Close)
        });
        let gateway = start("sse", &server.url());
        refused(&gateway, 502, reason, &head);
        assert!(told.all().iter().all(|method| method == "GET"), "{head}: {:?}", told.all());
    }
}

/// A server whose stream and POSTs come by connections of their own.
#[derive(Clone)]
struct SseServer {
    upstream: Arc<ScriptedUpstream>,
    held: Arc<(Mutex<Held>, Condvar)>,
}

#[derive(Default)]
struct Held {
    streams: HashMap<String, TcpStream>,
    holds: bool,
    released: bool,
}

impl SseServer {
    fn start(target: &'static str) -> Self {
        let held = Arc::<(Mutex<Held>, Condvar)>::default();
        let own = held.clone();
        let upstream = ScriptedUpstream::start(move |request, stream| {
            if request.head[0].starts_with("GET ") {
                open_stream(&own.0, target, stream)
            } else {
                take_message(&own, request, stream)
            }
        });
        Self { upstream: Arc::new(upstream), held }
    }

    fn url(&self) -> String {
        self.upstream.url()
    }

    fn holds(&self) -> bool {
        self.held.0.lock().unwrap_or_else(PoisonError::into_inner).holds
    }
}

fn open_stream(held: &Mutex<Held>, target: &str, stream: &mut TcpStream) -> After {
    let name = {
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("s{}", held.streams.len());
        held.streams.insert(name.clone(), stream.try_clone().expect("a descriptor"));
        name
    };
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n: hello\n\n";
    let begun = answer(stream, &format!("{head}event: endpoint\ndata: {target}{name}\n\n"), After::Close);
    // Until either side closes it.
    let _ = stream.read(&mut [0; 1]);
    begun
}

fn take_message(held: &(Mutex<Held>, Condvar), request: &UpstreamRequest, posting: &mut TcpStream) -> After {
    let name = request.head[0].split(['=', ' ']).nth(2).unwrap_or_default();
    let find = || {
        let held = held.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.streams.get(name).map(|stream| stream.try_clone().expect("a descriptor"))
    };
    let Some(mut stream) = find() else {
        return answer(posting, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", After::KeepOpen);
    };
    let message = request.json();
    let Some(said) = answer_to(&message) else { return answer(posting, ACCEPTED, After::KeepOpen) };
    let mut say = |text: &str| stream.write_all(text.as_bytes());
    let event = format!("event: message\ndata: {said}\n\n");
    let tool = message["params"]["name"].as_str().unwrap_or_default();
    let outcome = match tool {
        "close" => {
            answer(posting, ACCEPTED, After::KeepOpen);
            return match stream.shutdown(std::net::Shutdown::Both) {
                Ok(()) => After::KeepOpen,
                Err(_) => After::Close,
            };
        }
        "gone" => {
            return answer(posting, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", After::KeepOpen);
        }
        "refuse" => {
            let body = json!({"error": "no"});
            return answer_json(posting, "418 I'm a teapot", &body);
        }
        "long" => say(&format!("data: {}\n\n", "x".repeat(LONG))),
        "no message" => say(&format!("data: {{broken\n\n{event}")),
        "other event" => say(&format!("event: other\ndata: {said}\n\n: a comment\n\n{event}")),
        "late" => {
            let outcome = say(&event);
            // The answer is known before the POST's is.
            return if outcome.is_ok() { answer(posting, ACCEPTED, After::KeepOpen) } else { After::Close };
        }
        "hold" => {
            let mut state = held.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.holds = true;
            let (_state, timeout) = held
                .1
                .wait_timeout_while(state, LIMIT, |state| !state.released)
                .unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() { Ok(()) } else { say(&event) }
        }
        "release" => {
            held.0.lock().unwrap_or_else(PoisonError::into_inner).released = true;
            held.1.notify_all();
            say(&event)
        }
        _ => say(&event),
    };
    if outcome.is_ok() { answer(posting, ACCEPTED, After::KeepOpen) } else { After::Close }
}

/// Serves one socket: a legacy server, and a modern one as far as `server/discover` and tools go.
fn serve_socket(told: &Told, request: &UpstreamRequest, stream: &mut TcpStream) -> After {
    let offered = request.header("sec-websocket-protocol").unwrap_or("-");
    let credential = request.header("authorization").unwrap_or("-");
    told.note(format!("socket {offered} {credential}"));
    let Some(mut socket) = ServerSocket::accept(request, stream) else { return After::Close };
    loop {
        let message = match socket.receive() {
            Some(Ok(message)) => message,
            Some(Err(goodbye)) => {
                let code = goodbye.first_chunk().map(|code| u16::from_be_bytes(*code));
                told.note(format!("goodbye {}", code.unwrap_or_default()));
                return After::Close;
            }
            None => return After::Close,
        };
        let Some(said) = answer_to(&message) else { continue };
        let text = said.to_string();
        let sent = match message["params"]["name"].as_str().unwrap_or_default() {
            "close" => socket.send(CLOSE, b"\x03\xf3"),
            "end" => return After::Close,
            "reset" => return After::Reset,
            "masked" => socket.send_bytes(b"\x81\x82abcd{}"),
            "binary" => socket.send(BINARY, text.as_bytes()),
            "not UTF-8" => socket.send_bytes(b"\x81\x02\xff\xff"),
            "long" => socket.send(0x81, "x".repeat(LONG).as_bytes()),
            "no message" => socket.send(0x81, b"hello").and_then(|()| socket.send_json(&said)),
            "fragments" => {
                let (first, rest) = text.as_bytes().split_at(5);
                socket
                    .send(0x01, first)
                    .and_then(|()| socket.send(PING, b"there?"))
                    .and_then(|()| socket.send(0x00, b""))
                    .and_then(|()| socket.send(0x80, rest))
            }
            _ => socket.send_json(&said),
        };
        if sent.is_none() {
            return After::Close;
        }
    }
}

/// The response to a message that wants one.
fn answer_to(message: &Value) -> Option<Value> {
    message.get("id")?;
    let result = match message["method"].as_str()? {
        "initialize" => json!({
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "fixture", "version": "1.0.0"},
        }),
        "server/discover" => json!({
            "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
            "ttlMs": 0, "cacheScope": "private",
        }),
        "tools/list" => json!({"resultType": "complete", "tools": [], "ttlMs": 0, "cacheScope": "private"}),
        _ => json!({"did": message["params"]["name"]}),
    };
    Some(response(message, result))
}

/// A call that breaks its channel is answered, its session ends, and another can be opened.
fn breaks(gateway: &Gateway, tool: &str, reason: &str) {
    let session = open_session(&mut connect(gateway), PATH, LEGACY);
    let before = errors(gateway, reason);
    let answer = call_tool(gateway, &session, tool);
    assert_eq!(
        (answer.status, &answer.json()["error"]["code"]),
        (502, &json!(-32000)),
        "{tool}: {}",
        answer.text()
    );
    assert_eq!(answer.json()["id"], 7, "{tool}");
    assert_eq!(errors(gateway, reason), before + 1.0, "{tool}");
    let answer = call_tool(gateway, &session, "echo");
    assert_eq!(answer.status, 404, "{tool}: {}", answer.text());
    let session = open_session(&mut connect(gateway), PATH, LEGACY);
    assert_eq!(call_tool(gateway, &session, "echo").status, 200, "{tool}");
}

fn refused(gateway: &Gateway, status: u16, reason: &str, what: &str) {
    let answer = connect(gateway).post(PATH, &[], &initialize(LEGACY)).expect("an answer");
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    assert_eq!(errors(gateway, reason), 1.0, "{what}: {}", answer.text());
}

fn errors(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metrics().count("mcp_gateway_routing_errors_total", &[("reason", reason)])
}

/// One shard: whichever a connection comes to, the channel is there.
fn start(transport: &str, url: &str) -> Gateway {
    let config = GatewayConfig::new()
        .set("gateway.runtime", "shards = 1")
        .set("gateway.server", &format!("max_body = {MAX_BODY}"))
        .set("gateway.circuit_breaker", "failure_threshold = 1000");
    Gateway::start(&config.server_over("fixture", transport, &[url], ""))
}

fn connect(gateway: &Gateway) -> Connection {
    gateway.connect().expect("a connection")
}

fn call_tool(gateway: &Gateway, session: &str, tool: &str) -> Response {
    let message = request(7, "tools/call", json!({"name": tool, "arguments": {}}));
    post_in_session(&mut connect(gateway), PATH, session, &message).expect("an answer")
}
