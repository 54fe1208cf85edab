//! Setup: one gateway with a scripted server of both eras; for each rule of `docs/streamable-http.md` a request that breaks it,
//! and nothing else.
//! Claim: each gets exactly the status, the JSON-RPC code and the request's id that the page names, is counted under exactly
//! that reason, and none reaches the server.

use std::io::Result;

use mcp_system_tests::upstream::{After, ScriptedUpstream, UpstreamRequest, answer, answer_json};
use mcp_system_tests::{Gateway, GatewayConfig, Response};
use serde_json::{Value, json};

const JSON: &str = "Content-Type: application/json\r\n";
const ACCEPT: &str = "Accept: application/json, text/event-stream\r\n";
const MODERN: &str = "MCP-Protocol-Version: 2026-07-28\r\n";
const PING: &str = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;

struct Case {
    name: &'static str,
    request: String,
    status: u16,
    /// The JSON-RPC code and the id of the answer.
    code: i64,
    id: Value,
    reason: &'static str,
}

fn case(
    name: &'static str,
    request: String,
    status: u16,
    code: i64,
    id: Value,
    reason: &'static str,
) -> Case {
    Case { name, request, status, code, id, reason }
}

/// A request with a body, framed by its length.
fn with_body(start: &str, fields: &str, body: &str) -> String {
    format!("{start} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn post(fields: &str, body: &str) -> String {
    with_body("POST /mcp/both", &format!("{JSON}{ACCEPT}{fields}"), body)
}

fn bare(start: &str, fields: &str) -> String {
    format!("{start} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
}

/// A modern tools/call whose headers are `headers` and whose `_meta` is `meta`.
fn modern_call(headers: &str, meta: &Value) -> String {
    let body = json!({
        "jsonrpc": "2.0", "id": "m", "method": "tools/call",
        "params": {"name": "echo", "arguments": {"region": "eu", "count": 42}, "_meta": meta},
    });
    post(headers, &body.to_string())
}

fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

fn without(key: &str) -> Value {
    let mut meta = meta();
    meta.as_object_mut().expect("an object").remove(&format!("io.modelcontextprotocol/{key}"));
    meta
}

fn http_cases() -> Vec<Case> {
    let none = Value::Null;
    vec![
        case(
            "another path",
            post("", PING).replacen("/mcp/both", "/mcpx", 1),
            404,
            -32600,
            none.clone(),
            "path",
        ),
        case("the root", bare("GET /", ""), 404, -32600, none.clone(), "path"),
        case(
            "a server that is not",
            post("", PING).replacen("/mcp/both", "/mcp/no", 1),
            404,
            -32600,
            none.clone(),
            "server_unknown",
        ),
        case(
            "a path below a server",
            post("", PING).replacen("/mcp/both", "/mcp/both/x", 1),
            404,
            -32600,
            none.clone(),
            "server_unknown",
        ),
        case("PUT", with_body("PUT /mcp/both", "", "x"), 405, -32600, none.clone(), "method_not_allowed"),
        case("PATCH", with_body("PATCH /mcp/both", "", "x"), 405, -32600, none.clone(), "method_not_allowed"),
        case(
            "an unknown method",
            bare("BREW /mcp/both", ""),
            405,
            -32600,
            none.clone(),
            "method_not_allowed",
        ),
        case(
            "POST to /health",
            with_body("POST /health", "", "x"),
            405,
            -32600,
            none.clone(),
            "method_not_allowed",
        ),
        case(
            "a foreign Host",
            post("", PING).replace("localhost", "evil.example"),
            403,
            -32600,
            none.clone(),
            "host",
        ),
        case(
            "a Host that only begins well",
            post("", PING).replace("localhost", "localhost.evil.example"),
            403,
            -32600,
            none.clone(),
            "host",
        ),
        case(
            "a foreign Origin",
            post("Origin: https://evil.example\r\n", PING),
            403,
            -32600,
            none.clone(),
            "origin",
        ),
        case("the null Origin", post("Origin: null\r\n", PING), 403, -32600, none.clone(), "origin"),
        case(
            "an Origin on another port",
            post("Origin: https://localhost:1\r\n", PING),
            403,
            -32600,
            none.clone(),
            "origin",
        ),
        case(
            "no Accept",
            with_body("POST /mcp/both", JSON, PING),
            406,
            -32600,
            none.clone(),
            "not_acceptable",
        ),
        case(
            "JSON only",
            with_body("POST /mcp/both", &format!("{JSON}Accept: application/json\r\n"), PING),
            406,
            -32600,
            none.clone(),
            "not_acceptable",
        ),
        case(
            "events only",
            with_body("POST /mcp/both", &format!("{JSON}Accept: text/event-stream\r\n"), PING),
            406,
            -32600,
            none.clone(),
            "not_acceptable",
        ),
        case(
            "events refused by q",
            with_body(
                "POST /mcp/both",
                &format!("{JSON}Accept: application/json, text/event-stream;q=0\r\n"),
                PING,
            ),
            406,
            -32600,
            none.clone(),
            "not_acceptable",
        ),
        case(
            "a GET for JSON",
            bare("GET /mcp/both", "Accept: application/json\r\n"),
            406,
            -32600,
            none.clone(),
            "not_acceptable",
        ),
        case(
            "no Content-Type",
            with_body("POST /mcp/both", ACCEPT, PING),
            415,
            -32600,
            none.clone(),
            "media_type",
        ),
        case(
            "text",
            with_body("POST /mcp/both", &format!("Content-Type: text/plain\r\n{ACCEPT}"), PING),
            415,
            -32600,
            none.clone(),
            "media_type",
        ),
        case(
            "JSON in Latin-1",
            with_body(
                "POST /mcp/both",
                &format!("Content-Type: application/json; charset=latin1\r\n{ACCEPT}"),
                PING,
            ),
            415,
            -32600,
            none.clone(),
            "media_type",
        ),
        case(
            "a compressed body",
            post("Content-Encoding: gzip\r\n", PING),
            415,
            -32600,
            none.clone(),
            "content_encoding",
        ),
        case(
            "a body too large",
            with_body("POST /mcp/both", &format!("{JSON}{ACCEPT}"), &"x".repeat(5000)),
            413,
            -32600,
            none.clone(),
            "body_too_large",
        ),
        case(
            "a GET with a body",
            with_body("GET /mcp/both", "Accept: text/event-stream\r\n", "x"),
            413,
            -32600,
            none.clone(),
            "body_too_large",
        ),
        case("a target with a fragment", bare("GET /mcp#x", ACCEPT), 400, -32600, none.clone(), "http_head"),
        case(
            "an absolute target of another host",
            bare("GET https://other/mcp", ACCEPT),
            400,
            -32600,
            none.clone(),
            "http_head",
        ),
        case(
            "two session ids",
            post("Mcp-Session-Id: a\r\nMcp-Session-Id: b\r\n", PING),
            400,
            -32600,
            none.clone(),
            "http_head",
        ),
        case(
            "a chunk that lies",
            format!(
                "{}zz\r\n",
                bare("POST /mcp/both", &format!("{JSON}{ACCEPT}Transfer-Encoding: chunked\r\n"))
            ),
            400,
            -32600,
            none,
            "http_chunk",
        ),
    ]
}

fn json_cases() -> Vec<Case> {
    let none = Value::Null;
    vec![
        case("no body", post("", ""), 400, -32700, none.clone(), "json_rpc"),
        case("a word", post("", "hello"), 400, -32700, none.clone(), "json_rpc"),
        case(
            "a leading zero",
            post("", r#"{"jsonrpc":"2.0","id":7,"method":"ping","params":{"x":01}}"#),
            400,
            -32700,
            json!(7),
            "json_rpc",
        ),
        case(
            "a trailing comma",
            post("", r#"{"jsonrpc":"2.0","id":7,"method":"ping",}"#),
            400,
            -32700,
            json!(7),
            "json_rpc",
        ),
        case(
            "a control character",
            post("", "{\"jsonrpc\":\"2.0\",\"id\":\"a\nb\",\"method\":\"ping\"}"),
            400,
            -32700,
            none.clone(),
            "json_rpc",
        ),
        case("an array that is no batch", post("", "[]"), 400, -32600, none.clone(), "json_rpc"),
        case("a string", post("", r#""ping""#), 400, -32600, none.clone(), "json_rpc"),
        case("no version", post("", r#"{"id":7,"method":"ping"}"#), 400, -32600, json!(7), "json_rpc"),
        case(
            "an object as id",
            post("", r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#),
            400,
            -32600,
            none.clone(),
            "json_rpc",
        ),
        case(
            "an empty method",
            post("", r#"{"jsonrpc":"2.0","id":7,"method":""}"#),
            400,
            -32600,
            json!(7),
            "json_rpc",
        ),
        case(
            "two ids",
            post("", r#"{"jsonrpc":"2.0","id":7,"id":8,"method":"ping"}"#),
            400,
            -32600,
            none.clone(),
            "json_rpc",
        ),
        case(
            "result and error",
            post("", r#"{"jsonrpc":"2.0","id":7,"result":{},"error":{"code":1,"message":"x"}}"#),
            400,
            -32600,
            none.clone(),
            "json_rpc",
        ),
        case(
            "a batch with garbage in it",
            post("", r#"[{"jsonrpc":"2.0","id":7,"method":"ping"},1]"#),
            400,
            -32600,
            none,
            "json_rpc",
        ),
    ]
}

fn legacy_cases(session: &str) -> Vec<Case> {
    let none = Value::Null;
    let unknown = "Mcp-Session-Id: AAAAAAAAAAAAAAAAAAAAAAAA\r\n";
    let known = format!("Mcp-Session-Id: {session}\r\n");
    let batch = format!("[{PING}]");
    let init = r#"[{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}]"#;
    vec![
        case("no session", post("", PING), 400, -32600, json!(7), "session_required"),
        case(
            "a session that we never minted",
            post("Mcp-Session-Id: nonsense\r\n", PING),
            404,
            -32001,
            json!(7),
            "session_unknown",
        ),
        case("an unknown session", post(unknown, PING), 404, -32001, json!(7), "session_unknown"),
        case(
            "a GET without a session",
            bare("GET /mcp/both", "Accept: text/event-stream\r\n"),
            400,
            -32600,
            none.clone(),
            "session_required",
        ),
        case(
            "a GET of an unknown session",
            bare("GET /mcp/both", &format!("Accept: text/event-stream\r\n{unknown}")),
            404,
            -32001,
            none.clone(),
            "session_unknown",
        ),
        case(
            "a DELETE without a session",
            bare("DELETE /mcp/both", ""),
            400,
            -32600,
            none.clone(),
            "session_required",
        ),
        case(
            "a DELETE of an unknown session",
            bare("DELETE /mcp/both", unknown),
            404,
            -32001,
            none.clone(),
            "session_unknown",
        ),
        case(
            "another server's session",
            post(&known, PING).replacen("/mcp/both", "/mcp/other", 1),
            404,
            -32001,
            json!(7),
            "session_unknown",
        ),
        case(
            "a revision that is none",
            post(&format!("{known}MCP-Protocol-Version: 1999-01-01\r\n"), PING),
            400,
            -32022,
            json!(7),
            "revision",
        ),
        case("a batch in a revision without", post(&known, &batch), 400, -32600, none.clone(), "batch"),
        case("a batch without a session", post("", &batch), 400, -32600, none.clone(), "session_required"),
        case("initialize in a batch", post(&known, init), 400, -32600, none, "batched_initialize"),
    ]
}

fn modern_cases() -> Vec<Case> {
    let headers = |method: &str, name: &str| format!("{MODERN}Mcp-Method: {method}\r\nMcp-Name: {name}\r\n");
    let call = headers("tools/call", "echo");
    let id = json!("m");
    let mut newer = meta();
    newer["io.modelcontextprotocol/protocolVersion"] = json!("2099-01-01");
    let response = json!({"jsonrpc": "2.0", "id": "m", "result": {}}).to_string();
    let name = "modern_headers";
    vec![
        case(
            "no version header",
            modern_call("Mcp-Method: tools/call\r\nMcp-Name: echo\r\n", &meta()),
            400,
            -32020,
            id.clone(),
            name,
        ),
        case(
            "another version in the header",
            modern_call(&call.replace("2026-07-28", "2025-11-25"), &meta()),
            400,
            -32020,
            id.clone(),
            name,
        ),
        case(
            "a version that nobody speaks",
            modern_call(&call.replace("2026-07-28", "2099-01-01"), &newer),
            400,
            -32022,
            id.clone(),
            name,
        ),
        case(
            "no Mcp-Method",
            modern_call(&format!("{MODERN}Mcp-Name: echo\r\n"), &meta()),
            400,
            -32020,
            id.clone(),
            name,
        ),
        case(
            "another Mcp-Method",
            modern_call(&headers("tools/list", "echo"), &meta()),
            400,
            -32020,
            id.clone(),
            name,
        ),
        case(
            "Mcp-Method in another case",
            modern_call(&headers("Tools/Call", "echo"), &meta()),
            400,
            -32020,
            id.clone(),
            name,
        ),
        case(
            "no Mcp-Name",
            modern_call(&format!("{MODERN}Mcp-Method: tools/call\r\n"), &meta()),
            400,
            -32020,
            id.clone(),
            name,
        ),
        case(
            "another Mcp-Name",
            modern_call(&headers("tools/call", "other"), &meta()),
            400,
            -32020,
            id.clone(),
            name,
        ),
        case(
            "a sentinel for another name",
            modern_call(&headers("tools/call", "=?base64?b3RoZXI=?="), &meta()),
            400,
            -32020,
            id.clone(),
            name,
        ),
        case(
            "a sentinel that is no base64",
            modern_call(&headers("tools/call", "=?base64?!?="), &meta()),
            400,
            -32020,
            id.clone(),
            name,
        ),
        case(
            "no version in _meta",
            modern_call(&call, &without("protocolVersion")),
            400,
            -32602,
            id.clone(),
            name,
        ),
        case(
            "no capabilities in _meta",
            modern_call(&call, &without("clientCapabilities")),
            400,
            -32602,
            id.clone(),
            name,
        ),
        case("a client's response", post(MODERN, &response), 400, -32600, Value::Null, "unexpected_response"),
        case("no Mcp-Param", modern_call(&call, &meta()), 400, -32020, id.clone(), name),
        case(
            "another Mcp-Param",
            modern_call(&format!("{call}Mcp-Param-Region: us\r\nMcp-Param-Count: 42\r\n"), &meta()),
            400,
            -32020,
            id.clone(),
            name,
        ),
        case(
            "another number",
            modern_call(&format!("{call}Mcp-Param-Region: eu\r\nMcp-Param-Count: 43\r\n"), &meta()),
            400,
            -32020,
            id,
            name,
        ),
        case(
            "a modern GET",
            bare("GET /mcp/both", &format!("{MODERN}Accept: text/event-stream\r\n")),
            405,
            -32600,
            Value::Null,
            "method_not_allowed",
        ),
        case(
            "a modern DELETE",
            bare("DELETE /mcp/both", MODERN),
            405,
            -32600,
            Value::Null,
            "method_not_allowed",
        ),
        case("a modern batch", post(MODERN, &format!("[{PING}]")), 400, -32600, Value::Null, "batch"),
    ]
}

/// The one scripted server: what the gateway asks on its own account is answered, what a broken rule lets through counts.
fn script(request: &UpstreamRequest, stream: &mut std::net::TcpStream) -> After {
    let message = request.json();
    let result = match message["method"].as_str().unwrap_or_default() {
        "initialize" => json!({
            "protocolVersion": message["params"]["protocolVersion"], "capabilities": {},
            "serverInfo": {"name": "script", "version": "1"},
        }),
        "server/discover" => {
            json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {}})
        }
        "tools/list" => json!({"resultType": "complete", "tools": [{
            "name": "echo",
            "inputSchema": {"type": "object", "properties": {
                "region": {"type": "string", "x-mcp-header": "Region"},
                "count": {"type": "integer", "x-mcp-header": "Count"},
            }},
        }]}),
        other => {
            return answer(
                stream,
                &format!("HTTP/1.1 500 {other} came through\r\nContent-Length: 0\r\n\r\n"),
                After::Close,
            );
        }
    };
    answer_json(stream, "200 OK", &json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
}

fn ask(gateway: &Gateway, request: &str) -> Result<Response> {
    let mut connection = gateway.connect()?;
    connection.send(request.as_bytes())?;
    connection.read_response(false)
}

#[test]
fn each_broken_rule_has_its_answer() {
    let upstream = ScriptedUpstream::start(script);
    let config = GatewayConfig::new()
        .server("both", &[&upstream.url()])
        .server("other", &[&upstream.url()])
        .set("gateway.server", "max_body = \"4KiB\"");
    let gateway = Gateway::start(&config);
    let initialize = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    });
    let opened = ask(&gateway, &post("", &initialize.to_string())).expect("a session");
    let session = opened.header("mcp-session-id").expect("a session id").to_owned();

    let cases: Vec<_> =
        [http_cases(), json_cases(), legacy_cases(&session), modern_cases()].into_iter().flatten().collect();
    assert!(cases.len() >= 60, "{} cases", cases.len());
    for case in cases {
        let name = case.name;
        let counted = |gateway: &Gateway| {
            gateway.metrics().count("mcp_gateway_routing_errors_total", &[("reason", case.reason)])
        };
        let before = counted(&gateway);
        let answer = ask(&gateway, &case.request).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(answer.status, case.status, "{name}: {}", answer.text());
        let body = answer.json();
        assert_eq!(body["error"]["code"], case.code, "{name}: {body}");
        assert_eq!(body["id"], case.id, "{name}: {body}");
        assert_eq!(body["jsonrpc"], "2.0", "{name}: {body}");
        assert_eq!(counted(&gateway) - before, 1.0, "{name} is counted as {}", case.reason);
        if case.status == 405 {
            assert!(answer.header("allow").is_some(), "{name}: no Allow");
        }
        if case.code == -32022 {
            assert!(body["error"]["data"]["supported"].is_array(), "{name}: {body}");
        }
    }
}
