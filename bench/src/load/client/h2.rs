//! A connection's MCP over HTTP/2 (RFC 9113): frames in, frames out, streams counted up. Written from the RFC, so it shares no
//! code with the gateway's; only the header blocks of answers are read by a library.
//!
//! Bounds: a request fits into one HEADERS and one DATA frame (`Requests` sees to it), an answer's head into one HEADERS
//! frame, its body into [`MAX_BODY_BYTES`]. An idle connection owns its windows and the table of the answers' heads.

use std::sync::Arc;

use loona_hpack::Decoder;

use super::framed::Step;
use super::{Advance, After, Answer, Client, Context, Failure, Kind, MAX_BODY_BYTES};

/// The longest payload of a frame, unless a peer allows more (section 4.2); we never do.
pub(in crate::load) const MAX_FRAME_BYTES: usize = 16_384;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_LEN: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
/// Of SETTINGS and PING.
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
/// Of DATA and HEADERS: padding and priority, which answers do not have.
const DECORATED: u8 = 0x8 | 0x20;

/// What we set: no pushes, and a window per stream that no answer within [`MAX_BODY_BYTES`] uses up.
const OUR_SETTINGS: [u8; 12] = [0, 2, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff];
const INITIAL_WINDOW_SIZE: u16 = 4;
/// The window that every connection begins with.
const INITIAL_WINDOW: i64 = 65_535;
/// What the window for answers is widened by at once, and the bytes after which what was received is given back.
const WIDENED_BY: u32 = 16 << 20;
const GIVE_BACK_BYTES: u32 = 1 << 20;
/// The last stream of a connection that has sent so much; nobody waits for its successor.
const MAX_STREAM: u32 = 0x7fff_ffff;

/// What a connection knows of HTTP/2.
pub(super) struct H2 {
    decoder: Decoder<'static>,
    next_stream: u32,
    /// Bytes of DATA that may be sent.
    window: i64,
    /// Bytes of DATA received and not given back.
    received: u32,
    streams: Vec<Stream>,
}

/// A request whose answer is not complete.
struct Stream {
    number: u32,
    /// The id of its message; 0 where it has none.
    id: u64,
    status: u16,
    event_stream: bool,
    retry_after: bool,
    session: Option<Arc<str>>,
    body: Vec<u8>,
}

/// A frame at the front of some bytes.
struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

/// Appends a request that [`H2::begin`] gives its stream: `block` is its header block.
pub(in crate::load) fn push_request(out: &mut Vec<u8>, block: &[&[u8]], body_len: usize) {
    let end_stream = if body_len == 0 { END_STREAM } else { 0 };
    push_header(out, HEADERS, END_HEADERS | end_stream, 0, block.iter().map(|part| part.len()).sum());
    for part in block {
        out.extend_from_slice(part);
    }
    if body_len > 0 {
        push_header(out, DATA, END_STREAM, 0, body_len);
    }
}

/// Appends a header field as a literal that no table remembers (RFC 7541, section 6.2.2).
pub(in crate::load) fn push_field(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    push_text(block, &name.to_ascii_lowercase());
    push_text(block, value);
}

/// As [`push_field`], with the name of this place (1 to 15) in the static table (RFC 7541, appendix A).
pub(in crate::load) fn push_indexed_name(block: &mut Vec<u8>, name: u8, value: &str) {
    block.push(name);
    push_text(block, value);
}

fn push_text(block: &mut Vec<u8>, text: &str) {
    // An integer with a prefix of seven bits (RFC 7541, section 5.1); the text is not compressed.
    if text.len() < 127 {
        block.push(text.len() as u8);
    } else {
        block.push(127);
        let mut left = text.len() - 127;
        while left >= 128 {
            block.push((left % 128) as u8 | 128);
            left /= 128;
        }
        block.push(left as u8);
    }
    block.extend_from_slice(text.as_bytes());
}

