//! Owns the two directions of JSON string contents: escapes to text, text to escapes.
//!
//! It never judges well-formedness: the scanner has done that. Contents that were not scanned decode to something, with
//! U+FFFD where they make no sense; they never panic.

const REPLACEMENT: char = '\u{FFFD}';

/// Appends `text` as a JSON string, quotes included.
pub fn write_json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&b| b < 0x20 || b == b'"' || b == b'\\') {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(control >> 4)], HEX[usize::from(control & 15)]]);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// The value of string contents that have escapes.
pub(crate) fn unescape(raw: &[u8]) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        text.push_str(&String::from_utf8_lossy(&rest[..at]));
        let (value, used) = read_escape(&rest[at..]);
        text.push(value);
        rest = &rest[at + used..];
    }
    text.push_str(&String::from_utf8_lossy(rest));
    text
}

/// Whether the value of string contents that have escapes is `other`.
pub(crate) fn unescaped_eq(raw: &[u8], other: &str) -> bool {
    let (mut raw, mut other) = (raw, other);
    while let Some(at) = memchr::memchr(b'\\', raw) {
        if !other.as_bytes().starts_with(&raw[..at]) {
            return false;
        }
        let (value, used) = read_escape(&raw[at..]);
        // The prefix ends inside a character only when `raw` is not UTF-8.
        let Some(after) = other.get(at..).and_then(|other| other.strip_prefix(value)) else { return false };
        (raw, other) = (&raw[at + used..], after);
    }
    raw == other.as_bytes()
}

/// The number of characters of string contents, escapes counted as what they stand for.
pub(crate) fn char_count(raw: &[u8]) -> usize {
    let mut count = 0;
    let mut rest = raw;
    while let Some(&first) = rest.first() {
        let used = if first == b'\\' { read_escape(rest).1 } else { 1 };
        // Continuation bytes belong to the character that their lead byte has counted.
        count += usize::from(first & 0xC0 != 0x80);
        rest = &rest[used..];
    }
    count
}

/// The character that the escape at the start of `raw` stands for, and the bytes it takes (at least 1).
fn read_escape(raw: &[u8]) -> (char, usize) {
    let value = match raw.get(1) {
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{C}',
        Some(b'u') => return read_unicode_escape(raw),
        Some(&other) if other.is_ascii() => char::from(other),
        Some(_) | None => return (REPLACEMENT, 1),
    };
    (value, 2)
}

fn read_unicode_escape(raw: &[u8]) -> (char, usize) {
    let Some(high) = hex4(raw.get(2..6)) else { return (REPLACEMENT, 2) };
    if let Some(plain) = char::from_u32(high) {
        return (plain, 6);
    }
    // A surrogate: it means something only as a high one with a low one right behind it.
    let low = if raw.get(6..8) == Some(b"\\u") { hex4(raw.get(8..12)) } else { None };
    match (high, low) {
        (0xD800..=0xDBFF, Some(low @ 0xDC00..=0xDFFF)) => {
            let value = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
            (char::from_u32(value).unwrap_or(REPLACEMENT), 12)
        }
        _ => (REPLACEMENT, 6),
    }
}

fn hex4(digits: Option<&[u8]>) -> Option<u32> {
    digits?.iter().try_fold(0, |value, &digit| Some(value << 4 | char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ESCAPES: &[(&str, &str)] = &[
        (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{C}\n\r\t"),
        (r"\u0041\u00e9\u20AC", "Aé€"),
        (r"a\uD83D\uDE00b", "a😀b"),
        (r"\ud83d", "\u{FFFD}"),
        (r"\ude00", "\u{FFFD}"),
        (r"\ud83dx", "\u{FFFD}x"),
        (r"\ud83d\u0041", "\u{FFFD}A"),
        (r"\ud83d\ud83d\ude00", "\u{FFFD}😀"),
        (r"\ude00\ud83d", "\u{FFFD}\u{FFFD}"),
        (r"\u0000", "\0"),
        (r"é\n世界", "é\n世界"),
    ];

    #[test]
    fn every_escape_decodes_compares_and_counts() {
        for (raw, value) in ESCAPES {
            assert_eq!(unescape(raw.as_bytes()), *value, "{raw}");
            assert!(unescaped_eq(raw.as_bytes(), value), "{raw}");
            assert!(!unescaped_eq(raw.as_bytes(), &format!("{value}x")), "{raw}");
            assert_eq!(char_count(raw.as_bytes()), value.chars().count(), "{raw}");
        }
    }

    #[test]
    fn contents_that_were_never_scanned_do_not_panic() {
        for raw in [
            &b"\\"[..],
            b"\\u",
            b"\\u12",
            b"\\uZZZZ",
            b"\\\xff",
            b"\xff\\n",
            b"\\ud800\\u",
            b"\\ud800\\uZZZZ",
        ] {
            let text = unescape(raw);
            assert!(!text.is_empty(), "{raw:?}");
            assert!(char_count(raw) <= raw.len());
            assert!(!unescaped_eq(raw, "never"));
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let text = "plain \"quoted\" \\ / \n\r\t \u{1} \u{1f} é 😀";
        let mut out = Vec::new();
        write_json_string(&mut out, text);
        assert_eq!(out.first(), Some(&b'"'));
        assert_eq!(unescape(&out[1..out.len() - 1]), text);
        assert!(out.iter().all(|&b| b >= 0x20));
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }
}
