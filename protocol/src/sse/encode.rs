//! Owns the writing of events.

/// A comment that keeps a quiet stream open. It ends with an empty line, so that relays pass it on at once.
pub const KEEP_ALIVE: &[u8] = b":\n\n";

/// Appends an event. Line ends in `data` (LF, CR, CR LF) become several `data` lines, so a reader gets LF for each;
/// line ends in `event` and `id` are left out, they would end the field.
pub fn write_event(out: &mut Vec<u8>, event: Option<&str>, id: Option<&str>, data: &[u8]) {
    for (name, value) in [("event: ", event), ("id: ", id)] {
        if let Some(value) = value {
            out.extend_from_slice(name.as_bytes());
            out.extend(value.bytes().filter(|&byte| !matches!(byte, b'\n' | b'\r')));
            out.push(b'\n');
        }
    }
    write_data(out, data);
    out.push(b'\n');
}

/// Appends the `data` lines.
pub(super) fn write_data(out: &mut Vec<u8>, data: &[u8]) {
    let mut rest = data;
    while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
        write_data_line(out, &rest[..end]);
        let line_end = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[end + line_end..];
    }
    write_data_line(out, rest);
}

fn write_data_line(out: &mut Vec<u8>, line: &[u8]) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(line);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::{Boundary, Decoder, Event};

    #[test]
    fn what_is_written_reads_back_as_one_event() {
        for (event, id, data, expected) in [
            (None, None, "{\"a\":1}", "{\"a\":1}"),
            (Some("message"), Some("7-1"), "x", "x"),
            (Some("end\r\npoint"), Some("1\n\ndata: injected"), "x", "x"),
            (None, None, "", ""),
            (None, None, " a", " a"),
            (None, None, "a\nb\r\nc\rd\n", "a\nb\nc\nd\n"),
            (None, None, "\n\n", "\n\n"),
        ] {
            let mut out = Vec::new();
            write_event(&mut out, event, id, data.as_bytes());
            assert_eq!(Boundary::new().push(&out), Some(out.len()), "{data:?}");
            let mut events = Vec::new();
            Decoder::new(1000).push(&out, &mut events).unwrap();
            let without_line_ends = |text: &str| text.replace(['\r', '\n'], "");
            let expected = Event {
                event: event.map(without_line_ends),
                id: id.map(without_line_ends),
                data: expected.to_owned(),
                retry: None,
            };
            assert_eq!(events, [expected]);
        }
    }

    #[test]
    fn a_keep_alive_is_a_boundary_and_no_event() {
        assert_eq!(Boundary::new().push(KEEP_ALIVE), Some(KEEP_ALIVE.len()));
        let mut events = Vec::new();
        Decoder::new(10).push(KEEP_ALIVE, &mut events).unwrap();
        assert_eq!(events, []);
    }
}
