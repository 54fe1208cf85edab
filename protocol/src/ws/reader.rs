//! From a client's bytes to messages: owns the frame that has begun, the message that is being put together, and the rules
//! of RFC 6455, sections 5 and 7, for both.
//!
//! Invariants: memory grows with bytes that have arrived; between two messages none is held; after an error nothing more
//! may be read.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::{FrameError, MAX_CONTROL_BYTES};

/// Longest head of a client's frame: two bytes, a length of eight, a mask of four.
const MAX_HEAD_BYTES: usize = 14;

/// What a client's bytes came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A whole text message; it is UTF-8.
    Text(Vec<u8>),
    /// Wants a pong with this payload.
    Ping(Vec<u8>),
    /// Answers a ping, or comes by itself.
    Pong,
    /// The client's goodbye, with its code.
    Close(Option<u16>),
}

/// Reads one client's frames.
#[derive(Debug, Default)]
pub struct Reader {
    frame: Option<Frame>,
    /// A text message as far as it is here.
    message: Option<Vec<u8>>,
    /// A control frame's payload as far as it is here.
    control: Vec<u8>,
}

/// A frame whose head was read.
#[derive(Debug)]
struct Frame {
    kind: Kind,
    is_final: bool,
    /// Bytes of the payload that are still to come.
    left: usize,
    mask: [u8; 4],
    /// Where in the mask the next byte stands.
    phase: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Text,
    Ping,
    Pong,
    Close,
}

impl Reader {
    /// Takes bytes up to the end of the first event; says how many. None of it is taken twice: what is left over belongs to
    /// the next call, together with what follows. Without an event, what is left is the start of a frame's head.
    ///
    /// A message may have `limit` bytes. Its memory is `memory()`'s, an empty vector.
    ///
    /// # Errors
    /// [`FrameError`]: the connection must be closed with its code.
    pub fn read(
        &mut self,
        input: &[u8],
        limit: usize,
        memory: impl Fn() -> Vec<u8>,
    ) -> Result<(usize, Option<Event>), FrameError> {
        let mut taken = 0;
        loop {
            if self.frame.is_none() {
                let Some(bytes) = self.read_head(&input[taken..], limit)? else { return Ok((taken, None)) };
                taken += bytes;
            }
            let Some(frame) = &mut self.frame else { return Ok((taken, None)) };
            let payload = match frame.kind {
                Kind::Text => self.message.get_or_insert_with(&memory),
                Kind::Ping | Kind::Pong | Kind::Close => &mut self.control,
            };
            taken += frame.take(&input[taken..], payload);
            if frame.left > 0 {
                return Ok((taken, None));
            }
            let (kind, is_final) = (frame.kind, frame.is_final);
            self.frame = None;
            if is_final {
                return Ok((taken, Some(self.finish(kind)?)));
            }
        }
    }

