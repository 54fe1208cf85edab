//! Owns gateways under test: their configuration, certificate, process and addresses.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use crate::confine::Confinement;
use crate::port::free_port;
use crate::redis::Store;
use crate::{Connection, Metrics, Process, Response, TempDir, TestCert, eventually};

/// Where a gateway's configuration is, in its folder.
const CONFIG_FILE: &str = "gateway.toml";
/// How long a gateway may take to take over another configuration: its own look at the file takes some seconds.
const RELOAD_LIMIT: Duration = Duration::from_secs(30);
/// How long a gateway may take until it is ready.
const START_LIMIT: Duration = Duration::from_secs(30);

/// What a gateway is started with. Made by [`GatewayConfig::new`], which has two shards and no server.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    sections: BTreeMap<String, Vec<String>>,
    servers: String,
    env: Vec<(String, String)>,
    names: Vec<String>,
    https_port: u16,
    binary_port: u16,
    confinement: Confinement,
}

/// A running gateway; dropped, it is killed.
#[derive(Debug)]
pub struct Gateway {
    /// Where HTTPS is served.
    pub addr: SocketAddr,
    /// Where metrics are served, by plain HTTP.
    pub admin_addr: SocketAddr,
    /// Its certificate and the authority that clients have to trust.
    pub cert: TestCert,
    /// Its process.
    pub process: Process,
    dir: TempDir,
}

impl GatewayConfig {
    /// Two shards, free ports, no server.
    #[must_use]
    pub fn new() -> Self {
        let config = Self {
            sections: BTreeMap::new(),
            servers: String::new(),
            env: Vec::new(),
            names: Vec::new(),
            https_port: free_port(),
            binary_port: 0,
            confinement: Confinement::default(),
        };
        config.set("gateway.runtime", "shards = 2")
    }

    /// Adds an MCP server of Streamable HTTP, reachable at `/mcp/<name>`.
    #[must_use]
    pub fn server(self, name: &str, urls: &[&str]) -> Self {
        self.server_with(name, urls, "")
    }

    /// As [`Self::server`], with more lines of TOML for it.
    #[must_use]
    pub fn server_with(self, name: &str, urls: &[&str], lines: &str) -> Self {
        self.server_over(name, "streamable-http", urls, lines)
    }

    /// As [`Self::server_with`], for a server that is reached by this transport.
    #[must_use]
    pub fn server_over(mut self, name: &str, transport: &str, urls: &[&str], lines: &str) -> Self {
        self.servers += &format!(
            "[[servers]]\nname = \"{name}\"\ntransport = \"{transport}\"\nendpoints = {urls:?}\n{lines}\n\n"
        );
        self
    }

    /// Has it reach other gateways, and them it, at this address; `cert` proves who it is, by `server_name` unless that is
    /// empty.
    #[must_use]
    pub fn peers(self, addr: SocketAddr, cert: &TestCert, server_name: &str) -> Self {
        let TestCert { ca_file, cert_file, key_file, .. } = cert;
        let lines = [
            format!("listen = \"{addr}\""),
            format!("advertise = \"{addr}\""),
            format!("cert_file = {cert_file:?}"),
            format!("key_file = {key_file:?}"),
            format!("server_name = {server_name:?}"),
            format!("ca_file = {ca_file:?}"),
        ];
        lines.iter().fold(self, |config, line| config.set("gateway.peers", line))
    }

    /// Adds an MCP server that is a process, with more lines of TOML for it.
    #[must_use]
    pub fn stdio(mut self, name: &str, command: &[String], lines: &str) -> Self {
        self.servers += &format!(
            "[[servers]]\nname = \"{name}\"\ntransport = \"stdio\"\ncommand = {command:?}\n{lines}\n\n"
        );
        self
    }

    /// Sets a key of a section by a line of TOML, such as `set("gateway.server", "max_body = \"1KiB\"")`. The last one of
    /// a key counts.
    #[must_use]
    pub fn set(mut self, section: &str, line: &str) -> Self {
        let lines = self.sections.entry(section.to_owned()).or_default();
        lines.retain(|held| key(held) != key(line));
        lines.push(line.to_owned());
        self
    }

    /// Keeps sessions in `store`. Gateways that are given the same one stand for pods of one deployment.
    #[must_use]
    pub fn store(self, store: &dyn Store) -> Self {
        store.configure(self)
    }

