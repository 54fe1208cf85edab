//! Setup: clients of 2026-07-28 and of the session era in front of servers of either, through the gateway: the demo server,
//! a modern fixture, a legacy fixture.
//! Claim: the modern rules of headers against body are enforced before a server is asked, with the codes of the specification;
//! a pair of different eras gets the error that tells the client what to do.

use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::mcp::{LEGACY, MODERN, initialize, meta, mirrored, modern, request};
use mcp_system_tests::{Gateway, GatewayConfig, Response};
use serde_json::{Value, json};

type Headers<'a> = Vec<(&'a str, &'a str)>;

/// streamable-http.mdx, "Server Validation"; basic/index.mdx, "`_meta`".
#[test]
fn headers_must_mirror_the_body() {
    let fixture = Fixture::modern(json!([]), nothing);
    let behind = Gateway::start(&GatewayConfig::new().server("fixture", &[&fixture.url()]));
    let alone = Gateway::start(&GatewayConfig::new());
    let call = modern("c-1", "tools/call", json!({"name": "echo", "arguments": {"text": "hi"}}));
    let list = modern("l-1", "tools/list", json!({}));
    let with = |method: &'static str, version: &'static str, name: &'static str| -> Headers<'_> {
        let all = [("mcp-method", method), ("mcp-protocol-version", version), ("mcp-name", name)];
        all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    };
    let without_meta = |key: &str| {
        let mut message = call.clone();
        message["params"]["_meta"].as_object_mut().expect("an object").remove(key);
        message
    };
    let named = |name: &str| modern("c-1", "tools/call", json!({"name": name, "arguments": {"text": "hi"}}));
    let cases: Vec<(&str, Headers<'_>, Value, i64)> = vec![
        ("no version", with("tools/call", "", "echo"), call.clone(), -32020),
        ("another version", with("tools/call", LEGACY, "echo"), call.clone(), -32020),
        ("no method", with("", MODERN, "echo"), call.clone(), -32020),
        ("another method", with("tools/list", MODERN, "echo"), call.clone(), -32020),
        ("a method in another case", with("Tools/Call", MODERN, "echo"), call.clone(), -32020),
        ("no name", with("tools/call", MODERN, ""), call.clone(), -32020),
        ("another name", with("tools/call", MODERN, "add"), call.clone(), -32020),
        (
            "a name that the body lacks",
            with("tools/call", MODERN, "echo"),
            modern("c-1", "tools/call", json!({})),
            -32020,
        ),
        ("a name that is not ASCII", with("tools/call", MODERN, "w\u{e9}"), named("w\u{e9}"), -32020),
        ("base64 of another name", with("tools/call", MODERN, "=?base64?YWRk?="), call.clone(), -32020),
        ("base64 that is none", with("tools/call", MODERN, "=?base64?ZWNobw?="), call.clone(), -32020),
        ("base64 that is not UTF-8", with("tools/call", MODERN, "=?base64?/w==?="), call.clone(), -32020),
        ("another list", with("tools/call", MODERN, "echo"), list.clone(), -32020),
        ("no _meta", with("tools/list", MODERN, ""), request("l-1", "tools/list", json!({})), -32602),
        (
            "no params",
            with("tools/list", MODERN, ""),
            json!({"jsonrpc": "2.0", "id": "l-1", "method": "tools/list"}),
            -32602,
        ),
        (
            "no version in _meta",
            with("tools/call", MODERN, "echo"),
            without_meta("io.modelcontextprotocol/protocolVersion"),
            -32602,
        ),
        (
            "no capabilities",
            with("tools/call", MODERN, "echo"),
            without_meta("io.modelcontextprotocol/clientCapabilities"),
            -32602,
        ),
        (
            "a response",
            with("tools/list", MODERN, ""),
            json!({"jsonrpc": "2.0", "id": "l-1", "result": {}}),
            -32600,
        ),
    ];
    for (gateway, path) in [(&behind, "/mcp/fixture"), (&alone, "/mcp")] {
        for (name, headers, message, code) in &cases {
            let answer = post(gateway, path, headers, message);
            assert_eq!(
                (answer.status, &answer.json()["error"]["code"]),
                (400, &json!(code)),
                "{path}, {name}: {}",
                answer.text()
            );
            let id = if *code == -32600 { &Value::Null } else { &message["id"] };
            assert_eq!(&answer.json()["id"], id, "{path}, {name}: {}", answer.text());
        }
        for name in ["echo", "=?base64?ZWNobw==?="] {
            let answer = post(gateway, path, &with("tools/call", MODERN, name), &call);
            assert_eq!(answer.status, 200, "{path}, {name}: {}", answer.text());
            assert_eq!(answer.json()["id"], "c-1");
        }
    }
    assert_eq!(fixture.seen().len(), 2, "a refused message reached the server");
    let refused = behind.metrics().count("mcp_gateway_routing_errors_total", &[("reason", "modern_headers")]);
    assert_eq!(refused, (cases.len() - 1) as f64);
}

