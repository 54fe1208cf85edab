//! Owns a small blocking HTTP/2 client that writes any frame, wrong ones too, and reads what comes back frame by frame.
//! Independent of the gateway's own library: the frame layout is written from RFC 9113, header fields go out as literals
//! without compression, and a codec of another origin reads the answers' header blocks.

use std::collections::BTreeMap;
use std::io::{Error, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use loona_hpack::Decoder;
use rustls::ClientConfig;
use serde_json::Value;

use crate::mcp::POST_HEADERS;
use crate::tls::{TlsStream, connect_anywhere, handshake, read_at_once, tcp_from};
use crate::{Gateway, Response};

/// What a client says first (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What may be sent before a server says more (RFC 9113, section 6.9.2).
const INITIAL_WINDOW: i64 = 65_535;

/// The flags that tests use.
pub const END_STREAM: u8 = 0x1;
/// Of SETTINGS and PING.
pub const ACK: u8 = 0x1;
/// Of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 0x4;
/// Of HEADERS: five bytes of priority stand first.
pub const PRIORITY_FLAG: u8 = 0x20;
/// Of DATA and HEADERS: the length of the padding stands first.
pub const PADDED: u8 = 0x8;

/// Frame types (RFC 9113, section 6).
#[allow(missing_docs, reason = "each is the frame of its name")]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Error codes (RFC 9113, section 7).
#[allow(missing_docs, reason = "each is the code of its name")]
pub mod code {
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE_ERROR: u32 = 6;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 for the connection.
    pub stream: u32,
    /// What follows the header.
    pub payload: Vec<u8>,
}

/// A connection that has agreed on `h2`.
pub struct H2Connection {
    stream: TlsStream,
    authority: String,
    buffer: Vec<u8>,
    decoder: Decoder<'static>,
    next_stream: u32,
    /// What streams brought so far that nobody has asked for.
    partial: BTreeMap<u32, Partial>,
    /// How much may be sent on the connection (0) and on each stream beyond, or short of, what all begin with.
    windows: BTreeMap<u32, i64>,
    /// Whether what the server sends is given back to its windows.
    pub replenish: bool,
    /// The last stream that the server's GOAWAY names.
    goodbye: Option<u32>,
}

/// What became of a stream or of the connection.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A whole answer.
    Answer(Response),
    /// RST_STREAM, with its code.
    Reset(u32),
    /// GOAWAY, with its last stream and code, or a closed connection without one.
    GoneAway(Option<(u32, u32)>),
}

#[derive(Default)]
struct Partial {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    begun: bool,
    ended: bool,
    reset: Option<u32>,
}

impl Frame {
    /// A frame of these parts.
    #[must_use]
    pub fn new(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        Self { kind, flags, stream, payload: payload.to_vec() }
    }

    /// The error code of RST_STREAM or GOAWAY.
    ///
    /// # Panics
    /// When it is neither.
    #[must_use]
    pub fn code(&self) -> u32 {
        let at = match self.kind {
            kind::RST_STREAM => 0,
            kind::GOAWAY => 4,
            other => panic!("frame type {other} has no error code"),
        };
        number(&self.payload[at..])
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = (self.payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
        out.extend_from_slice(&self.payload);
        out
    }
}

impl H2Connection {
    /// Connects, and says the preface and empty settings.
    ///
    /// # Errors
    /// When the connection fails.
    ///
    /// # Panics
    /// When the gateway does not choose `h2`.
    pub fn open(gateway: &Gateway) -> Result<Self> {
        Self::open_silent(gateway)?.greet()
    }

    /// As [`Self::open`], to whoever takes connections there for a gateway.
    ///
    /// # Errors
    /// When the connection fails.
    ///
    /// # Panics
    /// When the gateway does not choose `h2`.
    pub fn open_at(addr: SocketAddr, config: &Arc<ClientConfig>) -> Result<Self> {
        Self::over(connect_anywhere(addr, &offering_h2(config))?, addr).greet()
    }

    fn greet(self) -> Result<Self> {
        let mut connection = self;
        connection.send_raw(PREFACE)?;
        connection.send(kind::SETTINGS, 0, 0, b"")?;
        Ok(connection)
    }

