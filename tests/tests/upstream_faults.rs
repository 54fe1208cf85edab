//! Setup: the MCP server behind the gateway refuses, hangs, breaks off, or talks nonsense.
//! Claim: the client gets one answer that says so and belongs to its request; what broke off never looks complete.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mcp_system_tests::mcp::{mirrored, modern_call};
use mcp_system_tests::upstream::{After, ScriptedUpstream, answer, answer_json};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, Response, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_server_that_is_not_there_is_a_bad_gateway() {
    let gateway = start("http://127.0.0.1:9/mcp");
    assert_refused(&call(&gateway, 1), 502, 1);
}

#[test]
fn a_server_that_hangs_up_is_a_bad_gateway() {
    for after in [After::Close, After::Reset] {
        let upstream = ScriptedUpstream::modern(move |_, _| after);
        let gateway = start(&upstream.url());
        assert_refused(&call(&gateway, 2), 502, 2);
    }
}

#[test]
fn a_server_that_talks_nonsense_is_a_bad_gateway() {
    for nonsense in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    ] {
        let upstream = ScriptedUpstream::modern(move |_, stream| answer(stream, nonsense, After::Close));
        let gateway = start(&upstream.url());
        assert_refused(&call(&gateway, 3), 502, 3);
    }
}

#[test]
fn a_server_that_is_silent_times_out() {
    let released = Arc::new(AtomicBool::new(false));
    let held = released.clone();
    let upstream = ScriptedUpstream::modern(move |_, _| {
        eventually("the test's end", LIMIT, || held.load(Ordering::SeqCst).then_some(()));
        After::Close
    });
    let config = GatewayConfig::new().server_with("faulty", &[&upstream.url()], "timeout = \"300ms\"");
    let gateway = Gateway::start(&config);
    assert_refused(&call(&gateway, 4), 504, 4);
    released.store(true, Ordering::SeqCst);
}

#[test]
fn a_body_that_breaks_off_is_never_complete() {
    for (head, after) in [
        ("content-type: application/json\r\ncontent-length: 1000\r\n\r\n{\"jsonrpc\":\"2.0\",", After::Close),
        ("content-type: application/json\r\ncontent-length: 1000\r\n\r\n{\"jsonrpc\":\"2.0\",", After::Reset),
        (
            "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n11\r\n{\"jsonrpc\":\"2.0\",\r\n",
            After::Close,
        ),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{head}");
        let upstream = ScriptedUpstream::modern(move |_, stream| answer(stream, &text, after));
        let gateway = start(&upstream.url());
        match try_call(&gateway, 5) {
            Ok(answer) => assert_refused(&answer, 502, 5),
            Err(error) => assert!(is_broken(error.kind()), "{error}"),
        }
    }
}

#[test]
fn a_stream_that_breaks_off_ends_with_an_error() {
    for after in [After::Close, After::Reset] {
        let upstream = ScriptedUpstream::modern(move |_, stream| answer(stream, &begun_stream(""), after));
        let gateway = start(&upstream.url());
        let mut connection = gateway.connect().expect("a connection");
        send_call(&mut connection, 6);
        match connection.into_events() {
            Ok(mut events) => {
                let mut last = Value::Null;
                while let Some(event) = events.next_event().expect("an end in order") {
                    last = serde_json::from_str(&event.data).expect("JSON");
                }
                assert_eq!(last["id"], 6, "{last}");
                assert!(last["error"]["code"].is_i64(), "{last}");
            }
            // A reset may overtake the event; then it is a bad gateway as if nothing had come.
            Err(error) => assert!(after == After::Reset && error.to_string().contains("502"), "{error}"),
        }
    }
}

#[test]
fn a_stream_that_can_be_resumed_ends_without_an_error() {
    let upstream =
        ScriptedUpstream::modern(move |_, stream| answer(stream, &begun_stream("id: 1\n"), After::Close));
    let gateway = start(&upstream.url());
    let mut connection = gateway.connect().expect("a connection");
    send_call(&mut connection, 6);
    let mut events = connection.into_events().expect("a stream");
    let first = events.next_event().expect("an event").expect("an event");
    assert_eq!(first.id.as_deref(), Some("1"));
    // An error would tell the client that there is no use in asking for the rest.
    assert_eq!(events.next_event().ok().flatten(), None);
}

#[test]
fn a_fault_is_not_taken_for_an_earlier_era() {
    let asked = AtomicUsize::new(0);
    let upstream = ScriptedUpstream::start(move |request, stream| {
        // The very first answer breaks off, whatever the gateway asks with it.
        if asked.fetch_add(1, Ordering::SeqCst) == 0 {
            let text = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{";
            return answer(stream, text, After::Close);
        }
        let result = json!({
            "resultType": "complete", "content": [], "tools": [], "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private",
        });
        answer_json(
            stream,
            "200 OK",
            &json!({"jsonrpc": "2.0", "id": request.json()["id"], "result": result}),
        )
    });
    let gateway = Gateway::start(
        &GatewayConfig::new().server("faulty", &[&upstream.url()]).set("gateway.runtime", "shards = 1"),
    );
    match try_call(&gateway, 9) {
        Ok(answer) => assert!(matches!(answer.status, 200 | 502), "{}", answer.text()),
        Err(error) => assert!(is_broken(error.kind()), "{error}"),
    }
    let answer = call(&gateway, 10);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn start(url: &str) -> Gateway {
    Gateway::start(&GatewayConfig::new().server("faulty", &[url]))
}

fn call(gateway: &Gateway, id: u32) -> Response {
    try_call(gateway, id)
        .unwrap_or_else(|error| panic!("{error}; the gateway printed:\n{}", gateway.process.log()))
}

fn try_call(gateway: &Gateway, id: u32) -> std::io::Result<Response> {
    let mut connection = gateway.connect()?;
    send_call(&mut connection, id);
    connection.read_response(false)
}

fn send_call(connection: &mut Connection, id: u32) {
    let call = modern_call(json!(id), "any", json!({}));
    connection.send_post("/mcp/faulty", &mirrored("tools/call", Some("any")), &call).expect("sent");
}

/// An event stream that has begun, with one event that has more `fields`.
fn begun_stream(fields: &str) -> String {
    let event = format!(
        "{fields}data: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{{}}}}\n\n"
    );
    let chunk = format!("{:x}\r\n{event}\r\n", event.len());
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_owned()
        + &chunk
}

fn assert_refused(answer: &Response, status: u16, id: u32) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.json()["id"], id, "{}", answer.text());
    assert!(answer.json()["error"]["code"].is_i64(), "{}", answer.text());
    assert_eq!(answer.json().get("result"), None, "{}", answer.text());
}

fn is_broken(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::ConnectionAborted
    )
}
