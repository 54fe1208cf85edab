//! Setup: clients of either era in front of one shard and a scripted server that says how long its lists may be kept.
//! Claim: a list is asked for once while it may be kept, by concurrent clients too; what is private stays with whoever proves
//! himself in the same way; a change that is told on any stream ends it; older servers' lists are kept as the configuration says;
//! what is kept are the server's bytes.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mcp_system_tests::fixtures::{Fixture, Override};
use mcp_system_tests::mcp::{LEGACY, in_session, mirrored, modern, open_session, request};
use mcp_system_tests::upstream::{After, UpstreamRequest, answer};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(20);
/// What no reader of JSON would write again in the same way.
const ITEMS: &str = r#"[ {"name":"\u0065cho","x":1.50e0} ]"#;

/// Answers lists with these hints, and counts them; a listener is told of a change at once.
fn keeps(hints: &'static str, pause: Duration, asked: &Arc<AtomicUsize>) -> impl Override {
    let asked = asked.clone();
    move |request: &UpstreamRequest, stream: &mut TcpStream| {
        let message = request.json();
        let id = &message["id"];
        if message["method"] == "subscriptions/listen" {
            let meta = json!({"io.modelcontextprotocol/subscriptionId": id});
            let acknowledged = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
                "params": {"_meta": meta, "notifications": {"toolsListChanged": true}}});
            let changed = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed",
                "params": {"_meta": meta}});
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
            let text = format!("{head}data: {acknowledged}\n\ndata: {changed}\n\n");
            let _ = stream.write_all(text.as_bytes());
            let _ = std::io::copy(stream, &mut std::io::sink());
            return Some(After::Close);
        }
        // The gateway's own look at the tools is nobody's list.
        if message["method"] != "tools/list" || id.as_str().is_some_and(|id| id.starts_with("mcp-gateway-")) {
            return None;
        }
        asked.fetch_add(1, Ordering::SeqCst);
        // The server is slow: that is the case, and nothing waits for it to pass.
        std::thread::sleep(pause);
        let body = format!(r#"{{"result": {{"tools":{ITEMS}{hints}}}, "id":{id} ,"jsonrpc":"2.0"}}"#);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json";
        Some(answer(
            stream,
            &format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
            After::KeepOpen,
        ))
    }
}

fn gateway(fixture: &Fixture) -> Gateway {
    let config = GatewayConfig::new().server("one", &[&fixture.url()]).set("gateway.runtime", "shards = 1");
    Gateway::start(&config)
}

/// Lists the tools as whoever has this credential.
fn list(connection: &mut Connection, id: &str, credential: &str, params: Value) -> String {
    let mut headers = mirrored("tools/list", None);
    headers.extend([("authorization", credential), ("user-agent", id)]);
    let answer = connection.post("/mcp/one", &headers, &modern(id, "tools/list", params)).expect("an answer");
    assert_eq!((answer.status, &answer.json()["id"]), (200, &json!(id)), "{}", answer.text());
    answer.text()
}

