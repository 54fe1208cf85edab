//! Setup: clients of either era at `/mcp` in front of several scripted servers, some of which fail.
//! Claim: all servers are one: their lists are joined and paged together, what is asked reaches the server that it is of, under
//! its own names; who fails is named as missing and takes nothing from the others; `/mcp/<name>` is one server as it is.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use mcp_system_tests::fixtures::{Fixture, Override};
use mcp_system_tests::mcp::{LEGACY, in_session, initialize, mirrored, modern, open_session, request};
use mcp_system_tests::upstream::{After, UpstreamRequest, answer, answer_json};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, eventually};
use serde_json::{Value, json};

const MISSING: &str = "io.mcp-bridge/missing-servers";
const LIMIT: Duration = Duration::from_secs(20);

/// Answers the lists of a server whose every item says `name`; the tools come in two pages.
fn lists(name: &'static str) -> impl Override {
    move |request: &UpstreamRequest, stream: &mut TcpStream| {
        if !request.is("POST") {
            return None;
        }
        let message = request.json();
        let mut result = match (message["method"].as_str()?, message["params"]["cursor"].as_str()) {
            ("tools/list", None) => {
                json!({"tools": [{"name": "echo", "description": name}], "nextCursor": format!("2 of {name}")})
            }
            ("tools/list", Some(cursor)) if cursor == format!("2 of {name}") => {
                json!({"tools": [{"name": "last"}]})
            }
            ("prompts/list", _) => json!({"prompts": [{"name": "greet"}]}),
            ("resources/list", _) => json!({"resources": [{"uri": "file:///a", "name": name}]}),
            ("resources/templates/list", _) => json!({"resourceTemplates": [{"uriTemplate": "file:///{x}"}]}),
            ("resources/read", _) => json!({"contents": [{"uri": message["params"]["uri"], "text": name}]}),
            _ => return None,
        };
        result["resultType"] = "complete".into();
        result["ttlMs"] = 1000.into();
        result["cacheScope"] = "public".into();
        Some(answer_json(stream, "200 OK", &json!({"jsonrpc": "2.0", "id": message["id"], "result": result})))
    }
}

/// A server that takes every request and says nothing.
fn hangs() -> impl Override {
    |_: &UpstreamRequest, stream: &mut TcpStream| {
        // The gateway's end of the connection is the end of the wait.
        let _ = std::io::copy(stream, &mut std::io::sink());
        Some(After::Close)
    }
}

/// A server that answers everything with a page.
fn garbage() -> impl Override {
    |_: &UpstreamRequest, stream: &mut TcpStream| {
        let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>";
        Some(answer(stream, page, After::KeepOpen))
    }
}

/// One era's way to ask.
enum Client {
    Modern,
    Legacy(String),
}

impl Client {
    fn ask(&self, connection: &mut Connection, method: &str, params: Value) -> Value {
        let name = params["name"].as_str().or(params["uri"].as_str()).map(str::to_owned);
        let answer = match self {
            Client::Modern => {
                connection.post("/mcp", &mirrored(method, name.as_deref()), &modern("q", method, params))
            }
            Client::Legacy(session) => {
                connection.post("/mcp", &in_session(session, LEGACY), &request("q", method, params))
            }
        };
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 200, "{method}: {}", answer.text());
        assert_eq!(answer.json()["id"], "q", "{method}: {}", answer.text());
        answer.json()
    }
}

fn names(list: &Value, member: &str, key: &str) -> Vec<String> {
    let items = list["result"][member].as_array().unwrap_or_else(|| panic!("no {member}: {list}"));
    items.iter().map(|item| item[key].as_str().expect("a name").to_owned()).collect()
}

