//! The demo server over real sockets, through a small blocking client.
//!
//! Claim: both eras get what their revision's transport page says, limits hold, and dropping the server ends it all.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Demo, MAX_CONNECTIONS, MAX_STREAMS, PATH, start};

/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

const MODERN: (&str, &str) = ("MCP-Protocol-Version", "2026-07-28");

struct Client {
    stream: BufReader<TcpStream>,
}

#[derive(Debug)]
struct Head {
    status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

impl Client {
    fn connect(demo: &Demo) -> Self {
        Self::connect_to(demo.addr).unwrap()
    }

    #[allow(clippy::disallowed_methods, reason = "a test's client may block")]
    fn connect_to(addr: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) {
        let mut text =
            format!("{method} {path} HTTP/1.1\r\nHost: demo\r\nContent-Length: {}\r\n", body.len());
        let usual = [("Accept", "application/json, text/event-stream"), ("Content-Type", "application/json")];
        for (name, value) in usual.iter().filter(|(name, _)| headers.iter().all(|(given, _)| given != name)) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.push_str(body);
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn head(&mut self) -> Head {
        let status = self.line().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
                None => return Head { status, headers },
            }
        }
    }

    /// The response's head and JSON body; `Null` for an empty one.
    fn response(&mut self) -> (Head, Value) {
        let head = self.head();
        let mut body = vec![0; head.header("content-length").unwrap().parse().unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        (head, body)
    }

    fn post(&mut self, headers: &[(&str, &str)], body: &Value) -> (Head, Value) {
        self.send("POST", PATH, headers, &body.to_string());
        self.response()
    }

    /// The next event's data, past comments; `None` at the stream's end.
    fn event(&mut self) -> Option<Value> {
        loop {
            let chunk = self.chunk()?;
            if let Some((_, data)) = chunk.split_once("data: ") {
                return Some(serde_json::from_str(data.trim()).unwrap());
            }
        }
    }

    /// The next chunk; each event and each comment is one. `None` at the stream's end.
    fn chunk(&mut self) -> Option<String> {
        let size = usize::from_str_radix(&self.line(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk).unwrap();
        chunk.truncate(size);
        (size > 0).then(|| String::from_utf8(chunk).unwrap())
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Waits for the server to close the connection.
    fn is_closed(&mut self) -> bool {
        self.stream.read_to_end(&mut Vec::new()).is_ok()
    }

    fn initialize(&mut self, revision: &str) -> (String, Value) {
        let params = json!({ "protocolVersion": revision, "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
        let (head, body) = self.post(&[], &request("initialize", params));
        assert_eq!(head.status, 200);
        (head.header("mcp-session-id").unwrap().to_owned(), body)
    }

    fn call_modern(&mut self, tool: &str, arguments: Value) -> (Head, Value) {
        let params = json!({ "name": tool, "arguments": arguments, "_meta": meta() });
        self.post(&[MODERN, ("Mcp-Method", "tools/call"), ("Mcp-Name", tool)], &request("tools/call", params))
    }
}

fn request(method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params })
}

fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

/// Polls until `condition` holds; fails after [`PATIENCE`].
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn legacy_clients_get_a_session_and_tools() {
    let demo = start().unwrap();
    for revision in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        let mut client = Client::connect(&demo);
        let (session, body) = client.initialize(revision);
        assert_eq!(body["result"]["protocolVersion"], revision);
        assert!(body["result"]["capabilities"]["tools"].is_object());
        let headers = [("Mcp-Session-Id", session.as_str()), ("MCP-Protocol-Version", revision)];
        let note = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let (head, body) = client.post(&headers, &note);
        assert_eq!((head.status, body), (202, Value::Null));
        assert_eq!(client.post(&headers, &request("ping", json!({}))).1["result"], json!({}));
        let tools = client.post(&headers, &request("tools/list", json!({}))).1["result"]["tools"].clone();
        let names: Vec<_> =
            tools.as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["echo", "add", "slow"]);
        assert!(tools.as_array().unwrap().iter().all(|tool| tool["inputSchema"]["type"] == "object"));
        let echo = json!({ "name": "echo", "arguments": { "text": "héllo \"x\"\n" } });
        let (_, body) = client.post(&headers, &request("tools/call", echo));
        assert_eq!(body["result"]["content"][0]["text"], "héllo \"x\"\n");
        assert_eq!(body["id"], 7);
        let sum = json!({ "name": "add", "arguments": { "a": 2, "b": 3 } });
        let (_, body) = client.post(&headers, &request("tools/call", sum));
        let structured = body["result"].get("structuredContent");
        assert_eq!(structured, (revision != "2025-03-26").then_some(&json!({ "sum": 5 })));
        let unknown = request("tools/call", json!({ "name": "none" }));
        assert_eq!(client.post(&headers, &unknown).1["error"]["code"], -32602);
        assert_eq!(client.post(&headers, &request("no/method", json!({}))).1["error"]["code"], -32601);
    }
}

#[test]
fn an_unknown_revision_is_answered_with_the_newest_legacy_one() {
    let demo = start().unwrap();
    let (_, body) = Client::connect(&demo).initialize("1999-01-01");
    assert_eq!(body["result"]["protocolVersion"], "2025-11-25");
}

#[test]
fn legacy_requests_need_a_living_session_and_a_known_version() {
    let demo = start().unwrap();
    let mut client = Client::connect(&demo);
    let (session, _) = client.initialize("2025-11-25");
    let ping = request("ping", json!({}));
    let with = ("Mcp-Session-Id", session.as_str());
    assert_eq!(client.post(&[], &ping).0.status, 400);
    assert_eq!(client.post(&[("Mcp-Session-Id", "nope")], &ping).0.status, 404);
    let (head, body) = client.post(&[with, ("MCP-Protocol-Version", "1999-01-01")], &ping);
    assert_eq!((head.status, &body["error"]["code"]), (400, &json!(-32022)));
    assert_eq!(client.post(&[with], &ping).0.status, 200);
    client.send("DELETE", PATH, &[with], "");
    assert_eq!(client.response().0.status, 200);
    assert_eq!(client.post(&[with], &ping).0.status, 404);
    client.send("DELETE", PATH, &[with], "");
    assert_eq!(client.response().0.status, 404);
}

#[test]
fn only_2025_03_26_takes_batches() {
    let demo = start().unwrap();
    let mut client = Client::connect(&demo);
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let slow = request("tools/call", json!({ "name": "slow", "arguments": { "steps": 2, "step_ms": 1 } }));
    let (old, _) = client.initialize("2025-03-26");
    let (head, body) = client.post(
        &[("Mcp-Session-Id", &old)],
        &json!([note, request("ping", json!({})), slow, request("none", json!({}))]),
    );
    assert_eq!(head.status, 200);
    assert_eq!(body.as_array().unwrap().len(), 3);
    assert_eq!(body[1]["result"]["isError"], false);
    assert_eq!(body[2]["error"]["code"], -32601);
    assert_eq!(client.post(&[("Mcp-Session-Id", &old)], &json!([note])).0.status, 202);
    let many = vec![note.clone(); 17];
    for batch in [json!([]), json!(many)] {
        assert_eq!(client.post(&[("Mcp-Session-Id", &old)], &batch).0.status, 400);
    }
    let (new, _) = client.initialize("2025-06-18");
    assert_eq!(client.post(&[("Mcp-Session-Id", &new)], &json!([note])).0.status, 400);
}

#[test]
fn a_session_stream_stays_open_until_its_session_ends() {
    let demo = start().unwrap();
    let mut client = Client::connect(&demo);
    let (session, _) = client.initialize("2025-11-25");
    let with = ("Mcp-Session-Id", session.as_str());
    let mut stream = Client::connect(&demo);
    stream.send("GET", PATH, &[with], "");
    let head = stream.head();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(stream.chunk().as_deref(), Some(":\n\n"));
    client.send("DELETE", PATH, &[with], "");
    assert_eq!(client.response().0.status, 200);
    assert_eq!(stream.event(), None);
    assert!(stream.is_closed());
}

#[test]
fn slow_calls_report_progress_when_asked() {
    let demo = start().unwrap();
    let mut client = Client::connect(&demo);
    let (session, _) = client.initialize("2025-11-25");
    let arguments = json!({ "steps": 3, "step_ms": 1 });
    let params = json!({ "name": "slow", "arguments": arguments, "_meta": { "progressToken": "p" } });
    client.send("POST", PATH, &[("Mcp-Session-Id", &session)], &request("tools/call", params).to_string());
    assert_eq!(client.head().header("content-type"), Some("text/event-stream"));
    for step in 1..=3 {
        let event = client.event().unwrap();
        assert_eq!(event["method"], "notifications/progress");
        assert_eq!(event["params"], json!({ "progressToken": "p", "progress": step, "total": 3 }));
    }
    assert_eq!(client.event().unwrap()["result"]["isError"], false);
    assert_eq!(client.event(), None);
    // The connection goes on, and without a token the answer is JSON.
    let (head, body) = client.call_modern("slow", arguments);
    assert_eq!(head.header("content-type"), Some("application/json"));
    assert_eq!(body["result"]["resultType"], "complete");
}

#[test]
fn slow_calls_stop_when_the_client_goes_away() {
    let demo = start().unwrap();
    let mut client = Client::connect(&demo);
    let mut meta = meta();
    meta["progressToken"] = json!(1);
    let params = json!({ "name": "slow", "arguments": { "steps": 100, "step_ms": 1000 }, "_meta": meta });
    let headers = [MODERN, ("Mcp-Method", "tools/call"), ("Mcp-Name", "slow")];
    client.send("POST", PATH, &headers, &request("tools/call", params).to_string());
    assert_eq!(client.head().status, 200);
    assert_eq!(connections(&demo), 1);
    drop(client);
    eventually("the end of the call", || connections(&demo) == 0);
}

#[test]
fn modern_clients_need_no_session() {
    let demo = start().unwrap();
    let mut client = Client::connect(&demo);
    let discover = request("server/discover", json!({ "_meta": meta() }));
    let (head, body) = client.post(&[MODERN, ("Mcp-Method", "server/discover")], &discover);
    assert_eq!((head.status, head.header("mcp-session-id")), (200, None));
    let result = &body["result"];
    assert_eq!(result["supportedVersions"], json!(["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"]));
    assert_eq!(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "mcp-gateway-demo");
    let list = request("tools/list", json!({ "_meta": meta() }));
    for (method, message) in [("server/discover", &discover), ("tools/list", &list)] {
        let result = client.post(&[MODERN, ("Mcp-Method", method)], message).1["result"].clone();
        assert_eq!(result["resultType"], "complete");
        assert!(result["ttlMs"].is_u64());
        assert_eq!(result["cacheScope"], "public");
    }
    let (_, body) = client.call_modern("add", json!({ "a": 1, "b": 0.5 }));
    assert_eq!(body["result"]["structuredContent"], json!({ "sum": 1.5 }));
    assert_eq!(body["result"]["resultType"], "complete");
    let (_, body) = client.call_modern("add", json!({ "a": "x" }));
    assert_eq!(body["result"]["isError"], true);
    assert_eq!(client.call_modern("none", json!({})).1["error"]["code"], -32602);
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/x" });
    assert_eq!(client.post(&[MODERN], &note).0.status, 202);
}

#[test]
fn modern_requests_are_checked_against_their_headers() {
    let demo = start().unwrap();
    let mut client = Client::connect(&demo);
    let full = json!({ "name": "echo", "arguments": { "text": "x" }, "_meta": meta() });
    let mut other_version = full.clone();
    other_version["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2099-01-01");
    let mut no_version = full.clone();
    no_version["_meta"].as_object_mut().unwrap().remove("io.modelcontextprotocol/protocolVersion");
    let mut no_capabilities = full.clone();
    no_capabilities["_meta"].as_object_mut().unwrap().remove("io.modelcontextprotocol/clientCapabilities");
    let (method, name) = (("Mcp-Method", "tools/call"), ("Mcp-Name", "echo"));
    let future = ("MCP-Protocol-Version", "2099-01-01");
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a Value, u16, Option<i64>);
    let cases: &[Case<'_>] = &[
        (&[MODERN, method, name], &full, 200, None),
        (&[MODERN, method, ("Mcp-Name", "=?base64?ZWNobw==?=")], &full, 200, None),
        (&[method, name], &full, 400, Some(-32020)),
        (&[MODERN, name], &full, 400, Some(-32020)),
        (&[MODERN, method], &full, 400, Some(-32020)),
        (&[MODERN, ("Mcp-Method", "TOOLS/CALL"), name], &full, 400, Some(-32020)),
        (&[MODERN, method, ("Mcp-Name", "add")], &full, 400, Some(-32020)),
        (&[MODERN, method, ("Mcp-Name", "=?base64?!?=")], &full, 400, Some(-32020)),
        (&[("MCP-Protocol-Version", "2025-11-25"), method, name], &other_version, 400, Some(-32020)),
        (&[future, method, name], &full, 400, Some(-32020)),
        (&[future, method, name], &other_version, 400, Some(-32022)),
        (&[MODERN, method, name], &no_version, 400, Some(-32602)),
        (&[MODERN, method, name], &no_capabilities, 400, Some(-32602)),
    ];
    for (headers, params, status, code) in cases {
        let (head, body) = client.post(headers, &request("tools/call", (*params).clone()));
        let found = body["error"]["code"].as_i64();
        assert_eq!((head.status, found), (*status, *code), "{headers:?} {params} {body}");
        if found == Some(-32022) {
            assert_eq!(body["error"]["data"]["requested"], "2099-01-01");
            assert_eq!(body["error"]["data"]["supported"][0], "2026-07-28");
        }
    }
    let ping = request("ping", json!({ "_meta": meta() }));
    let (head, body) = client.post(&[MODERN, ("Mcp-Method", "ping")], &ping);
    assert_eq!((head.status, &body["error"]["code"]), (404, &json!(-32601)));
    for method in ["GET", "DELETE"] {
        client.send(method, PATH, &[MODERN], "");
        assert_eq!(client.response().0.status, 405);
    }
}

