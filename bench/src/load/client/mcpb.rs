//! A connection's MCP over MCPB, the gateway's binary protocol, version 1: frames in, frames out, in the order that the
//! protocol demands (negotiation, `initialize`, messages). It shares no code with the gateway's codec, and never knows
//! HTTP.

use super::{
    Advance, After, Answer, Client, Context, Failure, Kind, Phase, ReadEnd, check_call, next_id, result_of,
};
use crate::json::members;

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

    /// Takes all frames received.
    pub(super) fn handle_frames(
        &mut self,
        mut plain: &[u8],
        end: ReadEnd,
        context: &mut Context<'_>,
    ) -> Result<Advance, Failure> {
        let mut ready = false;
        while !plain.is_empty() {
            match first_frame(plain)? {
                Ok((frame, rest)) => {
                    plain = rest;
                    ready |= self.take_frame(&frame, context)?;
                }
                Err(needed) => {
                    self.needed = needed;
                    break;
                }
            }
        }
        if plain.is_empty() {
            self.needed = 0;
        }
        self.partial = plain.to_vec();
        let closed = end == ReadEnd::Closed;
        if !context.answered.is_empty() {
            return Ok(Advance::Answered { then: if closed { After::Lost } else { After::Idle } });
        }
        if closed {
            let kind = if self.is_idle() { Kind::Lost } else { Kind::Reset };
            return Err(Failure::new(kind, "closed by the peer"));
        }
        Ok(if ready { Advance::Ready } else { Advance::Pending })
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
                result_of(answer(frame), id)?;
                context.request.clear();
                context.plan.requests.push_initialized(context.request, None);
                self.link.send(context.request, context.scratch)?;
                self.phase = Phase::Idle;
                Ok(true)
            }
            (RESPONSE, Phase::Idle) => {
                let place = response_id(frame.payload)
                    .and_then(|id| self.flights.iter().position(|(flight, _)| *flight == id))
                    .ok_or_else(|| Failure::new(Kind::WrongId, "an id that nobody asked with"))?;
                let (id, call) = self.flights.swap_remove(place);
                let plan = context.plan;
                let verdict = check_call(answer(frame), id, plan.answer_form, plan.expect.as_ref());
                context.answered.push((call, verdict));
                Ok(false)
            }
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

    /// Sends `initialize`, over either protocol.
    pub(super) fn initialize(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let id = next_id(context);
        context.request.clear();
        context.plan.requests.push_initialize(context.request, id);
        self.phase = Phase::Initializing { id };
        self.link.send(context.request, context.scratch)
    }

    fn send_frame(&mut self, kind: u16, payload: &[u8], context: &mut Context<'_>) -> Result<(), Failure> {
        context.request.clear();
        push_header(context.request, kind, payload.len());
        context.request.extend_from_slice(payload);
        self.link.send(context.request, context.scratch)
    }
}

/// The id of a response, as our requests have them.
fn response_id(message: &[u8]) -> Option<u64> {
    let [id] = members(message, ["id"])?;
    std::str::from_utf8(id?).ok()?.parse().ok()
}

/// A response as the checks know it from HTTP.
fn answer<'a>(frame: &Frame<'a>) -> Answer<'a> {
    Answer { status: 200, event_stream: false, retry_after: false, body: frame.payload }
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
