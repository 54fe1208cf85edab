//! Setup: 12,000 generated messages with all that JSON allows (unknown fields, any number format, escapes, key order, white space,
//! long strings), 10,000 of them over HTTP/1.1 in both eras and the others over WebSocket and MCPB, through a server that answers
//! with what it was sent; and event streams that arrive in random pieces.
//! Claim: messages pass byte for byte both ways, however they are framed; an event is with the client before the next is sent.

use std::cell::RefCell;
use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mcp_system_tests::fixtures::{Fixture, response};
use mcp_system_tests::generate::{Random, Style};
use mcp_system_tests::mcp::{LEGACY, in_session, initialize, mirrored, modern};
use mcp_system_tests::mcpb::{Frames, REQUEST};
use mcp_system_tests::port::free_port;
use mcp_system_tests::upstream::{After, UpstreamRequest};
use mcp_system_tests::ws::{Socket, TEXT};
use mcp_system_tests::{Connection, Gateway, GatewayConfig};
use serde_json::json;

/// Messages of the modern era, of the legacy era, and over each door of frames.
const MODERN_MESSAGES: u32 = 7000;
const LEGACY_MESSAGES: u32 = 3000;
const FRAMED_MESSAGES: u32 = 1000;
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn messages_pass_byte_for_byte() {
    let mut random = Random::seeded();
    let last = Arc::new(Mutex::new(Vec::new()));
    let seen = last.clone();
    let fixture = Fixture::modern(json!([]), move |request, stream| {
        let own = request.json()["id"].as_str().is_some_and(|id| id.starts_with("mcp-gateway-"));
        (!own).then(|| {
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = request.body.clone();
            answer_with_request(request, stream)
        })
    });
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&fixture.url()]));
    let mut connection = gateway.connect().expect("a connection");
    for number in 0..MODERN_MESSAGES {
        let style = Style::any(&mut random);
        let id = random.id();
        let method = ["tools/call", "prompts/list", "x/unknown"][random.below(3)];
        let body = random.modern_request(&style, &id, method).into_bytes();
        send(
            &mut connection,
            &gateway,
            &mirrored(method, (method == "tools/call").then_some("any")),
            &body,
            &mut random,
        );
        let answer = connection.read_response(false).expect("an answer");
        let shown = || format!("message {number}: {}", String::from_utf8_lossy(&body));
        assert_eq!(answer.status, 200, "{}: {}", shown(), answer.text());
        let arrived = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert!(arrived == body, "{} arrived as {}", shown(), String::from_utf8_lossy(&arrived));
        let expected = if is_events(&body) { events_of(&body) } else { json_of(&body) };
        assert!(answer.body == expected, "{} was answered with {}", shown(), answer.text());
    }
}

#[test]
fn messages_of_a_session_pass_byte_for_byte() {
    let mut random = Random::seeded();
    let fixture = Fixture::legacy(|request, stream| {
        (request.header("mcp-session-id").is_some() && request.is("POST"))
            .then(|| answer_with_request(request, stream))
    });
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&fixture.url()]));
    let mut connection = gateway.connect().expect("a connection");
    let opened = connection.post("/mcp/fixture", &[], &initialize(LEGACY)).expect("an answer");
    let session = opened.header("mcp-session-id").expect("a session").to_owned();
    for number in 0..LEGACY_MESSAGES {
        let style = Style::any(&mut random);
        let id = random.id();
        let body =
            random.request(&style, &id, "resources/read", &random.clone().object(&style, 0)).into_bytes();
        send(&mut connection, &gateway, &in_session(&session, LEGACY), &body, &mut random);
        let answer = connection.read_response(false).expect("an answer");
        let expected = if is_events(&body) { events_of(&body) } else { json_of(&body) };
        assert!(answer.body == expected, "message {number}: {}", String::from_utf8_lossy(&body));
    }
    let bodies = fixture.seen().len();
    assert_eq!(bodies, 1 + LEGACY_MESSAGES as usize);
}

#[test]
fn messages_over_a_socket_pass_byte_for_byte() {
    let (gateway, _fixture, said) = for_frames(GatewayConfig::new());
    let socket = RefCell::new(Socket::open(&gateway, "/ws/fixture", &[]));
    frames_pass(
        &said,
        |message| socket.borrow_mut().send(TEXT, message),
        || {
            let frame = socket.borrow_mut().receive();
            assert_eq!(frame.first, TEXT);
            frame.payload
        },
    );
}

