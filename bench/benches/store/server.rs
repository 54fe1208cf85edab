//! The Redis server that all clients talk to: owns its process, its CPU and its end.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mcp_bench::sys::{Confinement, confine};

/// How long the server may take to start.
const START: Duration = Duration::from_secs(10);
/// Between two looks whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

pub(crate) struct Server {
    process: Child,
    port: u16,
}

impl Server {
    /// Starts a server that keeps nothing on disk.
    ///
    /// # Panics
    /// When there is no `redis-server`, or it does not start.
    pub(crate) fn start(cpu: usize) -> Self {
        let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
        let port = free.expect("a free port").port();
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null());
        confine(&mut command, Confinement { cpus: vec![cpu], ..Confinement::default() });
        let mut server = Server { process: command.spawn().expect("redis-server is installed"), port };
        let deadline = Instant::now() + START;
        #[allow(clippy::disallowed_methods, reason = "nothing else runs yet")]
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(server.process.try_wait().is_ok_and(|end| end.is_none()), "redis-server ended at once");
            assert!(Instant::now() < deadline, "redis-server does not listen after {START:?}");
            std::thread::sleep(LOOK_AGAIN);
        }
        server
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
