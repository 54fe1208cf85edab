//! Owns media types: what a client accepts, what a body is (RFC 9110, sections 8.3 and 12.5.1).

use super::RequestHead;

/// A media type that the gateway answers with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MediaKind {
    /// `application/json`.
    Json,
    /// `text/event-stream`.
    EventStream,
}

impl MediaKind {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Json => b"application/json",
            Self::EventStream => b"text/event-stream",
        }
    }

    fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::Json => ("application", "json"),
            Self::EventStream => ("text", "event-stream"),
        }
    }
}

/// Whether the request's `Accept` lines, all together, take `kind`. Without any such line everything is accepted
/// (RFC 9110, section 12.5.1). The most specific range decides; `q=0` refuses; other parameters are ignored.
pub fn accepts(head: &RequestHead, buf: &[u8], kind: MediaKind) -> bool {
    let Some(first) = head.accept else { return true };
    // What nearly all clients send: plain names. No other range is narrower, so none can take the name back.
    let first = first.of(buf);
    if memchr::memchr2(b';', b'"', first).is_none()
        && first.split(|&byte| byte == b',').any(|range| range.trim_ascii().eq_ignore_ascii_case(kind.name()))
    {
        return true;
    }
    // The specificity of the best range so far, and whether it accepts.
    let mut best = (0, false);
    for range in head.headers.all(buf, "Accept").flat_map(|line| split_unquoted(line, b',')) {
        let mut parts = split_unquoted(range, b';');
        let specificity = parts.next().map_or(0, |name| specificity(name, kind));
        let accepted = !parts.any(is_zero_weight);
        if specificity > best.0 {
            best = (specificity, accepted);
        } else if specificity == best.0 {
            best.1 |= accepted && specificity > 0;
        }
    }
    best.1
}

/// Whether a `Content-Type` is `application/json`, with any parameters; a `charset` must be UTF-8.
pub fn is_json(content_type: &[u8]) -> bool {
    is_type(content_type, MediaKind::Json)
}

/// Whether a `Content-Type` is `text/event-stream`, with any parameters; a `charset` must be UTF-8.
pub fn is_event_stream(content_type: &[u8]) -> bool {
    is_type(content_type, MediaKind::EventStream)
}

fn is_type(content_type: &[u8], kind: MediaKind) -> bool {
    if content_type.eq_ignore_ascii_case(kind.name()) {
        return true;
    }
    let mut parts = split_unquoted(content_type, b';');
    parts.next().is_some_and(|name| specificity(name, kind) == EXACT)
        && parts.filter_map(|parameter| parameter_value(parameter, "charset")).all(is_utf8_name)
}

const EXACT: u8 = 3;

/// How narrowly a media range names `kind`: exactly (3), by its type (2), by `*/*` (1), or not at all (0).
fn specificity(range: &[u8], kind: MediaKind) -> u8 {
    let (wanted_type, wanted_subtype) = kind.parts();
    let Some(slash) = memchr::memchr(b'/', range) else { return 0 };
    let (found_type, found_subtype) = (&range[..slash], &range[slash + 1..]);
    let same_type = found_type.eq_ignore_ascii_case(wanted_type.as_bytes());
    match found_subtype {
        b"*" if found_type == b"*" => 1,
        b"*" if same_type => 2,
        _ if same_type && found_subtype.eq_ignore_ascii_case(wanted_subtype.as_bytes()) => EXACT,
        _ => 0,
    }
}

fn is_zero_weight(parameter: &[u8]) -> bool {
    parameter_value(parameter, "q").is_some_and(|weight| {
        weight.first() == Some(&b'0') && weight.iter().all(|b| matches!(b, b'0' | b'.'))
    })
}

fn is_utf8_name(charset: &[u8]) -> bool {
    let name = charset.strip_prefix(b"\"").and_then(|name| name.strip_suffix(b"\"")).unwrap_or(charset);
    name.eq_ignore_ascii_case(b"utf-8") || name.eq_ignore_ascii_case(b"utf8")
}

/// The value of a parameter, when it has this name.
fn parameter_value<'a>(parameter: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let equals = memchr::memchr(b'=', parameter)?;
    let found = parameter[..equals].trim_ascii_end();
    found.eq_ignore_ascii_case(name.as_bytes()).then(|| parameter[equals + 1..].trim_ascii_start())
}

/// The parts between separators that stand outside quoted strings, trimmed.
fn split_unquoted(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |&byte| {
        let was_escaped = std::mem::take(&mut escaped);
        match byte {
            b'\\' if quoted && !was_escaped => escaped = true,
            b'"' if !was_escaped => quoted = !quoted,
            _ => {}
        }
        byte == separator && !quoted
    })
    .map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{HeadLimits, parse_request};

    fn accepted(lines: &[&str]) -> (bool, bool) {
        let mut buf = b"POST /mcp HTTP/1.1\r\nHost: x\r\n".to_vec();
        for line in lines {
            buf.extend_from_slice(format!("accept: {line}\r\n").as_bytes());
        }
        buf.extend_from_slice(b"\r\n");
        let head = parse_request(&buf, &HeadLimits::default()).unwrap().unwrap();
        (accepts(&head, &buf, MediaKind::Json), accepts(&head, &buf, MediaKind::EventStream))
    }

    #[test]
    fn accept_lines_are_taken_together_and_by_specificity() {
        for (lines, expected) in [
            (&[][..], (true, true)),
            (&["application/json, text/event-stream"], (true, true)),
            (&["application/json", "text/event-stream"], (true, true)),
            (&["application/json"], (true, false)),
            (&["TEXT/Event-Stream;charset=utf-8"], (false, true)),
            (&["*/*"], (true, true)),
            (&["application/*"], (true, false)),
            (&["text/*;q=0.1"], (false, true)),
            (&["*/*, text/event-stream;q=0"], (true, false)),
            (&["text/event-stream;q=0.000, */*"], (true, false)),
            (&["application/json;q=0.001,text/event-stream ; Q=0"], (true, false)),
            (&["application/json;profile=\"a,text/event-stream\""], (true, false)),
            (&["application/json;p=\"\\\",text/event-stream\""], (true, false)),
            (&["text/html, application/jsonx, json"], (false, false)),
            (&["*/json"], (false, false)),
            (&[""], (false, false)),
            (&[",, application/json ,"], (true, false)),
        ] {
            assert_eq!(accepted(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn content_types_ignore_parameters_but_the_charset() {
        for (text, json, stream) in [
            ("application/json", true, false),
            ("Application/JSON; charset=UTF-8", true, false),
            ("application/json;charset=\"utf-8\";x=y", true, false),
            ("application/json; x=\"a;charset=latin1\"", true, false),
            ("application/json; charset=latin1", false, false),
            ("application/json+x", false, false),
            ("application/*", false, false),
            ("application", false, false),
            ("", false, false),
            ("text/event-stream", false, true),
            ("text/event-stream;charset=utf-8", false, true),
            ("text/event-stream, application/json", false, false),
        ] {
            assert_eq!(
                (is_json(text.as_bytes()), is_event_stream(text.as_bytes())),
                (json, stream),
                "{text}"
            );
        }
    }
}