    /// Serves HTTPS at this port, which gateways may share.
    #[must_use]
    pub fn https_port(mut self, port: u16) -> Self {
        self.https_port = port;
        self
    }

    /// Serves MCPB at this port.
    #[must_use]
    pub fn binary_port(mut self, port: u16) -> Self {
        self.binary_port = port;
        self
    }

    /// Adds a name for which the certificate is valid, besides `localhost` and `127.0.0.1`.
    #[must_use]
    pub fn cert_name(mut self, name: &str) -> Self {
        self.names.push(name.to_owned());
        self
    }

    /// Shows this certificate instead of one of its own, as processes do that are one gateway to their clients.
    #[must_use]
    pub fn showing(self, cert_file: &Path, key_file: &Path) -> Self {
        self.env("MCP_GATEWAY__SERVER__TLS__CERT_FILE", &cert_file.display().to_string())
            .env("MCP_GATEWAY__SERVER__TLS__KEY_FILE", &key_file.display().to_string())
    }

    /// Sets a variable of the process's environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Confines it, and whatever it starts, as a container runtime would.
    #[must_use]
    pub fn confined(mut self, confinement: Confinement) -> Self {
        self.confinement = confinement;
        self
    }

    fn to_toml(&self, cert: &TestCert, admin_port: u16) -> String {
        let mut sections = self.sections.clone();
        sections.entry("gateway.server".to_owned()).or_default().splice(
            0..0,
            [
                "listen = \"127.0.0.1\"".to_owned(),
                format!("https_port = {}", self.https_port),
                format!("binary_port = {}", self.binary_port),
                format!("admin_listen = \"127.0.0.1:{admin_port}\""),
            ],
        );
        sections.entry("gateway.server.tls".to_owned()).or_default().splice(
            0..0,
            [format!("cert_file = {:?}", cert.cert_file), format!("key_file = {:?}", cert.key_file)],
        );
        let mut toml = String::new();
        for (name, lines) in &sections {
            toml += &format!("[{name}]\n{}\n\n", lines.join("\n"));
        }
        toml + &self.servers
    }
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl Gateway {
    /// Starts a gateway and waits until it is ready.
    ///
    /// # Panics
    /// When it does not start; the message has what it printed.
    #[must_use]
    pub fn start(config: &GatewayConfig) -> Self {
        let gateway = Self::start_unready(config);
        let what = format!("the gateway is ready; it printed:\n{}", gateway.process.log());
        gateway.wait_ready(&what)
    }

    /// Starts a gateway and waits until it says that it serves: at a port that it shares, another may answer for it.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_beside(config: &GatewayConfig) -> Self {
        let gateway = Self::start_unready(config);
        eventually("the gateway serves", START_LIMIT, || {
            gateway.process.log().contains("metrics  http").then_some(())
        });
        gateway
    }

    /// Starts a gateway without waiting for it.
    ///
    /// # Panics
    /// When its process cannot be started.
    #[must_use]
    pub fn start_unready(config: &GatewayConfig) -> Self {
        let dir = TempDir::new();
        let cert = TestCert::generate_for(&dir, &config.names);
        let admin_port = free_port();
        let file = dir.write(CONFIG_FILE, &config.to_toml(&cert, admin_port));
        let envs = config.env.iter().map(|(key, value)| (key, value));
        let mut command = Command::new(binary());
        config.confinement.apply(command.arg("--config").arg(file).envs(envs));
        let process = Process::start("mcp-gateway", &mut command);
        Self { addr: loopback(config.https_port), admin_addr: loopback(admin_port), cert, process, dir }
    }

    /// The URL of a server's MCP endpoint.
    #[must_use]
    pub fn url(&self, server: &str) -> String {
        format!("https://{}/mcp/{server}", self.addr)
    }

    /// The URL of a server's WebSocket.
    #[must_use]
    pub fn socket_url(&self, server: &str) -> String {
        format!("wss://{}/ws/{server}", self.addr)
    }

    /// The URL of a server's stream of HTTP with SSE.
    #[must_use]
    pub fn sse_url(&self, server: &str) -> String {
        format!("https://{}/sse/{server}", self.addr)
    }

    /// A TLS connection to it.
    ///
    /// # Errors
    /// When the connection or the handshake fails.
    pub fn connect(&self) -> std::io::Result<Connection> {
        Connection::tls(self.addr, &self.cert.client_config())
    }

