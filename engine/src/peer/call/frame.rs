//! What is said of a call once it has been taken: owns the contents of these frames; all are drawn at the head of
//! [`super::super::frame`].

use std::borrow::Cow;

use mcp_protocol::mcpb::FrameKind;
use serde::{Deserialize, Serialize};

use crate::upstream::call::CallError;

/// Bytes of a call's number before a piece of its answer.
pub(in crate::peer) const NUMBER_BYTES: usize = 8;

/// What whoever asked says of its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::peer) enum AskerWord {
    /// So many bytes more may be sent.
    Credit { call: u64, bytes: usize },
    /// Nobody waits for the answer any more.
    Cancel { call: u64 },
}

impl AskerWord {
    pub(in crate::peer) fn parse(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }

    /// The frame.
    pub(in crate::peer) fn write(self) -> (FrameKind, Vec<u8>) {
        // Numbers cannot fail to be written.
        (FrameKind::Control, serde_json::to_vec(&self).unwrap_or_default())
    }
}

/// What the owner says of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::peer) enum OwnerWord<'a> {
    /// The answer has begun.
    Head {
        call: u64,
        status: u16,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        length: Option<u64>,
        /// Header lines, each with its CR LF.
        #[serde(borrow)]
        fields: Cow<'a, str>,
    },
    /// There is no more of it.
    End {
        call: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<Failed>,
    },
}

impl<'a> OwnerWord<'a> {
    pub(in crate::peer) fn parse(payload: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }

    /// The frame.
    pub(in crate::peer) fn write(&self) -> (FrameKind, Vec<u8>) {
        // Strings and numbers cannot fail to be written.
        (FrameKind::Control, serde_json::to_vec(self).unwrap_or_default())
    }
}

/// Why an owner has no answer, or no whole one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::peer) enum Failed {
    /// The server got nothing.
    Connect,
    Exhausted,
    Processes,
    Timeout,
    Malformed,
    /// The server broke off, or its owner did; a word of a later release.
    #[serde(other)]
    Closed,
}

impl Failed {
    pub(in crate::peer) fn of(error: &CallError) -> Self {
        match error {
            CallError::Connect(_) => Failed::Connect,
            CallError::Exhausted => Failed::Exhausted,
            CallError::Processes => Failed::Processes,
            CallError::Timeout => Failed::Timeout,
            CallError::Malformed(_) => Failed::Malformed,
            // An owner asks the server itself.
            CallError::Closed | CallError::Owner(_) => Failed::Closed,
        }
    }

    pub(in crate::peer) fn error(self) -> CallError {
        match self {
            Failed::Connect => CallError::Connect(std::io::ErrorKind::NotConnected.into()),
            Failed::Exhausted => CallError::Exhausted,
            Failed::Processes => CallError::Processes,
            Failed::Timeout => CallError::Timeout,
            Failed::Malformed => CallError::Malformed("what its owner could not read"),
            Failed::Closed => CallError::Closed,
        }
    }
}

/// A piece of an answer's body as a frame's payload.
pub(in crate::peer) fn write_piece(call: u64, piece: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(NUMBER_BYTES + piece.len());
    payload.extend_from_slice(&call.to_be_bytes());
    payload.extend_from_slice(piece);
    payload
}

/// The call's number, and the piece.
pub(in crate::peer) fn parse_piece(payload: &[u8]) -> Option<(u64, &[u8])> {
    let (number, piece) = payload.split_first_chunk::<NUMBER_BYTES>()?;
    Some((u64::from_be_bytes(*number), piece))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back_as_they_were() {
        for word in [AskerWord::Credit { call: 1, bytes: 65_536 }, AskerWord::Cancel { call: u64::MAX }] {
            assert_eq!(AskerWord::parse(&word.write().1), Some(word));
        }
        let fields = "Content-Type: text/event-stream\r\nX-A: \"é\"\r\n".into();
        for word in [
            OwnerWord::Head { call: 1, status: 200, length: None, fields },
            OwnerWord::Head { call: 1, status: 202, length: Some(0), fields: "".into() },
            OwnerWord::End { call: 2, failed: None },
            OwnerWord::End { call: 2, failed: Some(Failed::Timeout) },
        ] {
            assert_eq!(OwnerWord::parse(&word.write().1), Some(word));
        }
    }

    #[test]
    fn what_a_later_release_adds_is_passed_over_or_means_that_it_broke_off() {
        let word = OwnerWord::parse(br#"{"end":{"call":3,"failed":"eclipsed","more":1}}"#);
        assert_eq!(word, Some(OwnerWord::End { call: 3, failed: Some(Failed::Closed) }));
        for garbage in [&b""[..], b"{}", br#"{"end":{}}"#, br#"{"credit":{"call":1,"bytes":-1}}"#, b"\xff"] {
            assert!(OwnerWord::parse(garbage).is_none() && AskerWord::parse(garbage).is_none());
        }
    }

    #[test]
    fn errors_arrive_as_what_they_are() {
        for error in [
            CallError::Connect(std::io::ErrorKind::Other.into()),
            CallError::Exhausted,
            CallError::Closed,
            CallError::Timeout,
            CallError::Malformed("a body that is none"),
        ] {
            let there = Failed::of(&error).error();
            assert_eq!(std::mem::discriminant(&there), std::mem::discriminant(&error), "{error:?}");
        }
    }

    #[test]
    fn a_piece_is_its_number_and_its_bytes() {
        for piece in [&b""[..], b"{}", b"\0\xff"] {
            assert_eq!(parse_piece(&write_piece(u64::MAX - 1, piece)), Some((u64::MAX - 1, piece)));
        }
        assert_eq!(parse_piece(b"1234567"), None);
    }
}