fn push_header(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, len: usize) {
    out.extend_from_slice(&(len as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

fn push_frame(out: &mut Vec<u8>, kind: u8, flags: u8, payload: &[u8]) {
    push_header(out, kind, flags, 0, payload.len());
    out.extend_from_slice(payload);
}

/// The first frame; `Err` inside says how many bytes it needs in all.
fn first_frame(bytes: &[u8]) -> Result<Result<Frame<'_>, usize>, Failure> {
    let Some((&[a, b, c, kind, flags, s0, s1, s2, s3], rest)) = bytes.split_first_chunk::<HEADER_LEN>()
    else {
        return Ok(Err(HEADER_LEN));
    };
    let len = u32::from_be_bytes([0, a, b, c]) as usize;
    if len > MAX_FRAME_BYTES {
        return Err(malformed("a frame longer than we allow"));
    }
    let stream = u32::from_be_bytes([s0, s1, s2, s3]) & MAX_STREAM;
    Ok(rest.get(..len).map(|payload| Frame { kind, flags, stream, payload }).ok_or(HEADER_LEN + len))
}

fn malformed(what: &str) -> Failure {
    Failure::new(Kind::Malformed, what)
}

impl H2 {
    /// Whether a request of any size may be sent now.
    pub(super) fn has_room(&self) -> bool {
        self.window >= MAX_FRAME_BYTES as i64 && self.next_stream < MAX_STREAM
    }

    /// Puts the next stream's number into the frames of a request.
    pub(super) fn begin(&mut self, frames: &mut [u8], id: u64) {
        let number = self.next_stream;
        self.next_stream += 2;
        let mut rest = frames;
        while let Some((header, behind)) = rest.split_first_chunk_mut::<HEADER_LEN>() {
            let len = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            if header[3] == DATA {
                self.window -= len as i64;
            }
            header[5..].copy_from_slice(&number.to_be_bytes());
            rest = behind.get_mut(len..).unwrap_or_default();
        }
        self.streams.push(Stream {
            number,
            id,
            status: 0,
            event_stream: false,
            retry_after: false,
            session: None,
            body: Vec::new(),
        });
    }

    fn stream(&mut self, number: u32) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.number == number)
    }

    /// Takes a header block: of an answer, of an interim one, or behind a body.
    fn on_headers(&mut self, frame: &Frame<'_>) -> Result<(), Failure> {
        if frame.flags & END_HEADERS == 0 || frame.flags & DECORATED != 0 {
            return Err(malformed("a head in pieces, or with padding"));
        }
        // The table must see every block, also of a stream that nobody waits for.
        let stream = self.streams.iter_mut().find(|stream| stream.number == frame.stream);
        let mut unseen = Stream {
            number: 0,
            id: 0,
            status: 0,
            event_stream: false,
            retry_after: false,
            session: None,
            body: Vec::new(),
        };
        let stream = stream.unwrap_or(&mut unseen);
        let take = |name: std::borrow::Cow<'_, [u8]>, value: std::borrow::Cow<'_, [u8]>| {
            let text = || std::str::from_utf8(&value).ok();
            match &*name {
                b":status" => stream.status = text().and_then(|text| text.parse().ok()).unwrap_or(0),
                b"content-type" => stream.event_stream = value.starts_with(b"text/event-stream"),
                b"retry-after" => stream.retry_after = true,
                b"mcp-session-id" => stream.session = text().map(Arc::from),
                _ => {}
            }
        };
        self.decoder.decode_with_cb(frame.payload, take).map_err(|e| malformed(&format!("HPACK: {e:?}")))
    }

    /// Takes DATA; what must be sent for it.
    fn on_data(&mut self, frame: &Frame<'_>) -> Result<Option<u32>, Failure> {
        if frame.flags & DECORATED != 0 {
            return Err(malformed("DATA with padding"));
        }
        if let Some(stream) = self.stream(frame.stream) {
            if stream.body.len() + frame.payload.len() > MAX_BODY_BYTES {
                return Err(malformed("a body without end"));
            }
            stream.body.extend_from_slice(frame.payload);
        }
        // At most MAX_FRAME_BYTES.
        self.received += frame.payload.len() as u32;
        let given_back = (self.received >= GIVE_BACK_BYTES).then_some(self.received);
        if given_back.is_some() {
            self.received = 0;
        }
        Ok(given_back)
    }
}

