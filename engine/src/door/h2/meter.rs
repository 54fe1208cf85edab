//! What a connection's frames come to, before h2 sees them: owns the step from bytes to frame headers, the frames per turn,
//! and the allowances that tell a client's work from a flood. It reads nine bytes of each frame and no payload; whether a
//! frame is right is h2's to say, but for the sizes of frames, for which h2 has another error code than RFC 9113.
//!
//! Invariants: bytes pass in their order and unchanged; once a connection is to be cut nothing passes any more.

use crate::shard::clock::Millis;

/// The client connection preface (RFC 9113, section 3.4), which stands before the first frame.
const PREFACE_LEN: usize = 24;
const HEADER_LEN: usize = 9;

/// Frames that bring nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, GOAWAY, unknown ones, empty DATA): so many at once,
/// and so many more a second. Each costs some 100 ns and at most one small answer.
const OVERHEAD: Rate = Rate { burst: 512, per_second: 128 };
/// Streams that a client may give up: a window full of streams twice over, and then so many a second (CVE-2023-44487).
const RESETS: Rate = Rate { burst: 256, per_second: 64 };
/// What a piece of an answer earns: a client answers it with a WINDOW_UPDATE for the stream and one for the connection.
const EARNED_PER_PIECE: u32 = 2;

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
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// What has begun and not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    Nothing,
    /// A frame of a request's body.
    Body,
    /// A header block, or any other frame.
    Head,
}

/// Why a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// More came than any client has a use for.
    Flood,
    /// A frame has a size that its type cannot have (RFC 9113, section 4.2).
    FrameSize,
}

/// How much of the input h2 may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) bytes: usize,
    /// Frames that began in them.
    pub(super) frames: usize,
}

pub(super) struct Meter {
    preface_left: usize,
    header: [u8; HEADER_LEN],
    header_len: usize,
    payload_left: usize,
    kind: u8,
    in_header_block: bool,
    /// Frames so far; a header block counts as one.
    number: u64,
    overhead: Allowance,
    resets: Allowance,
    cut: Option<Cut>,
}

impl Meter {
    pub(super) fn new(now: Millis) -> Self {
        Meter {
            preface_left: PREFACE_LEN,
            header: [0; HEADER_LEN],
            header_len: 0,
            payload_left: 0,
            kind: 0,
            in_header_block: false,
            number: 0,
            overhead: Allowance::new(&OVERHEAD, now),
            resets: Allowance::new(&RESETS, now),
            cut: None,
        }
    }

    /// Looks at the frames in `input`, of which at most `frames` may begin.
    pub(super) fn pass(&mut self, input: &[u8], frames: usize, now: Millis) -> Passed {
        let mut passed = Passed { bytes: 0, frames: 0 };
        while passed.bytes < input.len() && self.cut.is_none() {
            let rest = &input[passed.bytes..];
            if self.preface_left > 0 {
                passed.bytes += take(&mut self.preface_left, rest.len());
            } else if self.payload_left > 0 {
                passed.bytes += take(&mut self.payload_left, rest.len());
            } else {
                if self.header_len == 0 {
                    if passed.frames == frames {
                        break;
                    }
                    passed.frames += 1;
                }
                let part = rest.len().min(HEADER_LEN - self.header_len);
                self.header[self.header_len..self.header_len + part].copy_from_slice(&rest[..part]);
                self.header_len += part;
                passed.bytes += part;
                if self.header_len == HEADER_LEN {
                    self.header_len = 0;
                    self.on_frame(now);
                }
            }
        }
        passed
    }

    /// Pieces of answers left.
    pub(super) fn on_pieces_sent(&mut self, pieces: u32) {
        self.overhead.earn(pieces.saturating_mul(EARNED_PER_PIECE), &OVERHEAD);
    }

    /// Whether the connection is to be cut, and why.
    pub(super) fn cut(&self) -> Option<Cut> {
        self.cut
    }

    /// Which frame or header block is the latest.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn begun(&self) -> Begun {
        if self.in_header_block || self.header_len > 0 {
            Begun::Head
        } else if self.payload_left == 0 {
            Begun::Nothing
        } else if self.kind == DATA {
            Begun::Body
        } else {
            Begun::Head
        }
    }

    fn on_frame(&mut self, now: Millis) {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.payload_left = u32::from_be_bytes([0, high, middle, low]) as usize;
        self.kind = kind;
        self.number += u64::from(kind != CONTINUATION);
        let allowed = match kind {
            DATA if self.payload_left > 0 || flags & END_STREAM != 0 => {
                self.overhead.earn(1, &OVERHEAD);
                true
            }
            HEADERS | PUSH_PROMISE | CONTINUATION => {
                self.in_header_block = flags & END_HEADERS == 0;
                true
            }
            RST_STREAM => self.resets.take(&RESETS, now),
            _ => self.overhead.take(&OVERHEAD, now),
        };
        if is_wrong_size(kind, flags, self.payload_left) {
            self.cut = Some(Cut::FrameSize);
        } else if !allowed {
            self.cut = Some(Cut::Flood);
        }
    }
}

/// Whether a frame of this type cannot have this size; GOAWAY may be longer than it must.
fn is_wrong_size(kind: u8, flags: u8, size: usize) -> bool {
    match kind {
        RST_STREAM | WINDOW_UPDATE => size != 4,
        SETTINGS if flags & ACK != 0 => size != 0,
        SETTINGS => !size.is_multiple_of(6),
        PING => size != 8,
        GOAWAY => size < 8,
        _ => false,
    }
}

/// Counts `left` down by what is there; says by how much.
fn take(left: &mut usize, there: usize) -> usize {
    let taken = there.min(*left);
    *left -= taken;
    taken
}