/// Walks through what both eras have alike, at two servers of one era, `files` and `my_git`.
fn walk(client: &Client, connection: &mut Connection) {
    let first = client.ask(connection, "tools/list", json!({}));
    assert_eq!(names(&first, "tools", "name"), ["files__echo", "my_git__echo"]);
    assert_eq!(first["result"]["tools"][1]["description"], "my_git");
    let cursor = first["result"]["nextCursor"].clone();
    let second = client.ask(connection, "tools/list", json!({"cursor": cursor}));
    assert_eq!(names(&second, "tools", "name"), ["files__last", "my_git__last"]);
    assert_eq!(second["result"].get("nextCursor"), None);
    let stranger = client.ask(connection, "tools/list", json!({"cursor": "2 of files"}));
    assert_eq!(stranger["error"]["code"], -32602, "{stranger}");

    let prompts = client.ask(connection, "prompts/list", json!({}));
    assert_eq!(names(&prompts, "prompts", "name"), ["files__greet", "my_git__greet"]);
    let resources = client.ask(connection, "resources/list", json!({}));
    assert_eq!(names(&resources, "resources", "uri"), ["mcp+files:file:///a", "mcp+my.git:file:///a"]);
    let templates = client.ask(connection, "resources/templates/list", json!({}));
    assert_eq!(
        names(&templates, "resourceTemplates", "uriTemplate"),
        ["mcp+files:file:///{x}", "mcp+my.git:file:///{x}"]
    );

    // Fixtures answer with the params that they were asked with.
    for (method, asked, own) in [
        ("tools/call", json!({"name": "my_git__echo", "arguments": {"a": 1.50}}), json!({"name": "echo"})),
        ("prompts/get", json!({"name": "files__greet"}), json!({"name": "greet"})),
        ("completion/complete", json!({"ref": {"type": "ref/prompt", "name": "files__greet"}}), {
            json!({"ref": {"type": "ref/prompt", "name": "greet"}})
        }),
    ] {
        let answer = client.ask(connection, method, asked);
        for (key, value) in own.as_object().expect("an object") {
            assert_eq!(&answer["result"][key], value, "{method}: {answer}");
        }
    }
    let read = client.ask(connection, "resources/read", json!({"uri": "mcp+my.git:file:///a"}));
    assert_eq!(read["result"]["contents"], json!([{"uri": "mcp+my.git:file:///a", "text": "my_git"}]));
    let unknown = client.ask(connection, "tools/call", json!({"name": "echo"}));
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
}