    /// Whether a frame or a message has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.frame.is_some() || self.message.is_some()
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.message.as_ref().map_or(0, Vec::capacity) + self.control.capacity()
    }

    /// Reads a frame's head; says its length, or `None` where more bytes are needed.
    fn read_head(&mut self, input: &[u8], limit: usize) -> Result<Option<usize>, FrameError> {
        let mut cursor = Cursor::new(&input[..input.len().min(MAX_HEAD_BYTES)]);
        let (header, len) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            // Bytes in memory cannot fail; what is left is an opcode without a meaning.
            Err(_) => {
                return Err(FrameError::ReservedOpcode {
                    opcode: input.first().map_or(0, |byte| byte & 0x0f),
                });
            }
        };
        let bytes = cursor.position() as usize;
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(FrameError::ReservedBit);
        }
        let mask = header.mask.ok_or(FrameError::Unmasked)?;
        if header.len(len) != bytes {
            return Err(FrameError::LongForm);
        }
        let kind = self.kind(&header, len)?;
        let left = match kind {
            Kind::Text => {
                let before = self.message.as_ref().map_or(0, Vec::len);
                let fits = usize::try_from(len).ok().filter(|len| *len <= limit.saturating_sub(before));
                fits.ok_or(FrameError::TooLong { limit })?
            }
            // A control frame's length has been checked.
            Kind::Ping | Kind::Pong | Kind::Close => len as usize,
        };
        self.frame = Some(Frame { kind, is_final: header.is_final, left, mask, phase: 0 });
        Ok(Some(bytes))
    }

    fn kind(&self, header: &FrameHeader, len: u64) -> Result<Kind, FrameError> {
        let control = match header.opcode {
            OpCode::Data(Data::Text) if self.message.is_some() => return Err(FrameError::UnfinishedMessage),
            OpCode::Data(Data::Text) => return Ok(Kind::Text),
            OpCode::Data(Data::Continue) if self.message.is_some() => return Ok(Kind::Text),
            OpCode::Data(Data::Continue) => return Err(FrameError::UnexpectedContinuation),
            OpCode::Data(Data::Binary) if self.message.is_some() => {
                return Err(FrameError::UnfinishedMessage);
            }
            OpCode::Data(Data::Binary) => return Err(FrameError::Binary),
            OpCode::Control(Control::Ping) => Kind::Ping,
            OpCode::Control(Control::Pong) => Kind::Pong,
            OpCode::Control(Control::Close) => Kind::Close,
            OpCode::Data(Data::Reserved(opcode)) | OpCode::Control(Control::Reserved(opcode)) => {
                return Err(FrameError::ReservedOpcode { opcode });
            }
        };
        if !header.is_final {
            return Err(FrameError::FragmentedControl);
        }
        if len > MAX_CONTROL_BYTES as u64 {
            return Err(FrameError::LongControl { len });
        }
        Ok(control)
    }

    /// Makes an event of a payload that is complete.
    fn finish(&mut self, kind: Kind) -> Result<Event, FrameError> {
        match kind {
            Kind::Text => {
                let message = self.message.take().unwrap_or_default();
                match std::str::from_utf8(&message) {
                    Ok(_) => Ok(Event::Text(message)),
                    Err(_) => Err(FrameError::NotUtf8),
                }
            }
            Kind::Ping => Ok(Event::Ping(std::mem::take(&mut self.control))),
            Kind::Pong => {
                self.control = Vec::new();
                Ok(Event::Pong)
            }
            Kind::Close => close_code(&std::mem::take(&mut self.control)).map(Event::Close),
        }
    }
}

impl Frame {
    /// Takes payload bytes without their mask; says how many.
    fn take(&mut self, input: &[u8], payload: &mut Vec<u8>) -> usize {
        let taken = self.left.min(input.len());
        let start = payload.len();
        payload.extend_from_slice(&input[..taken]);
        let mut mask = self.mask;
        mask.rotate_left(self.phase);
        unmask(&mut payload[start..], mask);
        self.phase = (self.phase + taken) % mask.len();
        self.left -= taken;
        taken
    }
}

/// Takes the mask off, eight bytes at a time where there are so many.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

