//! Owns the look into events that are relayed as they are: their bytes, and their data without a copy where that can be.

use std::borrow::Cow;

use super::Boundary;

/// One event's bytes, its empty line included. Comments between two events count to the second.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawEvent<'a> {
    /// All bytes, to be passed on.
    pub bytes: &'a [u8],
    /// The `data` lines joined by line feeds; borrowed when there is one. `None` when there is none: no reader is given
    /// such an event.
    pub data: Option<Cow<'a, [u8]>>,
}

/// The events of bytes that end where [`Boundary::push`] says; what follows the last complete event is left out.
pub fn raw_events(complete: &[u8]) -> impl Iterator<Item = RawEvent<'_>> {
    let mut rest = complete;
    std::iter::from_fn(move || {
        let (bytes, after) = rest.split_at_checked(first_event_len(rest)?)?;
        rest = after;
        Some(RawEvent { bytes, data: data_of(bytes) })
    })
}

/// The length of the first event, when it is complete.
fn first_event_len(bytes: &[u8]) -> Option<usize> {
    let mut boundary = Boundary::new();
    let mut start = 0;
    while start < bytes.len() {
        let len = line_len(&bytes[start..]);
        start += len;
        if boundary.push(&bytes[start - len..start]).is_some() {
            return Some(start);
        }
    }
    None
}

/// The length of the first line, its end included.
fn line_len(bytes: &[u8]) -> usize {
    match memchr::memchr2(b'\n', b'\r', bytes) {
        Some(end) if bytes[end..].starts_with(b"\r\n") => end + 2,
        Some(end) => end + 1,
        None => bytes.len(),
    }
}

fn data_of(event: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut data: Option<Cow<'_, [u8]>> = None;
    let mut rest = event;
    while !rest.is_empty() {
        let (line, after) = rest.split_at(line_len(rest));
        rest = after;
        let Some(value) = data_value(line) else { continue };
        match &mut data {
            None => data = Some(Cow::Borrowed(value)),
            Some(data) => {
                let data = data.to_mut();
                data.push(b'\n');
                data.extend_from_slice(value);
            }
        }
    }
    data
}

/// The value of a `data` line.
fn data_value(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let value = line.strip_prefix(b"data")?;
    match value.strip_prefix(b":") {
        Some(value) => Some(value.strip_prefix(b" ").unwrap_or(value)),
        None => value.is_empty().then_some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_keep_their_bytes_and_show_their_data() {
        for (stream, expected) in [
            ("", vec![]),
            ("data: a", vec![]),
            ("data: a\n\n", vec![("data: a\n\n", Some("a"))]),
            (
                ":c\nid: 1\r\ndata:{}\r\n\r\n\ndata: a\rdata:  b\rdata\r\rdata: cut\n",
                vec![
                    (":c\nid: 1\r\ndata:{}\r\n\r\n", Some("{}")),
                    ("\n", None),
                    ("data: a\rdata:  b\rdata\r\r", Some("a\n b\n")),
                ],
            ),
            (":\n\ndatax: 1\ndata : 2\n\n", vec![(":\n\n", None), ("datax: 1\ndata : 2\n\n", None)]),
            ("data\n\n", vec![("data\n\n", Some(""))]),
        ] {
            let found: Vec<_> = raw_events(stream.as_bytes()).collect();
            let expected: Vec<_> = expected
                .into_iter()
                .map(|(bytes, data)| RawEvent {
                    bytes: bytes.as_bytes(),
                    data: data.map(|data| Cow::Borrowed(data.as_bytes())),
                })
                .collect();
            assert_eq!(found, expected, "{stream:?}");
        }
    }

    #[test]
    fn one_line_of_data_is_not_copied() {
        let data = raw_events(b"event: message\ndata: {}\n\n").next().and_then(|event| event.data);
        assert!(matches!(data, Some(Cow::Borrowed(b"{}"))));
    }
}