#[test]
fn modern_servers_are_one() {
    let servers = [Fixture::modern(json!([]), lists("files")), Fixture::modern(json!([]), lists("my_git"))];
    let config =
        GatewayConfig::new().server("files", &[&servers[0].url()]).server("my_git", &[&servers[1].url()]);
    let gateway = Gateway::start(&config);
    let mut connection = gateway.connect().expect("a connection");
    let discovered = Client::Modern.ask(&mut connection, "server/discover", json!({}));
    assert_eq!(discovered["result"]["supportedVersions"], json!(["2026-07-28"]));
    assert_eq!(discovered["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "mcp-gateway");
    walk(&Client::Modern, &mut connection);
    let list = Client::Modern.ask(&mut connection, "tools/list", json!({}));
    assert_eq!((&list["result"]["ttlMs"], &list["result"]["cacheScope"]), (&json!(1000), &json!("public")));
    // The servers see their own names in headers and bodies.
    let calls: Vec<_> = servers[1]
        .seen()
        .into_iter()
        .filter(|seen| seen.header("mcp-method") == Some("tools/call"))
        .collect();
    assert!(calls.iter().all(|call| call.header("mcp-name") == Some("echo")), "{calls:?}");
    // A header that does not mirror the body is refused before it is spliced.
    let message = modern("q", "tools/call", json!({"name": "files__echo"}));
    let wrong =
        connection.post("/mcp", &mirrored("tools/call", Some("my_git__echo")), &message).expect("an answer");
    assert_eq!((wrong.status, &wrong.json()["error"]["code"]), (400, &json!(-32020)));
    // One server alone keeps its names.
    let alone =
        connection.post("/mcp/my_git", &mirrored("tools/list", None), &modern(1, "tools/list", json!({})));
    assert_eq!(names(&alone.expect("an answer").json(), "tools", "name"), ["echo"]);
}

#[test]
fn legacy_servers_are_one() {
    let servers = [Fixture::legacy(lists("files")), Fixture::legacy(lists("my_git"))];
    let config =
        GatewayConfig::new().server("files", &[&servers[0].url()]).server("my_git", &[&servers[1].url()]);
    let gateway = Gateway::start(&config);
    let mut connection = gateway.connect().expect("a connection");
    let session = open_session(&mut connection, "/mcp", LEGACY);
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let told = connection.post("/mcp", &in_session(&session, LEGACY), &initialized).expect("an answer");
    assert_eq!(told.status, 202);
    for server in &servers {
        let seen = server.seen();
        assert!(seen.iter().any(|seen| seen.json()["method"] == "notifications/initialized"), "{seen:?}");
    }
    let client = Client::Legacy(session.clone());
    assert_eq!(client.ask(&mut connection, "ping", json!({}))["result"], json!({}));
    walk(&client, &mut connection);

    // The session is known here alone, and ends everywhere.
    let list = request(1, "tools/list", json!({}));
    let elsewhere = connection.post("/mcp/files", &in_session(&session, LEGACY), &list).expect("an answer");
    assert_eq!(elsewhere.status, 404);
    let ended = connection.request("DELETE", "/mcp", &in_session(&session, LEGACY), b"").expect("an answer");
    assert_eq!(ended.status, 200);
    for server in &servers {
        assert!(server.seen().iter().any(|seen| seen.is("DELETE")));
    }
    let over = connection.post("/mcp", &in_session(&session, LEGACY), &list).expect("an answer");
    assert_eq!(over.status, 404);
}

#[test]
fn who_fails_is_named_and_takes_nothing_from_the_others() {
    for is_modern in [false, true] {
        let good = if is_modern {
            Fixture::modern(json!([]), lists("good"))
        } else {
            Fixture::legacy(lists("good"))
        };
        let (slow, broken) = (Fixture::legacy(hangs()), Fixture::legacy(garbage()));
        let config = GatewayConfig::new()
            .server_with("hangs", &[&slow.url()], "timeout = \"300ms\"")
            .server("good", &[&good.url()])
            .server("garbage", &[&broken.url()])
            .server("gone", &["http://127.0.0.1:9/mcp"]);
        let gateway = Gateway::start(&config);
        let mut connection = gateway.connect().expect("a connection");
        let client = if is_modern {
            Client::Modern
        } else {
            Client::Legacy(open_session(&mut connection, "/mcp", LEGACY))
        };
        let list = client.ask(&mut connection, "tools/list", json!({}));
        assert_eq!(names(&list, "tools", "name"), ["good__echo"]);
        assert_eq!(list["result"]["_meta"][MISSING], json!(["hangs", "garbage", "gone"]));
        if is_modern {
            assert_eq!(list["result"]["ttlMs"], 0);
        }
        let call = client.ask(&mut connection, "tools/call", json!({"name": "good__echo"}));
        assert_eq!(call["result"]["name"], "echo");
        let lost = gateway
            .metrics()
            .value("mcp_gateway_federation_missing_total", &[("server", "gone"), ("method", "tools/list")]);
        assert_eq!(lost, Some(1.0));
    }
}

/// A server that asks on its stream, and tells of a resource; each with an id, after which it can be resumed.
fn speaks(name: &'static str) -> impl Override {
    move |request: &UpstreamRequest, stream: &mut TcpStream| {
        if !request.is("GET") {
            return lists(name)(request, stream);
        }
        let ask = json!({"jsonrpc": "2.0", "id": 1, "method": "roots/list"});
        let tell = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "file:///a"}});
        let position = request.header("last-event-id").unwrap_or("none").to_owned();
        let resumed =
            json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": position}});
        let mut text = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n".to_owned();
        for (id, event) in [(7, &ask), (8, &tell), (9, &resumed)] {
            text += &format!("id: {id}\ndata: {event}\n\n");
        }
        let _ = stream.write_all(text.as_bytes());
        // The stream stays open until the gateway leaves.
        let _ = std::io::copy(stream, &mut std::io::sink());
        Some(After::Close)
    }
}

