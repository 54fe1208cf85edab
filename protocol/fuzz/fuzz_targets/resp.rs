//! Claims: replies read alike however the stream is split; no more is taken than was given, and none beyond the limit; what
//! is kept of a reply is bounded by its bytes; a command reads back as it was written; every key has a slot.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_protocol::resp::{MAX_DEPTH, ReadError, Reader, Reply, SLOTS, key_slot, write_command};
use mcp_protocol_fuzz::split_stream;

const LIMITS: [usize; 2] = [64, 1 << 20];

fuzz_target!(|input: &[u8]| {
    let Some((stream, pieces)) = split_stream(input) else { return };
    for max in LIMITS {
        let whole = read(&[stream], max);
        // As text: to itself, not-a-number is not equal.
        assert_eq!(format!("{:?}", read(&pieces, max)), format!("{whole:?}"));
        if let Some(error) = whole.1 {
            assert!(!error.to_string().is_empty());
        }
    }

    let mut written = Vec::new();
    write_command(&mut written, &pieces);
    let (replies, error) = read(&[&written], usize::MAX);
    let args = pieces.iter().map(|piece| Reply::Bulk((*piece).into())).collect();
    assert_eq!((replies, error), (vec![Reply::Array(args)], None));
    assert!(key_slot(stream) < SLOTS);
});

fn read(pieces: &[&[u8]], max: usize) -> (Vec<Reply>, Option<ReadError>) {
    let (mut reader, mut buffer, mut replies) = (Reader::new(max), Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match reader.read(&buffer) {
                Ok(Some((reply, taken))) => {
                    assert!(taken > 0 && taken <= buffer.len() && taken <= max);
                    assert!(weight(&reply, 0) <= taken);
                    buffer.drain(..taken);
                    replies.push(reply);
                }
                Ok(None) => break,
                Err(error) => return (replies, Some(error)),
            }
        }
    }
    (replies, None)
}

/// The fewest bytes that can have brought this reply.
fn weight(reply: &Reply, depth: usize) -> usize {
    /// The type, CR LF.
    const LEAST: usize = 3;
    assert!(depth <= MAX_DEPTH);
    let below = |replies: &[Reply]| replies.iter().map(|reply| weight(reply, depth + 1)).sum::<usize>();
    LEAST
        + match reply {
            Reply::Ok | Reply::Null | Reply::Integer(_) | Reply::Double(_) | Reply::Boolean(_) => 0,
            // A byte that is not UTF-8 becomes a character of three.
            Reply::Status(text) | Reply::Error(text) => text.len() / 3,
            Reply::Bulk(bytes) => bytes.len(),
            Reply::Array(elements) => below(elements),
            Reply::Map(pairs) => {
                pairs.iter().map(|(key, value)| weight(key, depth + 1) + weight(value, depth + 1)).sum()
            }
            Reply::Push(elements) => {
                assert_eq!(depth, 0);
                below(elements)
            }
        }
}
