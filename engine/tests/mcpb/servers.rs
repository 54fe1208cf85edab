//! Claim: a server behind the gateway sees a proper Streamable HTTP client, and what it does reaches the client of frames.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::client::{Client, REQUEST, RESPONSE, call, initialize};
use crate::gateway::{Gateway, eventually};
use crate::server::{Answer, Seen, Server};

pub(crate) fn result(seen: &Seen, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": seen.body["id"], "result": result})
}

/// Answers what every legacy session begins with; `false` for all else.
pub(crate) fn begin_session(seen: &Seen, answer: &mut Answer<'_>) -> bool {
    match seen.body["method"].as_str() {
        Some("initialize") => {
            let initialized = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}});
            answer.json("Mcp-Session-Id: theirs\r\n", &result(seen, initialized));
        }
        Some("notifications/initialized") => answer.status("202 Accepted"),
        _ => return false,
    }
    true
}

#[test]
fn tokens_become_headers_and_leave_the_body() {
    let server = Server::start(|seen, answer| {
        if !begin_session(seen, answer) {
            match seen.verb.as_str() {
                "GET" => answer.status("405 Method Not Allowed"),
                _ => answer.json("", &result(seen, json!({}))),
            }
        }
    });
    let gateway = Gateway::with_server(&server.url, &[]);
    let mut client = Client::open(gateway.port);
    let login = client.ask(&initialize(json!({"token": "login-token"})));
    assert_ne!(login["result"]["sessionId"], "theirs");
    client.send_json(REQUEST, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    client.ask(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}));
    client.ask(
        &json!({"auth_token": "own-token", "request": {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}}),
    );

    let initialize = &server.seen("initialize")[0];
    assert_eq!(initialize.header("authorization"), Some("Bearer login-token"));
    assert_eq!(initialize.body["params"].get("token"), None);
    assert_eq!(initialize.header("mcp-session-id"), None);
    for (method, token) in
        [("notifications/initialized", "login-token"), ("ping", "login-token"), ("tools/list", "own-token")]
    {
        let seen = &server.seen(method)[0];
        assert_eq!(seen.header("authorization"), Some(format!("Bearer {token}").as_str()), "{method}");
        assert_eq!(seen.header("mcp-session-id"), Some("theirs"));
        assert_eq!(seen.header("mcp-protocol-version"), Some("2025-06-18"));
        assert_eq!(seen.body.get("auth_token"), None);
    }
}

#[test]
fn what_follows_the_handshake_does_not_overtake_it() {
    let ready = Arc::new(AtomicBool::new(false));
    let is_ready = ready.clone();
    let server = Server::start(move |seen, answer| {
        if seen.body["method"] == "notifications/initialized" {
            std::thread::park_timeout(std::time::Duration::from_millis(200));
            is_ready.store(true, Ordering::SeqCst);
        }
        if !begin_session(seen, answer) {
            answer.json("", &result(seen, json!({"ready": is_ready.load(Ordering::SeqCst)})));
        }
    });
    let gateway = Gateway::with_server(&server.url, &[]);
    let mut client = Client::log_in(gateway.port);
    let answer = client.ask(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}));
    assert_eq!(answer["result"]["ready"], true);
}

