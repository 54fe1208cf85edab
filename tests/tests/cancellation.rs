//! Setup: a server that keeps answers and streams open, and clients that go away, or stay until the gateway is to end.
//! Claim: a subscription's acknowledgement and events arrive while it is open; when a client closes the stream of its request,
//! the server sees its own connection closed (2026-07-28, "Cancellation"); other requests are not touched.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mcp_system_tests::fixtures::Fixture;
use mcp_system_tests::http::EventStream;
use mcp_system_tests::mcp::{LEGACY, call, in_session, mirrored, modern, open_session, request};
use mcp_system_tests::upstream::After;
use mcp_system_tests::{Connection, Gateway, GatewayConfig, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

/// What became of the streams that a server opened.
#[derive(Clone, Default)]
struct Streams {
    opened: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
}

#[test]
fn a_subscription_is_cancelled_by_closing_its_stream() {
    let streams = Streams::default();
    let (fixture, gateway) = start(&streams);
    let mut kept = listen(&gateway, "kept");
    for number in 1..=5 {
        let mut events = listen(&gateway, "sub");
        let acknowledged = message(&mut events);
        assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged");
        assert_eq!(acknowledged["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "sub");
        drop(events);
        eventually("the server saw the end", LIMIT, || (streams.closed() == number).then_some(()));
    }
    assert_eq!(message(&mut kept)["method"], "notifications/subscriptions/acknowledged");
    assert_eq!((streams.opened(), streams.closed()), (6, 5), "another subscription was cancelled, too");
    assert!(fixture.seen().iter().all(|request| request.json()["method"] == "subscriptions/listen"));
    drop(kept);
    eventually("the last one ended", LIMIT, || (streams.closed() == 6).then_some(()));
    eventually("nothing is in flight", LIMIT, || {
        (gateway.metrics().value("mcp_gateway_requests_in_flight", &[]) == Some(0.0)).then_some(())
    });
}

#[test]
fn a_call_is_cancelled_by_closing_its_stream() {
    let streams = Streams::default();
    let (_fixture, gateway) = start(&streams);
    // `mute` never begins its answer, `begun` has begun a stream with some progress.
    for (number, tool) in ["mute", "begun", "mute", "begun"].into_iter().enumerate() {
        let message = modern(7, "tools/call", json!({"name": tool, "arguments": {}}));
        let mut connection = gateway.connect().expect("a connection");
        send(&mut connection, "/mcp/fixture", &mirrored("tools/call", Some(tool)), &message);
        if tool == "begun" {
            let mut events = connection.into_events().expect("a stream");
            assert_eq!(self::message(&mut events)["method"], "notifications/progress");
            drop(events);
        } else {
            eventually("the call is with the server", LIMIT, || (streams.opened() > number).then_some(()));
            drop(connection);
        }
        eventually("the server saw the end", LIMIT, || (streams.closed() == number + 1).then_some(()));
    }
    let mut connection = gateway.connect().expect("a connection");
    let answer = call(&mut connection, "/mcp/fixture", "other", json!({})).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_subscription_ends_in_order_when_the_gateway_does() {
    let streams = Streams::default();
    let (_fixture, mut gateway) = start(&streams);
    let mut events = listen(&gateway, "sub");
    assert_eq!(message(&mut events)["method"], "notifications/subscriptions/acknowledged");
    gateway.process.signal(libc::SIGTERM);
    // 2026-07-28, "Graceful Closure": the response to the request is the last thing on the stream.
    let last = message(&mut events);
    assert_eq!(last["id"], "sub", "{last}");
    assert_eq!(last["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "sub", "{last}");
    assert_eq!(events.next_event().expect("an end in order"), None);
    let Gateway { process, .. } = gateway;
    assert_eq!(process.finish(LIMIT).status.code(), Some(0));
    eventually("the server saw the end", LIMIT, || (streams.closed() == 1).then_some(()));
}

#[test]
fn a_session_s_stream_passes_events_and_ends_with_its_client() {
    let streams = Streams::default();
    let held = streams.clone();
    let fixture = Fixture::legacy(move |request, stream| {
        request.is("GET").then(|| {
            let event = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}});
            held.keep_open(stream, Some(&event))
        })
    });
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&fixture.url()]));
    let mut connection = gateway.connect().expect("a connection");
    let session = open_session(&mut connection, "/mcp/fixture", LEGACY);
    let mut headers = in_session(&session, LEGACY).to_vec();
    headers.push(("accept", "text/event-stream"));
    let mut listening = gateway.connect().expect("a connection");
    listening.send_request("GET", "/mcp/fixture", &headers, b"").expect("sent");
    let mut events = listening.into_events().expect("a stream");
    assert_eq!(message(&mut events)["method"], "notifications/message");
    // Calls go on beside the stream.
    let ping = request(3, "ping", json!({}));
    let answer = connection.post("/mcp/fixture", &in_session(&session, LEGACY), &ping).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    drop(events);
    eventually("the server saw the end", LIMIT, || (streams.closed() == 1).then_some(()));
}

