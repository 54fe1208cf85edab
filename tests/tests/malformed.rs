//! Setup: the gateway is sent HTTP/1.1 that is malformed, ambiguous or too large, and JSON-RPC that is none, byte by byte over
//! TLS.
//! Claim: each is refused with the status that RFC 9112 or the specification names, nothing that follows a malformed head is
//! taken for a request, and the gateway serves on.

use mcp_system_tests::mcp::{LEGACY, POST_HEADERS, initialize};
use mcp_system_tests::upstream::{ScriptedUpstream, answer_json};
use mcp_system_tests::{Gateway, GatewayConfig};
use serde_json::json;

/// A request that must not be answered when it follows a refused one on the same connection.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn malformed_heads_are_refused() {
    let gateway = Gateway::start(&GatewayConfig::new().set("gateway.server", "max_header_bytes = \"8KiB\""));
    let host = gateway.addr.to_string();
    let long = format!("GET /health HTTP/1.1\r\nHost: {host}\r\nX: {}\r\n\r\n", "x".repeat(16 * 1024));
    let with = |line: &str| format!("GET /health HTTP/1.1\r\nHost: {host}\r\n{line}\r\n\r\n{SMUGGLED}");
    let cases: Vec<(&str, String, &[u16])> = vec![
        // RFC 9112, 6.3: what could be framed in two ways is refused.
        ("length and coding", with("Content-Length: 3\r\nTransfer-Encoding: chunked"), &[400]),
        ("two lengths", with("Content-Length: 3\r\nContent-Length: 4"), &[400]),
        ("a list of lengths", with("Content-Length: 3, 4"), &[400]),
        ("a signed length", with("Content-Length: +3"), &[400]),
        ("a length that is none", with("Content-Length: 0x3"), &[400]),
        ("a length beyond all", with("Content-Length: 99999999999999999999"), &[400, 413]),
        // RFC 9112, 6.1 and 7.
        ("an unknown coding", with("Transfer-Encoding: gzip"), &[400, 501]),
        ("chunked not last", with("Transfer-Encoding: chunked, gzip"), &[400, 501]),
        ("chunked twice", with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), &[400, 501]),
        // RFC 9112, 5.1 and 5.2.
        ("a space before the colon", with("X : y"), &[400]),
        ("a folded line", with("X: y\r\n z"), &[400]),
        ("a field without a name", with(": y"), &[400]),
        ("a NUL", with("X: a\0b"), &[400]),
        ("a carriage return alone", with("X: a\rb"), &[400]),
        // RFC 9112, 3 and 3.2.
        ("no host", "GET /health HTTP/1.1\r\n\r\n".to_owned(), &[400]),
        ("two hosts", with(&format!("Host: {host}")), &[400]),
        ("no target", format!("GET HTTP/1.1\r\nHost: {host}\r\n\r\n"), &[400]),
        ("a later version", format!("GET /health HTTP/2.0\r\nHost: {host}\r\n\r\n"), &[400, 505]),
        ("no HTTP at all", "\u{16}\u{3}\u{1} hello\r\n\r\n".to_owned(), &[400]),
        ("a head that is too long", long, &[431]),
    ];
    for (name, bytes, statuses) in cases {
        let mut connection = gateway.connect().expect("a connection");
        connection.send(bytes.as_bytes()).expect("sent");
        let answer = connection.read_response(false).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(statuses.contains(&answer.status), "{name}: {} {}", answer.status, answer.text());
        // What follows is no request, and the connection is of no use any more.
        assert!(connection.is_closed().unwrap_or(true), "{name}: something was answered after the refusal");
    }
    assert_eq!(gateway.get("/health").expect("still served").status, 200);
}

#[test]
fn malformed_bodies_are_refused() {
    let upstream = ScriptedUpstream::start(|_, stream| answer_json(stream, "200 OK", &json!({})));
    let config =
        GatewayConfig::new().server("never", &[&upstream.url()]).set("gateway.server", "max_body = \"4KiB\"");
    let gateway = Gateway::start(&config);
    let head = format!(
        "POST /mcp/never HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\n",
        gateway.addr
    );
    let chunked = |body: &str| format!("{head}Transfer-Encoding: chunked\r\n\r\n{body}");
    let cases: Vec<(&str, String, u16)> = vec![
        ("a body that is told to be too long", format!("{head}Content-Length: 5000\r\n\r\n"), 413),
        ("a chunk that is too long", chunked(&format!("1400\r\n{}\r\n0\r\n\r\n", "x".repeat(0x1400))), 413),
        ("a chunk size that is none", chunked("g\r\n"), 400),
        ("a chunk size beyond all", chunked("fffffffffffffffff\r\n"), 400),
        ("a chunk size with a bare line feed", chunked("2\n{}\r\n0\r\n\r\n"), 400),
        ("a chunk longer than its size", chunked("1\r\n{}\r\n0\r\n\r\n"), 400),
    ];
    for (name, bytes, status) in cases {
        let mut connection = gateway.connect().expect("a connection");
        connection.send(bytes.as_bytes()).expect("sent");
        let answer = connection.read_response(false).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
    }
    assert_eq!(upstream.requests(), 0, "something malformed reached the server");
}

