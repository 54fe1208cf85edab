//! Replies of every type in both versions, whole and in pieces, and the limits.

mod generated;
mod pieces;

use super::*;

const LIMIT: usize = 1 << 20;

fn bulk(text: &str) -> Reply {
    Reply::Bulk(text.as_bytes().into())
}

fn status(text: &str) -> Reply {
    Reply::Status(text.into())
}

/// What Redis sends, and what it means.
fn examples() -> Vec<(&'static [u8], Reply)> {
    use Reply::{Array, Boolean, Double, Error, Integer, Map, Null, Ok, Push};
    vec![
        (b"+OK\r\n", Ok),
        (b"+PONG\r\n", status("PONG")),
        (b"+\r\n", status("")),
        (b"+OKAY\r\n", status("OKAY")),
        (b"+\xFF\r\n", status("\u{FFFD}")),
        (b"-ERR unknown command\r\n", Error("ERR unknown command".into())),
        (b"-MOVED 3999 127.0.0.1:6381\r\n", Error("MOVED 3999 127.0.0.1:6381".into())),
        (b"!21\r\nSYNTAX invalid\nsyntax\r\n", Error("SYNTAX invalid\nsyntax".into())),
        (b":0\r\n", Integer(0)),
        (b":1\r\n", Integer(1)),
        (b":+5\r\n", Integer(5)),
        (b":-9223372036854775808\r\n", Integer(i64::MIN)),
        (b":9223372036854775807\r\n", Integer(i64::MAX)),
        (b"$0\r\n\r\n", bulk("")),
        (b"$5\r\na\r\n+b\r\n", bulk("a\r\n+b")),
        (b"=8\r\ntxt:some\r\n", bulk("some")),
        (
            b"(3492890328409238509324850943850943825024385\r\n",
            bulk("3492890328409238509324850943850943825024385"),
        ),
        (b",1.5\r\n", Double(1.5)),
        (b",10\r\n", Double(10.0)),
        (b",inf\r\n", Double(f64::INFINITY)),
        (b",-inf\r\n", Double(f64::NEG_INFINITY)),
        (b"#t\r\n", Boolean(true)),
        (b"#f\r\n", Boolean(false)),
        (b"_\r\n", Null),
        (b"$-1\r\n", Null),
        (b"*-1\r\n", Null),
        (b"*0\r\n", Array(vec![])),
        (b"%0\r\n", Map(vec![])),
        (b"~2\r\n$1\r\na\r\n*0\r\n", Array(vec![bulk("a"), Array(vec![])])),
        (b"*3\r\n$1\r\na\r\n$-1\r\n*-1\r\n", Array(vec![bulk("a"), Null, Null])),
        (b"*2\r\n*2\r\n:1\r\n*1\r\n+OK\r\n_\r\n", {
            Array(vec![Array(vec![Integer(1), Array(vec![Ok])]), Null])
        }),
        (b"%3\r\n$1\r\nz\r\n:3\r\n:1\r\n*1\r\n#t\r\n$1\r\nz\r\n%0\r\n", {
            let second = (Integer(1), Array(vec![Boolean(true)]));
            Map(vec![(bulk("z"), Integer(3)), second, (bulk("z"), Map(vec![]))])
        }),
        (b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n", {
            Push(vec![bulk("invalidate"), Array(vec![bulk("k")])])
        }),
        (b">2\r\n$10\r\ninvalidate\r\n_\r\n", Push(vec![bulk("invalidate"), Null])),
        (b"|1\r\n+ttl\r\n:3600\r\n_\r\n", Null),
        (b"*2\r\n|1\r\n+a\r\n|1\r\n+b\r\n*1\r\n:1\r\n:2\r\n:3\r\n|0\r\n:4\r\n", {
            Array(vec![Integer(3), Integer(4)])
        }),
    ]
}

/// Reads all replies that have arrived; the bytes left over stay in `buffer`.
fn drain(reader: &mut Reader, buffer: &mut Vec<u8>) -> Result<Vec<Reply>, ReadError> {
    let mut replies = Vec::new();
    while let Some((reply, len)) = reader.read(buffer)? {
        buffer.drain(..len);
        replies.push(reply);
    }
    Ok(replies)
}

fn read_pieces<'a>(max: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Reply>, ReadError> {
    let (mut reader, mut buffer, mut replies) = (Reader::new(max), Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        replies.extend(drain(&mut reader, &mut buffer)?);
    }
    assert!(buffer.is_empty() || !matches!(Reader::new(max).read(&buffer), Ok(Some(_))));
    Ok(replies)
}

