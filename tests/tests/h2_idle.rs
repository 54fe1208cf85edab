//! Setup: 2,000 connections to one shard, first over HTTP/1.1, then over HTTP/2, each of which has opened a session and made a
//! call with a large answer, and then says nothing.
//! Claim: an idle connection holds no buffer, by any version of HTTP; one that slept goes on where it was: its session, its
//! windows, its streams' numbers, its header compression.

use std::time::Duration;

use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::h2::{END_HEADERS, END_STREAM, Frame, H2Connection, block, code, kind};
use mcp_system_tests::mcp::{LEGACY, in_session, initialize, open_session, request};
use mcp_system_tests::resources::raise_open_files;
use mcp_system_tests::{Gateway, GatewayConfig, eventually};
use serde_json::json;

const CONNECTIONS: u64 = 2_000;
/// Bytes of the answer that each has read.
const ANSWER_BYTES: usize = 20 << 10;
/// What an idle connection of HTTP/2 may cost: 8 to 12 KB as measured. More than half of that is the allocator's, whose pages
/// around what h2 gave back are in use in part; with h2's state it would be 42 KB.
const MAX_BYTES: u64 = 16 << 10;
/// How many looks in a row must see nothing given back: longer than the gateway waits until it lets go.
const STILL_LOOKS: u32 = 500;
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn an_idle_connection_is_small() {
    raise_open_files();
    let fixture = Fixture::legacy(nothing);
    let start = || {
        let config = GatewayConfig::new()
            .server("fixture", &[&fixture.url()])
            .set("gateway.runtime", "shards = 1")
            .set("gateway.server", "max_connections_per_ip = 10000");
        Gateway::start(&config)
    };
    let ping = request(2, "ping", json!({"pad": "x".repeat(ANSWER_BYTES)}));
    let http1 = {
        let gateway = start();
        measure(&gateway, || {
            let mut connection = gateway.connect().expect("a connection");
            let session = open_session(&mut connection, "/mcp/fixture", LEGACY);
            let headers = in_session(&session, LEGACY);
            let answer = connection.post("/mcp/fixture", &headers, &ping).expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
            connection
        })
    };
    let gateway = start();
    let h2 = measure(&gateway, || {
        let mut connection = H2Connection::open(&gateway).expect("a connection");
        let stream = connection.post("/mcp/fixture", &[], &initialize(LEGACY)).expect("sent");
        let opened = connection.answer(stream).expect("an answer");
        let session = opened.header("mcp-session-id").expect("a session").to_owned();
        let stream = connection.post("/mcp/fixture", &in_session(&session, LEGACY), &ping).expect("sent");
        assert_eq!(connection.answer(stream).expect("an answer").status, 200);
        connection
    });
    println!("bytes per idle connection with its session: HTTP/1.1 {http1}, HTTP/2 {h2}");
    assert!(h2 < MAX_BYTES, "{h2} bytes per idle connection, {http1} over HTTP/1.1");
    eventually("the connections are gone", LIMIT, || {
        let active = gateway.metrics().count("mcp_gateway_connections_active", &[]);
        (active == 0.0).then_some(())
    });
}

/// Long enough for a connection to fall asleep, which shows nowhere.
const NAP: Duration = Duration::from_millis(2500);

#[test]
fn a_connection_that_slept_goes_on_where_it_was() {
    let fixture = Fixture::legacy(nothing);
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&fixture.url()]));
    let mut connection = H2Connection::open(&gateway).expect("a connection");
    // A frame size, a header table and a window of the client's own: none of it is said again.
    let settings = [(1_u16, 100_u32), (4, 70_000), (5, 20_000)];
    let settings: Vec<u8> = settings
        .iter()
        .flat_map(|(number, value)| [&number.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    connection.send(kind::SETTINGS, 0, 0, &settings).expect("sent");
    let stream = connection.post("/mcp/fixture", &[], &initialize(LEGACY)).expect("sent");
    let opened = connection.answer(stream).expect("an answer");
    let session = opened.header("mcp-session-id").expect("a session").to_owned();
    let headers = in_session(&session, LEGACY);
    for nap in 0..4 {
        // What was received is given back late, so that the window is sometimes less than it was at first.
        connection.replenish = nap % 2 == 0;
        for bytes in [10, 30_000 + 10_000 * usize::from(nap % 2 == 0)] {
            let ping = request(nap, "ping", json!({"pad": "x".repeat(bytes)}));
            let stream = connection.post("/mcp/fixture", &headers, &ping).expect("sent");
            let answer = connection.answer(stream).expect("an answer");
            assert_eq!(answer.json()["result"]["pad"].as_str().map(str::len), Some(bytes), "nap {nap}");
            if !connection.replenish {
                let received = (answer.body.len() as u32).to_be_bytes();
                let window = Frame::new(kind::WINDOW_UPDATE, 0, 0, &received);
                std::thread::sleep(NAP);
                connection.send_all(&[window]).expect("sent");
            }
        }
        std::thread::sleep(NAP);
    }
    // A late frame of a stream that ended before the nap harms nobody; a new one with an old number is an error.
    connection.send(kind::WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1]).expect("sent");
    connection.ping().expect("the connection goes on");
    let fields = block(&connection.fields("GET", "/health", &[]));
    connection.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, &fields).expect("sent");
    assert_eq!(connection.end().expect("a goodbye"), Some(code::PROTOCOL_ERROR));
}

#[test]
fn a_connection_that_sleeps_is_told_goodbye() {
    let gateway = Gateway::start(&GatewayConfig::new());
    let mut asleep = H2Connection::open(&gateway).expect("a connection");
    let stream = asleep.request("GET", "/health", &[], b"").expect("sent");
    assert_eq!(asleep.answer(stream).expect("an answer").status, 200);
    asleep.ping().expect("settings are agreed on");
    std::thread::sleep(NAP);
    let told = std::thread::spawn(move || asleep.read_until(|frame| frame.kind == kind::GOAWAY));
    assert_eq!(gateway.stop(LIMIT).code(), Some(0));
    let goodbye = told.join().expect("no panic").expect("a goodbye");
    assert_eq!((&goodbye.payload[..4], goodbye.code()), (&stream.to_be_bytes()[..], code::NO_ERROR));
}

/// Resident bytes per connection, with all of them idle.
fn measure<C>(gateway: &Gateway, mut open: impl FnMut() -> C) -> u64 {
    // What is the first one's alone, such as histograms, is not the others'.
    let first = open();
    let before = gateway.process.resident_bytes();
    let held: Vec<C> = (0..CONNECTIONS).map(|_| open()).collect();
    eventually("nothing is buffered", LIMIT, || {
        let bytes = gateway.metrics().count("mcp_gateway_buffered_bytes", &[]);
        (bytes == 0.0).then_some(())
    });
    // What is given back in the end is given back bit by bit: the least that is seen counts.
    let mut least = u64::MAX;
    let mut still = 0;
    eventually("no more is given back", LIMIT, || {
        let now = gateway.process.resident_bytes().saturating_sub(before) / CONNECTIONS;
        still = if now < least { 0 } else { still + 1 };
        least = least.min(now);
        (still == STILL_LOOKS).then_some(())
    });
    drop((first, held));
    least
}