#[test]
fn legacy_servers_speak_on_one_stream_and_are_answered_apart() {
    let servers = [Fixture::legacy(speaks("files")), Fixture::legacy(speaks("my_git"))];
    let config =
        GatewayConfig::new().server("files", &[&servers[0].url()]).server("my_git", &[&servers[1].url()]);
    let gateway = Gateway::start(&config);
    let mut connection = gateway.connect().expect("a connection");
    let session = open_session(&mut connection, "/mcp", LEGACY);
    let listen = |last: Option<&str>| {
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(in_session(&session, LEGACY));
        headers.extend(last.map(|id| ("last-event-id", id)));
        let mut connection = gateway.connect().expect("a connection");
        connection.send_request("GET", "/mcp", &headers, b"").expect("a request");
        let mut stream = connection.into_events().expect("a stream");
        let mut events = Vec::new();
        while events.len() < 6 {
            let event = stream.next_event().expect("a whole event").expect("an event");
            events.push((
                event.id.clone().unwrap_or_default(),
                serde_json::from_str(&event.data).expect("JSON"),
            ));
        }
        events
    };
    let events: Vec<(String, Value)> = listen(None);
    for (name, uri) in [("files", "mcp+files:file:///a"), ("my_git", "mcp+my.git:file:///a")] {
        let of = |id: u8| {
            let id = format!("{name}/s/{id}");
            let found = events.iter().find(|(found, _)| *found == id);
            &found.unwrap_or_else(|| panic!("no {id}: {events:?}")).1
        };
        assert_eq!((&of(7)["id"], &of(7)["method"]), (&json!(format!("{name}/1")), &json!("roots/list")));
        assert_eq!(of(8)["params"]["uri"], uri);
        assert_eq!(of(9)["params"]["data"], "none");
        let response = json!({"jsonrpc": "2.0", "id": of(7)["id"], "result": {"roots": [], "of": name}});
        let taken = connection.post("/mcp", &in_session(&session, LEGACY), &response).expect("an answer");
        assert!(taken.status < 300, "{}", taken.text());
    }
    for (server, name) in servers.iter().zip(["files", "my_git"]) {
        let of = |seen: &UpstreamRequest| seen.is("POST") && seen.json()["result"].is_object();
        let answers: Vec<_> = server.seen().into_iter().filter(of).map(|seen| seen.json()).collect();
        assert_eq!(answers, [json!({"jsonrpc": "2.0", "id": 1, "result": {"roots": [], "of": name}})]);
    }
    // The server that the position is of goes on there, the other one from now on.
    let resumed = listen(Some("my_git/s/9"));
    let positions: Vec<_> = resumed.iter().filter(|(id, _)| id.ends_with("/9")).collect();
    for (id, event) in positions {
        let expected = if id.starts_with("my_git") { "9" } else { "none" };
        assert_eq!(event["params"]["data"], expected, "{id}");
    }
    let unknown = json!({"jsonrpc": "2.0", "id": "nobody/1", "result": {}});
    let refused = connection.post("/mcp", &in_session(&session, LEGACY), &unknown).expect("an answer");
    assert_eq!(refused.status, 400, "{}", refused.text());
}

/// A modern server that acknowledges subscriptions and tells of the resource that it is asked for.
fn tells(name: &'static str) -> impl Override {
    move |request: &UpstreamRequest, stream: &mut TcpStream| {
        let message = request.json();
        if message["method"] != "subscriptions/listen" {
            return lists(name)(request, stream);
        }
        let filter = &message["params"]["notifications"];
        let meta = json!({"io.modelcontextprotocol/subscriptionId": message["id"]});
        let acknowledged = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
            "params": {"_meta": meta, "notifications": filter}});
        let updated = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated",
            "params": {"_meta": meta, "uri": filter["resourceSubscriptions"][0]}});
        let text = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {acknowledged}\n\ndata: {updated}\n\n"
        );
        let _ = stream.write_all(text.as_bytes());
        let _ = std::io::copy(stream, &mut std::io::sink());
        Some(After::Close)
    }
}

