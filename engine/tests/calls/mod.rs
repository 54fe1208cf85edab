//! Calls through a gateway whose both ends belong to the test: owns the gateway's configuration, the kinds of calls, and
//! what each must be answered with. It measures nothing.

mod peers;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use peers::{Client, start_server};

/// How long a gateway may take to come up, also under an emulator.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a modern message says of itself.
const META: &str = r#","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#;
const MODERN_LINES: &str = "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: echo\r\n";

/// A revision and a form of answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    LegacyJson,
    LegacyEvents,
    ModernJson,
    ModernEvents,
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] =
        [Kind::LegacyJson, Kind::LegacyEvents, Kind::ModernJson, Kind::ModernEvents];

    fn is_modern(self) -> bool {
        matches!(self, Kind::ModernJson | Kind::ModernEvents)
    }

    fn is_events(self) -> bool {
        matches!(self, Kind::LegacyEvents | Kind::ModernEvents)
    }
}

/// The configuration of a gateway with one shard on the epoll driver, in front of a server that this starts.
pub(crate) struct Setup {
    /// The configuration's file; removed with this value.
    pub(crate) file: PathBuf,
    port: u16,
}

impl Setup {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let [port, admin_port] = free_ports();
        let file = std::env::temp_dir().join(format!("mcp-calls-{}-{number}.toml", std::process::id()));
        let text = format!(
            "[gateway.server]\nlisten = \"127.0.0.1\"\nhttps_port = {port}\nbinary_port = 0\n\
             admin_listen = \"127.0.0.1:{admin_port}\"\n\
             [gateway.runtime]\nshards = 1\ndriver = \"epoll\"\npin = false\n[gateway.log]\nlevel = \"error\"\n\
             [[servers]]\nname = \"up\"\ntransport = \"streamable-http\"\nendpoints = [\"http://{}/mcp\"]\n",
            start_server()
        );
        std::fs::write(&file, text).unwrap();
        Setup { file, port }
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        // The folder is temporary anyhow.
        let _ = std::fs::remove_file(&self.file);
    }
}

/// A client with its session.
pub(crate) struct Caller {
    client: Client,
    legacy_lines: String,
}

impl Caller {
    /// Waits until the gateway listens, and opens a session.
    pub(crate) fn open(setup: &Setup) -> Self {
        let deadline = Instant::now() + PATIENCE;
        let mut client = loop {
            if let Some(client) = Client::connect(setup.port) {
                break client;
            }
            assert!(Instant::now() < deadline, "the gateway does not listen");
            std::thread::park_timeout(Duration::from_millis(10));
        };
        let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#;
        let (head, _) = client.post("", initialize);
        let session = head.lines().find_map(|line| line.strip_prefix("Mcp-Session-Id: ")).expect("a session");
        let legacy_lines = format!("MCP-Protocol-Version: 2025-11-25\r\nMcp-Session-Id: {session}\r\n");
        Caller { client, legacy_lines }
    }

    /// Makes calls of a kind, one after the other; every answer is checked.
    pub(crate) fn call(&mut self, kind: Kind, times: u64) {
        let text = if kind.is_events() { peers::AS_EVENTS } else { "plain" };
        let (lines, meta) = if kind.is_modern() { (MODERN_LINES, META) } else { (&*self.legacy_lines, "") };
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"echo","arguments":{{"text":"{text}"}}{meta}}}}}"#
        );
        for _ in 0..times {
            let (head, answer) = self.client.post(lines, &body);
            assert!(head.starts_with("HTTP/1.1 200 ") && answer.contains(r#""text":"hi""#), "{head}{answer}");
            assert_eq!(head.contains("text/event-stream"), kind.is_events(), "{head}");
        }
    }
}

/// Ports that were free a moment ago.
fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
