//! What the integration tests share: `mcp-bench` as a subprocess, its JSON report, and a TLS front for the upstream.
//!
//! Every process is ended by its id and every wait has a deadline.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a failure in a test is its message")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread;

use mcp_bench::http::{Framing, parse_request_head, parse_response_head};
use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_mcp-bench");
/// No upstream outlives its test by more than this.
const UPSTREAM_FOR: &str = "120s";

/// `mcp-bench upstream` on a free port; killed when dropped.
pub(crate) struct Upstream {
    child: Child,
    pub(crate) url: String,
}

impl Upstream {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", args)
    }

    pub(crate) fn start_at(address: &str, args: &[&str]) -> Self {
        let mut child = Command::new(BENCH)
            .args(["upstream", "--listen", address, "--for", UPSTREAM_FOR])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { child, url }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.url.strip_prefix("http://").unwrap().strip_suffix("/mcp").unwrap().parse().unwrap()
    }

    /// Sends one request on a connection of its own and returns status and body.
    pub(crate) fn post(&self, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let mut request = format!("POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        let (status, body) = self.exchange(format!("{request}\r\n{body}").as_bytes());
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    /// Sends raw bytes and returns the status and body of the first answer.
    pub(crate) fn exchange(&self, request: &[u8]) -> (u16, String) {
        let mut stream = connect(self.address());
        stream.write_all(request).unwrap();
        let answer = read_message(&mut stream, response_len).unwrap();
        let head = parse_response_head(&answer).unwrap().unwrap();
        (head.status, String::from_utf8(answer[head.len..].to_vec()).unwrap())
    }

    /// Ends it by SIGTERM and says whether it ended well.
    pub(crate) fn terminate(mut self) -> bool {
        terminate(self.pid());
        self.child.wait().unwrap().success()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `mcp-bench` with these arguments to its end.
pub(crate) fn bench(args: &[&str]) -> Output {
    Command::new(BENCH).args(args).output().unwrap()
}

/// Runs `mcp-bench` and reads its JSON report; returns the exit code too.
pub(crate) fn report(args: &[&str]) -> (i32, Value) {
    let output = Command::new(BENCH).args(args).args(["--json", "-"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}{errors}"));
    (output.status.code().unwrap(), json)
}

/// As [`report`], but runs `meanwhile` with the id of the process once the measuring has begun.
pub(crate) fn report_with(args: &[&str], meanwhile: impl FnOnce(u32)) -> (i32, Value) {
    let mut child = Command::new(BENCH)
        .args(args)
        .args(["--json", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains(" measure ")), "it ended before it measured");
    meanwhile(child.id());
    // Read to the end, so that the process never waits for us.
    let rest: Vec<_> = lines.collect();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    let code = child.wait().unwrap().code().unwrap();
    (code, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}{rest:?}")))
}

/// Asks a process to end.
pub(crate) fn terminate(pid: u32) {
    assert!(Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap().success());
}

/// The calls in a latency table that took longer than `limit_us`.
pub(crate) fn calls_over(latency: &Value, limit_us: u64) -> u64 {
    let row = latency["over"].as_array().unwrap().iter().find(|o| o["over_us"] == limit_us);
    row.map_or(0, |o| o["calls"].as_u64().unwrap())
}

/// Serves `upstream` over TLS with a certificate made here; returns the port and the certificate as PEM.
/// Its threads end with the test's process.
pub(crate) fn tls_front(upstream: SocketAddr) -> (u16, String) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for accepted in listener.incoming() {
            let (stream, config) = (accepted.unwrap(), config.clone());
            thread::spawn(move || relay(stream, config, upstream));
        }
    });
    (port, made.cert.pem())
}

/// Passes on requests and answers in turn until the client closes.
fn relay(stream: TcpStream, config: Arc<rustls::ServerConfig>, upstream: SocketAddr) -> Option<()> {
    let connection = rustls::ServerConnection::new(config).ok()?;
    let mut downstream = rustls::StreamOwned::new(connection, stream);
    let mut upstream = connect(upstream);
    loop {
        let request = read_message(&mut downstream, request_len)?;
        upstream.write_all(&request).ok()?;
        let answer = read_message(&mut upstream, response_len)?;
        // In small pieces, so that the client must join records and partial answers.
        for piece in answer.chunks(100) {
            downstream.write_all(piece).ok()?;
            downstream.flush().ok()?;
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a test's own thread may block")]
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads one message, whose length `len` knows once there is enough of it.
pub(crate) fn read_message(stream: &mut impl Read, len: fn(&[u8]) -> Option<usize>) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    let mut piece = [0u8; 4096];
    while len(&message).is_none_or(|n| message.len() < n) {
        match stream.read(&mut piece).ok()? {
            0 => return None,
            n => message.extend_from_slice(&piece[..n]),
        }
    }
    Some(message)
}

pub(crate) fn request_len(bytes: &[u8]) -> Option<usize> {
    let head = parse_request_head(bytes).unwrap()?;
    match head.framing {
        Framing::Length(n) => Some(head.len + n),
        _ => None,
    }
}

pub(crate) fn response_len(bytes: &[u8]) -> Option<usize> {
    let head = parse_response_head(bytes).unwrap()?;
    match head.framing {
        Framing::Length(n) => Some(head.len + n),
        Framing::Chunked => {
            let mut body = Vec::new();
            mcp_bench::http::decode_chunked(&bytes[head.len..], &mut body).unwrap().map(|n| head.len + n)
        }
        Framing::UntilClose => None,
    }
}