#[test]
fn modern_subscriptions_are_one_and_a_server_that_comes_is_told_of() {
    let servers = [Fixture::modern(json!([]), tells("files")), Fixture::modern(json!([]), tells("my_git"))];
    let late = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let late_addr = late.local_addr().expect("an address");
    drop(late);
    let config = GatewayConfig::new()
        .server("files", &[&servers[0].url()])
        .server("my_git", &[&servers[1].url()])
        .server("late", &[&format!("http://{late_addr}/mcp")]);
    let gateway = Gateway::start(&config);
    let mut connection = gateway.connect().expect("a connection");
    let filter = json!({"toolsListChanged": true,
        "resourceSubscriptions": ["mcp+files:file:///f", "mcp+my.git:file:///g"]});
    let message = modern("sub", "subscriptions/listen", json!({"notifications": filter}));
    connection.send_post("/mcp", &mirrored("subscriptions/listen", None), &message).expect("a request");
    let mut stream = connection.into_events().expect("a stream");
    let mut next = || -> Value {
        let event = stream.next_event().expect("a whole event").expect("an event");
        serde_json::from_str(&event.data).expect("JSON")
    };
    let first = next();
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    let mut agreed = first["params"]["notifications"].clone();
    // Servers agree in any order.
    agreed["resourceSubscriptions"].as_array_mut().expect("URIs").sort_by_key(Value::to_string);
    assert_eq!(agreed, filter);
    assert_eq!(
        first["params"]["_meta"],
        json!({
        "io.modelcontextprotocol/subscriptionId": "sub", MISSING: ["late"]})
    );
    let mut told = [next(), next()].map(|event| event["params"]["uri"].as_str().expect("a URI").to_owned());
    told.sort();
    assert_eq!(told, ["mcp+files:file:///f", "mcp+my.git:file:///g"]);
    let own: Vec<_> = servers
        .iter()
        .flat_map(Fixture::seen)
        .filter(|seen| seen.header("mcp-method") == Some("subscriptions/listen"))
        .map(|seen| seen.json()["params"]["notifications"]["resourceSubscriptions"].clone())
        .collect();
    assert_eq!(own, [json!(["file:///f"]), json!(["file:///g"])]);
    // The third server comes up.
    let _late = Fixture::modern_on(
        std::net::TcpListener::bind(late_addr).expect("its port"),
        json!([]),
        tells("late"),
    );
    let changed = next();
    assert_eq!(changed["method"], "notifications/tools/list_changed", "{changed}");
    assert_eq!(changed["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "sub");
}

#[test]
fn a_legacy_server_that_was_missing_or_forgot_its_session_is_initialized_when_it_is_needed() {
    let is_away = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let away = is_away.clone();
    let moody = Fixture::legacy(move |request, stream| {
        use std::sync::atomic::Ordering;
        let session = request.header("mcp-session-id");
        if away.load(Ordering::SeqCst)
            || session == Some("upstream-1") && request.header("x-forget").is_some()
        {
            let status = if session.is_some() { "404 Not Found" } else { "503 Service Unavailable" };
            let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            return Some(answer(stream, &text, After::KeepOpen));
        }
        lists("moody")(request, stream)
    });
    let good = Fixture::legacy(lists("good"));
    // How long a breaker leaves a server alone is another test's matter.
    let config = GatewayConfig::new()
        .server("good", &[&good.url()])
        .server("moody", &[&moody.url()])
        .set("gateway.circuit_breaker", "failure_threshold = 1000");
    let gateway = Gateway::start(&config);
    let mut connection = gateway.connect().expect("a connection");
    let opened = connection.post("/mcp", &[], &initialize(LEGACY)).expect("an answer");
    assert_eq!(opened.json()["result"]["_meta"][MISSING], json!(["moody"]), "{}", opened.text());
    let session = opened.header("mcp-session-id").expect("a session").to_owned();
    let client = Client::Legacy(session.clone());
    let without = client.ask(&mut connection, "tools/list", json!({}));
    assert_eq!(names(&without, "tools", "name"), ["good__echo"]);
    is_away.store(false, std::sync::atomic::Ordering::SeqCst);
    let with = eventually("the server is asked again", LIMIT, || {
        let list = client.ask(&mut connection, "tools/list", json!({}));
        let names = names(&list, "tools", "name");
        (names.len() == 2).then_some(names)
    });
    assert_eq!(with, ["good__echo", "moody__echo"]);
    let begun: Vec<_> =
        moody.seen().into_iter().map(|seen| seen.header("mcp-session-id").map(str::to_owned)).collect();
    assert!(begun.contains(&Some("upstream-1".to_owned())), "{begun:?}");
    // The server forgets its session; the client's lives on.
    let mut headers = in_session(&session, LEGACY).to_vec();
    headers.push(("x-forget", "1"));
    let call = request(5, "tools/call", json!({"name": "moody__echo", "arguments": {}}));
    let answer = connection.post("/mcp", &headers, &call).expect("an answer");
    assert_eq!(answer.json()["result"]["name"], "echo", "{}", answer.text());
    let methods: Vec<_> = moody
        .seen()
        .into_iter()
        .filter(|seen| seen.is("POST") && seen.header("mcp-session-id") == Some("upstream-2"))
        .map(|seen| seen.json()["method"].clone())
        .collect();
    assert_eq!(methods, [json!("notifications/initialized"), json!("tools/call")]);
}
