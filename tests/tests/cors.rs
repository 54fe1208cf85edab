//! Setup: requests as browsers make them, with `Origin`, `Host` and preflights, good and bad.
//! Claim: only configured origins and the gateway's own pages are served; a preflight allows all that an MCP client sends; a
//! name that may have been rebound to this address by DNS is refused, addresses and the gateway's own names are not.

use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::mcp::{LEGACY, initialize, mirrored, modern};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, Response};
use serde_json::json;

const PAGE: &str = "https://app.example.com";

#[test]
fn origins_are_allowed_one_by_one() {
    let (gateway, upstream, _legacy) = start();
    let own = format!("https://{}", gateway.addr);
    for (origin, allowed) in [
        (PAGE, true),
        ("http://localhost:6274", true),
        (&own, true),
        ("https://APP.example.com", false),
        ("https://app.example.com:443", false),
        ("http://app.example.com", false),
        ("https://app.example.com.evil.com", false),
        ("https://evil.com/https://app.example.com", false),
        ("http://localhost:6275", false),
        ("https://127.0.0.1", false),
        ("null", false),
        ("", false),
    ] {
        let before = upstream.seen().len();
        let answer = call(&gateway, &[("origin", origin)]);
        if allowed {
            assert_eq!(answer.status, 200, "{origin}: {}", answer.text());
        } else {
            assert_eq!((answer.status, &answer.json()["error"]["code"]), (403, &json!(-32600)), "{origin}");
            assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
            assert_eq!(upstream.seen().len(), before, "{origin}: the refused request reached the server");
        }
    }
    assert_eq!(call(&gateway, &[]).status, 200);
}

#[test]
fn an_allowed_page_may_read_the_answer() {
    let (gateway, _upstream, _legacy) = start();
    let answer = call(&gateway, &[("origin", PAGE)]);
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
    assert_eq!(answer.header("vary"), Some("Origin"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    // What the server says about CORS is not for the client, the rest is.
    assert_eq!(count(&answer, "access-control-allow-origin"), 1);
    assert_eq!(answer.header("x-from-server"), Some("yes"));

    let mut connection = gateway.connect().expect("a connection");
    let answer = connection.post("/mcp/legacy", &[("origin", PAGE)], &initialize(LEGACY)).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.header("mcp-session-id").is_some());
    for name in ["mcp-session-id", "mcp-protocol-version", "www-authenticate", "retry-after"] {
        assert!(lists(&answer, "access-control-expose-headers", name), "{name}: {:?}", answer.headers);
    }
    // An error is an answer, too: a page that could not read it would see a network failure.
    let answer = connection.post("/mcp/unknown", &[("origin", PAGE)], &json!({})).expect("an answer");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (404, Some(PAGE)));
    let answer = call(&gateway, &[("origin", PAGE), ("mcp-method", "another")]);
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (400, Some(PAGE)));
}

#[test]
fn a_preflight_allows_what_clients_send() {
    let (gateway, upstream, _legacy) = start();
    let asked = "content-type,mcp-param-region,mcp-protocol-version,x-custom";
    let answer = preflight(&gateway, PAGE, asked);
    assert_eq!(answer.status, 204, "{}", answer.text());
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
    for method in ["GET", "POST", "DELETE"] {
        assert!(lists(&answer, "access-control-allow-methods", method), "{:?}", answer.headers);
    }
    for name in asked.split(',') {
        assert!(lists(&answer, "access-control-allow-headers", name), "{name}: {:?}", answer.headers);
    }
    assert!(answer.header("access-control-max-age").is_some());

    // A page that does not say what it will send may send all that MCP has.
    let plain = [("origin", PAGE), ("access-control-request-method", "POST")];
    let answer = connect(&gateway).request("OPTIONS", "/mcp/fixture", &plain, b"").expect("an answer");
    for name in [
        "accept",
        "authorization",
        "content-type",
        "last-event-id",
        "mcp-protocol-version",
        "mcp-method",
        "mcp-name",
        "mcp-session-id",
    ] {
        assert!(lists(&answer, "access-control-allow-headers", name), "{name}: {:?}", answer.headers);
    }

    let answer = preflight(&gateway, "https://evil.com", asked);
    assert_eq!(answer.status, 403);
    for (name, _) in &answer.headers {
        assert!(!name.starts_with("access-control-"), "{:?}", answer.headers);
    }
    assert!(upstream.seen().is_empty(), "a preflight reached the server");
}

