//! Setup: clients that each make a connection for one call, without a pause, and a gateway at their port that is replaced again
//! and again: the next one starts beside it at the same port, then it gets SIGTERM.
//! Claim: no connection is refused or reset, no call fails, and each gateway ends by itself.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::mcp::{mirrored, modern_call};
use mcp_system_tests::port::free_port;
use mcp_system_tests::{Connection, Gateway, GatewayConfig, TempDir, TestCert, eventually};
use rustls::ClientConfig;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(40);
const TAKEOVERS: usize = 5;
const CLIENTS: usize = 4;
/// Calls that are made between two events.
const CALLS: usize = 50;

#[test]
fn a_new_process_takes_the_port_over_and_nobody_notices() {
    let server = Fixture::modern(json!([]), nothing);
    let dir = TempDir::new();
    let cert = TestCert::generate(&dir);
    // The gateways are one to their clients: one port, one certificate.
    let config = GatewayConfig::new()
        .https_port(free_port())
        .showing(&cert.cert_file, &cert.key_file)
        .set("gateway.server", "drain_delay = \"200ms\"")
        .server("modern", &[&server.url()]);
    let start = || Gateway::start_beside(&config);
    let mut gateway = start();
    let load = Load::start(gateway.addr, &cert.client_config());
    load.some_more();
    for _ in 0..TAKEOVERS {
        let next = start();
        load.some_more();
        assert!(served(&next) > 0.0, "the new gateway has no share");
        assert_eq!(gateway.stop(LIMIT).code(), Some(0));
        load.some_more();
        gateway = next;
    }
    load.end();
}

fn served(gateway: &Gateway) -> f64 {
    gateway.metrics().count("mcp_gateway_requests_total", &[])
}

/// Clients that go on until they are told to end.
struct Load {
    state: Arc<State>,
    clients: Vec<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    ending: AtomicBool,
    done: AtomicUsize,
    failed: Mutex<Vec<String>>,
    slowest: Mutex<Duration>,
}

impl Load {
    fn start(addr: std::net::SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let state = Arc::new(State::default());
        let clients = (0..CLIENTS).map(|_| {
            let (state, config) = (state.clone(), config.clone());
            std::thread::spawn(move || {
                while !state.ending.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    if let Err(why) = call(addr, &config) {
                        state.failed.lock().expect("no panic").push(why);
                    }
                    let mut slowest = state.slowest.lock().expect("no panic");
                    *slowest = began.elapsed().max(*slowest);
                    state.done.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        Self { clients: clients.collect(), state }
    }

    fn some_more(&self) {
        let before = self.state.done.load(Ordering::Relaxed);
        eventually("calls are made", LIMIT, || {
            (self.state.done.load(Ordering::Relaxed) >= before + CALLS).then_some(())
        });
    }

    fn end(self) {
        self.state.ending.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("no panic");
        }
        let failed = self.state.failed.lock().expect("no panic");
        let (done, slowest) = (&self.state.done, self.state.slowest.lock().expect("no panic"));
        assert!(failed.is_empty(), "of {done:?} calls (the slowest took {slowest:?}) failed {failed:#?}");
    }
}

fn call(addr: std::net::SocketAddr, config: &Arc<ClientConfig>) -> Result<(), String> {
    let mut connection = Connection::tls(addr, config).map_err(|error| format!("connecting: {error}"))?;
    let mut headers = mirrored("tools/call", Some("greet"));
    headers.push(("connection", "close"));
    let answer = connection
        .post("/mcp/modern", &headers, &modern_call(1, "greet", json!({"name": "you"})))
        .map_err(|error| format!("calling: {error}"))?;
    if answer.status == 200 { Ok(()) } else { Err(format!("{}: {}", answer.status, answer.text())) }
}
