//! Setup: `curl` talks to the gateway over HTTP/1.1 and over HTTP/2, with a fixture server of each era behind it.
//! Claim: what a person would try by hand works and is refused as the specification's Streamable HTTP has it.

use std::ops::Deref;
use std::process::Command;
use std::time::Duration;

use mcp_system_tests::mcp::{LEGACY, initialize, modern, modern_call};
use mcp_system_tests::peers::Server;
use mcp_system_tests::{Gateway, GatewayConfig, Process};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

/// Makes a test of each function for each version of HTTP.
macro_rules! over_both_versions {
    ($($name:ident),*) => {
        mod http1 {
            $(#[test] fn $name() { super::$name("1.1") })*
        }
        mod http2 {
            $(#[test] fn $name() { super::$name("2") })*
        }
    };
}

fn health_is_told(version: &'static str) {
    let gateway = Target::start(version, &GatewayConfig::new());
    let base = format!("https://{}", gateway.addr);
    assert_eq!(curl(&gateway, &[&format!("{base}/health")]).status, 200);
    assert_eq!(curl(&gateway, &[&format!("{base}/ready")]).status, 200);
    assert_eq!(curl(&gateway, &[&format!("{base}/nothing")]).status, 404);
}

fn a_legacy_session_lives_and_ends(version: &'static str) {
    let server = Server::legacy();
    let gateway = Target::start(version, &GatewayConfig::new().server("legacy", &[&server.url]));
    let url = gateway.url("legacy");
    let session = open_session(&gateway, &url);
    let headers = [session.as_str(), "MCP-Protocol-Version: 2025-11-25"];

    let call = json!({"jsonrpc": "2.0", "id": "call-1", "method": "tools/call", "params": {"name": "test_simple_text"}});
    let answer = post(&gateway, &url, &headers, &call);
    assert_eq!(answer.status, 200, "{answer:?}");
    let message = answer.message();
    assert_eq!(message["id"], "call-1");
    assert_eq!(message["result"]["content"][0]["text"], "This is a simple text response for testing.");

    // 2025-11-25, Protocol Version Header: an unsupported version is 400. Session Management, 2 and 3: no session id is 400,
    // an unknown one is 404.
    let ping = json!({"jsonrpc": "2.0", "id": 2, "method": "ping"});
    assert_eq!(post(&gateway, &url, &[headers[0], "MCP-Protocol-Version: 1999-01-01"], &ping).status, 400);
    assert_eq!(post(&gateway, &url, &headers[1..], &ping).status, 400);
    assert_eq!(post(&gateway, &url, &["Mcp-Session-Id: nobody-s", headers[1]], &ping).status, 404);

    let end = curl(&gateway, &["-X", "DELETE", "-H", headers[0], "-H", headers[1], &url]);
    assert!((200..300).contains(&end.status), "{end:?}");
    assert_eq!(post(&gateway, &url, &headers, &ping).status, 404);
}

fn a_legacy_stream_brings_what_the_server_says_unasked(version: &'static str) {
    let server = Server::legacy();
    let gateway = Target::start(version, &GatewayConfig::new().server("legacy", &[&server.url]));
    let url = gateway.url("legacy");
    let session = open_session(&gateway, &url);
    let headers = [session.as_str(), "MCP-Protocol-Version: 2025-11-25"];

    let mut command = base_command(&gateway);
    // curl keeps a head that it prints (-i) until a body comes, but tells it at once (-v).
    command.args(["-N", "-v", "-H", headers[0], "-H", headers[1], "-H", "Accept: text/event-stream", &url]);
    let mut stream = Process::start("curl on a stream", &mut command);
    stream.wait_line(LIMIT, |line| {
        line.to_ascii_lowercase().starts_with("< content-type: text/event-stream").then_some(())
    });

    let params = json!({"uri": "test://watched-resource"});
    let subscribe = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": params});
    assert_eq!(post(&gateway, &url, &headers, &subscribe).message()["result"], json!({}));
    let update = json!({"name": "test_update_watched_resource"});
    let update = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": update});
    assert_eq!(post(&gateway, &url, &headers, &update).message()["result"]["content"][0]["text"], "Told");

    let event = stream
        .wait_line(LIMIT, |line| line.strip_prefix("data: ").filter(|data| !data.is_empty()).map(parse));
    assert_eq!(event["method"], "notifications/resources/updated");
    assert_eq!(event["params"], params);
}

fn a_modern_server_needs_no_session(version: &'static str) {
    let server = Server::modern();
    let gateway = Target::start(version, &GatewayConfig::new().server("modern", &[&server.url]));
    let url = gateway.url("modern");

    let discover = modern(json!("modern-1"), "server/discover", json!({}));
    let headers = ["MCP-Protocol-Version: 2026-07-28", "Mcp-Method: server/discover"];
    let answer = post(&gateway, &url, &headers, &discover);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("mcp-session-id"), None);
    let supported = answer.message()["result"]["supportedVersions"].clone();
    assert!(supported.as_array().is_some_and(|all| all.contains(&json!("2026-07-28"))), "{supported}");

    let call = modern_call(json!("modern-1"), "test_simple_text", json!({}));
    let named = ["MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call", "Mcp-Name: test_simple_text"];
    let answer = post(&gateway, &url, &named, &call);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.message()["result"]["resultType"], "complete");

    // 2026-07-28, Streamable HTTP, Server Validation: headers that are missing or disagree are 400 with -32020.
    let wrong = ["MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call", "Mcp-Name: another"];
    for headers in
        [&wrong[..], &wrong[..2], &named[..1], &["MCP-Protocol-Version: 2025-11-25", named[1], named[2]]]
    {
        let refused = post(&gateway, &url, headers, &call);
        assert_eq!(
            (refused.status, &refused.message()["error"]["code"]),
            (400, &json!(-32020)),
            "{headers:?}: {refused:?}"
        );
        assert_eq!(refused.message()["id"], call["id"], "{headers:?}");
    }
}