/// Streams give their place in the pool back: many of them leave room for calls.
#[test]
fn streams_do_not_starve_calls() {
    let streams = Streams::default();
    let held = streams.clone();
    let fixture = Fixture::modern(json!([]), move |request, stream| held.answer(&request.json(), stream));
    let config = GatewayConfig::new()
        .server("fixture", &[&fixture.url()])
        .set("gateway.connection_pool", "max_size = 2");
    let gateway = Gateway::start(&config);
    let mut open: Vec<EventStream> = (0..20).map(|_| listen(&gateway, "sub")).collect();
    for events in &mut open {
        assert_eq!(message(events)["method"], "notifications/subscriptions/acknowledged");
    }
    for _ in 0..8 {
        let mut connection = gateway.connect().expect("a connection");
        let answer = call(&mut connection, "/mcp/fixture", "other", json!({})).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

impl Streams {
    fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    fn closed(&self) -> usize {
        self.closed.load(Ordering::SeqCst)
    }

    /// Answers subscriptions and the tools `mute` and `begun`.
    fn answer(&self, message: &Value, stream: &mut TcpStream) -> Option<After> {
        let id = &message["id"];
        let event = match (message["method"].as_str(), message["params"]["name"].as_str()) {
            (Some("subscriptions/listen"), _) => {
                let params =
                    json!({"_meta": {"io.modelcontextprotocol/subscriptionId": id}, "notifications": {}});
                let method = "notifications/subscriptions/acknowledged";
                Some(json!({"jsonrpc": "2.0", "method": method, "params": params}))
            }
            (_, Some("begun")) => {
                let params = json!({"progressToken": 1, "progress": 1});
                Some(json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}))
            }
            (_, Some("mute")) => None,
            _ => return None,
        };
        Some(self.keep_open(stream, event.as_ref()))
    }

    /// Sends `event` as the first of a stream, or nothing at all, and waits until the other side closes.
    fn keep_open(&self, stream: &mut TcpStream, event: Option<&Value>) -> After {
        if let Some(event) = event {
            let event = format!("data: {event}\n\n");
            let text = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
                 {:x}\r\n{event}\r\n",
                event.len()
            );
            stream.write_all(text.as_bytes()).expect("taken");
        }
        self.opened.fetch_add(1, Ordering::SeqCst);
        stream.set_read_timeout(Some(LIMIT)).expect("a socket's option");
        if matches!(stream.read(&mut [0; 1]), Ok(0)) {
            self.closed.fetch_add(1, Ordering::SeqCst);
        }
        After::Close
    }
}

fn start(streams: &Streams) -> (Fixture, Gateway) {
    let held = streams.clone();
    let fixture = Fixture::modern(json!([]), move |request, stream| held.answer(&request.json(), stream));
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&fixture.url()]));
    (fixture, gateway)
}

fn listen(gateway: &Gateway, id: &str) -> EventStream {
    let message = modern(id, "subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
    let mut connection = gateway.connect().expect("a connection");
    send(&mut connection, "/mcp/fixture", &mirrored("subscriptions/listen", None), &message);
    connection.into_events().expect("a stream")
}

fn send(connection: &mut Connection, path: &str, headers: &[(&str, &str)], message: &Value) {
    let mut all =
        vec![("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
    all.extend_from_slice(headers);
    connection.send_request("POST", path, &all, message.to_string().as_bytes()).expect("sent");
}

fn message(events: &mut EventStream) -> Value {
    let event = events.next_event().expect("an event").expect("the stream has ended");
    serde_json::from_str(&event.data).expect("JSON")
}
