//! Frames of a server: owns their bytes. Each is whole and unmasked (RFC 6455, section 5.1).

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::MAX_CONTROL_BYTES;

/// Writes a text message of one frame. `text` must be UTF-8.
pub fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    write(out, OpCode::Data(Data::Text), text);
}

/// Writes an empty ping.
pub fn write_ping(out: &mut Vec<u8>) {
    write(out, OpCode::Control(Control::Ping), b"");
}

/// Writes the answer to a ping with this payload, of which no more than a control frame holds is taken.
pub fn write_pong(out: &mut Vec<u8>, payload: &[u8]) {
    write(out, OpCode::Control(Control::Pong), &payload[..payload.len().min(MAX_CONTROL_BYTES)]);
}

/// Writes a close frame; without a code it is empty. A reason that is too long is cut between two characters.
pub fn write_close(out: &mut Vec<u8>, code: Option<u16>, reason: &str) {
    let Some(code) = code else { return write(out, OpCode::Control(Control::Close), b"") };
    let mut len = reason.len().min(MAX_CONTROL_BYTES - 2);
    while !reason.is_char_boundary(len) {
        len -= 1;
    }
    let reason = &reason[..len];
    let mut payload = [0; MAX_CONTROL_BYTES];
    payload[..2].copy_from_slice(&code.to_be_bytes());
    payload[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
    write(out, OpCode::Control(Control::Close), &payload[..2 + reason.len()]);
}

fn write(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // Writing to a Vec cannot fail.
    let _ = header.format(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn heads_have_the_shortest_length() {
        for (len, head) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 0xff, 0xff]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = written(|out| write_text(out, &vec![b'x'; len]));
            assert_eq!((&frame[..head.len()], frame.len()), (head, head.len() + len));
        }
    }

    #[test]
    fn control_frames_keep_their_limit() {
        assert_eq!(written(write_ping), [0x89, 0]);
        assert_eq!(written(|out| write_pong(out, b"ab")), *b"\x8a\x02ab");
        assert_eq!(written(|out| write_pong(out, &[7; 200])).len(), 127);
        assert_eq!(written(|out| write_close(out, None, "unseen")), [0x88, 0]);
        assert_eq!(written(|out| write_close(out, Some(1002), "no")), *b"\x88\x04\x03\xeano");
        let long = written(|out| write_close(out, Some(1000), &"é".repeat(100)));
        assert_eq!((long.len(), long[1]), (2 + 2 + 122, 124));
        assert!(std::str::from_utf8(&long[4..]).is_ok());
    }
}
