//! What an HTTP/2 connection must remember while it sleeps: owns the counting of both directions' frames, and the bytes that
//! bring a new h2 to where the old one was. It knows nothing of h2's types and sends nothing.
//!
//! h2 keeps some 30 KiB per connection in buffers and tables that it never gives back. So a connection that has nothing in
//! flight lets h2 go, and makes a new one when its client speaks again. That is sound because all of a connection's state
//! is then in a few numbers: the client's settings, both windows, the last stream. Header compression has none towards us,
//! because our table size is told to be 0; towards the client a new encoder begins with an empty table of its own, and what it
//! adds stands, in the client's table, before whatever an old one left.

/// The client connection preface (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_LEN: usize = 9;
/// The window of a connection before anybody says more (RFC 9113, section 6.9.2).
const INITIAL_WINDOW: i64 = 65_535;
/// A header block of static fields alone: `GET https:/`. What answers it is thrown away.
const SOME_REQUEST: &[u8] = &[0x82, 0x87, 0x84];

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 0x1;
const END_STREAM_AND_HEADERS: u8 = 0x1 | 0x4;

/// The highest number of a setting that is kept (RFC 9113, section 6.5.2, and RFC 8441).
const MAX_SETTING: usize = 8;

pub(super) struct Ledger {
    settings: [Option<u32>; MAX_SETTING + 1],
    /// The client has taken our settings.
    acknowledged: bool,
    last_stream: u32,
    /// What we may send, and what the client may, over all streams.
    may_send: i64,
    may_receive: i64,
    inward: Walker,
    outward: Walker,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Ledger {
            settings: [None; MAX_SETTING + 1],
            acknowledged: false,
            last_stream: 0,
            may_send: INITIAL_WINDOW,
            may_receive: INITIAL_WINDOW,
            inward: Walker { left: PREFACE.len(), ..Walker::default() },
            outward: Walker::default(),
        }
    }

    /// Notes what the client sent.
    pub(super) fn on_in(&mut self, bytes: &[u8]) {
        let Ledger { settings, acknowledged, last_stream, may_send, may_receive, inward, .. } = self;
        inward.walk(bytes, |seen| match seen {
            Seen::Frame { kind: DATA, len, .. } => *may_receive -= len,
            Seen::Frame { kind: HEADERS, stream, .. } => *last_stream = stream.max(*last_stream),
            Seen::Frame { kind: SETTINGS, flags, .. } => *acknowledged |= flags & ACK != 0,
            Seen::Frame { .. } => {}
            Seen::Setting { number, value } => {
                if let Some(setting) = settings.get_mut(usize::from(number)) {
                    *setting = Some(value);
                }
            }
            Seen::Window { by } => *may_send += by,
        });
    }

    /// Notes what we sent.
    pub(super) fn on_out(&mut self, bytes: &[u8]) {
        let Ledger { may_send, may_receive, outward, .. } = self;
        outward.walk(bytes, |seen| match seen {
            Seen::Frame { kind: DATA, len, .. } => *may_send -= len,
            Seen::Frame { .. } | Seen::Setting { .. } => {}
            Seen::Window { by } => *may_receive += by,
        });
    }

    /// Whether all that matters is in these numbers, as far as they tell: both sides stand between two frames, and the
    /// settings are agreed on.
    pub(super) fn is_complete(&self) -> bool {
        self.acknowledged && self.inward.is_between_frames() && self.outward.is_between_frames()
    }

    /// Bytes that a new h2 must send on the replay's stream for its window to be as small as the client's.
    pub(super) fn shortfall(&self) -> usize {
        usize::try_from(INITIAL_WINDOW - self.may_send).unwrap_or(0)
    }

    /// What a client would have said to a new h2 for it to be where the old one was. What h2 answers is not for the client,
    /// which has had it all.
    pub(super) fn replay(&self) -> Vec<u8> {
        let mut out = PREFACE.to_vec();
        let mut settings = Vec::new();
        for (number, value) in self.settings.iter().enumerate() {
            if let Some(value) = value {
                settings.extend_from_slice(&(number as u16).to_be_bytes());
                settings.extend_from_slice(&value.to_be_bytes());
            }
        }
        write_frame(&mut out, SETTINGS, 0, 0, &settings);
        write_frame(&mut out, SETTINGS, ACK, 0, b"");
        if let Ok(more @ 1..) = u32::try_from(self.may_send - INITIAL_WINDOW) {
            write_frame(&mut out, WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        }
        if self.last_stream > 0 {
            // Late frames of old streams are known as such again.
            write_frame(&mut out, HEADERS, END_STREAM_AND_HEADERS, self.last_stream, SOME_REQUEST);
            match u32::try_from(self.shortfall()) {
                Ok(short @ 1..) => {
                    write_frame(&mut out, WINDOW_UPDATE, 0, self.last_stream, &short.to_be_bytes());
                }
                _ => write_frame(&mut out, RST_STREAM, 0, self.last_stream, &[0; 4]),
            }
        }
        out
    }

    /// What the client must be told for its window to be `target`, which a new h2 believes it is.
    pub(super) fn top_up(&self, target: u32) -> Vec<u8> {
        let mut out = Vec::new();
        if let Ok(more @ 1..) = u32::try_from(i64::from(target) - self.may_receive) {
            write_frame(&mut out, WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        }
        out
    }

    /// GOAWAY without an error: what the client sends after the last stream it may send again elsewhere.
    pub(super) fn goodbye(&self) -> Vec<u8> {
        let mut payload = self.last_stream.to_be_bytes().to_vec();
        payload.extend_from_slice(&[0; 4]);
        let mut out = Vec::new();
        write_frame(&mut out, GOAWAY, 0, 0, &payload);
        out
    }
}

fn write_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// What the ledger wants to know of a direction.
enum Seen {
    Frame {
        kind: u8,
        flags: u8,
        stream: u32,
        len: i64,
    },
    Setting {
        number: u16,
        value: u32,
    },
    /// A WINDOW_UPDATE of the connection.
    Window {
        by: i64,
    },
}

/// Follows one direction from frame to frame, in pieces of any size.
#[derive(Default)]
struct Walker {
    header: [u8; HEADER_LEN],
    header_len: usize,
    /// Bytes of the payload, or of the preface, that are still to come.
    left: usize,
    /// How long the parts of the payload are that are looked at; 0 for none.
    part_len: usize,
    part: Vec<u8>,
}

impl Walker {
    fn is_between_frames(&self) -> bool {
        self.header_len == 0 && self.left == 0
    }

    fn walk(&mut self, mut bytes: &[u8], mut on: impl FnMut(Seen)) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= payload.len();
                bytes = rest;
                if self.part_len > 0 {
                    self.look(payload, &mut on);
                }
                continue;
            }
            let (part, rest) = bytes.split_at((HEADER_LEN - self.header_len).min(bytes.len()));
            self.header[self.header_len..self.header_len + part.len()].copy_from_slice(part);
            self.header_len += part.len();
            bytes = rest;
            if self.header_len == HEADER_LEN {
                self.header_len = 0;
                on(self.begin());
            }
        }
    }

    fn begin(&mut self) -> Seen {
        let [high, middle, low, kind, flags, s0, s1, s2, s3] = self.header;
        let stream = u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff;
        self.left = u32::from_be_bytes([0, high, middle, low]) as usize;
        self.part_len = match kind {
            SETTINGS => 6,
            WINDOW_UPDATE if stream == 0 => 4,
            _ => 0,
        };
        // Given back each time: a connection has such frames seldom.
        self.part = Vec::new();
        Seen::Frame { kind, flags, stream, len: self.left as i64 }
    }

    /// Takes a piece of a payload that consists of equal parts.
    fn look(&mut self, payload: &[u8], on: &mut impl FnMut(Seen)) {
        for &byte in payload {
            self.part.push(byte);
            if self.part.len() < self.part_len {
                continue;
            }
            match self.part[..] {
                [n0, n1, v0, v1, v2, v3] => on(Seen::Setting {
                    number: u16::from_be_bytes([n0, n1]),
                    value: u32::from_be_bytes([v0, v1, v2, v3]),
                }),
                [v0, v1, v2, v3] => {
                    on(Seen::Window { by: i64::from(u32::from_be_bytes([v0, v1, v2, v3]) & 0x7fff_ffff) });
                }
                _ => {}
            }
            self.part.clear();
        }
        if self.left == 0 {
            self.part = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_frame(&mut out, kind, flags, stream, payload);
        out
    }

    fn spoken(step: usize) -> Ledger {
        let settings =
            [&[0, 4, 0, 0, 0xff, 0xff][..], &[0, 5, 0, 0, 0x80, 0], &[0xaa, 1, 0, 0, 0, 1]].concat();
        let input = [
            PREFACE.to_vec(),
            frame(SETTINGS, 0, 0, &settings),
            frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
            frame(SETTINGS, ACK, 0, b""),
            frame(WINDOW_UPDATE, 0, 0, &70_000_u32.to_be_bytes()),
            frame(WINDOW_UPDATE, 0, 3, &9_u32.to_be_bytes()),
            frame(HEADERS, 4, 3, b"hh"),
            frame(HEADERS, 4, 5, b"hh"),
            frame(DATA, 1, 5, &[0; 1000]),
        ]
        .concat();
        let output = [
            frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]),
            frame(WINDOW_UPDATE, 0, 0, &100_000_u32.to_be_bytes()),
            frame(DATA, 1, 5, &[0; 2000]),
        ]
        .concat();
        let mut ledger = Ledger::new();
        input.chunks(step).for_each(|piece| ledger.on_in(piece));
        output.chunks(step).for_each(|piece| ledger.on_out(piece));
        ledger
    }

    #[test]
    fn what_was_said_is_known_at_any_split() {
        for step in [1, 5, 9, 13, 10_000] {
            let ledger = spoken(step);
            assert!(ledger.is_complete(), "{step}");
            assert_eq!((ledger.settings[4], ledger.settings[5]), (Some(1 << 16), Some(1 << 15)), "{step}");
            assert_eq!((ledger.last_stream, ledger.may_send), (5, 65_535 + 70_000 - 2000), "{step}");
            assert_eq!(ledger.may_receive, 65_535 + 100_000 - 1000, "{step}");
        }
    }

    #[test]
    fn a_replay_brings_another_ledger_to_the_same_state() {
        let ledger = spoken(10_000);
        let mut other = Ledger::new();
        other.on_in(&ledger.replay());
        assert_eq!((other.settings, other.may_send), (ledger.settings, ledger.may_send));
        assert_eq!((other.last_stream, other.is_complete()), (ledger.last_stream, true));
    }

    #[test]
    fn the_client_s_window_is_filled_up_to_what_is_believed() {
        let mut ledger = spoken(10_000);
        let more = ledger.top_up(200_000);
        assert_eq!(more, frame(WINDOW_UPDATE, 0, 0, &35_465_u32.to_be_bytes()));
        ledger.on_out(&more);
        assert_eq!((ledger.may_receive, ledger.top_up(200_000)), (200_000, Vec::new()));
    }

    #[test]
    fn nothing_is_complete_before_its_time() {
        assert!(!Ledger::new().is_complete(), "no settings yet");
        let mut ledger = spoken(10_000);
        ledger.on_in(&frame(HEADERS, 4, 7, b"hh")[..10]);
        assert!(!ledger.is_complete(), "in the middle of a frame");
        let mut ledger = spoken(10_000);
        ledger.on_out(&frame(DATA, 0, 5, b"")[..3]);
        assert!(!ledger.is_complete(), "in the middle of a frame of ours");
    }

    #[test]
    fn a_window_that_is_half_closed_is_told() {
        let mut ledger = spoken(10_000);
        assert_eq!(ledger.shortfall(), 0);
        ledger.on_out(&frame(DATA, 1, 5, &vec![0; 70_000]));
        assert_eq!((ledger.shortfall(), ledger.is_complete()), (2000, true));
        let replay = ledger.replay();
        assert!(replay.ends_with(&frame(WINDOW_UPDATE, 0, 5, &2000_u32.to_be_bytes())), "{replay:?}");
    }
}
