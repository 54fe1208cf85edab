//! The cursor over the lists of all servers: owns its form, and never what a server's own cursor means.
//!
//! ```text
//! base64url( version (1 byte) | list (1 byte) | for each server that has more:
//!            length of its name (1 byte) | its name | length of its cursor (2 bytes, big-endian) | its cursor )
//! ```
//!
//! Invariant: a cursor names servers, not numbers, so it outlives a change of the configuration as far as that can be.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Federation;
use super::list::List;

const VERSION: u8 = 1;

/// A server's own cursor is kept up to this length, which is what its two bytes can say; a list whose server has a longer
/// one ends there.
pub(super) const MAX_SERVER_CURSOR_BYTES: usize = u16::MAX as usize;

/// Writes the cursor for the servers that have more; `None` where none has.
pub(super) fn write(federation: &Federation, list: List, next: &[(usize, &str)]) -> Option<String> {
    let mut raw = vec![VERSION, list.number()];
    for (server, cursor) in next {
        let name = federation.name(*server);
        let (Ok(name_len), Ok(cursor_len)) = (u8::try_from(name.len()), u16::try_from(cursor.len())) else {
            continue;
        };
        raw.push(name_len);
        raw.extend_from_slice(name.as_bytes());
        raw.extend_from_slice(&cursor_len.to_be_bytes());
        raw.extend_from_slice(cursor.as_bytes());
    }
    (raw.len() > 2).then(|| URL_SAFE_NO_PAD.encode(raw))
}

/// Reads what [`write`] wrote: each server at most once. `None` for anything else, for another list's cursor, and where a
/// server is no longer there.
pub(super) fn read(federation: &Federation, list: List, cursor: &str) -> Option<Vec<(usize, String)>> {
    let raw = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let mut rest = raw.strip_prefix(&[VERSION, list.number()])?;
    let mut next: Vec<(usize, String)> = Vec::new();
    while let [name_len, after @ ..] = rest {
        let (name, after) = after.split_at_checked(usize::from(*name_len))?;
        let (cursor_len, after) = after.split_first_chunk()?;
        let (cursor, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*cursor_len)))?;
        rest = after;
        let server = federation.server(std::str::from_utf8(name).ok()?)?;
        if next.iter().any(|(other, _)| *other == server) {
            return None;
        }
        next.push((server, std::str::from_utf8(cursor).ok()?.to_owned()));
    }
    (!next.is_empty()).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back_as_they_were_written() {
        let all = Federation::new(["a", "b_c", "d"]);
        let long = "é".repeat(1000);
        for next in [vec![(0, "")], vec![(2, "x"), (0, "{\"page\":2}")], vec![(1, &*long), (2, "\0")]] {
            let cursor = write(&all, List::Tools, &next).unwrap();
            let read_back = read(&all, List::Tools, &cursor).unwrap();
            assert!(read_back.iter().map(|(server, cursor)| (*server, &**cursor)).eq(next));
            assert_eq!(read(&all, List::Prompts, &cursor), None);
            assert_eq!(read(&Federation::new(["x"]), List::Tools, &cursor), None);
            for cut in 0..cursor.len() {
                // Whatever a shorter one means, it is not the same and no panic.
                assert_ne!(read(&all, List::Tools, &cursor[..cut]).as_ref(), Some(&read_back));
            }
        }
        assert_eq!(write(&all, List::Tools, &[]), None);
        let too_long = "x".repeat(MAX_SERVER_CURSOR_BYTES + 1);
        assert_eq!(write(&all, List::Tools, &[(0, &too_long)]), None);
    }

    #[test]
    fn strangers_cursors_are_none() {
        let all = Federation::new(["a", "b"]);
        let encoded = |raw: &[u8]| URL_SAFE_NO_PAD.encode(raw);
        for stranger in [
            String::new(),
            "2".to_owned(),
            "not base64!".to_owned(),
            encoded(b""),
            encoded(b"\x01\x00"),
            encoded(b"\x02\x00\x01a\x00\x00"),
            encoded(b"\x01\x00\x01c\x00\x00"),
            encoded(b"\x01\x00\x01a\x00"),
            encoded(b"\x01\x00\x01a\x00\x02x"),
            encoded(b"\x01\x00\xffa\x00\x00"),
            encoded(b"\x01\x00\x01a\x00\x01\xff"),
            encoded(b"\x01\x00\x01a\x00\x00\x01a\x00\x00"),
        ] {
            assert_eq!(read(&all, List::Tools, &stranger), None, "{stranger}");
        }
        assert_eq!(
            read(&all, List::Tools, &encoded(b"\x01\x00\x01a\x00\x00")),
            Some(vec![(0, String::new())])
        );
    }
}