#[test]
fn a_name_that_no_header_can_hold_comes_in_base64() {
    let fixture = Fixture::modern(json!([]), nothing);
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&fixture.url()]));
    for (name, header) in [
        ("世界", "=?base64?5LiW55WM?="),
        (" a\n", "=?base64?IGEK?="),
        ("=?base64?x?=", "=?base64?PT9iYXNlNjQ/eD89?="),
    ] {
        let message = modern(1, "prompts/get", json!({"name": name}));
        let answer = post(&gateway, "/mcp/fixture", &mirrored("prompts/get", Some(header)), &message);
        assert_eq!(
            (answer.status, &answer.json()["result"]["name"]),
            (200, &json!(name)),
            "{}",
            answer.text()
        );
        let seen = fixture.seen().pop().expect("a request");
        assert_eq!(seen.header("mcp-name"), Some(header));
    }
}

#[test]
fn an_unknown_revision_is_told_which_are_known() {
    let fixture = Fixture::modern(json!([]), nothing);
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&fixture.url()]));
    let mut message = modern(5, "tools/list", json!({}));
    message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2099-01-01");
    let headers = [("mcp-method", "tools/list"), ("mcp-protocol-version", "2099-01-01")];
    let answer = post(&gateway, "/mcp/fixture", &headers, &message);
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!(-32022)), "{}", answer.text());
    assert_eq!(answer.json()["error"]["data"], json!({"supported": [MODERN], "requested": "2099-01-01"}));
    // Without metadata it is a message of the session era with a revision that nobody knows.
    let answer = post(&gateway, "/mcp/fixture", &headers[1..], &request(5, "tools/list", json!({})));
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_eq!(answer.json()["error"]["data"]["requested"], "2099-01-01");
    assert!(fixture.seen().is_empty());
}

/// streamable-http.mdx, "Custom Headers from Tool Parameters": the four rows of "Server Behavior for Custom Headers".
#[test]
fn tool_parameters_must_mirror_their_headers() {
    let tools = json!([
        {"name": "query", "inputSchema": {"type": "object", "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "limit": {"type": "integer", "x-mcp-header": "Limit"},
            "dry": {"type": "boolean", "x-mcp-header": "Dry"},
            "free": {"type": "string"},
        }}},
        {"name": "plain", "inputSchema": {"type": "object", "properties": {"region": {"type": "string"}}}},
    ]);
    let fixture = Fixture::modern(tools, nothing);
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&fixture.url()]));
    let region = ("mcp-param-region", "eu");
    let cases: Vec<(&str, Headers<'_>, Value, u16)> = vec![
        ("the same", vec![region], json!({"region": "eu"}), 200),
        ("another case of the header's name", vec![("MCP-PARAM-REGION", "eu")], json!({"region": "eu"}), 200),
        ("in base64", vec![("mcp-param-region", "=?base64?ZXU=?=")], json!({"region": "eu"}), 200),
        ("with an escape in the body", vec![region], json!({"region": "eu", "free": "\u{1}"}), 200),
        ("neither", vec![], json!({"free": "x"}), 200),
        ("null is no value", vec![], json!({"region": null}), 200),
        ("a header that nobody asked for", vec![("mcp-param-free", "y")], json!({"free": "x"}), 200),
        ("an integer", vec![("mcp-param-limit", "42")], json!({"limit": 42}), 200),
        ("the same number", vec![("mcp-param-limit", "42.0")], json!({"limit": 42}), 200),
        ("the same number, the other way", vec![("mcp-param-limit", "42")], json!({"limit": 42.0}), 200),
        ("a boolean", vec![("mcp-param-dry", "true")], json!({"dry": true}), 200),
        ("a missing header", vec![], json!({"region": "eu"}), 400),
        ("a header without a value", vec![region], json!({}), 400),
        ("a header for null", vec![region], json!({"region": null}), 400),
        ("another value", vec![region], json!({"region": "us"}), 400),
        ("another case of the value", vec![region], json!({"region": "EU"}), 400),
        ("two headers", vec![region, region], json!({"region": "eu"}), 400),
        ("another number", vec![("mcp-param-limit", "42.5")], json!({"limit": 42}), 400),
        ("a number as text", vec![("mcp-param-limit", "forty-two")], json!({"limit": 42}), 400),
        ("another boolean", vec![("mcp-param-dry", "True")], json!({"dry": true}), 400),
        ("base64 that is none", vec![("mcp-param-region", "=?base64?ZXU?=")], json!({"region": "eu"}), 400),
        (
            "one right, one wrong",
            vec![region, ("mcp-param-limit", "1")],
            json!({"region": "eu", "limit": 2}),
            400,
        ),
    ];
    for (name, headers, arguments, status) in &cases {
        let before = fixture.seen().len();
        let message = modern(9, "tools/call", json!({"name": "query", "arguments": arguments}));
        let mut all: Headers<'_> = mirrored("tools/call", Some("query"));
        all.extend(headers);
        let answer = post(&gateway, "/mcp/fixture", &all, &message);
        assert_eq!(answer.status, *status, "{name}: {}", answer.text());
        if *status == 400 {
            assert_eq!(answer.json()["error"]["code"], -32020, "{name}: {}", answer.text());
            assert_eq!(answer.json()["id"], 9, "{name}: {}", answer.text());
            assert_eq!(fixture.seen().len(), before, "{name}: the refused call reached the server");
        }
    }
    // A tool without annotations asks for nothing.
    let message = modern(9, "tools/call", json!({"name": "plain", "arguments": {"region": "eu"}}));
    let mut headers = mirrored("tools/call", Some("plain"));
    headers.push(("mcp-param-region", "us"));
    assert_eq!(post(&gateway, "/mcp/fixture", &headers, &message).status, 200);
}

