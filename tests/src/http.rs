//! Owns a small blocking HTTP/1.1 client over TLS or plain TCP. It sends whatever bytes a test wants, malformed ones too, and
//! reads whole answers or event streams. Strict where the gateway must be right: every end of a body is checked, and a
//! connection that breaks is an error, not an end.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::mcp::POST_HEADERS;
use crate::tls::TlsStream;

/// How long a read or a write may take before it is an error.
const IO_LIMIT: Duration = Duration::from_secs(30);
/// Longest head of an answer, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Bytes asked of the connection at once.
const READ_SIZE: usize = 16 * 1024;

/// One connection.
pub struct Connection {
    stream: Box<dyn Stream>,
    authority: String,
    buffer: Vec<u8>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header fields in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body without its transfer coding.
    pub body: Vec<u8>,
}

/// An event of a `text/event-stream`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// The field `id`.
    pub id: Option<String>,
    /// The field `event`.
    pub event: Option<String>,
    /// The field `retry`, in milliseconds.
    pub retry: Option<u64>,
    /// The lines of the fields `data`, joined by line feeds.
    pub data: String,
}

/// An answer whose body is an event stream that is still open.
pub struct EventStream {
    connection: Connection,
    framing: Framing,
    /// The answer's head; its body stays empty.
    pub head: Response,
    text: Vec<u8>,
}

/// An answer whose body comes part by part, as it arrives.
pub struct BodyParts {
    connection: Connection,
    framing: Framing,
}

impl Connection {
    /// Connects with TLS; the server's certificate must be valid for `127.0.0.1`.
    ///
    /// # Errors
    /// When the connection or the handshake fails.
    pub fn tls(addr: SocketAddr, config: &Arc<ClientConfig>) -> Result<Self> {
        let name = ServerName::from(addr.ip());
        let session = ClientConnection::new(config.clone(), name).map_err(Error::other)?;
        let mut stream = StreamOwned::new(session, tcp(addr)?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self::over(Box::new(stream), addr))
    }