#[test]
fn messages_over_mcpb_pass_byte_for_byte() {
    let port = free_port();
    let (gateway, _fixture, said) = for_frames(GatewayConfig::new().binary_port(port));
    let frames = RefCell::new(Frames::open(&gateway, port).expect("a connection"));
    frames_pass(
        &said,
        |message| frames.borrow_mut().send(REQUEST, message).expect("sent"),
        || frames.borrow_mut().receive().expect("a frame").1,
    );
}

/// What a server of the tests for frames was sent last, and what it has to answer.
#[derive(Default)]
struct Said {
    request: Vec<u8>,
    answer: Vec<Vec<u8>>,
}

/// A gateway with a server that says what it is told to, one message as JSON and several as events.
fn for_frames(config: GatewayConfig) -> (Gateway, Fixture, Arc<Mutex<Said>>) {
    let said = Arc::new(Mutex::new(Said::default()));
    let shared = said.clone();
    let fixture = Fixture::modern(json!([]), move |request, stream| {
        let own = request.json()["id"].as_str().is_some_and(|id| id.starts_with("mcp-gateway-"));
        (!own).then(|| {
            let mut said = shared.lock().unwrap_or_else(PoisonError::into_inner);
            said.request.clone_from(&request.body);
            if let [message] = &said.answer[..] {
                answer_whole(message, stream);
            } else {
                let event = |message: &Vec<u8>| [b"data: ", &message[..], b"\n\n"].concat();
                answer_events(&said.answer.iter().flat_map(event).collect::<Vec<u8>>(), stream);
            }
            After::KeepOpen
        })
    });
    let gateway = Gateway::start(&config.server("fixture", &[&fixture.url()]));
    (gateway, fixture, said)
}

/// Sends messages one after another; each has to arrive as it was sent, and its answers as the server said them.
fn frames_pass(said: &Mutex<Said>, send: impl Fn(&[u8]), receive: impl Fn() -> Vec<u8>) {
    let said = || said.lock().unwrap_or_else(PoisonError::into_inner);
    let mut random = Random::seeded();
    for number in 0..FRAMED_MESSAGES {
        let style = Style::any(&mut random);
        let id = random.id();
        let method = ["tools/call", "prompts/list", "x/unknown"][random.below(3)];
        let message = random.modern_request(&style, &id, method);
        let response = format!(" {{\"result\" : {message}\t,\"jsonrpc\":\"2.0\" ,\"id\": {id}}}\t");
        let note = format!("{{\"params\":{message},\"method\":\"n\",\"jsonrpc\": \"2.0\"}}");
        let answer: Vec<Vec<u8>> = if message.contains(['\r', '\n']) || random.below(2) == 0 {
            vec![response.into_bytes()]
        } else {
            // An event's first space belongs to the event.
            vec![note.into_bytes(), response.into_bytes()]
        };
        said().answer.clone_from(&answer);
        send(message.as_bytes());
        for expected in answer {
            let arrived = receive();
            assert!(
                arrived == expected,
                "message {number}: {} arrived as {}",
                String::from_utf8_lossy(&expected),
                String::from_utf8_lossy(&arrived)
            );
        }
        assert!(said().request == message.as_bytes(), "message {number} arrived as another: {message}");
    }
}