#[test]
fn a_public_list_is_everybodys_until_it_changes() {
    let asked = Arc::default();
    let hints = r#", "ttlMs": 600000,"cacheScope":"public""#;
    let fixture = Fixture::modern(json!([]), keeps(hints, Duration::ZERO, &asked));
    let gateway = gateway(&fixture);
    let mut connection = gateway.connect().expect("a connection");
    for (id, credential) in [("a", "Bearer one"), ("b", "Bearer two"), ("c\\\"", "Basic eDp5")] {
        let text = list(&mut connection, id, credential, json!({}));
        let id = json!(id);
        assert_eq!(text, format!(r#"{{"result": {{"tools":{ITEMS}{hints}}}, "id":{id} ,"jsonrpc":"2.0"}}"#));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(gateway.metrics().value("mcp_gateway_list_cache_hits_total", &[("server", "one")]), Some(2.0));
    // Another page and another question are other answers.
    list(&mut connection, "d", "Bearer one", json!({"cursor": "2"}));
    list(&mut connection, "e", "Bearer one", json!({"cursor": "2"}));
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    list(&mut connection, "f", "Bearer one", json!({"filter": 1}));
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    // The server tells somebody of a change.
    let listen = modern("s", "subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
    let mut listening = gateway.connect().expect("a connection");
    listening.send_post("/mcp/one", &mirrored("subscriptions/listen", None), &listen).expect("a request");
    let mut stream = listening.into_events().expect("a stream");
    for _ in 0..2 {
        stream.next_event().expect("a whole event").expect("an event");
    }
    list(&mut connection, "g", "Bearer one", json!({}));
    assert_eq!(asked.load(Ordering::SeqCst), 4);
}

#[test]
fn a_private_list_is_whose_it_is_and_one_without_life_is_nobodys() {
    let asked = Arc::default();
    let hints = r#","ttlMs":600000,"cacheScope":"private""#;
    let fixture = Fixture::modern(json!([]), keeps(hints, Duration::ZERO, &asked));
    let gateway = gateway(&fixture);
    let mut connection = gateway.connect().expect("a connection");
    for (credential, expected) in [("Bearer one", 1), ("Bearer one", 1), ("Bearer two", 2), ("Bearer one", 2)]
    {
        list(&mut connection, "x", credential, json!({}));
        assert_eq!(asked.load(Ordering::SeqCst), expected, "{credential}");
    }
    let mut headers = mirrored("tools/list", None);
    headers.extend([("authorization", "Bearer one"), ("x-api-key", "another")]);
    connection.post("/mcp/one", &headers, &modern(1, "tools/list", json!({}))).expect("an answer");
    assert_eq!(asked.load(Ordering::SeqCst), 3);

    let asked = Arc::default();
    let fixture =
        Fixture::modern(json!([]), keeps(r#","ttlMs":0,"cacheScope":"public""#, Duration::ZERO, &asked));
    let gateway = self::gateway(&fixture);
    let mut connection = gateway.connect().expect("a connection");
    for times in 1..4 {
        list(&mut connection, "x", "Bearer one", json!({}));
        assert_eq!(asked.load(Ordering::SeqCst), times);
    }
}

#[test]
fn concurrent_clients_ask_once() {
    let asked = Arc::default();
    let hints = r#","ttlMs":600000,"cacheScope":"public""#;
    let fixture = Fixture::modern(json!([]), keeps(hints, Duration::from_millis(300), &asked));
    let gateway = gateway(&fixture);
    let mut clients: Vec<_> = (0..16).map(|_| gateway.connect().expect("a connection")).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let message = modern(number, "tools/list", json!({}));
        client.send_post("/mcp/one", &mirrored("tools/list", None), &message).expect("a request");
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let answer = client.read_response(false).expect("an answer");
        assert_eq!((answer.status, &answer.json()["id"]), (200, &json!(number)), "{}", answer.text());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn an_older_servers_list_is_kept_as_configured_for_its_client_alone() {
    let asked = Arc::default();
    let fixture = Fixture::legacy(keeps("", Duration::ZERO, &asked));
    let config = GatewayConfig::new()
        .server("one", &[&fixture.url()])
        .set("gateway.runtime", "shards = 1")
        .set("gateway.list_cache", "ttl = \"1h\"");
    let gateway = Gateway::start(&config);
    let mut connection = gateway.connect().expect("a connection");
    let session = open_session(&mut connection, "/mcp/one", LEGACY);
    let mut ask = |headers: &[(&str, &str)]| {
        let message = request(4, "tools/list", json!({}));
        connection.post("/mcp/one", headers, &message).expect("an answer").status
    };
    for _ in 0..3 {
        assert_eq!(ask(&in_session(&session, LEGACY)), 200);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // Without a session there is no list, kept or not.
    assert_eq!(ask(&in_session("AAAAAAAAAAAAAAAAAAAAAAAA", LEGACY)), 404);

    let without = self::gateway(&fixture);
    let before = asked.load(Ordering::SeqCst);
    let mut connection = without.connect().expect("a connection");
    let session = open_session(&mut connection, "/mcp/one", LEGACY);
    for _ in 0..2 {
        let message = request(4, "tools/list", json!({}));
        connection.post("/mcp/one", &in_session(&session, LEGACY), &message).expect("an answer");
    }
    eventually("both reached the server", LIMIT, || {
        (asked.load(Ordering::SeqCst) == before + 2).then_some(())
    });
}
