//! Setup: for each door, clients that keep their connections and make one call after another, each with a number of its own; a
//! gateway at their port that is replaced again and again: the next one starts beside it, then it gets SIGTERM.
//! Claim: each connection is told goodbye in the way of its door; a client that heeds it and goes on over another one has every
//! call answered, and the server sees every call exactly once.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mcp_system_tests::fixtures::Fixture;
use mcp_system_tests::h2::{END_STREAM, H2Connection, Outcome, code, kind};
use mcp_system_tests::mcp::{LEGACY, mirrored, modern_call, request};
use mcp_system_tests::mcpb::{CONTROL, Frames, REQUEST, RESPONSE};
use mcp_system_tests::port::free_port;
use mcp_system_tests::sse::{self, Stream};
use mcp_system_tests::ws::{CLOSE, PING, PONG, Socket, TEXT};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, TempDir, TestCert, eventually};
use rustls::ClientConfig;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const TAKEOVERS: usize = 3;
const CLIENTS: usize = 3;
/// Calls that every client makes between two events.
const CALLS: usize = 20;
/// Where a client's numbers begin, times its own.
const NUMBERS: usize = 1_000_000;
/// The goodbye of a WebSocket.
const SERVICE_RESTART: [u8; 2] = 1012_u16.to_be_bytes();

#[test]
fn connections_of_http_1() {
    check::<Http1>();
}

#[test]
fn connections_of_http_2() {
    check::<Http2>();
}

#[test]
fn sockets() {
    check::<WebSocket>();
}

#[test]
fn connections_of_mcpb() {
    check::<Mcpb>();
}

#[test]
fn streams_of_http_with_sse() {
    check::<SseStream>();
}

fn check<L: Line>() {
    let counts = Counts::default();
    let server = L::server(&counts);
    let dir = TempDir::new();
    let cert = TestCert::generate(&dir);
    let (https, binary) = (free_port(), free_port());
    // The gateways are one to their clients: the same ports, one certificate.
    let config = GatewayConfig::new()
        .https_port(https)
        .binary_port(binary)
        .showing(&cert.cert_file, &cert.key_file)
        .set("gateway.server", "drain_delay = \"50ms\"")
        .server("one", &[&server.url()]);
    let start = || Gateway::start_beside(&config);
    let mut gateway = start();
    let binary = SocketAddr::new(gateway.addr.ip(), binary);
    let load = Load::start::<L>(&Place { https: gateway.addr, binary, tls: cert.client_config() });
    load.some_more();
    for _ in 0..TAKEOVERS {
        let next = start();
        assert_eq!(gateway.stop(LIMIT).code(), Some(0));
        load.some_more();
        gateway = next;
    }
    let (calls, goodbyes) = load.end();
    assert!(goodbyes.iter().all(|count| *count >= TAKEOVERS), "{goodbyes:?} goodbyes");
    let counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).collect();
    assert!(twice.is_empty(), "not once: {twice:?}");
    assert_eq!(counts.len(), calls);
}

/// How often the server has seen each call.
type Counts = Arc<Mutex<HashMap<u64, usize>>>;

/// Where gateways listen, and what their certificate is trusted by.
#[derive(Clone)]
struct Place {
    https: SocketAddr,
    binary: SocketAddr,
    tls: Arc<ClientConfig>,
}

/// A client's connection, of some door.
trait Line: Sized {
    /// A server for such clients, which counts their calls.
    fn server(counts: &Counts) -> Fixture {
        let counts = counts.clone();
        Fixture::modern(json!([]), move |request, _| {
            count(&counts, &request.json());
            None
        })
    }

    fn open(place: &Place) -> io::Result<Self>;

    /// Makes a call and waits for its answer.
    fn call(&mut self, number: usize) -> Result<(), Unanswered>;
}

/// Why a call has no answer.
#[derive(Debug)]
enum Unanswered {
    /// The gateway said goodbye, and did not take the call: it goes again over another connection.
    NotTaken,
    Failed(String),
}

impl Unanswered {
    fn because(why: impl std::fmt::Debug) -> Self {
        Unanswered::Failed(format!("{why:?}"))
    }
}

fn count(counts: &Counts, message: &Value) {
    if let Some(number) = message["params"]["arguments"]["number"].as_u64() {
        *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(number).or_default() += 1;
    }
}

fn message(number: usize) -> Value {
    modern_call(number, "greet", json!({"number": number}))
}