    /// Gets a path over a new connection.
    ///
    /// # Errors
    /// When the connection fails or the answer is malformed.
    pub fn get(&self, path: &str) -> std::io::Result<Response> {
        self.connect()?.request("GET", path, &[("connection", "close")], b"")
    }

    /// Its metrics now.
    ///
    /// # Panics
    /// When they cannot be had.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let scrape = Connection::plain(self.admin_addr)
            .and_then(|mut connection| connection.request("GET", "/metrics", &[("connection", "close")], b""))
            .unwrap_or_else(|error| {
                panic!("no metrics: {error}; the gateway printed:\n{}", self.process.log())
            });
        assert_eq!(scrape.status, 200, "{}", scrape.text());
        Metrics::parse(&scrape.text())
    }

    /// Replaces its configuration's file by `config`, whose names the certificate does not follow.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn rewrite(&self, config: &GatewayConfig) {
        self.rewrite_text(&config.to_toml(&self.cert, self.admin_addr.port()));
    }

    /// As [`Self::rewrite`], with this text.
    ///
    /// # Panics
    /// As [`Self::rewrite`].
    pub fn rewrite_text(&self, text: &str) {
        let file = self.dir.write("gateway.toml.new", text);
        std::fs::rename(file, self.dir.path().join(CONFIG_FILE)).expect("the file is replaced");
    }

    /// Its configuration's file as it is.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn config_text(&self) -> String {
        std::fs::read_to_string(self.dir.path().join(CONFIG_FILE)).expect("the file is there")
    }

    /// Has the configuration's file lead to this one.
    ///
    /// # Panics
    /// When the link cannot be made.
    pub fn link_config(&self, to: &Path) {
        let link = self.dir.path().join("gateway.toml.link");
        std::os::unix::fs::symlink(to, &link).expect("a link");
        std::fs::rename(link, self.dir.path().join(CONFIG_FILE)).expect("the file is replaced");
    }

    /// Has it take over another configuration, by SIGHUP, and waits until it has.
    ///
    /// # Panics
    /// When it does not.
    pub fn reload(&mut self, config: &GatewayConfig) {
        let before = self.reloads("ok");
        self.rewrite(config);
        self.process.signal(libc::SIGHUP);
        self.wait_reload("ok", before);
    }

    /// Configurations that it has read again, by what became of them: `ok`, `unchanged` or `refused`.
    #[must_use]
    pub fn reloads(&self, result: &str) -> f64 {
        self.metrics().count("mcp_gateway_config_reloads_total", &[("result", result)])
    }

    /// Waits until more than `before` were such. Then all shards have been told.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn wait_reload(&self, result: &str, before: f64) {
        eventually(&format!("a configuration is {result}"), RELOAD_LIMIT, || {
            (self.reloads(result) > before).then_some(())
        });
    }

    /// Asks it to end, as Kubernetes does, and waits until it has.
    ///
    /// # Panics
    /// When it still runs after `limit`.
    pub fn stop(mut self, limit: Duration) -> ExitStatus {
        self.process.signal(libc::SIGTERM);
        self.process.finish(limit).status
    }

    fn wait_ready(mut self, what: &str) -> Self {
        eventually(what, START_LIMIT, || {
            assert!(self.process.is_running(), "the gateway ended:\n{}", self.process.log());
            let ready = self.get("/ready").is_ok_and(|response| response.status == 200);
            // Metrics have a listener of their own, which no readiness vouches for.
            (ready && Connection::plain(self.admin_addr).is_ok()).then_some(())
        });
        self
    }
}

/// The gateway's binary: `MCP_GATEWAY_BIN`, or the one beside the running test.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn binary() -> PathBuf {
    let path = std::env::var_os("MCP_GATEWAY_BIN").map_or_else(|| beside_test("mcp-gateway"), PathBuf::from);
    assert!(path.is_file(), "no {}: build it with `cargo build --release -p mcp-engine`", path.display());
    path
}

/// Where a binary of this workspace is, beside the running test.
///
/// # Panics
/// Never under cargo.
#[must_use]
pub fn beside_test(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a file");
    // target/<profile>/deps/<test>
    let profile = test.parent().and_then(Path::parent).expect("cargo's layout");
    profile.join(name)
}

fn key(line: &str) -> Option<&str> {
    line.split('=').next().map(str::trim)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
