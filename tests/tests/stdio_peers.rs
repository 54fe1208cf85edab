//! Setup: real MCP servers as processes of the gateway, behind `/mcp/<server>`; clients of the official SDKs walk through
//! them over Streamable HTTP.
//! Claim: what works with a server over Streamable HTTP works with the same server over its standard streams: requests in both
//! directions, progress, logging, cancellation and subscriptions, in either era.

use mcp_system_tests::mcp::{LEGACY, open_session, post_in_session, request};
use mcp_system_tests::peers::{Client, everything_over_stdio, modern_over_stdio, over_stdio};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, TempDir};
use serde_json::{Value, json};

#[test]
fn typescript_1_through_everything() {
    walk(Client::TypeScript1, "everything", &everything_over_stdio());
}

#[test]
fn typescript_2_through_everything() {
    walk(Client::TypeScript2, "everything", &everything_over_stdio());
}

#[test]
fn typescript_2_through_the_modern_fixture() {
    walk(Client::TypeScript2, "modern", &modern_over_stdio());
}

#[test]
fn typescript_2_finds_the_era_of_either() {
    walk(Client::TypeScript2, "auto-everything", &everything_over_stdio());
    walk(Client::TypeScript2, "auto-modern", &modern_over_stdio());
}

#[test]
fn python_1_through_everything() {
    walk(Client::Python1, "everything", &everything_over_stdio());
}

#[test]
fn files_are_written_and_read() {
    let dir = TempDir::new();
    let root = std::fs::canonicalize(dir.path()).expect("a directory");
    let gateway = start(&over_stdio("mcp-server-filesystem", &[&root.display().to_string()]), "");
    let mut connection = gateway.connect().expect("a connection");
    let session = open(&mut connection);
    let file = root.join("note.txt").display().to_string();
    // Larger than a socket's buffer, so that both ways go in parts.
    let text = "Grüße, 世界 🦀\n".repeat(50_000);
    let written = tool(&mut connection, &session, "write_file", json!({"path": file, "content": text}));
    assert_ne!(written["isError"], true, "{written}");
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), text);
    let read = tool(&mut connection, &session, "read_text_file", json!({"path": file}));
    assert_eq!(read["content"][0]["text"].as_str(), Some(&text[..]));
    let outside = tool(&mut connection, &session, "read_text_file", json!({"path": "/etc/hostname"}));
    assert_eq!(outside["isError"], true, "{outside}");
}

#[test]
fn sessions_that_share_a_memory_see_what_each_other_noted() {
    let dir = TempDir::new();
    let lines = format!(
        "mode = \"shared\"\nenv = [\"MEMORY_FILE_PATH={}\"]\n",
        dir.path().join("memory.json").display()
    );
    let gateway = start(&over_stdio("mcp-server-memory", &[]), &lines);
    let mut connections: Vec<_> = (0..4).map(|_| gateway.connect().expect("a connection")).collect();
    let sessions: Vec<_> = connections.iter_mut().map(open).collect();
    for (number, (connection, session)) in connections.iter_mut().zip(&sessions).enumerate() {
        let entity = json!({"name": format!("e{number}"), "entityType": "t", "observations": ["seen"]});
        let noted = tool(connection, session, "create_entities", json!({"entities": [entity]}));
        assert_ne!(noted["isError"], true, "{noted}");
    }
    for (connection, session) in connections.iter_mut().zip(&sessions) {
        let graph = tool(connection, session, "read_graph", json!({}));
        let graph: Value =
            serde_json::from_str(graph["content"][0]["text"].as_str().expect("text")).expect("JSON");
        assert_eq!(graph["entities"].as_array().map(Vec::len), Some(4), "{graph}");
    }
}

fn walk(client: Client, tour: &str, command: &[String]) {
    let gateway = start(command, "");
    client.walk(tour, &gateway.url("peer"), Some(&gateway.cert));
}

/// One shard: whichever a connection comes to, the process is there.
fn start(command: &[String], lines: &str) -> Gateway {
    let config = GatewayConfig::new().set("gateway.runtime", "shards = 1");
    Gateway::start(&config.stdio("peer", command, lines))
}

fn open(connection: &mut Connection) -> String {
    open_session(connection, "/mcp/peer", LEGACY)
}

fn tool(connection: &mut Connection, session: &str, name: &str, arguments: Value) -> Value {
    let call = request(1, "tools/call", json!({"name": name, "arguments": arguments}));
    let answer = post_in_session(connection, "/mcp/peer", session, &call).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["result"].clone()
}
