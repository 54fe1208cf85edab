//! A connection's MCP over WebSocket (RFC 6455): the upgrade, then one message per frame. It shares no code with the gateway's
//! codec. A session is told in a result that is not read: it lives with its socket, and a socket that is made again has
//! another.

use super::framed::Step;
use super::{Advance, Client, Context, Failure, Kind, Phase};
use crate::http::{MAX_BODY_BYTES, parse_response_head};

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
/// In the second byte: a mask follows.
const MASKED: u8 = 0x80;
/// A mask that changes nothing. Masks protect intermediaries from what a browser's script chooses (section 10.3); the
/// server's work is the same for every mask.
const MASK: [u8; 4] = [0; 4];

/// Appends the head of a text message of `len` bytes.
pub(in crate::load) fn push_text_head(out: &mut Vec<u8>, len: usize) {
    push_head(out, TEXT, len);
}

fn push_head(out: &mut Vec<u8>, first: u8, len: usize) {
    out.push(first);
    match len {
        0..=125 => out.push(MASKED | len as u8),
        126..=65_535 => {
            out.push(MASKED | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(MASKED | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
}

/// A frame at the front of some bytes.
struct Frame<'a> {
    first: u8,
    payload: &'a [u8],
    /// Bytes of head and payload.
    len: usize,
}

/// The first frame; `Err` inside says how many bytes it needs in all.
fn first_frame(bytes: &[u8]) -> Result<Result<Frame<'_>, usize>, Failure> {
    let [first, second, rest @ ..] = bytes else { return Ok(Err(2)) };
    if second & MASKED != 0 {
        return Err(Failure::new(Kind::Malformed, "a frame of a server with a mask"));
    }
    let long = match second {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some((digits, rest)) = rest.split_at_checked(long) else { return Ok(Err(2 + long)) };
    let len = match long {
        0 => usize::from(*second),
        _ => digits.iter().fold(0_usize, |len, digit| len << 8 | usize::from(*digit)),
    };
    if len > MAX_BODY_BYTES {
        return Err(Failure::new(Kind::Malformed, "a message longer than an answer may be"));
    }
    let whole = 2 + long + len;
    Ok(rest.get(..len).map(|payload| Frame { first: *first, payload, len: whole }).ok_or(whole))
}

impl Client {
    /// Asks for the upgrade.
    pub(super) fn upgrade(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        self.phase = Phase::Negotiating;
        context.request.clear();
        context.plan.requests.push_upgrade(context.request);
        self.link.send(context.request, context.scratch)
    }

    /// Takes the answer to the upgrade, or a frame.
    pub(super) fn take_socket(&mut self, plain: &[u8], context: &mut Context<'_>) -> Result<Step, Failure> {
        if self.phase == Phase::Negotiating {
            let head = parse_response_head(plain).map_err(|e| Failure::new(Kind::Malformed, e))?;
            let Some(head) = head else { return Ok(Step::Needs(plain.len() + 1)) };
            if head.status != 101 {
                return Err(Failure::new(Kind::HttpStatus, head.status));
            }
            let advance = if context.plan.requests.is_stateless() {
                self.phase = Phase::Idle;
                Advance::Ready
            } else {
                self.initialize(context)?;
                Advance::Pending
            };
            return Ok(Step::Taken { bytes: head.len, advance });
        }
        let frame = match first_frame(plain)? {
            Ok(frame) => frame,
            Err(needed) => return Ok(Step::Needs(needed)),
        };
        let advance = self.on_frame(&frame, context)?;
        Ok(Step::Taken { bytes: frame.len, advance })
    }

    fn on_frame(&mut self, frame: &Frame<'_>, context: &mut Context<'_>) -> Result<Advance, Failure> {
        match frame.first {
            TEXT => self.on_message(frame.payload, context),
            PING => {
                context.request.clear();
                push_head(context.request, PONG, frame.payload.len());
                context.request.extend_from_slice(frame.payload);
                self.link.send(context.request, context.scratch)?;
                Ok(Advance::Pending)
            }
            PONG => Ok(Advance::Pending),
            CLOSE => {
                let code = frame.payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                Err(Failure::new(Kind::Lost, format!("a close frame, {code}")))
            }
            _ => Err(Failure::new(Kind::Malformed, "a frame that is no whole text message")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_whole_whatever_their_length() {
        for (len, head) in [
            (0_usize, vec![TEXT, 0]),
            (125, vec![TEXT, 125]),
            (126, vec![TEXT, 126, 0, 126]),
            (65_535, vec![TEXT, 126, 0xff, 0xff]),
            (65_536, vec![TEXT, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let bytes = [&head[..], &vec![b'x'; len], b"next"].concat();
            let Ok(Ok(frame)) = first_frame(&bytes) else { panic!("a whole frame") };
            assert_eq!((frame.first, frame.payload.len(), frame.len), (TEXT, len, head.len() + len));
            for cut in (0..head.len()).chain([(head.len() + len).saturating_sub(1)]) {
                let Ok(Err(needed)) = first_frame(&bytes[..cut]) else { panic!("{cut} of {len}") };
                assert!(cut < needed && needed <= head.len() + len, "{cut} of {len}: {needed}");
            }
        }
    }

    #[test]
    fn what_no_server_may_send_is_malformed() {
        for bad in [&[TEXT, MASKED][..], &[TEXT, 127, 0xff, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(first_frame(bad).err().map(|f| f.kind), Some(Kind::Malformed));
        }
    }

    #[test]
    fn our_frames_have_a_mask_that_changes_nothing() {
        let mut out = Vec::new();
        push_text_head(&mut out, 2);
        push_text_head(&mut out, 300);
        push_text_head(&mut out, 70_000);
        assert_eq!(out[..6], [0x81, 0x82, 0, 0, 0, 0]);
        assert_eq!(out[6..14], [0x81, 0xfe, 1, 44, 0, 0, 0, 0]);
        assert_eq!(out[14..], [0x81, 0xff, 0, 0, 0, 0, 0, 1, 0x11, 0x70, 0, 0, 0, 0]);
    }
}