#[test]
fn every_type_of_both_versions() {
    for (wire, expected) in examples() {
        let mut reader = Reader::new(LIMIT);
        assert_eq!(reader.read(wire), Ok(Some((expected.clone(), wire.len()))), "{}", wire.escape_ascii());
        let followed = [wire, b"+next"].concat();
        assert_eq!(reader.read(&followed), Ok(Some((expected, wire.len()))), "{}", wire.escape_ascii());
    }
    let nan = Reader::new(LIMIT).read(b",nan\r\n");
    assert!(matches!(nan, Ok(Some((Reply::Double(number), 6))) if number.is_nan()));
}

#[test]
fn a_reply_split_at_every_byte_is_the_same() {
    for (wire, expected) in examples() {
        for cut in 0..wire.len() {
            let mut reader = Reader::new(LIMIT);
            assert_eq!(reader.read(&wire[..cut]), Ok(None), "{} cut at {cut}", wire.escape_ascii());
            assert_eq!(reader.read(wire), Ok(Some((expected.clone(), wire.len()))), "cut at {cut}");
        }
        assert_eq!(read_pieces(LIMIT, wire.chunks(1)), Ok(vec![expected]), "{}", wire.escape_ascii());
    }
}

#[test]
fn replies_and_pushes_follow_each_other() {
    let (wires, replies): (Vec<_>, Vec<_>) = examples().into_iter().unzip();
    let stream = wires.concat();
    assert!(replies.iter().any(|reply| matches!(reply, Reply::Push(_))));
    for size in [1, 2, 3, 7, 64, stream.len()] {
        assert_eq!(read_pieces(LIMIT, stream.chunks(size)), Ok(replies.clone()), "pieces of {size}");
    }
}

/// The error of a stream, the same however it arrives; and the fewest bytes that show it.
fn error_of(max: usize, wire: &[u8]) -> (ReadError, usize) {
    let whole = read_pieces(max, [wire]).expect_err("an error");
    assert_eq!(read_pieces(max, wire.chunks(1)), Err(whole), "{}", wire.escape_ascii());
    let shows = |len: &usize| read_pieces(max, [&wire[..*len]]).is_err();
    (whole, (0..=wire.len()).find(shows).expect("the whole shows it"))
}

#[test]
fn what_is_not_resp_is_refused() {
    for (wire, at) in [
        (&b"$3\r\nabcd\r\n"[..], 0),
        (b"$3\r\nabc+\n", 0),
        (b"*1\r\n$1\r\nabc", 4),
        (b"$-2\r\n", 0),
        (b"$\r\n", 0),
        (b"$+1\r\n", 0),
        (b"$1 \r\n", 0),
        (b"*1x\r\n", 0),
        (b"%-1\r\n", 0),
        (b"$1\r+", 0),
        (b"$00000000000000000000000000000001\r\n", 0),
        (b"$99999999999999999999\r\n", 0),
        (b":\r\n", 0),
        (b":12a\r\n", 0),
        (b":9223372036854775808\r\n", 0),
        (b",one\r\n", 0),
        (b"#x\r\n", 0),
        (b"=3\r\ntxt\r\n", 0),
        (b"=5\r\nabc:d\r\n", 0),
        (b"+a\rb\r\n", 0),
        (b"*2\r\n:1\r\n:x\r\n", 8),
    ] {
        assert_eq!(error_of(LIMIT, wire).0, ReadError::Malformed { at }, "{}", wire.escape_ascii());
    }
}

#[test]
fn types_that_redis_never_sends_are_refused() {
    for (wire, byte, at) in [
        (&b"HELLO 3\r\n"[..], b'H', 0),
        (b"\r\n", b'\r', 0),
        (b"HTTP/1.1 400 Bad Request\r\n", b'H', 0),
        (b"$?\r\n;4\r\nabcd\r\n;0\r\n", b'?', 1),
        (b"*?\r\n:1\r\n.\r\n", b'?', 1),
        (b"%?\r\n.\r\n", b'?', 1),
        (b"*1\r\n$?\r\n", b'?', 5),
        (b";4\r\nabcd\r\n", b';', 0),
        (b".\r\n", b'.', 0),
        (b"*2\r\n+a\r\n>1\r\n+b\r\n", b'>', 8),
        (b"*1\r\nx", b'x', 4),
    ] {
        assert_eq!(
            error_of(LIMIT, wire).0,
            ReadError::UnexpectedType { byte, at },
            "{}",
            wire.escape_ascii()
        );
    }
}

