//! What is known of an MCPB connection alone: owns its stage, its goodbye, and the step from bytes to a whole frame. It never
//! sends and never starts anything.

use mcp_protocol::mcpb::{FrameError, FrameKind, HEADER_LEN, MAX_PAYLOAD, parse_header};

use crate::door::framed::Framed;
use crate::shard::Shard;
use crate::shard::clock::{Millis, NEVER};

#[derive(Default)]
pub(crate) struct Mcpb {
    pub(super) framed: Framed,
    pub(super) stage: Stage,
    /// A frame whose payload is on its way.
    pub(super) partial: Option<Partial>,
    /// The answer to a HealthCheck of ours is still to come.
    pub(super) probe_unanswered: bool,
    /// A bare login succeeded: the server must still be told that the client is ready.
    pub(super) announce: bool,
    /// Both sides have said goodbye: the connection closes when nothing is in flight.
    pub(super) agreed: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// No version is agreed on.
    #[default]
    Fresh,
    Open,
}

/// A whole frame: its kind and its payload.
pub(super) type Frame = (FrameKind, Vec<u8>);

pub(super) struct Partial {
    pub(super) kind: FrameKind,
    /// Bytes of the payload that are still to come.
    pub(super) left: usize,
    pub(super) payload: Vec<u8>,
}

impl Mcpb {
    /// No new request is served from now on; whatever is left of the goodbye ends at this moment.
    pub(super) fn leave(&mut self, by: Millis) {
        self.framed.leaving = true;
        self.framed.patience.leave_by = by;
        self.framed.patience.listen_at = NEVER;
    }

    /// Takes bytes of a frame; says how many, and the frame when it is complete.
    pub(super) fn take_frame(
        &mut self,
        shard: &Shard,
        input: &[u8],
    ) -> Result<(usize, Option<Frame>), FrameError> {
        let (mut partial, mut taken) = match self.partial.take() {
            Some(partial) => (partial, 0),
            None => match parse_header(input)? {
                Some(header) => {
                    let (len, limit) = (header.len, shard.setup().config.server.max_body_bytes);
                    // The protocol's own limit is checked with the header; an operator may have set a lower one.
                    if len as usize > limit {
                        let limit = u32::try_from(limit).unwrap_or(MAX_PAYLOAD);
                        return Err(FrameError::PayloadTooLarge { len: u64::from(len), limit });
                    }
                    let payload = shard.take_buffer();
                    (Partial { kind: header.kind, left: header.len as usize, payload }, HEADER_LEN)
                }
                None => return Ok((0, None)),
            },
        };
        let part = partial.left.min(input.len() - taken);
        partial.payload.extend_from_slice(&input[taken..taken + part]);
        partial.left -= part;
        taken += part;
        if partial.left == 0 {
            return Ok((taken, Some((partial.kind, partial.payload))));
        }
        self.partial = Some(partial);
        Ok((taken, None))
    }
}
