//! Claims: an event stream reads alike however it is split; relaying up to the boundaries loses no event; what is written
//! reads back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_protocol::sse::{Boundary, Decoder, Event, raw_events, write_event};
use mcp_protocol_fuzz::split_stream;

const LIMIT: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let Some((stream, pieces)) = split_stream(input) else { return };
    let whole = decode(&[stream]);
    assert_eq!(decode(&pieces), whole);

    let end = last_boundary(&[stream]);
    assert_eq!(last_boundary(&pieces), end);
    assert_eq!(decode(&[&stream[..end]]), whole);

    let relayed: Vec<u8> = raw_events(stream).flat_map(|event| event.bytes.to_vec()).collect();
    assert_eq!(relayed, stream[..end]);
    // A byte order mark hides the first line's name from whoever does not read from the stream's start.
    if !stream.starts_with(b"\xEF") {
        let data =
            raw_events(stream).filter_map(|event| Some(String::from_utf8_lossy(&event.data?).into_owned()));
        assert!(data.eq(whole.iter().map(|event| event.data.clone())));
    }

    let mut out = Vec::new();
    write_event(&mut out, None, None, stream);
    assert_eq!(Boundary::new().push(&out), Some(out.len()));
    let text = String::from_utf8_lossy(stream).replace("\r\n", "\n").replace('\r', "\n");
    assert_eq!(decode(&[&out]), [Event { data: text, ..Event::default() }]);

    let mut events = Vec::new();
    let mut small = Decoder::new(16);
    if pieces.iter().any(|piece| small.push(piece, &mut events).is_err()) {
        assert!(small.push(b"\n\n", &mut events).is_err());
    }
    assert!(events.iter().all(|event| event.data.len() <= 16 * 3));
});

fn decode(pieces: &[&[u8]]) -> Vec<Event> {
    let mut decoder = Decoder::new(LIMIT);
    let mut events = Vec::new();
    for piece in pieces {
        decoder.push(piece, &mut events).expect("inputs are shorter than the limit");
    }
    events
}

fn last_boundary(pieces: &[&[u8]]) -> usize {
    let mut boundary = Boundary::new();
    let (mut pos, mut last) = (0, 0);
    for piece in pieces {
        if let Some(end) = boundary.push(piece) {
            assert!(end > 0 && end <= piece.len());
            last = pos + end;
        }
        pos += piece.len();
    }
    last
}