#[test]
fn messages_that_are_no_json_rpc_are_refused() {
    let upstream = ScriptedUpstream::start(|_, stream| answer_json(stream, "200 OK", &json!({})));
    let gateway = Gateway::start(&GatewayConfig::new().server("never", &[&upstream.url()]));
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let deep = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"x":{deep}}}}}"#);
    let cases: [(&str, &[u8], i64); 12] = [
        ("nothing", b" ", -32700),
        ("half an object", br#"{"jsonrpc":"2.0","id":1"#, -32700),
        ("something after it", br#"{"jsonrpc":"2.0","id":1,"method":"ping"} x"#, -32700),
        ("no UTF-8", b"{\"jsonrpc\":\"2.0\",\"id\":\"\xff\",\"method\":\"ping\"}", -32700),
        ("too deep", deep.as_bytes(), -32700),
        ("another version", br#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, -32600),
        ("a null id", br#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600),
        ("a fraction as id", br#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, -32600),
        ("a method that is no string", br#"{"jsonrpc":"2.0","id":1,"method":7}"#, -32600),
        ("params that are no object", br#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}"#, -32600),
        ("neither method nor result", br#"{"jsonrpc":"2.0","id":1}"#, -32600),
        // Two readers of such a message could see two methods.
        ("two methods", br#"{"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"tools/call"}"#, -32600),
    ];
    let mut connection = gateway.connect().expect("a connection");
    for (name, body, code) in cases {
        let answer = connection.request("POST", "/mcp/never", &POST_HEADERS, body);
        // The connection itself is sound, so the next message can use it.
        let answer = answer.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        assert_eq!(answer.json()["error"]["code"], code, "{name}");
        assert_eq!(answer.json()["jsonrpc"], "2.0", "{name}");
        assert!(!answer.json()["error"]["message"].as_str().unwrap_or_default().is_empty(), "{name}");
    }
    assert_eq!(upstream.requests(), 0, "something malformed reached the server");
}

#[test]
fn expectations_are_met_or_refused() {
    let gateway = Gateway::start(&GatewayConfig::new());
    let get = |expect: &str| {
        let mut connection = gateway.connect().expect("a connection");
        let head = format!(
            "POST /nothing HTTP/1.1\r\nHost: {}\r\nContent-Length: 2\r\nExpect: {expect}\r\n\r\n",
            gateway.addr
        );
        connection.send(head.as_bytes()).expect("sent");
        connection.send(b"{}").expect("sent");
        connection.read_response(false).expect("an answer").status
    };
    assert_eq!(get("100-continue"), 404);
    // RFC 9110, 10.1.1.
    assert_eq!(get("the-unexpected"), 417);
}

#[test]
fn plain_http_on_the_tls_port_is_not_served() {
    let gateway = Gateway::start(&GatewayConfig::new());
    let mut connection = mcp_system_tests::Connection::plain(gateway.addr).expect("a connection");
    let answer = connection.request("GET", "/health", &[], b"");
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 400), "plain HTTP was served");
    assert_eq!(gateway.get("/health").expect("still served").status, 200);
}

#[test]
fn an_error_names_the_request_that_it_belongs_to() {
    let gateway = Gateway::start(&GatewayConfig::new().server("gone", &["http://127.0.0.1:9/mcp"]));
    let mut connection = gateway.connect().expect("a connection");
    // JSON-RPC 2.0, 5: the id of an error is the request's own, with its type.
    for id in [json!(7), json!("7"), json!("ü\"\\")] {
        let mut hello = initialize(LEGACY);
        hello["id"] = id.clone();
        let answer = connection.post("/mcp/gone", &[], &hello).expect("an answer");
        assert_eq!(answer.json()["id"], id, "{}", answer.text());
        assert!(answer.json()["error"]["code"].is_i64(), "{}", answer.text());
    }
}
