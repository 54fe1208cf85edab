//! Claim: what a server may send is read back as it was meant, in both versions, however it is cut. Setup: trees from a
//! seeded generator, written by an encoder that shares nothing with the reader.

use super::read_pieces;
use crate::resp::{MAX_DEPTH, Reply};

const TREES: u64 = 5_000;
const LIMIT: usize = 1 << 20;

#[derive(Clone, Copy, PartialEq)]
enum Version {
    Resp2,
    Resp3,
}

/// splitmix64.
struct Random(u64);

#[test]
fn trees_are_read_back_in_both_versions() {
    for version in [Version::Resp2, Version::Resp3] {
        for seed in 0..TREES {
            let random = &mut Random(seed);
            let (mut replies, mut wire) = (Vec::new(), Vec::new());
            for _ in 0..1 + random.below(4) {
                let reply = random.reply(version);
                random.write(&mut wire, &reply, version, 0);
                replies.push(reply);
            }
            let whole = read_pieces(LIMIT, [&wire[..]]);
            assert_eq!(whole.as_ref(), Ok(&replies), "seed {seed}: {}", wire.escape_ascii());
            let pieces = random.cut(&wire);
            assert_eq!(read_pieces(LIMIT, pieces).as_ref(), Ok(&replies), "seed {seed}, in pieces");
        }
    }
}

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn reply(&mut self, version: Version) -> Reply {
        if version == Version::Resp3 && self.below(4) == 0 {
            let count = self.below(4);
            return Reply::Push((0..count).map(|_| self.value(version, 1)).collect());
        }
        self.value(version, 0)
    }

    /// A value inside `depth` aggregates.
    fn value(&mut self, version: Version, depth: usize) -> Reply {
        let scalars = if version == Version::Resp3 { 8 } else { 6 };
        let aggregates = if depth + 1 >= MAX_DEPTH { 0 } else { 3 };
        match self.below(scalars + aggregates) {
            0 => Reply::Ok,
            1 => Reply::Status(format!("S{}", self.text()).into()),
            2 => Reply::Error(self.text().into()),
            3 => Reply::Null,
            4 => Reply::Integer((self.next() as i64) >> self.below(64)),
            5 => Reply::Bulk((0..self.below(40)).map(|_| b"\r\n$+*:x\0\xFF"[self.below(9)]).collect()),
            6 if version == Version::Resp3 => Reply::Double(self.next() as i32 as f64 / 8.0),
            7 if version == Version::Resp3 => Reply::Boolean(self.below(2) == 0),
            kind => {
                let count = self.below(5);
                if version == Version::Resp3 && kind % 2 == 0 {
                    let mut pair = || (self.value(version, depth + 1), self.value(version, depth + 1));
                    return Reply::Map((0..count).map(|_| pair()).collect());
                }
                Reply::Array((0..count).map(|_| self.value(version, depth + 1)).collect())
            }
        }
    }

    fn text(&mut self) -> String {
        (0..self.below(50)).map(|_| ['a', ' ', '$', 'ä', '-', '\n'][self.below(6)]).collect()
    }

    /// In one of the spellings that mean this reply, inside `depth` aggregates.
    fn write(&mut self, out: &mut Vec<u8>, reply: &Reply, version: Version, depth: usize) {
        let newer = version == Version::Resp3;
        if newer && depth + 1 < MAX_DEPTH && self.below(10) == 0 {
            out.extend_from_slice(
                [&b"|0\r\n"[..], b"|1\r\n+ttl\r\n:5\r\n", b"|1\r\n+a\r\n|1\r\n_\r\n_\r\n_\r\n"]
                    [self.below(3)],
            );
        }
        let line = match reply {
            Reply::Ok => "+OK".to_owned(),
            Reply::Status(text) => format!("+{text}"),
            Reply::Error(text) if newer && self.below(2) == 0 => format!("!{}\r\n{text}", text.len()),
            Reply::Error(text) => format!("-{text}"),
            Reply::Null if newer && self.below(2) == 0 => "_".to_owned(),
            Reply::Null => ["$-1", "*-1"][self.below(2)].to_owned(),
            Reply::Integer(number) => format!(":{number}"),
            Reply::Double(number) => format!(",{number}"),
            Reply::Boolean(value) => format!("#{}", if *value { 't' } else { 'f' }),
            Reply::Bulk(bytes) => {
                let verbatim = newer && self.below(4) == 0;
                let (kind, prefix) = if verbatim { ('=', "txt:") } else { ('$', "") };
                out.extend_from_slice(format!("{kind}{}\r\n{prefix}", bytes.len() + prefix.len()).as_bytes());
                out.extend_from_slice(bytes);
                String::new()
            }
            Reply::Array(elements) | Reply::Push(elements) => {
                let array = if newer && self.below(2) == 0 { '~' } else { '*' };
                let kind = if matches!(reply, Reply::Push(_)) { '>' } else { array };
                out.extend_from_slice(format!("{kind}{}\r\n", elements.len()).as_bytes());
                return elements.iter().for_each(|element| self.write(out, element, version, depth + 1));
            }
            Reply::Map(pairs) => {
                out.extend_from_slice(format!("%{}\r\n", pairs.len()).as_bytes());
                return pairs.iter().for_each(|(key, value)| {
                    self.write(out, key, version, depth + 1);
                    self.write(out, value, version, depth + 1);
                });
            }
        };
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    fn cut<'a>(&mut self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let most = 1 + self.below(1 + bytes.len() / 2);
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at((1 + self.below(most)).min(bytes.len()));
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }
}