fn what_is_no_mcp_is_refused(version: &'static str) {
    let server = Server::legacy();
    let gateway = Target::start(version, &GatewayConfig::new().server("legacy", &[&server.url]));
    let url = gateway.url("legacy");

    let broken = curl(
        &gateway,
        &["-H", "Content-Type: application/json", "-H", ACCEPT, "--data", "{\"jsonrpc\":", &url],
    );
    assert_eq!((broken.status, &broken.message()["error"]["code"]), (400, &json!(-32700)), "{broken:?}");

    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    // Security Warning: an Origin that is not allowed is 403.
    assert_eq!(post(&gateway, &url, &["Origin: https://evil.example.com"], &ping).status, 403);
    assert_eq!(post(&gateway, &gateway.url("unknown"), &[], &ping).status, 404);
    let put = curl(&gateway, &["-X", "PUT", "--data", "{}", &url]);
    assert_eq!(put.status, 405, "{put:?}");
    assert!(put.header("allow").is_some_and(|allow| allow.contains("POST")), "{put:?}");
}

over_both_versions!(
    health_is_told,
    a_legacy_session_lives_and_ends,
    a_legacy_stream_brings_what_the_server_says_unasked,
    a_modern_server_needs_no_session,
    what_is_no_mcp_is_refused
);

/// A gateway, and the version of HTTP by which curl is to talk to it.
struct Target {
    gateway: Gateway,
    version: &'static str,
}

impl Target {
    fn start(version: &'static str, config: &GatewayConfig) -> Self {
        Self { gateway: Gateway::start(config), version }
    }
}

impl Deref for Target {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

const ACCEPT: &str = "Accept: application/json, text/event-stream";

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<String>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body's message, or the last one of an event stream.
    fn message(&self) -> Value {
        if self.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
            let last = self.body.lines().rev().find_map(|line| line.strip_prefix("data:"));
            return parse(last.unwrap_or_else(|| panic!("no event: {self:?}")));
        }
        parse(&self.body)
    }
}

/// Opens a session of 2025-11-25 and returns the header line that names it.
fn open_session(gateway: &Target, url: &str) -> String {
    let hello = post(gateway, url, &[], &initialize(LEGACY));
    assert_eq!(hello.status, 200, "{hello:?}");
    assert_eq!(hello.message()["result"]["protocolVersion"], "2025-11-25");
    let id = hello.header("mcp-session-id").unwrap_or_else(|| panic!("no session: {hello:?}"));
    let session = format!("Mcp-Session-Id: {id}");
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let headers = [session.as_str(), "MCP-Protocol-Version: 2025-11-25"];
    assert_eq!(post(gateway, url, &headers, &initialized).status, 202);
    session
}

fn post(gateway: &Target, url: &str, headers: &[&str], message: &Value) -> Answer {
    let body = message.to_string();
    let mut args = vec!["-H", "Content-Type: application/json", "-H", ACCEPT, "--data-binary", &body];
    for header in headers {
        args.extend(["-H", header]);
    }
    args.push(url);
    curl(gateway, &args)
}

fn curl(gateway: &Target, args: &[&str]) -> Answer {
    let finished = Process::start("curl", base_command(gateway).arg("-i").args(args)).finish(LIMIT);
    assert!(finished.status.success(), "{args:?}: {}: {}", finished.status, finished.stderr.join("\n"));
    let mut lines = finished.stdout.into_iter();
    let status = lines.next().unwrap_or_default();
    assert_eq!(status.split(' ').next(), Some(format!("HTTP/{}", gateway.version).as_str()));
    let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
    let headers = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    Answer {
        status: code.unwrap_or_else(|| panic!("no status line: {status:?}")),
        headers,
        body: lines.collect::<Vec<_>>().join("\n"),
    }
}

fn base_command(gateway: &Target) -> Command {
    let mut command = Command::new("curl");
    command.arg(format!("--http{}", gateway.version));
    command.args(["-sS", "--max-time", "60", "--cacert"]).arg(&gateway.cert.ca_file);
    command
}

fn parse(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
}