#[test]
fn events_pass_the_moment_they_are_complete() {
    const EVENTS: usize = 300;
    let (go, gone): (SyncSender<()>, Receiver<()>) = sync_channel(1);
    let gone = Mutex::new(gone);
    let mut random = Random::seeded();
    let events: Vec<String> = (0..EVENTS).map(|number| random.event(number)).collect();
    let (sent, seed) = (events.clone(), random.clone());
    let fixture = Fixture::modern(json!([]), move |request, stream| {
        let message = request.json();
        (message["method"] == "tools/call").then(|| {
            let mut random = seed.clone();
            let gone = gone.lock().unwrap_or_else(PoisonError::into_inner);
            write(
                stream,
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            );
            for event in &sent {
                // In pieces of any size, each a chunk and a packet of its own; and then nothing until the client has it.
                for piece in random.split(event.as_bytes()) {
                    chunk(stream, piece);
                }
                gone.recv_timeout(LIMIT).expect("the client did not get an event before the next was due");
            }
            chunk(stream, format!("data: {}\n\n", response(&message, json!({}))).as_bytes());
            write(stream, b"0\r\n\r\n");
            After::KeepOpen
        })
    });
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&fixture.url()]));
    let mut connection = gateway.connect().expect("a connection");
    let message = modern(1, "tools/call", json!({"name": "any", "arguments": {}})).to_string();
    send(&mut connection, &gateway, &mirrored("tools/call", Some("any")), message.as_bytes(), &mut random);
    let (status, mut body) = connection.into_body().expect("an answer");
    assert_eq!(status, 200);
    let mut received = Vec::new();
    for event in &events {
        while received.len() < event.len() {
            received.extend(body.next_part().expect("a part of the stream").expect("more of the stream"));
        }
        // Not a byte of the next: it was not sent yet.
        assert_eq!(String::from_utf8_lossy(&received), *event);
        received.clear();
        go.send(()).expect("the server waits for it");
    }
    while let Some(part) = body.next_part().expect("a part of the stream") {
        received.extend(part);
    }
    assert_eq!(received, format!("data: {}\n\n", response(&json!({"id": 1}), json!({}))).into_bytes());
}

/// Answers with the request's own bytes inside, as one JSON body or as events; the request's bytes decide which.
fn answer_with_request(request: &UpstreamRequest, stream: &mut TcpStream) -> After {
    let body = &request.body;
    if is_events(body) {
        answer_events(&events_of(body), stream)
    } else {
        answer_whole(&json_of(body), stream)
    }
    After::KeepOpen
}

/// Answers with events, in two chunks that part one of them.
fn answer_events(whole: &[u8], stream: &mut TcpStream) {
    let (first, second) = whole.split_at(whole.len() / 3);
    write(
        stream,
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    chunk(stream, first);
    chunk(stream, second);
    write(stream, b"0\r\n\r\n");
}

/// Answers with one JSON body.
fn answer_whole(whole: &[u8], stream: &mut TcpStream) {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        whole.len()
    );
    write(stream, &[head.as_bytes(), whole].concat());
}

fn is_events(body: &[u8]) -> bool {
    body.len().is_multiple_of(3) && !body.contains(&b'\n') && !body.contains(&b'\r')
}

fn json_of(body: &[u8]) -> Vec<u8> {
    [b" {\"result\" : ", body, b"\r\n,\"jsonrpc\":\"2.0\" ,\"id\": 0e0}\t"].concat()
}

fn events_of(body: &[u8]) -> Vec<u8> {
    let notification =
        [b": \xc3\xa4\r\n\r\nid: 7\r\ndata: {\"method\":\"n\",\"params\":", body, b"}\r\n\r\n"].concat();
    let last = [b"event:message\ndata:{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":", body, b"}\n\n"].concat();
    [notification, last].concat()
}

/// Posts a body with a length or in chunks, in one piece or in several.
fn send(
    connection: &mut Connection,
    gateway: &Gateway,
    headers: &[(&str, &str)],
    body: &[u8],
    random: &mut Random,
) {
    let mut head = format!(
        "POST /mcp/fixture HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\n",
        gateway.addr
    );
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let mut bytes = head.into_bytes();
    if random.below(2) == 0 {
        bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(body);
    } else {
        bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
        for piece in random.split(body) {
            bytes.extend_from_slice(format!("{:X};x=y\r\n", piece.len()).as_bytes());
            bytes.extend_from_slice(piece);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\nTrailer-Field: x\r\n\r\n");
    }
    if random.below(4) == 0 {
        for piece in random.split(&bytes) {
            connection.send(piece).expect("sent");
        }
    } else {
        connection.send(&bytes).expect("sent");
    }
}

fn chunk(stream: &mut TcpStream, data: &[u8]) {
    let mut bytes = format!("{:x}\r\n", data.len()).into_bytes();
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(b"\r\n");
    write(stream, &bytes);
}

fn write(stream: &mut TcpStream, bytes: &[u8]) {
    stream.set_nodelay(true).expect("a socket's option");
    stream.write_all(bytes).expect("the gateway takes it");
}