#[test]
fn a_rebound_name_is_refused() {
    let config = GatewayConfig::new()
        .cert_name("mcp.example.org")
        .cert_name("*.wild.example.org")
        .set("gateway.server", "allowed_hosts = [\"gw.internal\", \"ported.internal:8443\"]");
    let upstream = Fixture::modern(json!([]), nothing);
    let gateway = Gateway::start(&config.server("fixture", &[&upstream.url()]));
    for (host, allowed) in [
        // What no DNS can rebind.
        ("127.0.0.1", true),
        ("192.0.2.7:1234", true),
        ("[::1]", true),
        ("[2001:db8::1]:8443", true),
        ("localhost", true),
        ("LOCALHOST:1", true),
        // The certificate's names, and those of the configuration.
        ("mcp.example.org", true),
        ("MCP.example.org:8443", true),
        ("a.wild.example.org", true),
        ("gw.internal", true),
        ("gw.internal:9", true),
        ("ported.internal:8443", true),
        ("ported.internal:8444", false),
        ("ported.internal", false),
        ("a.b.wild.example.org", false),
        ("wild.example.org", false),
        ("evil.com", false),
        ("127.0.0.1.evil.com", false),
        ("localhost.evil.com", false),
        ("gw.internal.evil.com", false),
    ] {
        let answer = with_host(&gateway, host, "");
        let status = if allowed { 200 } else { 403 };
        assert_eq!(answer.status, status, "{host}: {}", answer.text());
    }
    // A rebound page says its own name in both; that they agree is no proof.
    let answer = with_host(&gateway, "evil.com", "origin: https://evil.com\r\n");
    assert_eq!(answer.status, 403, "{}", answer.text());
    // Probes come with any Host.
    let mut connection = gateway.connect().expect("a connection");
    connection.send(b"GET /health HTTP/1.1\r\nHost: evil.com\r\n\r\n").expect("sent");
    assert_eq!(connection.read_response(false).expect("an answer").status, 200);
}

/// A gateway for a modern server, `fixture`, and a legacy one.
fn start() -> (Gateway, Fixture, Fixture) {
    let upstream = Fixture::modern(json!([]), |request, stream| {
        let message = request.json();
        (message["method"] == "tools/call").then(|| {
            let status = "200 OK\r\nx-from-server: yes\r\naccess-control-allow-origin: *\r\n\
                          access-control-allow-credentials: true";
            let body = mcp_system_tests::fixtures::response(&message, json!({}));
            mcp_system_tests::upstream::answer_json(stream, status, &body)
        })
    });
    let legacy = Fixture::legacy(nothing);
    let config = GatewayConfig::new()
        .server("fixture", &[&upstream.url()])
        .server("legacy", &[&legacy.url()])
        .set("gateway.server", &format!("allowed_origins = [\"{PAGE}\", \"http://localhost:6274\"]"));
    (Gateway::start(&config), upstream, legacy)
}

fn call(gateway: &Gateway, more: &[(&str, &str)]) -> Response {
    let mut headers = mirrored("tools/call", Some("any"));
    headers.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    headers.extend_from_slice(more);
    let message = modern(1, "tools/call", json!({"name": "any", "arguments": {}}));
    connect(gateway).post("/mcp/fixture", &headers, &message).expect("an answer")
}

fn preflight(gateway: &Gateway, origin: &str, asked: &str) -> Response {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", asked),
    ];
    connect(gateway).request("OPTIONS", "/mcp/fixture", &headers, b"").expect("an answer")
}

fn with_host(gateway: &Gateway, host: &str, more: &str) -> Response {
    let body = modern(1, "tools/call", json!({"name": "any", "arguments": {}})).to_string();
    let mut head = format!(
        "POST /mcp/fixture HTTP/1.1\r\nhost: {host}\r\n{more}content-type: application/json\r\n\
         accept: application/json, text/event-stream\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in mirrored("tools/call", Some("any")) {
        head += &format!("{name}: {value}\r\n");
    }
    let mut connection = connect(gateway);
    connection.send(format!("{head}\r\n{body}").as_bytes()).expect("sent");
    connection.read_response(false).expect("an answer")
}

fn connect(gateway: &Gateway) -> Connection {
    gateway.connect().expect("a connection")
}

/// Whether a field lists `item`, in any case.
fn lists(answer: &Response, name: &str, item: &str) -> bool {
    answer
        .header(name)
        .is_some_and(|list| list.split(',').any(|listed| listed.trim().eq_ignore_ascii_case(item)))
}

fn count(answer: &Response, name: &str) -> usize {
    answer.headers.iter().filter(|(key, _)| key == name).count()
}