#[test]
fn a_subscription_is_acknowledged_stays_open_and_is_completed_at_the_end() {
    let demo = start().unwrap();
    let mut client = Client::connect(&demo);
    let headers = [MODERN, ("Mcp-Method", "subscriptions/listen")];
    let wrong = request("subscriptions/listen", json!({ "_meta": meta() }));
    assert_eq!(client.post(&headers, &wrong).1["error"]["code"], -32602);
    let listen = json!({ "_meta": meta(), "notifications": { "toolsListChanged": true } });
    client.send("POST", PATH, &headers, &request("subscriptions/listen", listen).to_string());
    assert_eq!(client.head().header("content-type"), Some("text/event-stream"));
    let first = client.event().unwrap();
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(first["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 7);
    assert_eq!(client.chunk().as_deref(), Some(":\n\n"));
    drop(demo);
    let last = client.event().unwrap();
    assert_eq!((&last["id"], &last["result"]["resultType"]), (&json!(7), &json!("complete")));
    assert_eq!(last["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 7);
    assert_eq!(client.event(), None);
    assert!(client.is_closed());
}

#[test]
fn http_is_checked_first() {
    let demo = start().unwrap();
    let ping = request("ping", json!({})).to_string();
    let long = "x".repeat(20_000);
    for (method, path, headers, body, status) in [
        ("POST", "/other", &[][..], ping.as_str(), 404),
        ("PUT", PATH, &[], &ping, 405),
        ("POST", PATH, &[("Origin", "https://evil.example")], &ping, 403),
        ("POST", PATH, &[("Accept", "application/json")], &ping, 406),
        ("GET", PATH, &[("Accept", "application/json")], "", 406),
        ("POST", PATH, &[("Content-Type", "text/plain")], &ping, 415),
        ("POST", PATH, &[], "{", 400),
        ("POST", PATH, &[], "1", 400),
        ("POST", PATH, &[("X", &long)], "", 431),
        ("POST", PATH, &[("Transfer-Encoding", "chunked")], "", 411),
        ("POST", PATH, &[("Content-Length", "5")], "", 400),
    ] {
        let mut client = Client::connect(&demo);
        client.send(method, path, headers, body);
        assert_eq!(client.response().0.status, status, "{method} {path} {body}");
    }
    let mut client = Client::connect(&demo);
    let head = format!("POST {PATH} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", (1 << 20) + 1);
    client.stream.get_mut().write_all(head.as_bytes()).unwrap();
    assert_eq!(client.response().0.status, 413);
    assert!(client.is_closed());
}

#[test]
fn pipelined_split_and_awaited_requests_are_served() {
    let demo = start().unwrap();
    let mut client = Client::connect(&demo);
    let (session, _) = client.initialize("2025-11-25");
    let with = ("Mcp-Session-Id", session.as_str());
    let ping = request("ping", json!({})).to_string();
    client.send("POST", PATH, &[with], &ping);
    client.send("POST", PATH, &[with], &ping);
    assert_eq!(client.response().0.status, 200);
    assert_eq!(client.response().0.status, 200);
    let text = format!(
        "POST {PATH} HTTP/1.1\r\nAccept: */*\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n\
         Mcp-Session-Id: {session}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        ping.len()
    );
    client.stream.get_mut().write_all(text.as_bytes()).unwrap();
    assert_eq!(client.head().status, 100);
    client.stream.get_mut().write_all(ping.as_bytes()).unwrap();
    assert_eq!(client.response().0.status, 200);
    assert!(client.is_closed());
}

#[test]
fn streams_and_connections_are_bounded() {
    let demo = start().unwrap();
    let mut client = Client::connect(&demo);
    let (session, _) = client.initialize("2025-11-25");
    let with = ("Mcp-Session-Id", session.as_str());
    let open = || {
        let mut stream = Client::connect(&demo);
        stream.send("GET", PATH, &[with], "");
        (stream.head().status, stream)
    };
    let mut held: Vec<_> = (0..MAX_STREAMS).map(|_| open()).collect();
    assert!(held.iter().all(|(status, _)| *status == 200));
    held.push(open());
    assert_eq!(held[MAX_STREAMS].0, 503);
    assert_eq!(client.post(&[with], &request("ping", json!({}))).0.status, 200);
    let mut idle: Vec<_> = (held.len() + 1..MAX_CONNECTIONS).map(|_| Client::connect(&demo)).collect();
    eventually("the last accept", || connections(&demo) == MAX_CONNECTIONS);
    let mut over = Client::connect(&demo);
    assert_eq!(over.response().0.status, 503);
    assert!(over.is_closed());
    idle.clear();
    eventually("the end of the idle connections", || connections(&demo) == held.len() + 1);
    assert_eq!(Client::connect(&demo).post(&[with], &request("ping", json!({}))).0.status, 200);
}

#[test]
fn dropping_the_server_ends_every_connection_and_frees_the_port() {
    let demo = start().unwrap();
    let addr = demo.addr;
    assert!(addr.ip().is_loopback());
    let mut idle = Client::connect(&demo);
    let mut busy = Client::connect(&demo);
    busy.initialize("2025-11-25");
    drop(demo);
    assert!(idle.is_closed());
    assert!(busy.is_closed());
    assert!(Client::connect_to(addr).is_err());
}

fn connections(demo: &Demo) -> usize {
    super::lock(&demo.shared.connections).len()
}