    /// Connects without TLS.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn plain(addr: SocketAddr) -> Result<Self> {
        Ok(Self::over(Box::new(tcp(addr)?), addr))
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection does not take them.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Sends a request with the right `Host` and, when there is a body, `Content-Length`.
    ///
    /// # Errors
    /// When the connection does not take it.
    pub fn send_request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<()> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {}\r\n", self.authority);
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += &format!("content-length: {}\r\n", body.len());
        }
        head += "\r\n";
        let mut message = head.into_bytes();
        message.extend_from_slice(body);
        self.send(&message)
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// When the connection fails or the answer is malformed.
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response> {
        self.send_request(method, target, headers, body)?;
        self.read_response(method == "HEAD")
    }

    /// Posts a JSON message as an MCP client does and reads the whole answer.
    ///
    /// # Errors
    /// When the connection fails or the answer is malformed.
    pub fn post(
        &mut self,
        target: &str,
        headers: &[(&str, &str)],
        message: &serde_json::Value,
    ) -> Result<Response> {
        self.send_post(target, headers, message)?;
        self.read_response(false)
    }

    /// Posts a JSON message as an MCP client does; the answer is read later.
    ///
    /// # Errors
    /// When the connection does not take it.
    pub fn send_post(
        &mut self,
        target: &str,
        headers: &[(&str, &str)],
        message: &serde_json::Value,
    ) -> Result<()> {
        let all = [&POST_HEADERS, headers].concat();
        self.send_request("POST", target, &all, message.to_string().as_bytes())
    }

    /// Reads the next answer to its end; `bodyless` for answers to HEAD. Interim answers (1xx) are passed over.
    ///
    /// # Errors
    /// When the connection fails or the answer is malformed.
    pub fn read_response(&mut self, bodyless: bool) -> Result<Response> {
        let (mut response, mut framing) = self.read_head(bodyless)?;
        while let Some(part) = self.read_part(&mut framing)? {
            response.body.extend_from_slice(&part);
        }
        Ok(response)
    }

    /// Reads the head of an answer that is an event stream.
    ///
    /// # Errors
    /// When the connection fails, or the answer is malformed or no event stream: then with its status and body.
    pub fn into_events(mut self) -> Result<EventStream> {
        let (mut head, mut framing) = self.read_head(false)?;
        if head.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
            return Ok(EventStream { connection: self, framing, head, text: Vec::new() });
        }
        while let Some(part) = self.read_part(&mut framing)? {
            head.body.extend_from_slice(&part);
        }
        Err(malformed(&format!("no event stream: {} {}", head.status, head.text())))
    }

    /// Reads the head of an answer; gives its status and its body to be read part by part.
    ///
    /// # Errors
    /// When the connection fails or the answer is malformed.
    pub fn into_body(mut self) -> Result<(u16, BodyParts)> {
        let (head, framing) = self.read_head(false)?;
        Ok((head.status, BodyParts { connection: self, framing }))
    }

    /// Reads an answer's head, of whatever status; what follows is left to be read.
    ///
    /// # Errors
    /// When the connection fails or the head is malformed.
    pub fn read_bare_head(&mut self) -> Result<Response> {
        let head = self.take_head()?;
        parse_head(&head)
    }

    /// Reads exactly so many bytes.
    ///
    /// # Errors
    /// When the connection ends before or fails.
    pub fn read_bytes(&mut self, count: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.fill()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// Whether the server has closed the connection in order, with nothing more to read.
    ///
    /// # Errors
    /// When it broke off, or is still open after the time limit.
    pub fn is_closed(&mut self) -> Result<bool> {
        Ok(self.buffer.is_empty() && !self.fill()?)
    }

    /// Whether its end or its breaking has come already; nothing is waited for. What comes besides is kept to be read.
    pub fn has_ended(&mut self) -> bool {
        let looked = self.stream.socket().set_nonblocking(true).and_then(|()| {
            let ended = loop {
                match self.fill() {
                    Ok(true) => {}
                    Ok(false) => break true,
                    Err(error) => break error.kind() != ErrorKind::WouldBlock,
                }
            };
            self.stream.socket().set_nonblocking(false).map(|()| ended)
        });
        looked.unwrap_or(true)
    }

    /// What has come and was not asked for yet.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.buffer
    }

    /// Speaks over a stream that stands already; `addr` is what `Host` says.
    pub(crate) fn over(stream: Box<dyn Stream>, addr: SocketAddr) -> Self {
        Self { stream, authority: addr.to_string(), buffer: Vec::new() }
    }

    fn read_head(&mut self, bodyless: bool) -> Result<(Response, Framing)> {
        loop {
            let response = self.read_bare_head()?;
            if response.status >= 200 {
                let framing = Framing::of(&response, bodyless)?;
                return Ok((response, framing));
            }
        }
    }

    fn take_head(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                return Ok(self.buffer.drain(..end + 4).collect());
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(malformed("the head is too long"));
            }
            if !self.fill()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The next bytes of a body; `None` at its end.
    fn read_part(&mut self, framing: &mut Framing) -> Result<Option<Vec<u8>>> {
        match framing {
            Framing::Length(0) | Framing::Done => Ok(None),
            Framing::Length(left) => {
                let part = self.take_some(*left)?.ok_or(ErrorKind::UnexpectedEof)?;
                *left -= part.len();
                Ok(Some(part))
            }
            Framing::UntilClose => self.take_some(usize::MAX),
            Framing::Chunked { left: 0 } => {
                let line = self.take_line()?;
                let size = line.split(';').next().unwrap_or_default();
                let size = usize::from_str_radix(size, 16)
                    .map_err(|_| malformed(&format!("chunk size {line:?}")))?;
                if size > 0 {
                    *framing = Framing::Chunked { left: size };
                    return self.read_part(framing);
                }
                while !self.take_line()?.is_empty() {}
                *framing = Framing::Done;
                Ok(None)
            }
            Framing::Chunked { left } => {
                let part = self.take_some(*left)?.ok_or(ErrorKind::UnexpectedEof)?;
                *left -= part.len();
                if *left == 0 && !self.take_line()?.is_empty() {
                    return Err(malformed("a chunk is longer than its size"));
                }
                Ok(Some(part))
            }
        }
    }

    fn take_some(&mut self, most: usize) -> Result<Option<Vec<u8>>> {
        if self.buffer.is_empty() && !self.fill()? {
            return Ok(None);
        }
        let some = most.min(self.buffer.len());
        Ok(Some(self.buffer.drain(..some).collect()))
    }

    fn take_line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(|_| malformed("a line is not UTF-8"));
            }
            if !self.fill()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads what is there; `false` at the end of the connection.
    fn fill(&mut self) -> Result<bool> {
        let mut bytes = [0; READ_SIZE];
        let read = self.stream.read(&mut bytes)?;
        self.buffer.extend_from_slice(&bytes[..read]);
        Ok(read > 0)
    }
}

impl BodyParts {
    /// The next bytes, without their transfer coding; `None` at the body's end.
    ///
    /// # Errors
    /// When the connection breaks or the framing is wrong.
    pub fn next_part(&mut self) -> Result<Option<Vec<u8>>> {
        self.connection.read_part(&mut self.framing)
    }
}

impl EventStream {
    /// Whether its end or its breaking has come already; nothing is waited for.
    pub fn has_ended(&mut self) -> bool {
        // The last chunk, nothing before it.
        self.connection.has_ended() || self.connection.buffer.ends_with(b"0\r\n\r\n")
    }

