//! Claim: however small the pieces in which a reply arrives, its bytes are looked at once. Setup: what must not be looked at
//! again is overwritten with bytes that would be an error, or would end the reply too early.

use super::{LIMIT, bulk};
use crate::resp::{ReadError, Reader, Reply};

const BULK_BYTES: usize = 1 << 20;
const ELEMENTS: usize = 10_000;

#[test]
fn a_large_string_is_read_when_it_is_there() {
    let header = format!("${BULK_BYTES}\r\n").into_bytes();
    let wire = [&header[..], &vec![b'x'; BULK_BYTES], b"\r\n"].concat();
    let mut reader = Reader::new(2 * BULK_BYTES);
    assert_eq!(reader.read(&header), Ok(None));

    let spoilt = vec![b'?'; wire.len()];
    for len in header.len()..wire.len() {
        assert_eq!(reader.read(&spoilt[..len]), Ok(None), "{len} bytes");
    }
    let expected = Reply::Bulk(vec![b'x'; BULK_BYTES].into());
    assert_eq!(reader.read(&wire), Ok(Some((expected, wire.len()))));
}

#[test]
fn the_elements_of_an_array_are_read_once() {
    let element = b"$3\r\nabc\r\n";
    let mut wire = [format!("*{ELEMENTS}\r\n").as_bytes(), &element.repeat(ELEMENTS)].concat();
    let first = wire.len() - ELEMENTS * element.len();
    let mut reader = Reader::new(LIMIT);
    for len in 0..wire.len() {
        assert_eq!(reader.read(&wire[..len]), Ok(None), "{len} bytes");
        let behind =
            len.checked_sub(first).map_or(0, |elements| first + elements / element.len() * element.len());
        wire[behind.saturating_sub(element.len())..behind].fill(b'?');
    }
    let expected = Reply::Array(vec![bulk("abc"); ELEMENTS]);
    assert_eq!(reader.read(&wire), Ok(Some((expected, wire.len()))));
}

#[test]
fn a_line_is_searched_once() {
    let text = "x".repeat(100_000);
    let wire = format!("-{text}\r\n").into_bytes();
    let mut spoilt = wire.clone();
    let mut reader = Reader::new(LIMIT);
    for len in 0..wire.len() {
        assert_eq!(reader.read(&spoilt[..len]), Ok(None), "{len} bytes");
        if let Some(last) = len.checked_sub(1).filter(|last| (1..wire.len() - 2).contains(last)) {
            spoilt[last] = b'\r';
        }
    }
    assert_eq!(reader.read(&wire), Ok(Some((Reply::Error(text.into()), wire.len()))));
}

#[test]
fn the_next_reply_is_read_from_its_beginning() {
    let mut reader = Reader::new(LIMIT);
    let first = b"*2\r\n-a long line\r\n$3\r\nabc\r\n";
    for len in 0..first.len() {
        assert_eq!(reader.read(&first[..len]), Ok(None));
    }
    assert!(matches!(reader.read(first), Ok(Some(_))));
    assert_eq!(reader.read(b":1\r\n"), Ok(Some((Reply::Integer(1), 4))));

    assert_eq!(reader.read(b"*2\r\n:1\r\n?"), Err(ReadError::UnexpectedType { byte: b'?', at: 8 }));
    assert_eq!(reader.read(b":2\r\n"), Ok(Some((Reply::Integer(2), 4))));
}

#[test]
fn fewer_or_other_bytes_than_before_do_no_harm() {
    let wire = b"*2\r\n$3\r\nabc\r\n-some error\r\n";
    for len in 0..wire.len() {
        for other in
            [&b""[..], b"*", b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n", b"$9\r\n", &wire[..len / 2]]
        {
            let mut reader = Reader::new(LIMIT);
            assert_eq!(reader.read(&wire[..len]), Ok(None));
            if let Ok(Some((_, taken))) = reader.read(other) {
                assert!(taken <= other.len());
            }
        }
    }
}
