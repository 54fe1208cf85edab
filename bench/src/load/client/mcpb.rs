//! A connection's MCP over MCPB, the gateway's binary protocol, version 1: frames in, frames out, in the order that the
//! protocol demands (negotiation, `initialize`, messages). It shares no code with the gateway's codec, and never knows
//! HTTP.

use super::framed::{Step, message_answer};
use super::{Advance, Client, Context, Failure, Kind, Phase, result_of};

/// "MCPB" and version 1: how every frame begins.
const PREFIX: [u8; 6] = *b"MCPB\x00\x01";
const HEADER_LEN: usize = 12;
/// The longest payload that the protocol allows (bytes).
const MAX_PAYLOAD: usize = 10_485_760;

const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const CONTROL: u16 = 3;
const HEALTH_CHECK: u16 = 4;
const ERROR: u16 = 5;
const VERSION_NEGOTIATION: u16 = 6;
const VERSION_ACK: u16 = 7;

const VERSIONS: &[u8] =
    br#"{"min_version":1,"max_version":1,"preferred_version":1,"supported_versions":[1]}"#;

/// Appends the header of a Request frame with a payload of `len` bytes.
pub(in crate::load) fn push_request_header(out: &mut Vec<u8>, len: usize) {
    push_header(out, REQUEST, len);
}

fn push_header(out: &mut Vec<u8>, kind: u16, len: usize) {
    out.extend_from_slice(&PREFIX);
    out.extend_from_slice(&kind.to_be_bytes());
    // Payloads are built from arguments that `Requests` has bounded.
    out.extend_from_slice(&(len as u32).to_be_bytes());
}

/// A frame at the front of some bytes.
struct Frame<'a> {
    kind: u16,
    payload: &'a [u8],
}

/// The first frame and the bytes behind it; `Err` inside says how many bytes it needs in all.
type FirstFrame<'a> = Result<(Frame<'a>, &'a [u8]), usize>;

fn first_frame(bytes: &[u8]) -> Result<FirstFrame<'_>, Failure> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else { return Ok(Err(HEADER_LEN)) };
    if header[..6] != PREFIX {
        return Err(Failure::new(Kind::Malformed, "not a frame of MCPB version 1"));
    }
    let kind = u16::from_be_bytes([header[6], header[7]]);
    let len = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
    if len > MAX_PAYLOAD {
        return Err(Failure::new(Kind::Malformed, "a payload longer than MCPB allows"));
    }
    Ok(match rest.split_at_checked(len) {
        Some((payload, rest)) => Ok((Frame { kind, payload }, rest)),
        None => Err(HEADER_LEN + len),
    })
}

impl Client {
    /// Says which versions we speak: the first frame of a connection.
    pub(super) fn negotiate(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        self.phase = Phase::Negotiating;
        self.send_frame(VERSION_NEGOTIATION, VERSIONS, context)
    }

    /// Takes a frame.
    pub(super) fn take_mcpb(&mut self, plain: &[u8], context: &mut Context<'_>) -> Result<Step, Failure> {
        let (frame, rest) = match first_frame(plain)? {
            Ok(first) => first,
            Err(needed) => return Ok(Step::Needs(needed)),
        };
        let ready = self.take_frame(&frame, context)?;
        let advance = if ready { Advance::Ready } else { Advance::Pending };
        Ok(Step::Taken { bytes: plain.len() - rest.len(), advance })
    }

    /// Takes a frame; whether the connection is set up by it.
    fn take_frame(&mut self, frame: &Frame<'_>, context: &mut Context<'_>) -> Result<bool, Failure> {
        match (frame.kind, self.phase) {
            (VERSION_ACK, Phase::Negotiating) if context.plan.requests.is_stateless() => {
                self.phase = Phase::Idle;
                Ok(true)
            }
            (VERSION_ACK, Phase::Negotiating) => {
                self.initialize(context)?;
                Ok(false)
            }
            (RESPONSE, Phase::Initializing { id }) => {
                result_of(message_answer(frame.payload), id)?;
                self.announce(context)?;
                Ok(true)
            }
            (RESPONSE, Phase::Idle) => self.on_response(frame.payload, context).map(|()| false),
            (HEALTH_CHECK, _) => {
                self.send_frame(HEALTH_CHECK, b"", context)?;
                Ok(false)
            }
            // A server's own notifications; its questions go unanswered, as over HTTP.
            (REQUEST, _) => Ok(false),
            (ERROR, _) => Err(Failure::new(Kind::Reset, "an Error frame")),
            (CONTROL, _) => Err(Failure::new(Kind::Lost, "the gateway shuts down")),
            _ => Err(Failure::new(Kind::Malformed, "a frame that nobody asked for")),
        }
    }

    fn send_frame(&mut self, kind: u16, payload: &[u8], context: &mut Context<'_>) -> Result<(), Failure> {
        context.request.clear();
        push_header(context.request, kind, payload.len());
        context.request.extend_from_slice(payload);
        self.link.send(context.request, context.scratch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        push_header(&mut out, kind, payload.len());
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn frames_are_taken_one_by_one_whatever_the_cut() {
        let bytes = [frame(RESPONSE, b"{}"), frame(HEALTH_CHECK, b"")].concat();
        let Ok(Ok((first, rest))) = first_frame(&bytes) else { panic!("a whole frame") };
        assert_eq!((first.kind, first.payload), (RESPONSE, &b"{}"[..]));
        let Ok(Ok((second, rest))) = first_frame(rest) else { panic!("a whole frame") };
        assert_eq!((second.kind, second.payload, rest.len()), (HEALTH_CHECK, &b""[..], 0));
        for cut in 0..14 {
            let needed = if cut < HEADER_LEN { HEADER_LEN } else { 14 };
            assert!(matches!(first_frame(&bytes[..cut]), Ok(Err(n)) if n == needed), "{cut}");
        }
    }

    #[test]
    fn what_is_no_frame_or_too_long_is_malformed() {
        let mut long = Vec::new();
        push_header(&mut long, RESPONSE, MAX_PAYLOAD + 1);
        for bad in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"MCPB\x00\x02\x00\x02\0\0\0\0", &long] {
            assert_eq!(first_frame(bad).err().map(|f| f.kind), Some(Kind::Malformed));
        }
    }
}
