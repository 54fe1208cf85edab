//! Setup: a server sends far more than its client reads, as one long event stream; one shard.
//! Claim: the server is held up, the gateway's memory stays as it was, others are served meanwhile, and the client in the end
//! gets every byte in order.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mcp_system_tests::mcp::{mirrored, modern_call};
use mcp_system_tests::upstream::{After, ScriptedUpstream};
use mcp_system_tests::{Gateway, GatewayConfig, held_up_at};
use serde_json::{Value, json};

/// Events that the server sends, and the size of the text in each: 256 MiB in all.
const EVENTS: u64 = 32 * 1024;
const TEXT_BYTES: usize = 8 * 1024;
/// What may be on the way: the kernel's buffers of three sockets (some megabytes each) and the gateway's own.
const MAX_ON_THE_WAY: u64 = 32 * 1024 * 1024;
/// What the gateway's memory may grow by, with the noise of its allocator.
const MAX_GROWTH: u64 = 24 * 1024 * 1024;
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn a_client_that_does_not_read_holds_up_its_server_only() {
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let upstream = ScriptedUpstream::modern(move |request, stream| {
        let text = "x".repeat(TEXT_BYTES);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        let mut written = stream.write_all(head.as_bytes());
        for n in 0..EVENTS {
            let params = json!({"progressToken": 1, "progress": n, "message": text});
            let event = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params});
            written = written.and_then(|()| stream.write_all(format!("data: {event}\n\n").as_bytes()));
            counter.fetch_add(TEXT_BYTES as u64, Ordering::SeqCst);
        }
        let last =
            json!({"jsonrpc": "2.0", "id": request.json()["id"], "result": {"resultType": "complete"}});
        written = written.and_then(|()| stream.write_all(format!("data: {last}\n\n").as_bytes()));
        assert!(written.is_ok(), "{written:?}");
        After::Close
    });
    let config = GatewayConfig::new()
        .server("flood", &[&upstream.url()])
        .set("gateway.runtime", "shards = 1")
        .set("gateway.server", "write_timeout = \"5m\"");
    let gateway = Gateway::start(&config);
    let before = gateway.process.resident_bytes();

    let mut connection = gateway.connect().expect("a connection");
    let call = modern_call(json!(1), "any", json!({}));
    connection.send_post("/mcp/flood", &mirrored("tools/call", Some("any")), &call).expect("sent");
    let held_up_at = held_up_at(LIMIT, || sent.load(Ordering::SeqCst));
    assert!(held_up_at < MAX_ON_THE_WAY, "{held_up_at} bytes were taken");
    let grown = gateway.process.resident_bytes().saturating_sub(before);
    assert!(grown < MAX_GROWTH, "{grown} bytes were kept");
    assert_eq!(gateway.get("/health").expect("others are served").status, 200);

    let mut events = connection.into_events().expect("a stream");
    let mut next = 0;
    let answer = loop {
        let event = events.next_event().expect("whole events").expect("the answer comes before the end");
        let message: Value = serde_json::from_str(&event.data).expect("JSON");
        if message.get("result").is_some() {
            break message;
        }
        assert_eq!(message["params"]["progress"], next);
        assert_eq!(message["params"]["message"].as_str().map(str::len), Some(TEXT_BYTES));
        next += 1;
    };
    assert_eq!((next, &answer["id"]), (EVENTS, &json!(1)));
    assert_eq!(events.next_event().expect("an end in order"), None);
}
