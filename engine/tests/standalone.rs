//! Claim: the store's runtime connects, encrypts, looks names up, bounds steps, and flushes at the end of a turn, on both
//! connection drivers; what is still running when the future ends is dropped.
//! Set-up: a thread on loopback sends back what it gets, by TCP or by TLS.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test by panicking")]

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::{AsyncReadExt, AsyncWriteExt};
use mcp_engine::runtime::Executor;
use mcp_engine::standalone::{self, StoreRuntime, StoreTls};
use mcp_shard_store::runtime::{Address, Elapsed, Runtime};
use rustls::ServerConnection;

/// More than a socket's buffers hold, so that sends are taken in parts.
const MESSAGE_BYTES: usize = 4 << 20;
/// A step's time: one that is not over in it never is.
const STEP_MS: u64 = 60_000;

/// Both drivers, or epoll alone where the kernel refuses the ring.
fn drivers() -> impl Iterator<Item = Executor> {
    let has_ring = standalone::run(Executor::IoUring, None, |_| async {}).is_ok();
    [Executor::Epoll, Executor::IoUring].into_iter().take(1 + usize::from(has_ring))
}

fn address(host: &str, listener: SocketAddr) -> Address {
    Address { host: host.into(), port: listener.port() }
}

/// Answers one connection until it ends.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut from = connection.try_clone().unwrap();
        io::copy(&mut from, &mut connection).unwrap();
    });
    address
}

/// Sends a large message and reads it back while it is still being sent.
async fn round_trip(runtime: StoreRuntime, to: Address) -> io::Result<bool> {
    let (mut reader, mut writer) = runtime.connect(&to).await?.split();
    let message: Vec<u8> = (0..MESSAGE_BYTES).map(|place| (place % 251) as u8).collect();
    let sent = message.clone();
    runtime.spawn(Box::pin(async move {
        writer.write_all(&sent).await.unwrap();
        writer.flush().await.unwrap();
    }));
    let mut back = vec![0; MESSAGE_BYTES];
    let until = runtime.now() + STEP_MS;
    runtime
        .deadline(until, reader.read_exact(&mut back))
        .await
        .map_err(|Elapsed| io::ErrorKind::TimedOut)??;
    Ok(back == message)
}

#[test]
fn what_is_sent_comes_back_by_address_and_by_name() {
    for driver in drivers() {
        for host in ["127.0.0.1", "localhost"] {
            let to = address(host, echo());
            let same = standalone::run(driver, None, |runtime| round_trip(runtime, to)).unwrap().unwrap();
            assert!(same, "{driver:?} {host}");
        }
    }
}

#[test]
fn a_node_that_is_not_there_and_a_name_that_is_none_are_errors() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for driver in drivers() {
        for (host, kind) in [
            ("127.0.0.1", io::ErrorKind::ConnectionRefused),
            ("no-such-host.invalid", io::ErrorKind::NotFound),
        ] {
            let to = address(host, gone);
            let outcome = standalone::run(driver, None, |runtime| round_trip(runtime, to)).unwrap();
            assert_eq!(outcome.unwrap_err().kind(), kind, "{driver:?}");
        }
    }
}

#[test]
fn a_step_that_never_ends_is_cut() {
    for driver in drivers() {
        let outcome = standalone::run(driver, None, |runtime| async move {
            let started = runtime.now();
            let cut = runtime.deadline(started + 5, std::future::pending::<()>()).await;
            (cut, runtime.now() - started >= 5)
        });
        assert_eq!(outcome.unwrap(), (Err(Elapsed), true), "{driver:?}");
    }
}

/// Counts the flushes it is told of.
struct Sender(Cell<u32>);

#[test]
fn whoever_wants_it_is_flushed_once_at_the_end_of_the_turn_while_it_lives() {
    for driver in drivers() {
        let flushes = standalone::run(driver, None, |runtime| async move {
            let sender = Rc::new(Sender(Cell::new(0)));
            runtime.on_flush(&sender, |sender| sender.0.set(sender.0.get() + 1));
            let dropped = Rc::new(Sender(Cell::new(0)));
            runtime.on_flush(&dropped, |_| panic!("it is gone"));
            drop(dropped);
            let mut seen = Vec::new();
            for asks in [0, 1, 3, 0] {
                (0..asks).for_each(|_| runtime.flush_later());
                next_turn(&runtime).await;
                seen.push(sender.0.get());
            }
            seen
        });
        assert_eq!(flushes.unwrap(), [0, 1, 2, 2], "{driver:?}");
    }
}

/// Waits for a deadline: at least one turn ends before.
async fn next_turn(runtime: &StoreRuntime) {
    let outcome = runtime.deadline(runtime.now() + 1, std::future::pending::<()>()).await;
    assert_eq!(outcome, Err(Elapsed));
}

#[test]
fn what_still_runs_at_the_end_is_dropped() {
    for driver in drivers() {
        let alive = Rc::new(());
        let (held, to) = (alive.clone(), address("127.0.0.1", echo()));
        standalone::run(driver, None, |runtime| async move {
            let mut idle = runtime.connect(&to).await.unwrap();
            runtime.spawn(Box::pin(async move {
                let _held = held;
                // Nobody ever sends anything.
                idle.read_exact(&mut [0]).await.unwrap();
            }));
            next_turn(&runtime).await;
        })
        .unwrap();
        assert_eq!(Rc::strong_count(&alive), 1, "{driver:?}");
    }
}

/// A node that speaks TLS, under a certificate for `store.example` that the file holds.
struct Encrypted {
    config: Arc<rustls::ServerConfig>,
    ca_file: PathBuf,
}

impl Encrypted {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["store.example".to_owned()]).unwrap();
        let ca_file = std::env::temp_dir().join(format!("mcp-standalone-{}.pem", std::process::id()));
        std::fs::write(&ca_file, made.cert.pem()).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
        Encrypted { config: Arc::new(config), ca_file }
    }

    /// Answers one connection until it ends; a client that refuses the certificate ends it, too.
    fn echo(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let config = self.config.clone();
        std::thread::spawn(move || {
            let (connection, _) = listener.accept().unwrap();
            let mut stream = rustls::StreamOwned::new(ServerConnection::new(config).unwrap(), connection);
            let mut piece = vec![0; 16 << 10];
            while let Ok(read @ 1..) = stream.read(&mut piece) {
                if stream.write_all(&piece[..read]).is_err() {
                    break;
                }
            }
        });
        address
    }
}

impl Drop for Encrypted {
    fn drop(&mut self) {
        // The folder is temporary anyhow.
        let _ = std::fs::remove_file(&self.ca_file);
    }
}

#[test]
fn a_node_proves_its_name_or_nothing_is_said_to_it() {
    let node = Encrypted::new();
    let reached = |driver, skip_verify: bool, name| {
        let ca_file = (!skip_verify).then_some(&*node.ca_file);
        let tls = StoreTls::new(ca_file, skip_verify, name).unwrap();
        let to = address("127.0.0.1", node.echo());
        standalone::run(driver, Some(tls), |runtime| round_trip(runtime, to)).unwrap()
    };
    for driver in drivers() {
        assert!(reached(driver, false, Some("store.example")).unwrap(), "{driver:?}");
        assert!(reached(driver, true, None).unwrap(), "{driver:?}");
        for wrong in [None, Some("other.example")] {
            let error = reached(driver, false, wrong).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{driver:?} {error}");
        }
    }
}
