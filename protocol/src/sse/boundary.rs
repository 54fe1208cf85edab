//! Owns the search for event boundaries in a stream that is relayed. It never looks at fields.

/// Finds the ends of events, incrementally. An event ends at an empty line; lines end with LF, CR or CR LF, which may be
/// split anywhere.
///
/// When a stream is cut between the CR and the LF that end an event, the CR already counts as the event's end; the LF
/// comes out as a boundary of its own, so that it is not kept back until the next event.
#[derive(Clone, Debug)]
pub struct Boundary {
    /// Nothing of the current line has been seen.
    at_line_start: bool,
    last: LastByte,
}

/// What the last byte of the previous push was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LastByte {
    Other,
    /// A CR that ended a line; an LF right behind it belongs to the same line end.
    LineCr,
    /// The same, and the line was empty.
    EventCr,
}

impl Default for Boundary {
    fn default() -> Self {
        Self { at_line_start: true, last: LastByte::Other }
    }
}

impl Boundary {
    /// A finder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the stream's next bytes; returns the offset just after the last event that is complete in them.
    pub fn push(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut pos = 0;
        let mut end = None;
        if self.last != LastByte::Other && bytes.first() == Some(&b'\n') {
            pos = 1;
            end = (self.last == LastByte::EventCr).then_some(pos);
        }
        if !bytes.is_empty() {
            self.last = LastByte::Other;
        }
        while let Some(line_len) = memchr::memchr2(b'\n', b'\r', &bytes[pos..]) {
            let line_end = pos + line_len;
            let is_empty = self.at_line_start && line_len == 0;
            pos = line_end + 1;
            if bytes[line_end] == b'\r' {
                match bytes.get(pos) {
                    Some(b'\n') => pos += 1,
                    Some(_) => {}
                    None => self.last = if is_empty { LastByte::EventCr } else { LastByte::LineCr },
                }
            }
            if is_empty {
                end = Some(pos);
            }
            self.at_line_start = true;
        }
        self.at_line_start &= pos == bytes.len();
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_end_at_empty_lines() {
        for (stream, end) in [
            ("", None),
            ("data: a\n", None),
            ("data: a\n\n", Some(9)),
            ("data: a\n\ndata: b", Some(9)),
            ("data: a\n\ndata: b\r\r", Some(18)),
            ("data: a\r\n\r\n", Some(11)),
            ("data: a\r\n\r\nx", Some(11)),
            ("data: a\r\r\n", Some(10)),
            ("data: a\n\r", Some(9)),
            ("data: a\r\ndata: b\r\n", None),
            (":\n\n", Some(3)),
            ("\n", Some(1)),
            ("\r\n", Some(2)),
            ("x\n \n", None),
        ] {
            assert_eq!(Boundary::new().push(stream.as_bytes()), end, "{stream:?}");
        }
    }

    #[test]
    fn an_event_is_whole_wherever_the_stream_is_split() {
        let stream = b":c\n\ndata: a\r\n\r\nevent: e\rdata: b\r\rid: 1\r\ndata: c\r\n\n\r\ndata: d\n";
        // The ends of events, by the grammar; a CR that may yet become CR LF counts too.
        let ends = [4, 15, 33, 50, 52];
        for piece in 1..=stream.len() {
            let mut boundary = Boundary::new();
            let mut pos = 0;
            for part in stream.chunks(piece) {
                let found = boundary.push(part).map(|end| pos + end);
                pos += part.len();
                let last = ends.iter().copied().filter(|&end| end <= pos && end > pos - part.len()).max();
                // Only a cut between CR and LF gives one boundary more: the CR before the LF.
                match found {
                    Some(found) if Some(found) != last => {
                        assert!(
                            stream[found - 1] == b'\r' && ends.contains(&(found + 1)),
                            "{piece}: {found}"
                        );
                    }
                    found => assert_eq!(found, last, "pieces of {piece}, up to {pos}"),
                }
            }
        }
    }

    #[test]
    fn an_empty_push_changes_nothing() {
        let mut boundary = Boundary::new();
        assert_eq!(boundary.push(b"data: a\r\n\r"), Some(10));
        assert_eq!(boundary.push(b""), None);
        assert_eq!(boundary.push(b"\n"), Some(1));
        assert_eq!(boundary.push(b""), None);
        assert_eq!(boundary.push(b"data: b\n"), None);
        assert_eq!(boundary.push(b""), None);
        assert_eq!(boundary.push(b"\n"), Some(1));
    }
}
