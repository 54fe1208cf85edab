//! Owns the real peers: MCP servers on the official SDKs and clients that walk through them. They live in `tests/peers` and
//! are installed by `.ci/test-peers`; a test that lacks them fails and says so.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::port::free_port;
use crate::{Process, TestCert};

/// How long a server may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a client's tour may take; its steps have limits of their own.
const TOUR_LIMIT: Duration = Duration::from_secs(180);

/// A running MCP server; dropped, it is killed.
#[derive(Debug)]
pub struct Server {
    /// Its MCP endpoint.
    pub url: String,
    /// Its process.
    pub process: Process,
}

/// A client of an official SDK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// `@modelcontextprotocol/sdk` 1.x.
    TypeScript1,
    /// `@modelcontextprotocol/client` 2.x.
    TypeScript2,
    /// Python's `mcp` 1.x.
    Python1,
    /// Python's `mcp` 2.x.
    Python2,
}

impl Server {
    /// `@modelcontextprotocol/server-everything` over Streamable HTTP.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    #[must_use]
    pub fn everything() -> Self {
        let port = free_port();
        let mut command = node();
        command.arg(installed("node/node_modules/.bin/mcp-server-everything")).arg("streamableHttp");
        let mut process = Process::start("server-everything", command.env("PORT", port.to_string()));
        process.wait_line(START_LIMIT, |line| line.contains("listening on port").then_some(()));
        Self { url: format!("http://127.0.0.1:{port}/mcp"), process }
    }

    /// `@modelcontextprotocol/server-everything` over HTTP with SSE (revision 2024-11-05); the URL is its stream's.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    #[must_use]
    pub fn everything_over_sse() -> Self {
        let port = free_port();
        let mut command = node();
        command.arg(installed("node/node_modules/.bin/mcp-server-everything")).arg("sse");
        let mut process = Process::start("server-everything", command.env("PORT", port.to_string()));
        process.wait_line(START_LIMIT, |line| line.contains("running on port").then_some(()));
        Self { url: format!("http://127.0.0.1:{port}/sse"), process }
    }

    /// `@modelcontextprotocol/server-everything` over the WebSocket transport of Python's `mcp` 1.x.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    #[must_use]
    pub fn everything_over_websocket() -> Self {
        let mut command = python("mcp1");
        command.arg(peers().join("python/ws_bridge.py")).args(everything_over_stdio());
        let mut process = Process::start("ws_bridge.py", &mut command);
        let port = process.wait_line(START_LIMIT, |line| line.strip_prefix("ready ").map(str::to_owned));
        Self { url: format!("ws://127.0.0.1:{port}/"), process }
    }

    /// A server on Python's `mcp` 2.x, over Streamable HTTP.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    #[must_use]
    pub fn python2() -> Self {
        Self::python("mcp2", "http", "http", "mcp")
    }

    /// A server on Python's `mcp` 1.x, over HTTP with SSE.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    #[must_use]
    pub fn python1_sse() -> Self {
        Self::python("mcp1", "sse", "http", "sse")
    }

    /// A server on Python's `mcp` 1.x, over WebSocket.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    #[must_use]
    pub fn python1_socket() -> Self {
        Self::python("mcp1", "ws", "ws", "ws")
    }

    /// The legacy fixture, on the SDK 1.x.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    #[must_use]
    pub fn legacy() -> Self {
        Self::fixture("legacy-server.mjs", 0)
    }

    /// The modern fixture, on the SDK 2.x.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    #[must_use]
    pub fn modern() -> Self {
        Self::modern_at(0)
    }

    /// As [`Self::modern`], at this port.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    #[must_use]
    pub fn modern_at(port: u16) -> Self {
        Self::fixture("modern-server.mjs", port)
    }

    fn python(environment: &str, kind: &str, scheme: &str, path: &str) -> Self {
        let mut command = python(environment);
        command.arg(peers().join("python/server_py.py")).args([kind, "0"]);
        let mut process = Process::start("server_py.py", &mut command);
        let port = process.wait_line(START_LIMIT, |line| line.strip_prefix("ready ").map(str::to_owned));
        Self { url: format!("{scheme}://127.0.0.1:{port}/{path}"), process }
    }

    fn fixture(file: &str, port: u16) -> Self {
        let mut command = node();
        command.arg(peers().join("node").join(file)).arg(port.to_string());
        let mut process = Process::start(file, &mut command);
        let port = process.wait_line(START_LIMIT, |line| line.strip_prefix("ready ").map(str::to_owned));
        Self { url: format!("http://127.0.0.1:{port}/mcp"), process }
    }
}

