//! Owns the two kinds of offsets that scanners return: a byte range and the contents of a JSON string.
//!
//! Spans never hold the bytes; the caller must give back the same buffer that was scanned. A span that does not fit the
//! buffer yields an empty slice, it never panics.

use std::borrow::Cow;

use crate::jsonrpc::string;

/// A half-open byte range in the scanned bytes. Scanners check that their input is below 4 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// Makes a span; the scanner that calls it has checked that its input is below 4 GiB.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// The bytes of this range, empty when `bytes` is not the buffer that was scanned and is too short.
    pub fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Whether the range holds no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The contents of a JSON string, between its quotes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct StrSpan {
    /// Where the contents stand, as written.
    pub span: Span,
    /// Whether the contents have escapes, so that they must be decoded before they mean anything.
    pub escaped: bool,
}

impl StrSpan {
    /// The string's value. It allocates only when the string has escapes; a lone surrogate becomes U+FFFD.
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Cow<'a, str> {
        let raw = self.span.of(bytes);
        if self.escaped { Cow::Owned(string::unescape(raw)) } else { String::from_utf8_lossy(raw) }
    }

    /// Whether the string's value is `other`, without allocating.
    pub fn eq_str(&self, bytes: &[u8], other: &str) -> bool {
        let raw = self.span.of(bytes);
        if self.escaped { string::unescaped_eq(raw, other) } else { raw == other.as_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_of_a_foreign_buffer_is_empty() {
        assert_eq!(Span::new(3, 9).of(b"abc"), b"");
        assert_eq!(Span { start: 5, end: 2 }.len(), 0);
        assert_eq!(Span::new(1, 3).of(b"abcd"), b"bc");
    }

    #[test]
    fn strings_compare_by_value() {
        let bytes = br#"t\u006fols\/call tools/call"#;
        let escaped = StrSpan { span: Span::new(0, 16), escaped: true };
        let plain = StrSpan { span: Span::new(17, 27), escaped: false };
        for found in [escaped, plain] {
            assert!(found.eq_str(bytes, "tools/call"), "{found:?}");
            assert!(!found.eq_str(bytes, "tools/cal"));
            assert!(!found.eq_str(bytes, "tools/calls"));
            assert_eq!(found.decode(bytes), "tools/call");
        }
    }
}