/// What the answer to a call says of it.
fn judge(answer: &Value, number: usize) -> Result<(), Unanswered> {
    let is_refused =
        answer["error"]["message"] == "shutting down" && answer["error"]["data"]["retryable"] == true;
    match answer["result"]["arguments"]["number"].as_u64() {
        Some(answered) if answered == number as u64 => Ok(()),
        _ if is_refused => Err(Unanswered::NotTaken),
        _ => Err(Unanswered::because(answer)),
    }
}

/// The goodbye of HTTP/1.1 is a field of an answer, or the closing of a connection on which nothing is being answered.
struct Http1 {
    connection: Connection,
    is_leaving: bool,
}

impl Line for Http1 {
    fn open(place: &Place) -> io::Result<Self> {
        Ok(Http1 { connection: Connection::tls(place.https, &place.tls)?, is_leaving: false })
    }

    fn call(&mut self, number: usize) -> Result<(), Unanswered> {
        let headers = mirrored("tools/call", Some("greet"));
        if self.is_leaving {
            return Err(Unanswered::NotTaken);
        }
        // A connection that ends before it answers has not taken the call: should it have, the server sees it twice.
        let answer =
            self.connection.post("/mcp/one", &headers, &message(number)).map_err(|_| Unanswered::NotTaken)?;
        self.is_leaving = answer.header("connection") == Some("close");
        judge(&answer.json(), number)
    }
}

/// The goodbye of HTTP/2 names the last stream that was taken.
struct Http2 {
    connection: H2Connection,
    last: Option<u32>,
}

impl Line for Http2 {
    fn open(place: &Place) -> io::Result<Self> {
        Ok(Http2 { connection: H2Connection::open_at(place.https, &place.tls)?, last: None })
    }

    fn call(&mut self, number: usize) -> Result<(), Unanswered> {
        if self.last.is_some() {
            return Err(Unanswered::NotTaken);
        }
        let headers = mirrored("tools/call", Some("greet"));
        // What cannot be sent has not arrived.
        let stream =
            self.connection.post("/mcp/one", &headers, &message(number)).map_err(|_| Unanswered::NotTaken)?;
        let last = &mut self.last;
        let ended = self.connection.read_until(|frame| {
            if frame.kind == kind::GOAWAY && frame.code() == code::NO_ERROR {
                *last = frame.payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
            }
            frame.stream == stream && frame.flags & END_STREAM != 0
        });
        match ended {
            Ok(_) => match self.connection.outcome(stream) {
                Ok(Outcome::Answer(answer)) => judge(&answer.json(), number),
                other => Err(Unanswered::because(other)),
            },
            Err(_) if self.last.is_some_and(|last| last < stream) => Err(Unanswered::NotTaken),
            Err(error) => Err(Unanswered::Failed(format!("{error}, with the goodbye {:?}", self.last))),
        }
    }
}

/// A socket says goodbye when it has answered what it took.
struct WebSocket(Socket);

impl Line for WebSocket {
    fn open(place: &Place) -> io::Result<Self> {
        let connection = Connection::tls(place.https, &place.tls)?;
        Socket::upgrade(connection, "/ws/one", &[])?
            .map(WebSocket)
            .map_err(|refusal| io::Error::other(refusal.text()))
    }

    fn call(&mut self, number: usize) -> Result<(), Unanswered> {
        // What cannot be sent has not arrived.
        self.0.try_send(TEXT, message(number).to_string().as_bytes()).map_err(|_| Unanswered::NotTaken)?;
        loop {
            let frame = self.0.try_receive().map_err(Unanswered::because)?;
            match frame.first {
                CLOSE if frame.payload.starts_with(&SERVICE_RESTART) => return Err(Unanswered::NotTaken),
                PING => self.0.try_send(PONG, &frame.payload).map_err(Unanswered::because)?,
                TEXT => {
                    let answer: Value =
                        serde_json::from_slice(&frame.payload).map_err(Unanswered::because)?;
                    return judge(&answer, number);
                }
                _ => return Err(Unanswered::because(frame)),
            }
        }
    }
}

/// After its goodbye, MCPB answers what it took, and refuses what comes late.
struct Mcpb {
    frames: Frames,
    is_leaving: bool,
}

impl Line for Mcpb {
    fn open(place: &Place) -> io::Result<Self> {
        Ok(Mcpb { frames: Frames::open_at(place.binary, &place.tls)?, is_leaving: false })
    }

    fn call(&mut self, number: usize) -> Result<(), Unanswered> {
        if self.is_leaving {
            let word = br#"{"command":"shutdown_ack","status":"ok"}"#;
            self.frames.send(CONTROL, word).map_err(Unanswered::because)?;
            return Err(Unanswered::NotTaken);
        }
        self.frames.send(REQUEST, message(number).to_string().as_bytes()).map_err(Unanswered::because)?;
        loop {
            let (kind, payload) = self.frames.receive().map_err(Unanswered::because)?;
            let said: Value = serde_json::from_slice(&payload).map_err(Unanswered::because)?;
            match kind {
                CONTROL if said["command"] == "shutdown" => self.is_leaving = true,
                RESPONSE => return judge(&said, number),
                _ => return Err(Unanswered::because((kind, said))),
            }
        }
    }
}