    /// Connects with TLS and says nothing.
    ///
    /// # Errors
    /// When the connection fails.
    ///
    /// # Panics
    /// When the gateway does not choose `h2`.
    pub fn open_silent(gateway: &Gateway) -> Result<Self> {
        let (addr, config) = (gateway.addr, offering_h2(&gateway.cert.client_config()));
        Ok(Self::over(handshake(tcp_from(addr.ip(), addr)?, &config, addr.ip())?, addr))
    }

    fn over(stream: TlsStream, addr: SocketAddr) -> Self {
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]), "the protocol that was agreed on");
        Self {
            stream,
            authority: addr.to_string(),
            buffer: Vec::new(),
            decoder: Decoder::new(),
            next_stream: 1,
            partial: BTreeMap::new(),
            windows: BTreeMap::new(),
            replenish: true,
            goodbye: None,
        }
    }

    /// Whether the server takes no more streams, or is gone, by what has come until now; nothing is waited for.
    ///
    /// # Errors
    /// When what came is malformed, or an acknowledgement cannot be sent.
    pub fn is_over(&mut self) -> Result<bool> {
        let Some(come) = read_at_once(&mut self.stream) else { return Ok(true) };
        self.buffer.extend_from_slice(&come);
        while let Some(frame) = self.take_frame() {
            self.note(&frame)?;
        }
        Ok(self.goodbye.is_some())
    }

    /// Whether the server's goodbye says that it has not acted on a stream.
    #[must_use]
    pub fn is_untouched(&self, stream: u32) -> bool {
        self.goodbye.is_some_and(|last| stream > last)
    }

    /// The socket below.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.stream.sock
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection does not take them.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// When the connection does not take it.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<()> {
        self.send_raw(&Frame::new(kind, flags, stream, payload).bytes())
    }

    /// Sends frames together.
    ///
    /// # Errors
    /// When the connection does not take them.
    pub fn send_all(&mut self, frames: &[Frame]) -> Result<()> {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        self.send_raw(&bytes)
    }

    /// The next stream's number.
    pub fn next_stream(&mut self) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        stream
    }

    /// The fields of a well-formed request, pseudo-header fields first.
    #[must_use]
    pub fn fields(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<(String, String)> {
        let pseudo =
            [(":method", method), (":scheme", "https"), (":path", path), (":authority", &self.authority)];
        let all = pseudo.iter().chain(headers);
        all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Sends a request and gives its stream's number.
    ///
    /// # Errors
    /// When the connection does not take it.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<u32> {
        let stream = self.next_stream();
        let block = block(&self.fields(method, path, headers));
        let ends = if body.is_empty() { END_STREAM } else { 0 };
        self.send(kind::HEADERS, END_HEADERS | ends, stream, &block)?;
        if !body.is_empty() {
            self.send_body(stream, body)?;
        }
        Ok(stream)
    }

    /// Sends a body as the windows allow, and ends the stream; stops where the gateway has answered already.
    ///
    /// # Errors
    /// When the connection breaks or ends.
    pub fn send_body(&mut self, stream: u32, body: &[u8]) -> Result<()> {
        let pieces = body.chunks(16 * 1024);
        let last = pieces.len() - 1;
        for (at, piece) in pieces.enumerate() {
            let len = piece.len() as i64;
            while self.window(0).min(self.window(stream)) < len {
                let frame = self.read_frame()?.ok_or_else(|| Error::other("the connection ended"))?;
                self.note(&frame)?;
                if self.partial.get(&stream).is_some_and(|partial| partial.ended) {
                    return Ok(());
                }
            }
            for window in [0, stream] {
                *self.windows.entry(window).or_default() -= len;
            }
            self.send(kind::DATA, if at == last { END_STREAM } else { 0 }, stream, piece)?;
        }
        Ok(())
    }

    fn window(&self, stream: u32) -> i64 {
        INITIAL_WINDOW + self.windows.get(&stream).copied().unwrap_or_default()
    }

    /// Posts a JSON message as an MCP client does, and gives its stream's number.
    ///
    /// # Errors
    /// When the connection does not take it.
    pub fn post(&mut self, path: &str, headers: &[(&str, &str)], message: &Value) -> Result<u32> {
        let mut all = POST_HEADERS.to_vec();
        all.extend_from_slice(headers);
        self.request("POST", path, &all, message.to_string().as_bytes())
    }

    /// Reads the next frame; `None` at the end of the connection.
    ///
    /// # Errors
    /// When the connection breaks or ends within a frame.
    pub fn read_frame(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take_frame() {
                return Ok(Some(frame));
            }
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes)? {
                0 if self.buffer.is_empty() => return Ok(None),
                0 => return Err(Error::other("the connection ended within a frame")),
                read => self.buffer.extend_from_slice(&bytes[..read]),
            }
        }
    }

    /// Reads on until `wanted` says that a frame is what is waited for; everything else is kept for its stream.
    ///
    /// # Errors
    /// When the connection breaks, or ends without such a frame.
    pub fn read_until(&mut self, mut wanted: impl FnMut(&Frame) -> bool) -> Result<Frame> {
        loop {
            let frame = self.read_frame()?.ok_or_else(|| Error::other("the connection ended"))?;
            self.note(&frame)?;
            if wanted(&frame) {
                return Ok(frame);
            }
        }
    }

    /// What becomes of a stream. Anything else that arrives meanwhile is kept for the streams that it belongs to.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn outcome(&mut self, stream: u32) -> Result<Outcome> {
        loop {
            if let Some(outcome) = self.take_outcome(stream) {
                return Ok(outcome);
            }
            match self.read_frame()? {
                None => return Ok(Outcome::GoneAway(None)),
                Some(frame) if frame.kind == kind::GOAWAY && frame.code() != code::NO_ERROR => {
                    return Ok(Outcome::GoneAway(Some((number(&frame.payload), frame.code()))));
                }
                Some(frame) => self.note(&frame)?,
            }
        }
    }

    /// The whole answer on a stream.
    ///
    /// # Errors
    /// When the connection breaks.
    ///
    /// # Panics
    /// When the stream or the connection ends in another way.
    pub fn answer(&mut self, stream: u32) -> Result<Response> {
        match self.outcome(stream)? {
            Outcome::Answer(response) => Ok(response),
            other => panic!("stream {stream}: {other:?}"),
        }
    }

    /// With which code the gateway ends the connection; `None` where it closes without GOAWAY.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn end(&mut self) -> Result<Option<u32>> {
        let mut last = None;
        loop {
            match self.read_frame() {
                Ok(Some(frame)) if frame.kind == kind::GOAWAY => last = Some(frame.code()),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(last),
                // A connection that is cut while more is on its way is reset; what was said before counts.
                Err(_) if last.is_some() => return Ok(last),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether everything sent so far was read and answered: a PING came back.
    ///
    /// # Errors
    /// When the connection breaks or ends.
    pub fn ping(&mut self) -> Result<()> {
        let mark = self.next_stream.to_be_bytes().repeat(2);
        self.send(kind::PING, 0, 0, &mark)?;
        self.read_until(|frame| frame.kind == kind::PING && frame.payload == mark).map(|_| ())
    }

    /// Bytes of a stream's body that have arrived.
    #[must_use]
    pub fn received(&self, stream: u32) -> usize {
        self.partial.get(&stream).map_or(0, |partial| partial.body.len())
    }

    /// The head of a stream's answer, as soon as it is here.
    ///
    /// # Errors
    /// When the connection breaks or ends.
    pub fn head(&mut self, stream: u32) -> Result<Response> {
        loop {
            if let Some(partial) = self.partial.get(&stream).filter(|partial| partial.begun) {
                let headers = partial.headers.clone();
                return Ok(Response { status: partial.status, headers, body: Vec::new() });
            }
            let frame = self.read_frame()?.ok_or_else(|| Error::other("the connection ended"))?;
            self.note(&frame)?;
        }
    }

    /// The data of a stream's next SSE event; `None` at the stream's end.
    ///
    /// # Errors
    /// When the connection breaks or ends.
    ///
    /// # Panics
    /// When the stream is reset or the data is no JSON.
    pub fn next_event(&mut self, stream: u32) -> Result<Option<Value>> {
        loop {
            if let Some(partial) = self.partial.get_mut(&stream) {
                let end = partial.body.windows(2).position(|window| window == b"\n\n");
                if let Some(end) = end {
                    let event: Vec<u8> = partial.body.drain(..end + 2).collect();
                    let event = String::from_utf8_lossy(&event).into_owned();
                    let data: String = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
                    if data.is_empty() {
                        continue;
                    }
                    return Ok(Some(serde_json::from_str(&data).expect("an event of JSON")));
                }
                assert_eq!(partial.reset, None, "stream {stream} was reset");
                if partial.ended {
                    return Ok(None);
                }
            }
            let frame = self.read_frame()?.ok_or_else(|| Error::other("the connection ended"))?;
            self.note(&frame)?;
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let header = self.buffer.first_chunk::<9>()?;
        let len = number(&[0, header[0], header[1], header[2]]) as usize;
        if self.buffer.len() < 9 + len {
            return None;
        }
        let bytes: Vec<u8> = self.buffer.drain(..9 + len).collect();
        let stream = number(&bytes[5..]) & 0x7fff_ffff;
        Some(Frame { kind: bytes[3], flags: bytes[4], stream, payload: bytes[9..].to_vec() })
    }

    /// Keeps what a frame brings, and acknowledges what must be.
    fn note(&mut self, frame: &Frame) -> Result<()> {
        match frame.kind {
            kind::SETTINGS if frame.flags & ACK == 0 => self.send(kind::SETTINGS, ACK, 0, b"")?,
            kind::PING if frame.flags & ACK == 0 => self.send(kind::PING, ACK, 0, &frame.payload)?,
            kind::HEADERS => {
                assert_ne!(frame.flags & END_HEADERS, 0, "an answer's header block in one frame");
                let fields =
                    self.decoder.decode(&frame.payload).map_err(|e| Error::other(format!("{e:?}")))?;
                let partial = self.partial.entry(frame.stream).or_default();
                for (name, value) in fields {
                    let name = String::from_utf8_lossy(&name).into_owned();
                    let value = String::from_utf8_lossy(&value).into_owned();
                    if name == ":status" {
                        partial.status = value.parse().map_err(Error::other)?;
                        partial.headers.clear();
                    } else {
                        partial.headers.push((name, value));
                    }
                }
                partial.begun = partial.status >= 200;
                partial.ended = frame.flags & END_STREAM != 0;
            }
            kind::DATA => {
                let partial = self.partial.entry(frame.stream).or_default();
                partial.body.extend_from_slice(&frame.payload);
                partial.ended = frame.flags & END_STREAM != 0;
                if self.replenish && !frame.payload.is_empty() {
                    let bytes = (frame.payload.len() as u32).to_be_bytes();
                    // Whoever has said its last need not take it any more.
                    let _ = self
                        .send(kind::WINDOW_UPDATE, 0, 0, &bytes)
                        .and_then(|()| self.send(kind::WINDOW_UPDATE, 0, frame.stream, &bytes));
                }
            }
            kind::WINDOW_UPDATE => {
                *self.windows.entry(frame.stream).or_default() += i64::from(number(&frame.payload));
            }
            kind::GOAWAY => self.goodbye = Some(number(&frame.payload)),
            kind::RST_STREAM => {
                self.partial.entry(frame.stream).or_default().reset = Some(frame.code());
            }
            _ => {}
        }
        Ok(())
    }

    fn take_outcome(&mut self, stream: u32) -> Option<Outcome> {
        let partial = self.partial.get(&stream)?;
        if !partial.ended {
            return partial.reset.map(Outcome::Reset);
        }
        let Partial { status, headers, body, .. } = self.partial.remove(&stream)?;
        Some(Outcome::Answer(Response { status, headers, body }))
    }
}

fn offering_h2(config: &Arc<ClientConfig>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(config);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// A header block of literal fields that are neither indexed nor compressed (RFC 7541, section 6.2.2).
#[must_use]
pub fn block(fields: &[(impl AsRef<[u8]>, impl AsRef<[u8]>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            write_length(&mut out, text.len());
            out.extend_from_slice(text);
        }
    }
    out
}

/// An integer of HPACK with a prefix of seven bits (RFC 7541, section 5.1).
fn write_length(out: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return out.push(length as u8);
    }
    out.push(127);
    let mut left = length - 127;
    while left >= 128 {
        out.push((left % 128) as u8 | 128);
        left /= 128;
    }
    out.push(left as u8);
}

fn number(bytes: &[u8]) -> u32 {
    bytes[..4].iter().fold(0, |number, byte| (number << 8) | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_rfc_7541_says() {
        for (length, expected) in [(10, &[10][..]), (127, &[127, 0]), (1337, &[127, 0xba, 0x09])] {
            let mut out = Vec::new();
            write_length(&mut out, length);
            assert_eq!(out, expected);
        }
    }
}
