//! A gateway under test: its process, its ports, its metrics. Dropped, it is killed.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Gateway {
    pub(crate) port: u16,
    admin_port: u16,
    process: Child,
    file: Option<PathBuf>,
}

impl Gateway {
    /// With its own demonstration server.
    pub(crate) fn with_demo(env: &[(&str, &str)]) -> Self {
        Self::start(None, env)
    }

    /// With one server, `up`, at this URL.
    pub(crate) fn with_server(url: &str, env: &[(&str, &str)]) -> Self {
        static FILES: AtomicUsize = AtomicUsize::new(0);
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("mcpb-test-{}-{number}.toml", std::process::id()));
        let text = format!(
            "[[servers]]\nname = \"up\"\ntransport = \"streamable-http\"\nendpoints = [\"{url}\"]\ntimeout = \"10s\"\n"
        );
        std::fs::write(&file, text).unwrap();
        Self::start(Some(file), env)
    }

    fn start(file: Option<PathBuf>, env: &[(&str, &str)]) -> Self {
        let [https_port, port, admin_port] = free_ports();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-gateway"));
        if let Some(file) = &file {
            command.arg("--config").arg(file);
        }
        let process = command
            .env("MCP_GATEWAY__SERVER__LISTEN", "127.0.0.1")
            .env("MCP_GATEWAY__SERVER__HTTPS_PORT", https_port.to_string())
            .env("MCP_GATEWAY__SERVER__BINARY_PORT", port.to_string())
            .env("MCP_GATEWAY__SERVER__ADMIN_LISTEN", format!("127.0.0.1:{admin_port}"))
            .env("MCP_GATEWAY__RUNTIME__SHARDS", "2")
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let gateway = Gateway { port, admin_port, process, file };
        eventually("the gateway listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
                && TcpStream::connect(("127.0.0.1", admin_port)).is_ok()
        });
        gateway
    }

    /// The value of a line of `/metrics`, as it stands there without the prefix `mcp_gateway_`; 0 where there is none.
    pub(crate) fn metric(&self, name_and_labels: &str) -> u64 {
        let mut admin = TcpStream::connect(("127.0.0.1", self.admin_port)).unwrap();
        admin.set_read_timeout(Some(PATIENCE)).unwrap();
        admin.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        admin.read_to_string(&mut page).unwrap();
        assert!(page.contains("mcp_gateway_build_info"), "{page}");
        let value = |line: &str| {
            line.strip_prefix("mcp_gateway_")?.strip_prefix(name_and_labels)?.trim().parse().ok()
        };
        page.lines().find_map(value).unwrap_or(0)
    }

    /// SIGTERM: the gateway drains.
    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits until the process has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the gateway ends", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Polls until it is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Ports that nobody listens on and that no other test was given: below the range from which the kernel gives ports to those
/// who ask for any, since such a one, of another test's server, could be there first.
fn free_ports() -> [u16; 3] {
    const FIRST: u16 = 10_000;
    const COUNT: usize = 10_000;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let start = std::process::id() as usize * 97;
    let mut ports = (0..COUNT).filter_map(|_| {
        let port = FIRST + ((start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT) as u16;
        TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
    });
    [(); 3].map(|()| ports.next().expect("a free port"))
}
