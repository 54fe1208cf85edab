//! Setup: a gateway that has more to do than it can, or as many connections as it may have.
//! Claim: the probes that deploy/base gives it find it alive, so that nobody restarts a gateway that is merely busy; one that is
//! full is not ready, and is again when it has room. One that hangs is found dead.

use std::time::Duration;

use mcp_system_tests::load::{FastServer, driver};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, Process, eventually};

const LIMIT: Duration = Duration::from_secs(60);
/// Probes in a row that may fail before the kubelet restarts the container: `failureThreshold` of deploy/base.
const FAILURE_THRESHOLD: usize = 6;
const PROBES: usize = 30;

#[test]
fn a_gateway_that_is_busy_is_found_alive() {
    let server = FastServer::start();
    let config = GatewayConfig::new().set("gateway.runtime", "shards = 1").server("fast", &[&server.url]);
    let gateway = Gateway::start(&config);
    // More calls than it can answer, and more handshakes: both ask for all of the one shard's time.
    let mut loads = [
        load(&gateway, &["run", "--connections", "200", "--warmup", "0s"]),
        load(&gateway, &["handshake", "--concurrency", "64"]),
    ];
    eventually("it is under load", LIMIT, || {
        let metrics = gateway.metrics();
        let calls = metrics.count("mcp_gateway_requests_total", &[]);
        (calls > 1_000.0).then_some(())
    });
    let mut failed_in_a_row = [0; 2];
    for _ in 0..PROBES {
        let found = [alive(&gateway), gateway.get("/health").is_ok_and(|answer| answer.status == 200)];
        for (found, failed) in found.into_iter().zip(&mut failed_in_a_row) {
            *failed = if found { 0 } else { *failed + 1 };
            assert!(*failed < FAILURE_THRESHOLD, "the kubelet would restart it:\n{}", gateway.process.log());
        }
    }
    for load in &mut loads {
        assert!(load.is_running(), "there was no load: {}", load.log());
    }
}

#[test]
fn a_gateway_that_is_full_is_found_alive_and_not_ready() {
    let gateway = Gateway::start(&GatewayConfig::new().set("gateway.server", "max_connections = 10"));
    let mut held = Vec::new();
    eventually("it is full", LIMIT, || match gateway.connect() {
        Ok(connection) => {
            held.push(connection);
            None
        }
        Err(_) => Some(()),
    });
    assert!(gateway.get("/ready").is_err(), "one more than it may have");
    assert!(alive(&gateway));
    held.clear();
    eventually("it has room", LIMIT, || gateway.get("/ready").ok().filter(|answer| answer.status == 200));
}

#[test]
fn a_gateway_whose_shards_do_not_turn_is_found_dead() {
    let gateway = Gateway::start(&GatewayConfig::new().set("gateway.runtime", "shards = 1"));
    assert!(alive(&gateway));
    let stopped = Stopped::shard_of(&gateway);
    assert!(!alive(&gateway));
    drop(stopped);
    eventually("it turns again", LIMIT, || alive(&gateway).then_some(()));
}

/// What the liveness probe of deploy/base finds.
fn alive(gateway: &Gateway) -> bool {
    Connection::plain(gateway.admin_addr)
        .and_then(|mut connection| connection.request("GET", "/health", &[("connection", "close")], b""))
        .is_ok_and(|answer| answer.status == 200)
}

/// The load driver, for longer than the test takes, whatever becomes of its calls.
fn load(gateway: &Gateway, options: &[&str]) -> Process {
    let mut command = driver();
    command.args(options).args([
        "--duration",
        "140s",
        "--max-errors",
        "1000000000",
        "--url",
        &gateway.url("fast"),
    ]);
    Process::start("mcp-bench", command.arg("--ca-file").arg(&gateway.cert.ca_file))
}

/// A shard's thread that does not run, until this is dropped.
struct Stopped(libc::pid_t);

impl Stopped {
    fn shard_of(gateway: &Gateway) -> Self {
        let tasks = format!("/proc/{}/task", gateway.process.id());
        let thread: libc::pid_t = std::fs::read_dir(tasks)
            .expect("its threads")
            .filter_map(|entry| entry.ok())
            .find(|entry| {
                std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name == "shard-0\n")
            })
            .and_then(|entry| entry.file_name().to_str()?.parse().ok())
            .expect("a shard");
        for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
            // SAFETY: both take no pointers, and the thread is of a process that this test started.
            let done = unsafe { libc::ptrace(request, thread, 0, 0) };
            assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        }
        // SAFETY: the status is nobody's business, so there is no pointer.
        let waited = unsafe { libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL) };
        assert_eq!(waited, thread, "{}", std::io::Error::last_os_error());
        Self(thread)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // SAFETY: no pointers; a thread that has ended meanwhile is an error that matters to nobody.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, 0, 0) };
    }
}