    /// The next event that has data or an id; `None` when the stream ended in order. Comments are passed over.
    ///
    /// # Errors
    /// When the connection breaks or the framing is wrong.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        loop {
            while let Some(end) = find(&self.text, b"\n\n") {
                let block: Vec<u8> = self.text.drain(..end + 2).collect();
                let event =
                    parse_event(&String::from_utf8(block).map_err(|_| malformed("an event is not UTF-8"))?);
                if event != Event::default() {
                    return Ok(Some(event));
                }
            }
            let Some(part) = self.connection.read_part(&mut self.framing)? else { return Ok(None) };
            // Servers here end lines with a line feed or with both; a carriage return alone is used by none.
            self.text.extend(part.iter().filter(|byte| **byte != b'\r'));
        }
    }
}

impl Response {
    /// The first value of a field; `name` in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text, for messages.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body's JSON; for an event stream, that of its last event.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        self.try_json()
            .unwrap_or_else(|error| panic!("{error}: {} {:?} {}", self.status, self.headers, self.text()))
    }

    /// As [`Self::json`].
    ///
    /// # Errors
    /// When it is none.
    pub fn try_json(&self) -> serde_json::Result<serde_json::Value> {
        let text = self.text().replace("\r\n", "\n");
        let json = if self.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
            text.split("\n\n")
                .filter(|block| !block.is_empty())
                .last()
                .map(parse_event)
                .unwrap_or_default()
                .data
        } else {
            text
        };
        serde_json::from_str(&json)
    }
}

/// What a connection runs over.
pub(crate) trait Stream: Read + Write + Send {
    /// The socket below.
    fn socket(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Stream for TlsStream {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

#[derive(Debug)]
enum Framing {
    Length(usize),
    Chunked { left: usize },
    UntilClose,
    Done,
}

impl Framing {
    fn of(response: &Response, bodyless: bool) -> Result<Self> {
        if bodyless || response.status == 204 || response.status == 304 {
            return Ok(Self::Done);
        }
        match (response.header("transfer-encoding"), response.header("content-length")) {
            (Some(_), Some(_)) => Err(malformed("both a transfer coding and a length")),
            (Some("chunked"), None) => Ok(Self::Chunked { left: 0 }),
            (Some(coding), None) => Err(malformed(&format!("transfer coding {coding}"))),
            (None, Some(length)) => {
                length.parse().map(Self::Length).map_err(|_| malformed(&format!("length {length}")))
            }
            (None, None) => Ok(Self::UntilClose),
        }
    }
}

fn tcp(addr: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, IO_LIMIT)?;
    stream.set_read_timeout(Some(IO_LIMIT))?;
    stream.set_write_timeout(Some(IO_LIMIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn parse_head(head: &[u8]) -> Result<Response> {
    let text = std::str::from_utf8(head).map_err(|_| malformed("the head is not UTF-8"))?;
    let mut lines = text.trim_end().split("\r\n");
    let status = lines.next().unwrap_or_default();
    let code =
        status.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    let code = code.ok_or_else(|| malformed(&format!("status line {status:?}")))?;
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| malformed(&format!("field {line:?}")))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(Response { status: code, headers, body: Vec::new() })
}

fn parse_event(block: &str) -> Event {
    let mut event = Event::default();
    let mut data = Vec::new();
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => event.id = Some(value.to_owned()),
            "event" => event.event = Some(value.to_owned()),
            "retry" => event.retry = value.parse().ok(),
            "data" => data.push(value),
            _ => {}
        }
    }
    event.data = data.join("\n");
    event
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers one connection with `bytes`, then closes it.
    fn answering(bytes: &'static [u8]) -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.write_all(bytes).expect("taken");
        });
        Connection::plain(addr).expect("connected")
    }

    #[test]
    fn bodies_of_every_framing_are_read() {
        for bytes in [
            &b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nhello",
        ] {
            let mut connection = answering(bytes);
            let response = connection.read_response(false).expect("an answer");
            assert_eq!((response.status, response.text().as_str()), (200, "hello"));
            assert!(connection.is_closed().expect("closed in order"));
        }
    }

    #[test]
    fn broken_bodies_are_errors() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-",
        ] {
            assert!(answering(bytes).read_response(false).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn events_are_read_one_by_one() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hi\n\nid: 1\r\nretry: 50\r\ndata\r\n\r\nevent: message\ndata: a\ndata: b\n\n";
        let mut events = answering(head).into_events().expect("events");
        let first = events.next_event().expect("read").expect("an event");
        assert_eq!((first.id.as_deref(), first.retry, first.data.as_str()), (Some("1"), Some(50), ""));
        let second = events.next_event().expect("read").expect("an event");
        assert_eq!((second.event.as_deref(), second.data.as_str()), (Some("message"), "a\nb"));
        assert_eq!(events.next_event().expect("read"), None);
    }
}
