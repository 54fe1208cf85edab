//! Claim: in the steady state a call allocates an exact, known number of times on its shard.
//! Set-up: the gateway with one shard, a server over plain HTTP and a client over HTTPS live in this process under a counting
//! allocator; after a warm-up the shard's allocations during many calls are counted, for each kind of answer.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test may block")]

mod counter;
mod peers;

use std::time::{Duration, Instant};

use counter::{Counting, allocations_during};
use peers::{Client, start_server};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls before counting: tables, buffers and the timer wheel have their size then.
const WARM_UP_CALLS: usize = 500;
const CALLS: u64 = 1_000;

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#;
const MODERN: &str = "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: echo\r\n";

#[test]
fn a_call_allocates_exactly_so_often() {
    let [port, admin_port] = free_ports();
    let file = std::env::temp_dir().join(format!("mcp-allocations-{}.toml", std::process::id()));
    let config = format!(
        "[gateway.server]\nlisten = \"127.0.0.1\"\nhttps_port = {port}\nbinary_port = 0\n\
         admin_listen = \"127.0.0.1:{admin_port}\"\n[gateway.runtime]\nshards = 1\ndriver = \"epoll\"\npin = false\n\
         [gateway.log]\nlevel = \"warn\"\n\
         [[servers]]\nname = \"up\"\ntransport = \"streamable-http\"\nendpoints = [\"http://{}/mcp\"]\n",
        start_server()
    );
    std::fs::write(&file, config).unwrap();
    let arguments = ["mcp-gateway".into(), "--config".into(), file.clone().into_os_string()];
    // The gateway ends with the process.
    std::thread::spawn(move || mcp_engine::cli::run(arguments));
    let mut client = connect(port);
    std::fs::remove_file(&file).unwrap();

    let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#;
    let (head, _) = client.post("", initialize);
    let session = head.lines().find_map(|line| line.strip_prefix("Mcp-Session-Id: ")).expect("a session");
    let legacy = format!("MCP-Protocol-Version: 2025-11-25\r\nMcp-Session-Id: {session}\r\n");

    let counted = [
        ("legacy, JSON", &*legacy, "", "as-json"),
        ("legacy, events", &*legacy, "", "as-events"),
        ("modern, JSON", MODERN, META, "as-json"),
        ("modern, events", MODERN, META, "as-events"),
    ]
    .map(|(kind, lines, meta, text)| (kind, per_call(&mut client, lines, meta, text)));
    // rustls alone allocates: for each record that it decrypts or encrypts. A request is one record, and so is an answer
    // that came as a whole.
    assert_eq!(
        counted,
        [("legacy, JSON", 2), ("legacy, events", 2), ("modern, JSON", 2), ("modern, events", 2)]
    );
}

fn per_call(client: &mut Client, lines: &str, meta: &str, text: &str) -> u64 {
    let comma = if meta.is_empty() { "" } else { "," };
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"echo","arguments":{{"text":"{text}"}}{comma}{meta}}}}}"#
    );
    let mut call = || {
        let (head, answer) = client.post(lines, &body);
        assert!(head.starts_with("HTTP/1.1 200 ") && answer.contains(r#""text":"hi""#), "{head}{answer}");
        assert_eq!(head.contains("text/event-stream"), text == "as-events", "{head}");
    };
    (0..WARM_UP_CALLS).for_each(|_| call());
    let counted = allocations_during(|| (0..CALLS).for_each(|_| call()));
    // Once a second the shard keeps house, which may allocate; that is no call's.
    (counted + CALLS / 2) / CALLS
}

/// Polls until the gateway listens.
fn connect(port: u16) -> Client {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(client) = Client::connect(port) {
            return client;
        }
        assert!(Instant::now() < deadline, "the gateway does not listen");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Ports that were free a moment ago.
fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
