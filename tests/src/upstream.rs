//! Owns MCP servers that misbehave on purpose: each answers what its test scripts, byte by byte. For servers that behave there
//! are the real ones in [`crate::peers`].

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;

/// Longest request body that is read, in bytes.
const MAX_BODY: usize = 32 * 1024 * 1024;

/// A scripted server on 127.0.0.1; dropped, it accepts no more.
#[derive(Debug)]
pub struct ScriptedUpstream {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct UpstreamRequest {
    /// The request line and the header fields, in their order.
    pub head: Vec<String>,
    /// The body, read by its `Content-Length`.
    pub body: Vec<u8>,
}

/// What becomes of a connection after its script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The next request is awaited on it.
    KeepOpen,
    /// It is closed in order.
    Close,
    /// It is broken off, so that nobody can take it for an orderly end.
    Reset,
}

#[derive(Debug, Default)]
struct Shared {
    connections: AtomicUsize,
    /// Of clients, and of the gateway's own.
    requests: [AtomicUsize; 2],
    stopped: AtomicBool,
}

impl ScriptedUpstream {
    /// Starts a server that reads each request, leaves the connection to `script`, and then does with it what that says.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start(script: impl Fn(&UpstreamRequest, &mut TcpStream) -> After + Send + Sync + 'static) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").expect("a free port"), script)
    }

    /// As [`Self::start`], on a listener of the test's own.
    ///
    /// # Panics
    /// When the listener is none.
    #[must_use]
    pub fn start_on(
        listener: TcpListener,
        script: impl Fn(&UpstreamRequest, &mut TcpStream) -> After + Send + Sync + 'static,
    ) -> Self {
        let addr = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared::default());
        let script = Arc::new(script);
        let held = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if held.stopped.load(Ordering::SeqCst) {
                    return;
                }
                held.connections.fetch_add(1, Ordering::SeqCst);
                let (script, held) = (script.clone(), held.clone());
                std::thread::spawn(move || serve(stream, &*script, &held));
            }
        });
        Self { addr, shared }
    }

    /// As [`Self::start`], for a server of 2026-07-28 that answers in order what a gateway may ask it on its own account, and
    /// leaves only the rest to `script`.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn modern(
        script: impl Fn(&UpstreamRequest, &mut TcpStream) -> After + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |request, stream| {
            let message = request.json();
            let result = match message["method"].as_str() {
                Some("server/discover") => json!({
                    "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
                    "ttlMs": 0, "cacheScope": "private",
                }),
                Some("tools/list") => {
                    json!({"resultType": "complete", "tools": [], "ttlMs": 0, "cacheScope": "private"})
                }
                _ => return script(request, stream),
            };
            answer_json(stream, "200 OK", &json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
        })
    }

    /// Its MCP endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.addr)
    }

    /// How many connections came so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// How many requests came so far, without the gateway's own questions.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.shared.requests[0].load(Ordering::SeqCst)
    }

    /// How many questions of the gateway's own came so far.
    #[must_use]
    pub fn own_questions(&self) -> usize {
        self.shared.requests[1].load(Ordering::SeqCst)
    }
}

impl Drop for ScriptedUpstream {
    #[expect(clippy::disallowed_methods, reason = "a test's own thread may block")]
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread so that it sees that it is over; if that fails, it has ended already.
        let _ = TcpStream::connect(self.addr);
    }
}

impl UpstreamRequest {
    /// The value of a header field; `name` in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.to_ascii_lowercase() == name).then(|| value.trim())
        })
    }

    /// Whether the gateway asks on its own account.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.json()["id"].as_str().is_some_and(|id| id.starts_with("mcp-gateway-"))
    }

    /// The body's JSON, or null when it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Answers with a whole JSON body and keeps the connection open.
pub fn answer_json(stream: &mut TcpStream, status: &str, body: &serde_json::Value) -> After {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    answer(stream, &(head + &body), After::KeepOpen)
}

/// Answers with `text` as it is. A connection that does not take it is closed.
pub fn answer(stream: &mut TcpStream, text: &str, after: After) -> After {
    if stream.write_all(text.as_bytes()).is_ok() { after } else { After::Close }
}

fn serve(mut stream: TcpStream, script: &dyn Fn(&UpstreamRequest, &mut TcpStream) -> After, shared: &Shared) {
    let Ok(reading) = stream.try_clone() else { return };
    let mut reading = BufReader::new(reading);
    while let Some(request) = read_request(&mut reading) {
        shared.requests[usize::from(request.is_own())].fetch_add(1, Ordering::SeqCst);
        match script(&request, &mut stream) {
            After::KeepOpen => {}
            After::Close => {
                // The other side may have gone; then it is closed all the same.
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
            After::Reset => {
                close_with_reset(&stream);
                return;
            }
        }
    }
}

/// Makes the closing of a connection a reset.
///
/// # Panics
/// Never for an open connection.
pub fn close_with_reset(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = libc::socklen_t::try_from(size_of::<libc::linger>()).expect("a small struct");
    // SAFETY: the descriptor is open as long as `stream` is borrowed, and the option's value is of the size that is told.
    let set = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            std::ptr::from_ref(&linger).cast(),
            size,
        )
    };
    assert_eq!(set, 0, "SO_LINGER: {}", std::io::Error::last_os_error());
}

fn read_request(reading: &mut impl BufRead) -> Option<UpstreamRequest> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reading.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        head.push(line.to_owned());
    }
    let mut request = UpstreamRequest { head, body: Vec::new() };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    if length > MAX_BODY {
        return None;
    }
    request.body = vec![0; length];
    reading.read_exact(&mut request.body).ok()?;
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Connection;

    #[test]
    fn requests_are_read_and_answered() {
        let upstream = ScriptedUpstream::start(|request, stream| {
            assert_eq!(request.header("x-test"), Some("yes"));
            answer_json(stream, "200 OK", &request.json())
        });
        let mut connection = Connection::plain(upstream.addr).expect("connected");
        for id in 0..2 {
            let answer =
                connection.post("/mcp", &[("x-test", "yes")], &json!({"id": id})).expect("an answer");
            assert_eq!(answer.json(), json!({"id": id}));
        }
        assert_eq!(upstream.requests(), 2);
    }

    #[test]
    fn a_reset_is_no_end() {
        for (after, kind) in [
            (After::Reset, std::io::ErrorKind::ConnectionReset),
            (After::Close, std::io::ErrorKind::UnexpectedEof),
        ] {
            let upstream = ScriptedUpstream::start(move |_, _| after);
            let mut connection = Connection::plain(upstream.addr).expect("connected");
            let error = connection.post("/mcp", &[], &json!({})).expect_err("no answer");
            assert_eq!(error.kind(), kind);
        }
    }
}