#[test]
fn a_modern_client_learns_that_a_server_is_legacy() {
    let fixture = Fixture::legacy(nothing);
    let gateway = Gateway::start(&GatewayConfig::new().server("legacy", &[&fixture.url()]));
    for (method, name) in [("server/discover", None), ("tools/call", Some("any"))] {
        let mut params = json!({});
        if let Some(name) = name {
            params["name"] = json!(name);
        }
        let answer = post(&gateway, "/mcp/legacy", &mirrored(method, name), &modern("x", method, params));
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (400, &json!(-32022)),
            "{}",
            answer.text()
        );
        assert_eq!(answer.json()["id"], "x");
        let data = &answer.json()["error"]["data"];
        assert_eq!(data["supported"], json!(["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]));
        assert_eq!(data["requested"], MODERN);
    }
    assert!(fixture.seen().is_empty(), "a modern message reached a legacy server");
    // The same server serves its own era.
    let answer = post(&gateway, "/mcp/legacy", &[], &initialize(LEGACY));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_legacy_client_learns_that_a_server_is_modern() {
    let fixture = Fixture::modern(json!([]), nothing);
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&fixture.url()]));
    let answer = post(&gateway, "/mcp/fixture", &[], &initialize(LEGACY));
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!(-32022)), "{}", answer.text());
    assert_eq!(answer.json()["id"], 1);
    let message = answer.json()["error"]["message"].as_str().expect("a message").to_owned();
    assert!(message.contains("\"fixture\""), "{message}");
    assert_eq!(answer.json()["error"]["data"], json!({"supported": [MODERN], "requested": LEGACY}));
    // The next one is told so without the server.
    assert_eq!(fixture.seen().len(), 1);
    let answer = post(&gateway, "/mcp/fixture", &[], &initialize(LEGACY));
    assert_eq!((answer.status, fixture.seen().len()), (400, 1), "{}", answer.text());
    assert_eq!(answer.header("mcp-session-id"), None, "a session that was never opened");
    assert_eq!(gateway.metrics().value("mcp_gateway_sessions_active", &[]), Some(0.0));
}

#[test]
fn the_modern_era_has_no_get_and_no_delete() {
    let fixture = Fixture::modern(json!([]), nothing);
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&fixture.url()]));
    for method in ["GET", "DELETE"] {
        let headers = [("mcp-protocol-version", MODERN), ("accept", "text/event-stream")];
        let mut connection = gateway.connect().expect("a connection");
        let answer = connection.request(method, "/mcp/fixture", &headers, b"").expect("an answer");
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{}", answer.text());
    }
    // A batch does not exist in it either.
    let batch = json!([modern(1, "tools/list", json!({}))]);
    let answer = post(&gateway, "/mcp/fixture", &mirrored("tools/list", None), &batch);
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!(-32600)), "{}", answer.text());
    // Nor a notification that needs an answer: it is accepted.
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/x", "params": {"_meta": meta()}});
    let answer = post(&gateway, "/mcp/fixture", &mirrored("notifications/x", None), &notification);
    assert_eq!((answer.status, answer.body.len()), (202, 0), "{}", answer.text());
}

fn post(gateway: &Gateway, path: &str, headers: &[(&str, &str)], message: &Value) -> Response {
    let mut connection = gateway.connect().expect("a connection");
    connection.post(path, headers, message).expect("an answer")
}
