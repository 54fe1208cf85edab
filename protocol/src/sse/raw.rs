//! Owns the look into events that are relayed as they are: their bytes, and their data without a copy where that can be.

use std::borrow::Cow;

use super::Boundary;
use super::encode::write_data;

/// One event's bytes, its empty line included. Comments between two events count to the second.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawEvent<'a> {
    /// All bytes, to be passed on.
    pub bytes: &'a [u8],
    /// The `data` lines joined by line feeds; borrowed when there is one. `None` when there is none: no reader is given
    /// such an event.
    pub data: Option<Cow<'a, [u8]>>,
}

impl<'a> RawEvent<'a> {
    /// The `id` that a reader would resume after; the last one where there are several. `None` where there is none, or where
    /// a reader must ignore it.
    #[must_use]
    pub fn id(&self) -> Option<&'a [u8]> {
        values(self.bytes, b"id").filter(|id| !id.contains(&0)).last()
    }

    /// How long a reader shall wait before it connects again, in milliseconds.
    #[must_use]
    pub fn retry_ms(&self) -> Option<u64> {
        let digits = |value: &&[u8]| !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let last = values(self.bytes, b"retry").filter(digits).last()?;
        std::str::from_utf8(last).ok()?.parse().ok()
    }

    /// Appends the event with other data, and with what `id` makes of its id; its other lines stay.
    pub fn write_with(&self, out: &mut Vec<u8>, data: &[u8], id: impl Fn(&[u8]) -> Vec<u8>) {
        let mut has_data = false;
        for line in lines(self.bytes) {
            if value_of(line, b"data").is_some() {
                if !std::mem::replace(&mut has_data, true) {
                    write_data(out, data);
                }
            } else if let Some(value) = value_of(line, b"id") {
                out.extend_from_slice(b"id: ");
                out.extend_from_slice(&id(value));
                out.push(b'\n');
            } else {
                out.extend_from_slice(line);
            }
        }
    }
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
    for value in values(event, b"data") {
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

/// The values of all lines of this field.
fn values<'a>(event: &'a [u8], field: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    lines(event).filter_map(move |line| value_of(line, field))
}

/// The lines, each with its end.
fn lines(event: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = event;
    std::iter::from_fn(move || {
        let (line, after) = rest.split_at_checked(line_len(rest)).filter(|(line, _)| !line.is_empty())?;
        rest = after;
        Some(line)
    })
}

/// The line's value, when it is of this field.
fn value_of<'a>(line: &'a [u8], field: &[u8]) -> Option<&'a [u8]> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let value = line.strip_prefix(field)?;
    match value.strip_prefix(b":") {
        Some(value) => Some(value.strip_prefix(b" ").unwrap_or(value)),
        None => value.is_empty().then_some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_a_reader_would() {
        for (event, id, retry_ms) in [
            ("id: 7\nretry: 250\ndata:\n\n", Some("7"), Some(250)),
            ("data: id: 7\n\n", None, None),
            ("id:a\r\nid:  b\r\nretry:x\r\n\r\n", Some(" b"), None),
            ("id\nretry:\nidx: 1\n\n", Some(""), None),
            ("id: a\u{0}\nretry: 99999999999999999999\n\n", None, None),
        ] {
            let found = raw_events(event.as_bytes()).next().unwrap();
            assert_eq!((found.id(), found.retry_ms()), (id.map(str::as_bytes), retry_ms), "{event:?}");
        }
    }

    #[test]
    fn an_event_is_written_anew_with_other_data_and_id() {
        for (event, expected) in [
            ("data: a\n\n", "data: x\ndata: y\n\n"),
            (":c\r\nid:7\r\ndata:a\r\nevent: e\r\ndata: b\r\n\r\n", {
                ":c\r\nid: <7>\ndata: x\ndata: y\nevent: e\r\n\r\n"
            }),
            ("id\nretry: 5\n\n", "id: <>\nretry: 5\n\n"),
        ] {
            let mut out = Vec::new();
            let event = raw_events(event.as_bytes()).next().unwrap();
            event.write_with(&mut out, b"x\ny", |id| [b"<", id, b">"].concat());
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

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