#[test]
fn what_is_announced_too_large_is_refused_with_its_header() {
    let max = 1000;
    for (wire, at_least) in [
        (&b"$536870912\r\n"[..], 12 + 536_870_912 + 2),
        (b"!536870912\r\n", 12 + 536_870_912 + 2),
        (b"=536870912\r\n", 12 + 536_870_912 + 2),
        (b"*1\r\n*1\r\n$536870912\r\n", 20 + 536_870_912 + 2),
        (b"*1000000000\r\n", 13 + 3_000_000_000),
        (b"%1000000000\r\n", 13 + 6_000_000_000),
        (b"|1000000000\r\n", 13 + 6_000_000_000),
        (b">1000000000\r\n", 13 + 3_000_000_000),
        // Each could be; together they cannot.
        (b"*300\r\n*300\r\n", 12 + 299 * 3 + 300 * 3),
        (b"$18446744073709551615\r\n", u64::MAX),
        (b"%18446744073709551615\r\n", u64::MAX),
    ] {
        let expected = (ReadError::TooLarge { at_least, max }, wire.len());
        assert_eq!(error_of(max, wire), expected, "{}", wire.escape_ascii());
    }
}

#[test]
fn the_limit_is_the_length_on_the_wire() {
    let bulk = |len: usize| [format!("${len}\r\n").as_bytes(), &vec![b'x'; len], b"\r\n"].concat();
    let line = |len: usize| [b"+", &vec![b'x'; len][..], b"\r\n"].concat();
    for fits in [bulk(92), line(97)] {
        assert_eq!(fits.len(), if fits[0] == b'$' { 99 } else { 100 });
        assert!(matches!(Reader::new(100).read(&fits), Ok(Some((_, len))) if len == fits.len()));
    }
    let (error, shown) = error_of(100, &bulk(94));
    assert_eq!((error, shown), (ReadError::TooLarge { at_least: 101, max: 100 }, 5));
    let (error, shown) = error_of(100, &line(98));
    assert_eq!((error, shown), (ReadError::TooLarge { at_least: 101, max: 100 }, 100));
    let (error, _) = error_of(100, &[b"*2\r\n", &line(48)[..], &line(48)].concat());
    assert_eq!(error, ReadError::TooLarge { at_least: 101, max: 100 });
    assert_eq!(error_of(6, b"*1\r\n$-1\r\n"), (ReadError::TooLarge { at_least: 7, max: 6 }, 4));
    assert_eq!(error_of(8, b"*1\r\n$-1\r\n"), (ReadError::TooLarge { at_least: 9, max: 8 }, 9));
    // A stream of attributes is part of the reply that never comes.
    let (error, _) = error_of(100, &b"|0\r\n".repeat(50));
    assert_eq!(error, ReadError::TooLarge { at_least: 104, max: 100 });
}

#[test]
fn nesting_is_limited() {
    for opening in [&b"*1\r\n"[..], b"~1\r\n", b"%1\r\n:1\r\n", b"|1\r\n:1\r\n"] {
        let (error, shown) = error_of(1 << 24, &opening.repeat(100_000));
        assert_eq!(error, ReadError::TooDeep { max: MAX_DEPTH });
        assert!(shown <= opening.len() * (MAX_DEPTH + 1));
    }
    let deepest = [&b"*1\r\n".repeat(MAX_DEPTH)[..], b":1\r\n"].concat();
    assert!(matches!(Reader::new(LIMIT).read(&deepest), Ok(Some((_, len))) if len == deepest.len()));
}

#[test]
fn elements_are_limited_on_all_levels_together() {
    let half = MAX_ELEMENTS / 2;
    let wire = [b"*2\r\n", format!("*{half}\r\n").as_bytes(), &b"_\r\n".repeat(half)].concat();
    let (error, _) = error_of_few(&[&wire[..], format!("*{half}\r\n").as_bytes()].concat());
    assert_eq!(error, ReadError::TooManyElements { count: MAX_ELEMENTS as u64 + 2, max: MAX_ELEMENTS });
    let fits = [&wire[..], format!("*{}\r\n", half - 2).as_bytes(), &b"_\r\n".repeat(half - 2)].concat();
    assert!(matches!(Reader::new(usize::MAX).read(&fits), Ok(Some((_, len))) if len == fits.len()));
}

/// As [`error_of`], for streams too long to try every length.
fn error_of_few(wire: &[u8]) -> (ReadError, usize) {
    let whole = read_pieces(usize::MAX, [wire]).expect_err("an error");
    assert_eq!(read_pieces(usize::MAX, wire.chunks(100_000)), Err(whole));
    (whole, wire.len())
}