impl Client {
    /// Walks `tour` through the stdio server that `command` starts.
    ///
    /// # Panics
    /// When a step fails; the message has all steps that did.
    pub fn walk_stdio(self, tour: &str, command: &[String]) {
        self.walk(tour, &serde_json::json!(command).to_string(), None);
    }

    /// Walks `tour` through the server at `url`; `cert` is whose authority the client trusts.
    ///
    /// # Panics
    /// When a step fails; the message has all steps that did.
    pub fn walk(self, tour: &str, url: &str, cert: Option<&TestCert>) {
        let (mut command, script) = match self {
            Self::TypeScript1 => (node(), "node/client-ts1.mjs"),
            Self::TypeScript2 => (node(), "node/client-ts2.mjs"),
            Self::Python1 => (python("mcp1"), "python/client_py1.py"),
            Self::Python2 => (python("mcp2"), "python/client_py2.py"),
        };
        command.arg(peers().join(script)).args([tour, url]);
        if let Some(cert) = cert {
            command.envs(cert.client_env());
        }
        let name = format!("{self:?} on its tour {tour}");
        let finished = Process::start(&name, &mut command).finish(TOUR_LIMIT);
        let log = finished.stderr.join("\n");
        let report = finished.stdout.last().unwrap_or_else(|| panic!("{name} reported nothing:\n{log}"));
        let steps: serde_json::Map<String, serde_json::Value> = serde_json::from_str(report)
            .unwrap_or_else(|error| panic!("{name} reported {report}: {error}\n{log}"));
        let failed: Vec<String> = steps
            .iter()
            .filter(|(_, end)| *end != "ok")
            .map(|(step, end)| format!("  {step}: {end}"))
            .collect();
        assert!(failed.is_empty(), "{name} failed:\n{}\nits errors:\n{log}", failed.join("\n"));
        assert!(
            finished.status.success() && steps.len() > 2,
            "{name} ended with {}: {report}",
            finished.status
        );
    }
}

/// The command of `@modelcontextprotocol/server-everything` on its standard streams.
///
/// # Panics
/// When it is not installed.
#[must_use]
pub fn everything_over_stdio() -> Vec<String> {
    over_stdio("mcp-server-everything", &["stdio"])
}

/// The command of the modern fixture on its standard streams.
///
/// # Panics
/// When it is not installed.
#[must_use]
pub fn modern_over_stdio() -> Vec<String> {
    let file = peers().join("node/modern-server.mjs").display().to_string();
    let node = installed("node/node_modules/.bin/node").display().to_string();
    vec![node, file, "stdio".to_owned()]
}

/// The command of a server of npm's on its standard streams.
///
/// # Panics
/// When it is not installed.
#[must_use]
pub fn over_stdio(program: &str, arguments: &[&str]) -> Vec<String> {
    let words = ["node", program].map(|name| installed(&format!("node/node_modules/.bin/{name}")));
    let words = words.iter().map(|word| word.display().to_string());
    words.chain(arguments.iter().map(|&argument| argument.to_owned())).collect()
}

/// The command of a server on Python's `mcp` 2.x on its standard streams.
///
/// # Panics
/// When it is not installed.
#[must_use]
pub fn python2_over_stdio() -> Vec<String> {
    let program = installed("python/.venv/mcp2/bin/python").display().to_string();
    let script = peers().join("python/server_py.py").display().to_string();
    [&program, "-W", "ignore", "-B", &script, "stdio"].map(str::to_owned).to_vec()
}

/// A command that runs the Node which the peers brought.
///
/// # Panics
/// When it is not installed.
#[must_use]
pub fn node() -> Command {
    Command::new(installed("node/node_modules/.bin/node"))
}

/// A file of the peers that is there only after `.ci/test-peers`.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn installed(path: &str) -> PathBuf {
    let path = peers().join(path);
    assert!(path.exists(), "no {}: run .ci/test-peers first", path.display());
    path
}

/// The directory of the peers.
#[must_use]
pub fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

fn python(environment: &str) -> Command {
    let mut command = Command::new(installed(&format!("python/.venv/{environment}/bin/python")));
    // Deprecations of the SDKs' own, and caches of compiled scripts, are not wanted.
    command.args(["-W", "ignore", "-B"]);
    command
}
