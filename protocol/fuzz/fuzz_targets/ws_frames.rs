//! Claims: no bytes make the reader panic; what it makes of them does not depend on how they are cut; a text is UTF-8 and
//! within the limit; memory stays within what has arrived; what the writers write is read back by a client's rules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_protocol::ws::{Event, FrameError, MAX_CONTROL_BYTES, Reader, write_close, write_pong, write_text};

const LIMIT: usize = 1000;

fuzz_target!(|input: &[u8]| {
    let Some((&cut, input)) = input.split_first() else { return };
    let whole = read(input, input.len().max(1));
    let pieces = read(input, usize::from(cut).max(1));
    assert_eq!(whole, pieces);
    let (events, error) = whole;
    for event in &events {
        check(event);
    }
    if let Some(error) = error {
        assert!([1002, 1003, 1007, 1009].contains(&error.close_code()));
        assert!(!error.label().is_empty());
    }
});

fn read(input: &[u8], pieces: usize) -> (Vec<Event>, Option<FrameError>) {
    let (mut reader, mut events, mut kept, mut arrived) = (Reader::default(), Vec::new(), Vec::new(), 0);
    for piece in input.chunks(pieces) {
        arrived += piece.len();
        kept.extend_from_slice(piece);
        loop {
            let (taken, event) = match reader.read(&kept, LIMIT, Vec::new) {
                Ok(read) => read,
                Err(error) => return (events, Some(error)),
            };
            kept.drain(..taken);
            // A vector doubles, and has a smallest capacity.
            assert!(reader.held() <= 2 * (arrived + 16));
            match event {
                Some(event) => events.push(event),
                None => break,
            }
        }
        // What is left is less than a frame's head.
        assert!(kept.len() < 14);
    }
    (events, None)
}

fn check(event: &Event) {
    let mut out = Vec::new();
    match event {
        Event::Text(text) => {
            assert!(text.len() <= LIMIT && std::str::from_utf8(text).is_ok());
            write_text(&mut out, text);
            assert!(out.ends_with(text) && out[0] == 0x81 && out.len() <= text.len() + 4);
        }
        Event::Ping(payload) => {
            assert!(payload.len() <= MAX_CONTROL_BYTES);
            write_pong(&mut out, payload);
            assert_eq!((out[0], usize::from(out[1])), (0x8a, payload.len()));
        }
        Event::Pong => {}
        Event::Close(code) => {
            assert!(code.is_none_or(|code| (1000..5000).contains(&code) && code != 1005 && code != 1006));
            write_close(&mut out, *code, "reason");
            assert!(out.len() <= 2 + MAX_CONTROL_BYTES);
        }
    }
}
