//! Setup: one shard with quiet clients that call, and others that ask for as much as they can: handshakes without end, or
//! thousands of requests in one piece.
//! Claim: no call of the quiet ones fails or waits until the others are done, and those get their answers as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::mcp::call;
use mcp_system_tests::{Connection, Gateway, GatewayConfig, eventually, tls};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);
const QUIET: usize = 4;
const CALLS: u64 = 100;

#[test]
fn handshakes_without_end_fail_no_call() {
    let (upstream, gateway) = start();
    let stop = AtomicBool::new(false);
    let handshakes = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let floods: Vec<_> = (0..QUIET)
            .map(|_| {
                scope.spawn(|| {
                    let config = gateway.cert.client_config();
                    while !stop.load(Ordering::SeqCst) {
                        tls::connect(gateway.addr, &config)?;
                        handshakes.fetch_add(1, Ordering::SeqCst);
                    }
                    Ok::<_, std::io::Error>(())
                })
            })
            .collect();
        eventually("the flood has begun", LIMIT, || (handshakes.load(Ordering::SeqCst) > 0).then_some(()));
        // The flood ends whatever becomes of the calls, or the test could not.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| quiet_calls(&gateway)));
        stop.store(true, Ordering::SeqCst);
        for flood in floods {
            flood.join().expect("no panic").expect("every handshake succeeds");
        }
        outcome.expect("every call is answered");
    });
    drop(upstream);
}

/// More handshakes at once than are begun in one turn: all wait for each other, and nobody is forgotten.
#[test]
fn handshakes_that_come_together_all_succeed() {
    const TOGETHER: usize = 300;
    let (_upstream, gateway) = start();
    let config = gateway.cert.client_config();
    let streams: Vec<_> = (0..TOGETHER)
        .map(|_| tls::tcp_from([127, 0, 0, 1].into(), gateway.addr).expect("a place in the backlog"))
        .collect();
    let gateway = &gateway;
    std::thread::scope(|scope| {
        let shaken: Vec<_> = streams
            .into_iter()
            .map(|stream| {
                let config = config.clone();
                std::thread::Builder::new()
                    .stack_size(256 << 10)
                    .spawn_scoped(scope, move || tls::handshake(stream, &config, gateway.addr.ip()))
                    .expect("a thread")
            })
            .collect();
        for handshake in shaken {
            let stream = handshake.join().expect("no panic").expect("the handshake succeeds");
            let mut connection = tls::http_over(stream, gateway.addr);
            assert_eq!(connection.request("GET", "/health", &[], b"").expect("an answer").status, 200);
        }
    });
    let shaken = |result| gateway.metrics().count("mcp_gateway_handshakes_total", &[("result", result)]);
    assert!(shaken("full") + shaken("resumed") >= TOGETHER as f64);
}

#[test]
fn requests_in_one_piece_do_not_keep_others_waiting() {
    const PIPELINED: usize = 100_000;
    let (upstream, gateway) = start();
    let mut quiet = gateway.connect().expect("a connection");
    let stream = tls::connect(gateway.addr, &gateway.cert.client_config()).expect("a connection");
    let mut flood = tls::http_over(stream, gateway.addr);
    let one = format!("GET /health HTTP/1.1\r\nhost: {}\r\n\r\n", gateway.addr);
    let answered = Arc::new(AtomicUsize::new(0));
    let counted = answered.clone();
    // What is not read stays with the client and the kernel: pieces small enough to be sent without reading meanwhile.
    let flooding = std::thread::spawn(move || -> std::io::Result<()> {
        const PIECE: usize = 100;
        for _ in 0..PIPELINED / PIECE {
            flood.send(one.repeat(PIECE).as_bytes())?;
            for _ in 0..PIECE {
                assert_eq!(flood.read_response(false)?.status, 200);
                counted.fetch_add(1, Ordering::SeqCst);
            }
        }
        Ok(())
    });
    eventually("the flood has begun", LIMIT, || (answered.load(Ordering::SeqCst) > 0).then_some(()));
    for number in 0..10 {
        assert_called(&mut quiet, number);
    }
    let before_the_end = answered.load(Ordering::SeqCst);
    assert!(before_the_end < PIPELINED, "the calls waited for the whole flood");
    flooding.join().expect("no panic").expect("every request is answered");
    drop(upstream);
}

fn start() -> (Fixture, Gateway) {
    let upstream = Fixture::modern(json!([]), nothing);
    let config =
        GatewayConfig::new().set("gateway.runtime", "shards = 1").server("fixture", &[&upstream.url()]);
    let gateway = Gateway::start(&config);
    (upstream, gateway)
}

fn quiet_calls(gateway: &Gateway) {
    std::thread::scope(|scope| {
        for _ in 0..QUIET {
            scope.spawn(|| {
                let mut connection = gateway.connect().expect("a connection");
                for number in 0..CALLS {
                    assert_called(&mut connection, number);
                }
            });
        }
    });
}

fn assert_called(connection: &mut Connection, number: u64) {
    let answer = call(connection, "/mcp/fixture", "any", json!({"number": number})).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["result"]["arguments"]["number"], number);
}