impl Client {
    /// Says hello; requests may follow at once.
    pub(super) fn open_h2(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        self.h2 = Some(Box::new(H2 {
            decoder: Decoder::new(),
            next_stream: 1,
            window: INITIAL_WINDOW,
            received: 0,
            streams: Vec::new(),
        }));
        context.request.clear();
        context.request.extend_from_slice(PREFACE);
        push_frame(context.request, SETTINGS, 0, &OUR_SETTINGS);
        push_frame(context.request, WINDOW_UPDATE, 0, &WIDENED_BY.to_be_bytes());
        self.link.send(context.request, context.scratch)
    }

    /// Takes a frame.
    pub(super) fn take_h2(&mut self, plain: &[u8], context: &mut Context<'_>) -> Result<Step, Failure> {
        let frame = match first_frame(plain)? {
            Ok(frame) => frame,
            Err(needed) => return Ok(Step::Needs(needed)),
        };
        let advance = self.on_h2_frame(&frame, context)?;
        Ok(Step::Taken { bytes: HEADER_LEN + frame.payload.len(), advance })
    }

    fn on_h2_frame(&mut self, frame: &Frame<'_>, context: &mut Context<'_>) -> Result<Advance, Failure> {
        let Some(h2) = &mut self.h2 else { return Ok(Advance::Pending) };
        let number = frame.payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        let mut reply: Option<(u8, u8, Vec<u8>)> = None;
        match frame.kind {
            HEADERS => h2.on_headers(frame)?,
            DATA => {
                let given_back = h2.on_data(frame)?;
                reply = given_back.map(|bytes| (WINDOW_UPDATE, 0, bytes.to_be_bytes().to_vec()));
            }
            RST_STREAM if h2.stream(frame.stream).is_some() => {
                let code = number.unwrap_or_default();
                return Err(Failure::new(Kind::Reset, format!("RST_STREAM, code {code}")));
            }
            SETTINGS if frame.flags & ACK == 0 => {
                check_settings(frame.payload)?;
                reply = Some((SETTINGS, ACK, Vec::new()));
            }
            PING if frame.flags & ACK == 0 => reply = Some((PING, ACK, frame.payload.to_vec())),
            GOAWAY => return Err(Failure::new(Kind::Lost, "GOAWAY")),
            WINDOW_UPDATE if frame.stream == 0 => {
                let had_room = h2.has_room();
                h2.window += i64::from(number.unwrap_or_default() & MAX_STREAM);
                if !had_room && h2.has_room() {
                    // It was passed over meanwhile.
                    return Ok(Advance::Answered { then: After::Idle });
                }
            }
            PUSH_PROMISE | CONTINUATION => return Err(malformed("a frame that nobody asked for")),
            _ => {}
        }
        if let Some((kind, flags, payload)) = reply {
            context.request.clear();
            push_frame(context.request, kind, flags, &payload);
            self.link.send(context.request, context.scratch)?;
        }
        let ends = matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0;
        if ends { self.on_stream_end(frame.stream, context) } else { Ok(Advance::Pending) }
    }

    fn on_stream_end(&mut self, number: u32, context: &mut Context<'_>) -> Result<Advance, Failure> {
        let Some(h2) = &mut self.h2 else { return Ok(Advance::Pending) };
        let Some(place) = h2.streams.iter().position(|stream| stream.number == number) else {
            return Ok(Advance::Pending);
        };
        let Stream { id, status, event_stream, retry_after, session, body, .. } =
            h2.streams.swap_remove(place);
        if h2.streams.is_empty() {
            h2.streams = Vec::new();
        }
        let answer = Answer { status, event_stream, retry_after, body: &body };
        if !self.flights.iter().any(|(flight, _)| *flight == id) {
            return self.take_answer(answer, session.as_deref().map(str::as_bytes), After::Idle, context);
        }
        if status == 404 && self.session.take().is_some() {
            // Begin a new session, on a new connection; the call is among those that this one fails with.
            return Err(Failure::new(Kind::HttpStatus, status));
        }
        self.on_call_answered(id, answer, context);
        Ok(Advance::Pending)
    }
}