#[test]
fn a_server_may_ask_the_client() {
    let server = Server::start(|seen, answer| {
        if begin_session(seen, answer) {
            return;
        }
        if seen.verb == "GET" {
            return answer.status("405 Method Not Allowed");
        }
        if seen.body["method"] != "tools/call" {
            return answer.status("202 Accepted");
        }
        answer.begin_events();
        answer.event(&json!({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": {}}));
        answer.wait_for("the client's answer", |seen| {
            seen.body["id"] == "q" && seen.body.get("result").is_some()
        });
        answer.event(&result(seen, json!({"content": []})));
    });
    let gateway = Gateway::with_server(&server.url, &[]);
    let mut client = Client::log_in(gateway.port);
    client.send_json(REQUEST, &call(1, "ask", json!({})));
    let question = client.receive();
    assert_eq!((question.kind, &question.json()["method"]), (REQUEST, &json!("sampling/createMessage")));
    client.send_json(RESPONSE, &json!({"jsonrpc": "2.0", "id": "q", "result": {"role": "assistant"}}));
    let answer = client.receive();
    assert_eq!((answer.kind, &answer.json()["id"]), (RESPONSE, &json!(1)));
}

#[test]
fn a_client_with_all_in_flight_can_still_answer() {
    let server = Server::start(|seen, answer| {
        if begin_session(seen, answer) {
            return;
        }
        if seen.verb == "GET" {
            return answer.status("405 Method Not Allowed");
        }
        if seen.body["method"] != "tools/call" {
            return answer.status("202 Accepted");
        }
        answer.begin_events();
        let question = format!("q{}", seen.body["id"]);
        answer.wait_for("as many calls as may be", |seen| seen.body["id"] == 63);
        answer.event(&json!({"jsonrpc": "2.0", "id": question, "method": "roots/list"}));
        answer.wait_for("the answer", |seen| seen.body["id"] == question.as_str());
        answer.event(&result(seen, json!({})));
    });
    let gateway = Gateway::with_server(&server.url, &[("MCP_GATEWAY__CONNECTION_POOL__MAX_SIZE", "200")]);
    let mut client = Client::log_in(gateway.port);
    for id in 0..100 {
        client.send_json(REQUEST, &call(id, "ask", json!({})));
    }
    let (mut questions, mut results, mut refusals) = (0, 0, 0);
    while results + refusals < 100 {
        let frame = client.receive();
        let message = frame.json();
        match frame.kind {
            REQUEST => {
                questions += 1;
                client.send_json(
                    RESPONSE,
                    &json!({"jsonrpc": "2.0", "id": message["id"], "result": {"roots": []}}),
                );
            }
            _ if message.get("error").is_some() => {
                assert_eq!(message["error"]["data"]["retryable"], true, "{message}");
                refusals += 1;
            }
            _ => results += 1,
        }
    }
    assert_eq!(questions, results);
    assert!(results >= 64, "{results}");
}

#[test]
fn a_server_may_speak_by_itself() {
    let server = Server::start(|seen, answer| {
        if begin_session(seen, answer) {
            return;
        }
        answer.begin_events();
        answer.event(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
        answer.wait_for_end();
    });
    let gateway = Gateway::with_server(&server.url, &[]);
    let mut client = Client::log_in(gateway.port);
    let news = client.receive();
    assert_eq!((news.kind, &news.json()["method"]), (REQUEST, &json!("notifications/tools/list_changed")));
}

#[test]
fn a_modern_message_gets_the_headers_that_mirror_it() {
    let server = Server::start(|seen, answer| {
        let tool = json!({"name": "wetter °C", "inputSchema": {"type": "object", "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"}}}});
        answer.json("", &result(seen, json!({"resultType": "complete", "tools": [tool]})));
    });
    let gateway = Gateway::with_server(&server.url, &[]);
    let mut client = Client::open(gateway.port);
    let mut request = call(1, "wetter °C", json!({"region": "köln"}));
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    request["params"]["_meta"] = meta.clone();
    assert_eq!(client.ask(&request)["result"]["resultType"], "complete");
    let seen = &server.seen("tools/call")[0];
    assert_eq!(seen.header("mcp-protocol-version"), Some("2026-07-28"));
    assert_eq!(seen.header("mcp-method"), Some("tools/call"));
    assert_eq!(seen.header("mcp-name"), Some("=?base64?d2V0dGVyIMKwQw==?="));
    assert_eq!(seen.header("mcp-param-region"), Some("=?base64?a8O2bG4=?="));

    request["params"]["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    assert_eq!(client.ask(&request)["error"]["code"], -32602);
    request["params"]["_meta"] = meta;
    request["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2031-01-01");
    assert_eq!(client.ask(&request)["error"]["code"], -32022);
}

#[test]
fn what_a_client_no_longer_waits_for_ends_at_the_server() {
    let ended = Arc::new(AtomicBool::new(false));
    let has_ended = ended.clone();
    let server = Server::start(move |seen, answer| {
        if seen.body["method"] == "tools/call" {
            answer.begin_events();
            answer.wait_for_end();
            has_ended.store(true, Ordering::SeqCst);
        } else if !begin_session(seen, answer) {
            answer.json("", &result(seen, json!({"resultType": "complete", "tools": []})));
        }
    });
    let gateway = Gateway::with_server(&server.url, &[]);
    let waiting = |count| gateway.metric("requests_in_flight") == count;

    let mut client = Client::open(gateway.port);
    let mut request = call("long", "wait", json!({}));
    request["params"]["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    client.send_json(REQUEST, &request);
    eventually("the call is at the server", || server.seen("tools/call").len() == 1 && waiting(1));
    client.send_json(
        REQUEST,
        &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "long"}}),
    );
    eventually("the cancelled call ended", || ended.swap(false, Ordering::SeqCst) && waiting(0));

    client.send_json(REQUEST, &request);
    eventually("the call is at the server again", || server.seen("tools/call").len() == 2 && waiting(1));
    drop(client);
    eventually("the call ended with its connection", || ended.load(Ordering::SeqCst) && waiting(0));
}

#[test]
fn every_request_is_answered_whatever_the_server_does() {
    let server = Server::start(|seen, answer| {
        if begin_session(seen, answer) {
            return;
        }
        match seen.body["params"]["name"].as_str() {
            Some("breaks off") => {
                answer.begin_events();
                answer.event(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}}));
            }
            Some("refuses") => answer.status("401 Unauthorized"),
            Some("forgets the id") => {
                answer.json("", &json!({"jsonrpc": "2.0", "id": null, "error": {"code": -1, "message": "m"}}))
            }
            Some("answers another") => answer.json("", &json!({"jsonrpc": "2.0", "id": 99, "result": {}})),
            Some("says too much") => answer.json("", &result(seen, json!({"text": "x".repeat(11 << 20)}))),
            Some("batches") => {
                answer.begin_events();
                answer.event(&json!([{"jsonrpc": "2.0", "method": "notifications/message"}, result(seen, json!({"ok": true}))]));
            }
            Some(_) => answer.status("404 Not Found"),
            None => answer.status("405 Method Not Allowed"),
        }
    });
    let gateway = Gateway::with_server(&server.url, &[]);
    let mut client = Client::log_in(gateway.port);
    client.send_json(REQUEST, &call(1, "breaks off", json!({})));
    assert_eq!(client.receive().kind, REQUEST);
    let broken = client.receive().json();
    assert_eq!((&broken["id"], &broken["error"]["code"]), (&json!(1), &json!(-32000)));
    assert_eq!(client.ask(&call(2, "refuses", json!({})))["error"]["code"], -32000);
    assert_eq!(client.ask(&call(3, "forgets the id", json!({})))["error"]["code"], -1);
    assert_eq!(client.ask(&call(4, "answers another", json!({})))["error"]["code"], -32000);
    let too_much = client.ask(&call("much", "says too much", json!({})));
    assert_eq!(too_much["error"]["code"], -32000);
    client.send_json(REQUEST, &call(5, "batches", json!({})));
    assert_eq!(client.receive().kind, REQUEST);
    assert_eq!(client.receive().json()["result"]["ok"], true);
    assert_eq!(client.ask(&call(6, "ends the session", json!({})))["error"]["code"], -32001);
}