struct Rate {
    burst: u32,
    per_second: u32,
}

/// A token bucket.
struct Allowance {
    left: u32,
    /// Up to when what time brings is added.
    at: Millis,
}

impl Allowance {
    fn new(rate: &Rate, now: Millis) -> Self {
        Allowance { left: rate.burst, at: now }
    }

    fn earn(&mut self, tokens: u32, rate: &Rate) {
        self.left = self.left.saturating_add(tokens).min(rate.burst);
    }

    /// Takes one; `false` where none is left.
    fn take(&mut self, rate: &Rate, now: Millis) -> bool {
        let earned = now.saturating_sub(self.at) * u64::from(rate.per_second) / 1000;
        if earned > 0 {
            self.earn(u32::try_from(earned).unwrap_or(u32::MAX), rate);
            self.at = now;
        }
        let taken = self.left.checked_sub(1);
        self.left = taken.unwrap_or(0);
        taken.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
        out.extend_from_slice(payload);
        out
    }

    fn after_preface() -> Meter {
        let mut meter = Meter::new(0);
        assert_eq!(meter.pass(&[b'x'; PREFACE_LEN], 0, 0), Passed { bytes: PREFACE_LEN, frames: 0 });
        meter
    }

    #[test]
    fn frames_are_told_apart_at_any_split() {
        let mut input = vec![b'x'; PREFACE_LEN];
        for (kind, size) in [(HEADERS, 20), (DATA, 0), (PING, 8), (SETTINGS, 36), (DATA, 300)] {
            input.extend_from_slice(&frame(kind, END_HEADERS, &vec![kind; size]));
        }
        for step in [1, 2, 9, 10, 31, 1000] {
            let mut meter = Meter::new(0);
            let mut frames = 0;
            for piece in input.chunks(step) {
                let passed = meter.pass(piece, usize::MAX, 0);
                assert_eq!(passed.bytes, piece.len(), "{step}");
                frames += passed.frames;
            }
            assert_eq!((frames, meter.begun(), meter.cut()), (5, Begun::Nothing, None), "{step}");
        }
    }

    #[test]
    fn no_more_frames_begin_than_may() {
        let mut meter = after_preface();
        let one = frame(DATA, 0, b"abc");
        let input = one.repeat(5);
        assert_eq!(meter.pass(&input, 2, 0), Passed { bytes: 2 * one.len(), frames: 2 });
        assert_eq!(meter.pass(&input[..4], 1, 0), Passed { bytes: 4, frames: 1 });
        // What has begun goes on without being counted again.
        assert_eq!(meter.pass(&input[4..], 0, 0), Passed { bytes: one.len() - 4, frames: 0 });
    }

    #[test]
    fn what_has_begun_is_known() {
        let mut meter = after_preface();
        for (bytes, begun) in [
            (&frame(HEADERS, 0, b"ab")[..], Begun::Head),
            (&frame(CONTINUATION, END_HEADERS, b"ab")[..10], Begun::Head),
            (b"b", Begun::Nothing),
            (&frame(DATA, 0, b"ab")[..5], Begun::Head),
            (&frame(DATA, 0, b"ab")[5..10], Begun::Body),
            (b"b", Begun::Nothing),
        ] {
            meter.pass(bytes, usize::MAX, 0);
            assert_eq!(meter.begun(), begun, "{bytes:?}");
        }
    }

    #[test]
    fn frames_that_bring_nothing_are_bounded_unless_time_or_work_earns_them() {
        let ping = frame(6, 0, &[0; 8]);
        let mut meter = after_preface();
        for _ in 0..OVERHEAD.burst {
            meter.pass(&ping, 1, 0);
        }
        assert_eq!(meter.cut(), None);
        meter.pass(&frame(DATA, 0, b"x"), 1, 0);
        meter.on_pieces_sent(1);
        for _ in 0..1 + EARNED_PER_PIECE {
            meter.pass(&ping, 1, 0);
        }
        for _ in 0..OVERHEAD.per_second {
            meter.pass(&ping, 1, 1000);
        }
        assert_eq!(meter.cut(), None);
        meter.pass(&ping, 1, 1000);
        assert_eq!(meter.cut(), Some(Cut::Flood));
        assert_eq!(meter.pass(&ping, 1, 100_000).bytes, 0, "nothing passes after a flood");
    }

    #[test]
    fn frames_of_a_wrong_size_are_told() {
        for (kind, flags, size, cut) in [
            (PING, 0, 7, true),
            (PING, ACK, 8, false),
            (RST_STREAM, 0, 5, true),
            (WINDOW_UPDATE, 0, 0, true),
            (SETTINGS, 0, 12, false),
            (SETTINGS, 0, 13, true),
            (SETTINGS, ACK, 6, true),
            (GOAWAY, 0, 7, true),
            (GOAWAY, 0, 100, false),
            (DATA, 0, 1, false),
        ] {
            let mut meter = after_preface();
            meter.pass(&frame(kind, flags, &vec![0; size]), 1, 0);
            assert_eq!(meter.cut(), cut.then_some(Cut::FrameSize), "{kind} {flags} {size}");
        }
    }

    #[test]
    fn resets_are_bounded_whatever_work_comes_with_them() {
        let mut meter = after_preface();
        let given_up =
            [frame(HEADERS, END_HEADERS, b"h"), frame(DATA, 0, b"x"), frame(RST_STREAM, 0, &[0; 4])];
        let given_up = given_up.concat();
        for _ in 0..RESETS.burst {
            meter.pass(&given_up, usize::MAX, 0);
        }
        assert_eq!(meter.cut(), None);
        meter.pass(&given_up, usize::MAX, 0);
        assert_eq!(meter.cut(), Some(Cut::Flood));
    }
}
