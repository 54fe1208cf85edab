//! Owns the frame header (layout at the head of [`mcpb`](super)).

use super::FrameError;

/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 12;
/// The most bytes of a payload.
pub const MAX_PAYLOAD: u32 = 10_485_760;
/// The version that this codec speaks.
pub const VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"MCPB";

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u16)]
pub enum FrameKind {
    /// A JSON-RPC request or notification, of either side.
    Request = 1,
    /// A JSON-RPC response.
    Response = 2,
    /// Shutdown and its acknowledgement.
    Control = 3,
    /// A probe or its answer.
    HealthCheck = 4,
    /// UTF-8 text; the connection closes after it.
    Error = 5,
    /// The client's versions.
    VersionNegotiation = 6,
    /// The version agreed on.
    VersionAck = 7,
}

impl FrameKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: &[Self] = &[
        Self::Request,
        Self::Response,
        Self::Control,
        Self::HealthCheck,
        Self::Error,
        Self::VersionNegotiation,
        Self::VersionAck,
    ];

    /// The `type` label of `mcp_gateway_tcp_messages_total`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
            Self::Control => "control",
            Self::HealthCheck => "health_check",
            Self::Error => "error",
            Self::VersionNegotiation => "version_negotiation",
            Self::VersionAck => "version_ack",
        }
    }

    fn parse(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|&kind| kind as u16 == number)
    }
}

/// A frame's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// Always [`VERSION`].
    pub version: u16,
    /// What the payload is.
    pub kind: FrameKind,
    /// Bytes of the payload, at most [`MAX_PAYLOAD`].
    pub len: u32,
}

/// Parses the header at the start of `bytes`; `None` means that more bytes are needed. Wrong bytes are found as soon as
/// they are there.
///
/// # Errors
/// [`FrameError`]; send its text as an Error frame and close.
pub fn parse_header(bytes: &[u8]) -> Result<Option<FrameHeader>, FrameError> {
    if let Some(offset) = bytes.iter().zip(MAGIC).position(|(&found, wanted)| found != wanted) {
        return Err(FrameError::BadMagic { offset });
    }
    let Some(version) = u16_at(bytes, 4) else { return Ok(None) };
    if version != VERSION {
        return Err(FrameError::UnsupportedVersion { version });
    }
    let Some(number) = u16_at(bytes, 6) else { return Ok(None) };
    let kind = FrameKind::parse(number).ok_or(FrameError::UnknownType { kind: number })?;
    let Some(len) = bytes.get(8..HEADER_LEN).and_then(<[u8]>::first_chunk) else { return Ok(None) };
    let len = u32::from_be_bytes(*len);
    if len > MAX_PAYLOAD {
        return Err(FrameError::PayloadTooLarge { len: u64::from(len), limit: MAX_PAYLOAD });
    }
    Ok(Some(FrameHeader { version, kind, len }))
}

/// Appends a frame.
///
/// # Errors
/// [`FrameError::PayloadTooLarge`], and nothing is appended.
pub fn write_frame(out: &mut Vec<u8>, kind: FrameKind, payload: &[u8]) -> Result<(), FrameError> {
    let len = u32::try_from(payload.len()).ok().filter(|&len| len <= MAX_PAYLOAD);
    let len = len.ok_or(FrameError::PayloadTooLarge { len: payload.len() as u64, limit: MAX_PAYLOAD })?;
    out.reserve(HEADER_LEN + payload.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&(kind as u16).to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(payload);
    Ok(())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|field| u16::from_be_bytes(*field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_byte_for_byte_version_1() {
        let mut out = Vec::new();
        write_frame(&mut out, FrameKind::Control, b"{\"command\":\"shutdown\"}").unwrap();
        assert_eq!(out[..HEADER_LEN], *b"MCPB\x00\x01\x00\x03\x00\x00\x00\x16");
        assert_eq!(out[HEADER_LEN..], *b"{\"command\":\"shutdown\"}");
    }

    #[test]
    fn every_kind_round_trips_and_needs_all_twelve_bytes() {
        for &kind in FrameKind::ALL {
            let mut out = Vec::new();
            write_frame(&mut out, kind, b"xyz").unwrap();
            for short in 0..HEADER_LEN {
                assert_eq!(parse_header(&out[..short]), Ok(None), "{kind:?} {short}");
            }
            let header = FrameHeader { version: 1, kind, len: 3 };
            assert_eq!(parse_header(&out), Ok(Some(header)));
        }
    }

    #[test]
    fn wrong_headers_are_refused_as_soon_as_they_show() {
        for (bytes, error, label) in [
            (&b"G"[..], FrameError::BadMagic { offset: 0 }, "bad_magic"),
            (b"MCPX", FrameError::BadMagic { offset: 3 }, "bad_magic"),
            (b"MCPB\x00\x02", FrameError::UnsupportedVersion { version: 2 }, "unsupported_version"),
            (b"MCPB\x01\x00", FrameError::UnsupportedVersion { version: 256 }, "unsupported_version"),
            (b"MCPB\x00\x01\x00\x00", FrameError::UnknownType { kind: 0 }, "unknown_type"),
            (b"MCPB\x00\x01\x00\x08", FrameError::UnknownType { kind: 8 }, "unknown_type"),
            (
                b"MCPB\x00\x01\x00\x01\x00\xA0\x00\x01",
                FrameError::PayloadTooLarge { len: 10_485_761, limit: MAX_PAYLOAD },
                "payload_too_large",
            ),
        ] {
            assert_eq!(parse_header(bytes), Err(error), "{bytes:?}");
            assert_eq!(error.label(), label);
        }
        assert!(parse_header(b"MCPB\x00\x01\x00\x01\x00\xA0\x00\x00").unwrap().is_some());
    }

    #[test]
    fn a_payload_over_the_limit_is_not_written() {
        let mut out = Vec::new();
        let payload = vec![b' '; MAX_PAYLOAD as usize + 1];
        assert!(write_frame(&mut out, FrameKind::Response, &payload).is_err());
        assert!(out.is_empty());
        assert!(write_frame(&mut out, FrameKind::Response, &payload[1..]).is_ok());
    }
}