/// The code of a close frame's payload (section 5.5.1), which must be one that may be sent (section 7.4).
fn close_code(payload: &[u8]) -> Result<Option<u16>, FrameError> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(FrameError::MalformedClose) };
    };
    let code = u16::from_be_bytes(*code);
    if !CloseCode::from(code).is_allowed() {
        return Err(FrameError::MalformedClose);
    }
    std::str::from_utf8(reason).map_err(|_| FrameError::NotUtf8)?;
    Ok(Some(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

    /// A client's frame; `first` is the first byte.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            len @ ..126 => bytes.push(0x80 | len as u8),
            len @ 126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                bytes.push(0x80 | 127);
                bytes.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&MASK);
        bytes.extend(payload.iter().zip(MASK.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    fn read(input: &[u8], pieces: usize) -> (Vec<Event>, Option<FrameError>) {
        let (mut reader, mut events, mut kept) = (Reader::default(), Vec::new(), Vec::new());
        for piece in input.chunks(pieces) {
            kept.extend_from_slice(piece);
            loop {
                match reader.read(&kept, 100_000, Vec::new) {
                    Ok((taken, event)) => {
                        kept.drain(..taken);
                        match event {
                            Some(event) => events.push(event),
                            None => break,
                        }
                    }
                    Err(error) => return (events, Some(error)),
                }
            }
        }
        (events, None)
    }

    #[test]
    fn messages_come_out_however_they_come_in() {
        let long = vec![b'y'; 70_000];
        let stream = [
            frame(0x81, b"{\"a\":1}"),
            frame(0x01, b"fra"),
            frame(0x89, b"in between"),
            frame(0x00, b""),
            frame(0x80, b"gment"),
            frame(0x8a, b""),
            frame(0x81, b""),
            frame(0x81, &long),
            frame(0x88, b"\x03\xe8bye"),
        ]
        .concat();
        let expected = [
            Event::Text(b"{\"a\":1}".to_vec()),
            Event::Ping(b"in between".to_vec()),
            Event::Text(b"fragment".to_vec()),
            Event::Pong,
            Event::Text(Vec::new()),
            Event::Text(long),
            Event::Close(Some(1000)),
        ];
        for pieces in [1, 2, 3, 5, 7, 13, 1000, stream.len()] {
            assert_eq!(read(&stream, pieces), (expected.to_vec(), None), "in pieces of {pieces}");
        }
    }

    #[test]
    fn what_breaks_the_protocol_has_its_code() {
        let unmasked = [0x81, 1, b'x'];
        let long_form = [&[0x81, 0x80 | 126, 0, 5][..], &MASK, b"xxxxx"].concat();
        let announced = [&[0x81, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0][..], &MASK].concat();
        let split = "é".as_bytes();
        for (bytes, error, code) in [
            (frame(0xc1, b""), FrameError::ReservedBit, 1002),
            (frame(0x83, b""), FrameError::ReservedOpcode { opcode: 3 }, 1002),
            (frame(0x8f, b""), FrameError::ReservedOpcode { opcode: 15 }, 1002),
            (unmasked.to_vec(), FrameError::Unmasked, 1002),
            (long_form, FrameError::LongForm, 1002),
            (frame(0x09, b""), FrameError::FragmentedControl, 1002),
            (frame(0x89, &[0; 126]), FrameError::LongControl { len: 126 }, 1002),
            (frame(0x80, b""), FrameError::UnexpectedContinuation, 1002),
            ([frame(0x01, b""), frame(0x81, b"")].concat(), FrameError::UnfinishedMessage, 1002),
            ([frame(0x01, b""), frame(0x82, b"")].concat(), FrameError::UnfinishedMessage, 1002),
            (frame(0x88, b"\x03"), FrameError::MalformedClose, 1002),
            (frame(0x88, b"\x03\xed"), FrameError::MalformedClose, 1002),
            (frame(0x88, b"\x03\xe8\xff"), FrameError::NotUtf8, 1007),
            (frame(0x82, b""), FrameError::Binary, 1003),
            (frame(0x81, b"\xff"), FrameError::NotUtf8, 1007),
            ([frame(0x01, &split[..1]), frame(0x80, b"")].concat(), FrameError::NotUtf8, 1007),
            (frame(0x81, &vec![0; 100_001]), FrameError::TooLong { limit: 100_000 }, 1009),
            (
                [frame(0x01, &[0; 60_000]), frame(0x80, &[0; 60_000])].concat(),
                FrameError::TooLong { limit: 100_000 },
                1009,
            ),
            (announced, FrameError::TooLong { limit: 100_000 }, 1009),
        ] {
            for pieces in [1, bytes.len()] {
                assert_eq!(read(&bytes, pieces), (Vec::new(), Some(error)), "{error}");
            }
            assert_eq!(error.close_code(), code, "{error}");
        }
        let whole = [frame(0x01, &split[..1]), frame(0x80, &split[1..])].concat();
        assert_eq!(read(&whole, 1), (vec![Event::Text(split.to_vec())], None));
    }

    #[test]
    fn an_announced_length_costs_nothing() {
        let mut reader = Reader::default();
        let head = [&[0x81, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0x86, 0xa0][..], &MASK].concat();
        assert_eq!(reader.read(&head, 100_000, Vec::new), Ok((14, None)));
        assert!(reader.has_begun() && reader.held() == 0);
        assert_eq!(reader.read(b"abc", 100_000, Vec::new), Ok((3, None)));
        assert!((3..1000).contains(&reader.held()));
    }

    #[test]
    fn nothing_is_held_between_messages() {
        let mut reader = Reader::default();
        for bytes in [frame(0x81, b"text"), frame(0x89, b"ping"), frame(0x8a, b"pong")] {
            assert!(matches!(reader.read(&bytes, 100, Vec::new), Ok((_, Some(_)))));
            assert!(!reader.has_begun() && reader.held() == 0);
        }
    }
}