/// Refuses settings under which our requests could not be sent as they are.
fn check_settings(payload: &[u8]) -> Result<(), Failure> {
    for setting in payload.chunks_exact(6) {
        let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
        if u16::from_be_bytes([setting[0], setting[1]]) == INITIAL_WINDOW_SIZE
            && (value as usize) < MAX_FRAME_BYTES
        {
            return Err(malformed("a window smaller than a request"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h2() -> H2 {
        H2 {
            decoder: Decoder::new(),
            next_stream: 1,
            window: INITIAL_WINDOW,
            received: 0,
            streams: Vec::new(),
        }
    }

    #[test]
    fn a_request_gets_the_next_stream_and_is_taken_off_the_window() {
        let mut block = Vec::new();
        push_field(&mut block, "Mcp-Name", &"n".repeat(300));
        let (mut h2, mut out) = (h2(), Vec::new());
        for _ in 0..2 {
            out.clear();
            push_request(&mut out, &[&block, b""], 5);
            out.extend_from_slice(b"12345");
            h2.begin(&mut out, 7);
        }
        let Ok(Ok(head)) = first_frame(&out) else { panic!("a whole frame") };
        assert_eq!((head.kind, head.flags, head.stream, head.payload), (HEADERS, END_HEADERS, 3, &block[..]));
        let Ok(Ok(body)) = first_frame(&out[HEADER_LEN + block.len()..]) else { panic!("a whole frame") };
        assert_eq!((body.kind, body.flags, body.stream, body.payload), (DATA, END_STREAM, 3, &b"12345"[..]));
        assert_eq!((h2.window, h2.next_stream, h2.streams.len()), (INITIAL_WINDOW - 10, 5, 2));
        let mut seen = Vec::new();
        let read = |name: std::borrow::Cow<'_, [u8]>, value: std::borrow::Cow<'_, [u8]>| {
            seen.push((name.to_vec(), value.len()));
        };
        h2.decoder.decode_with_cb(&block, read).expect("a header block");
        assert_eq!(seen, [(b"mcp-name".to_vec(), 300)]);
    }

    #[test]
    fn an_answer_is_put_together_from_its_frames() {
        let (mut h2, mut request) = (h2(), Vec::new());
        push_request(&mut request, &[b""], 0);
        h2.begin(&mut request, 7);
        let mut block = vec![0x88];
        push_field(&mut block, "content-type", "text/event-stream");
        push_field(&mut block, "mcp-session-id", "s");
        h2.on_headers(&Frame { kind: HEADERS, flags: END_HEADERS, stream: 1, payload: &block }).unwrap();
        let data = [b'x'; MAX_FRAME_BYTES];
        let mut given_back = 0;
        for _ in 0..64 {
            let frame = Frame { kind: DATA, flags: 0, stream: 1, payload: &data };
            given_back += h2.on_data(&frame).unwrap().unwrap_or(0);
        }
        let stream = h2.stream(1).expect("the stream");
        assert_eq!((stream.status, stream.event_stream, stream.session.as_deref()), (200, true, Some("s")));
        assert_eq!((stream.body.len(), given_back), (1 << 20, GIVE_BACK_BYTES));
    }

    #[test]
    fn what_we_do_not_allow_is_malformed() {
        let long = [0, 0x40, 1, DATA, 0, 0, 0, 0, 1];
        assert_eq!(first_frame(&long).err().map(|f| f.kind), Some(Kind::Malformed));
        assert!(check_settings(&[0, 4, 0, 0, 0, 1]).is_err());
        assert!(check_settings(&[0, 4, 0, 1, 0, 0]).is_ok());
        let pieces = Frame { kind: HEADERS, flags: 0, stream: 1, payload: b"" };
        assert!(h2().on_headers(&pieces).is_err());
    }
}