/// A stream ends when it has answered what it took. Its session ends with it: the client opens another.
struct SseStream {
    stream: Stream,
    posts: Connection,
}

impl Line for SseStream {
    fn server(counts: &Counts) -> Fixture {
        let counts = counts.clone();
        Fixture::legacy(move |request, _| {
            if request.is("POST") {
                count(&counts, &request.json());
            }
            None
        })
    }

    fn open(place: &Place) -> io::Result<Self> {
        let connect = || Connection::tls(place.https, &place.tls);
        let (mut stream, mut posts) = (Stream::open(connect()?, "/sse/one")?, connect()?);
        stream.initialize(&mut posts, LEGACY);
        Ok(SseStream { stream, posts })
    }

    fn call(&mut self, number: usize) -> Result<(), Unanswered> {
        let call = request(number, "tools/call", json!({"name": "greet", "arguments": {"number": number}}));
        let is_taken = match sse::try_post(&mut self.posts, &self.stream.endpoint, &call) {
            Ok(answer) if answer.status == 202 => true,
            // The stream has ended, or takes no more; or the connection has, which was idle.
            Ok(answer) if matches!(answer.status, 404 | 503) => false,
            Ok(answer) => return Err(Unanswered::because(answer)),
            Err(_) => false,
        };
        loop {
            match self.stream.events.next_event().map_err(Unanswered::because)? {
                Some(event) if event.event.as_deref() == Some("message") => {
                    let answer = serde_json::from_str(&event.data).map_err(Unanswered::because)?;
                    return judge(&answer, number);
                }
                Some(_) => {}
                None if is_taken => return Err(Unanswered::because("the stream ended before the answer")),
                None => return Err(Unanswered::NotTaken),
            }
        }
    }
}

/// Clients that go on until they are told to end.
struct Load {
    state: Arc<State>,
    clients: Vec<std::thread::JoinHandle<usize>>,
}

#[derive(Default)]
struct State {
    is_ending: AtomicBool,
    done: [AtomicUsize; CLIENTS],
    failed: Mutex<Vec<String>>,
}

impl Load {
    fn start<L: Line>(place: &Place) -> Self {
        let state = Arc::new(State::default());
        let clients = (0..CLIENTS).map(|client| {
            let (state, place) = (state.clone(), place.clone());
            std::thread::spawn(move || {
                state.go_on::<L>(client, &place).unwrap_or_else(|why| {
                    state.failed.lock().unwrap_or_else(PoisonError::into_inner).push(why);
                    0
                })
            })
        });
        Self { clients: clients.collect(), state }
    }

    fn some_more(&self) {
        let done = || self.state.done.each_ref().map(|count| count.load(Ordering::Relaxed));
        let before = done();
        eventually("calls are made", LIMIT, || {
            self.state.assert_well();
            done().iter().zip(before).all(|(now, before)| *now >= before + CALLS).then_some(())
        });
    }

    /// How many calls were made, and how many goodbyes each client was told.
    fn end(self) -> (usize, Vec<usize>) {
        self.state.is_ending.store(true, Ordering::Relaxed);
        let goodbyes = self.clients.into_iter().map(|client| client.join().expect("no panic")).collect();
        self.state.assert_well();
        (self.state.done.iter().map(|count| count.load(Ordering::Relaxed)).sum(), goodbyes)
    }
}

impl State {
    /// Makes calls, each as often as it takes; how many goodbyes it was told.
    fn go_on<L: Line>(&self, client: usize, place: &Place) -> Result<usize, String> {
        let (mut goodbyes, mut line) = (0, L::open(place).map_err(|error| error.to_string())?);
        for number in client * NUMBERS.. {
            while let Err(unanswered) = line.call(number) {
                let Unanswered::Failed(why) = unanswered else {
                    goodbyes += 1;
                    line = L::open(place).map_err(|error| format!("after {goodbyes} goodbyes: {error}"))?;
                    continue;
                };
                return Err(format!("call {number}, after {goodbyes} goodbyes: {why}"));
            }
            self.done[client].fetch_add(1, Ordering::Relaxed);
            if self.is_ending.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(goodbyes)
    }

    fn assert_well(&self) {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(failed.is_empty(), "{failed:#?}");
    }
}
