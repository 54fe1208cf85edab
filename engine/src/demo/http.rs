//! HTTP/1.1 for the demo server: whole requests in, responses and event streams out.
//!
//! Owns framing, limits and timeouts of one connection. It never knows MCP. A request's body needs a `Content-Length`;
//! the gateway, which holds every message whole before it forwards it, always sends one.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Largest request head, in bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Most header fields of a request.
const MAX_HEADERS: usize = 64;

/// Largest message, in bytes.
pub(super) const MAX_BODY_BYTES: usize = 1 << 20;

/// Bytes asked of the socket at once.
const READ_BYTES: usize = 8 << 10;

/// How long a connection may stay without a request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest time from the first byte of a request to its last.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that a client may refuse to take bytes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of a refused request that are read and thrown away, so that the client gets to read the refusal instead of
/// a reset.
const MAX_DRAINED_BYTES: usize = 4 << 20;

/// Longest time for that.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// A whole request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// The target without its query.
    pub(super) path: String,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Whether the client wants the connection to end after the response.
    pub(super) close: bool,
}

impl Request {
    /// The value of the first header field with this name, in any case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Whether any `Accept` field lists `media_type` or a wildcard that covers it.
    pub(super) fn accepts(&self, media_type: &str) -> bool {
        let family = media_type.split('/').next().unwrap_or_default();
        let fields = self.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("accept"));
        fields.flat_map(|(_, value)| value.split(',')).any(|item| {
            let range = item.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            range == media_type || range == "*/*" || range == format!("{family}/*")
        })
    }
}

/// Why no request could be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The client ended the connection, was silent for too long, or the socket failed.
    Gone,
    /// What came can't be served; the connection can't be used any more.
    Refused {
        /// The HTTP status to answer with.
        status: u16,
    },
}

impl From<io::Error> for ReadError {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// One connection to a client.
pub(super) struct Connection {
    stream: TcpStream,
    /// What was read beyond the last request.
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Waits for the next request.
    pub(super) fn read_request(&mut self) -> Result<Request, ReadError> {
        if self.buffer.is_empty() {
            self.stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
            self.read_some()?;
        }
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let (mut request, head_bytes, body_bytes) = loop {
            if let Some(parsed) = parse_head(&self.buffer)? {
                break parsed;
            }
            self.read_before(deadline)?;
        };
        let whole = head_bytes + body_bytes;
        let waits = request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
        if waits && self.buffer.len() < whole {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        while self.buffer.len() < whole {
            self.read_before(deadline)?;
        }
        request.body = self.buffer[head_bytes..whole].to_vec();
        self.buffer.drain(..whole);
        Ok(request)
    }

    /// Sends a response without a body.
    pub(super) fn send_empty(&mut self, status: u16, headers: &[(&str, &str)]) -> io::Result<()> {
        let mut bytes = head(status, headers);
        bytes.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        self.stream.write_all(&bytes)
    }

    /// Sends a response with a JSON body.
    pub(super) fn send_json(
        &mut self,
        status: u16,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> io::Result<()> {
        let body = body.to_string();
        let mut bytes = head(status, headers);
        let length = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        bytes.extend_from_slice(length.as_bytes());
        bytes.extend_from_slice(body.as_bytes());
        self.stream.write_all(&bytes)
    }

    /// Begins a response that is an event stream.
    pub(super) fn begin_events(&mut self) -> io::Result<()> {
        let mut bytes = head(200, &[("Cache-Control", "no-cache"), ("X-Accel-Buffering", "no")]);
        bytes.extend_from_slice(b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        self.stream.write_all(&bytes)
    }

    /// Sends an event that carries `message`.
    pub(super) fn send_event(&mut self, message: &Value) -> io::Result<()> {
        self.send_chunk(&format!("event: message\ndata: {message}\n\n"))
    }

    /// Sends a comment, which clients ignore and which keeps the connection from looking dead.
    pub(super) fn send_comment(&mut self) -> io::Result<()> {
        self.send_chunk(":\n\n")
    }

    /// Ends an event stream; the connection can take another request.
    pub(super) fn end_events(&mut self) -> io::Result<()> {
        self.stream.write_all(b"0\r\n\r\n")
    }

    /// Waits, and says whether the client is still there. A client that ends its sending side counts as gone.
    pub(super) fn wait(&mut self, time: Duration) -> bool {
        if time.is_zero() {
            return true;
        }
        let deadline = Instant::now() + time;
        if self.stream.set_read_timeout(Some(time)).is_err() {
            return false;
        }
        match self.stream.peek(&mut [0]) {
            Ok(0) => false,
            Ok(_) => {
                // The next request is here already, so an end of file can't be seen before it is read.
                std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
                true
            }
            Err(error) => is_timeout(&error),
        }
    }

    /// Ends the connection after a refusal while the client may still be sending.
    pub(super) fn close_gently(mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        let mut drained = 0;
        while drained < MAX_DRAINED_BYTES {
            // The end of the stream, a timeout and a failure all end it.
            if self.read_before(deadline).is_err() {
                break;
            }
            drained += self.buffer.len();
            self.buffer.clear();
        }
        Ok(())
    }

    fn send_chunk(&mut self, data: &str) -> io::Result<()> {
        self.stream.write_all(format!("{:x}\r\n{data}\r\n", data.len()).as_bytes())
    }

    fn read_before(&mut self, deadline: Instant) -> Result<(), ReadError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ReadError::Refused { status: 408 });
        }
        self.stream.set_read_timeout(Some(left))?;
        match self.read_some() {
            Err(error) if is_timeout(&error) => Err(ReadError::Refused { status: 408 }),
            result => Ok(result?),
        }
    }

    /// Reads what is there; the end of the stream is an error.
    fn read_some(&mut self) -> io::Result<()> {
        let mut bytes = [0; READ_BYTES];
        match self.stream.read(&mut bytes)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.buffer.extend_from_slice(&bytes[..count]);
                Ok(())
            }
        }
    }
}

/// The request without its body, the head's length and the body's; `None` while the head is incomplete.
fn parse_head(bytes: &[u8]) -> Result<Option<(Request, usize, usize)>, ReadError> {
    let refused = |status| Err(ReadError::Refused { status });
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut fields);
    let head_bytes = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD_BYTES => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return refused(431),
        Err(_) => return refused(400),
    };
    if parsed.version != Some(1) {
        return refused(505);
    }
    let mut headers = Vec::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        let Ok(value) = std::str::from_utf8(field.value) else { return refused(400) };
        headers.push((field.name.to_owned(), value.trim().to_owned()));
    }
    if find(&headers, "transfer-encoding").is_some() {
        return refused(411);
    }
    if headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).count() > 1 {
        return refused(400);
    }
    let body_bytes = match find(&headers, "content-length").map(str::parse::<usize>) {
        None => 0,
        Some(Ok(length)) if length <= MAX_BODY_BYTES => length,
        Some(Ok(_)) => return refused(413),
        Some(Err(_)) => return refused(400),
    };
    let close = find(&headers, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let target = parsed.path.unwrap_or_default();
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: target.split('?').next().unwrap_or_default().to_owned(),
        headers,
        body: Vec::new(),
        close,
    };
    Ok(Some((request, head_bytes, body_bytes)))
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// The status line and the fields that are given.
fn head(status: u16, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} {}\r\n", reason(status));
    for (name, value) in headers {
        text.extend([*name, ": ", *value, "\r\n"]);
    }
    text.into_bytes()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
